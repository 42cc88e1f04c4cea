//! Resource limits of this process (prlimit(2)).

/// Soft and hard limit; `u64::MAX` is infinity. `None` for a resource that the kernel does not
/// know.
pub fn get(resource: u32) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit; pid 0 is this process; nothing is set.
    let done = unsafe { libc::prlimit(0, resource, std::ptr::null(), &mut limit) };
    (done == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

/// Raises the limit of open files, so that our own descriptors fit above the recorded ones, which
/// may be up to the limit themselves: as far as the kernel allows anybody, where we have the
/// privilege, else to the hard limit.
pub fn raise_open_files() {
    let Some((_, hard)) = get(libc::RLIMIT_NOFILE) else { return };
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let raised = most.is_some_and(|most: u64| most > hard && set_open_files(most, most));
    if !raised {
        // Raising soft to hard is always allowed.
        set_open_files(hard, hard);
    }
}

/// Lifts the limit of what POSIX message queues may take, where we have the privilege.
pub fn raise_message_queues() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is live; a failure changes nothing.
    unsafe { libc::setrlimit(libc::RLIMIT_MSGQUEUE, &limit) };
}

/// How many files a restore may have open that has the privileges of this process.
pub fn most_open_files() -> u64 {
    let Some((soft, hard)) = get(libc::RLIMIT_NOFILE) else { return 0 };
    raise_open_files();
    let most = get(libc::RLIMIT_NOFILE).map_or(hard, |(soft, _)| soft);
    // What this process starts gets its limits.
    set_open_files(soft, hard);
    most
}

/// Whether it was allowed; a failure changes nothing.
fn set_open_files(soft: u64, hard: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is live.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0 }
}
