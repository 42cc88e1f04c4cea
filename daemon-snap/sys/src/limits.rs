//! Resource limits of this process (prlimit(2)).

/// Soft and hard limit; `u64::MAX` is infinity. `None` for a resource that the kernel does not
/// know.
pub fn get(resource: u32) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live rlimit; pid 0 is this process; nothing is set.
    let done = unsafe { libc::prlimit(0, resource, std::ptr::null(), &mut limit) };
    (done == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit of open files to the hard one, so that our own descriptors fit above the
/// recorded ones.
pub fn raise_open_files() {
    if let Some((_, hard)) = get(libc::RLIMIT_NOFILE) {
        let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: `limit` is live; raising soft to hard is always allowed, a failure changes
        // nothing.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}
