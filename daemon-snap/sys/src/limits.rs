//! Resource limits, of this process where nothing else is said (prlimit(2)).

use snap_state::Pid;

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
fn raise_open_files() {
    let Some((_, hard)) = get(libc::RLIMIT_NOFILE) else { return };
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let raised = most.is_some_and(|most: u64| most > hard && set(libc::RLIMIT_NOFILE, most, most));
    if !raised {
        // Raising soft to hard is always allowed.
        set(libc::RLIMIT_NOFILE, hard, hard);
    }
}

/// What holds a restore back: it makes what a process has before the process has its limits.
const HOLDING_BACK: [u32; 8] = [
    libc::RLIMIT_FSIZE,
    libc::RLIMIT_DATA,
    libc::RLIMIT_STACK,
    libc::RLIMIT_AS,
    libc::RLIMIT_NPROC,
    libc::RLIMIT_MEMLOCK,
    libc::RLIMIT_SIGPENDING,
    libc::RLIMIT_MSGQUEUE,
];

/// Lifts the limits on what a process may take, where we have the privilege, else to the hard ones.
pub fn raise_all() {
    raise_open_files();
    for resource in HOLDING_BACK {
        let Some((_, hard)) = get(resource) else { continue };
        if !set(resource, libc::RLIM_INFINITY, libc::RLIM_INFINITY) {
            set(resource, hard, hard);
        }
    }
}

/// How many files a restore may have open that has the privileges of this process.
pub fn most_open_files() -> u64 {
    let Some((soft, hard)) = get(libc::RLIMIT_NOFILE) else { return 0 };
    raise_open_files();
    let most = get(libc::RLIMIT_NOFILE).map_or(hard, |(soft, _)| soft);
    // What this process starts gets its limits.
    set(libc::RLIMIT_NOFILE, soft, hard);
    most
}

/// Whether it was allowed; a failure changes nothing.
fn set(resource: u32, soft: u64, hard: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is live.
    unsafe { libc::setrlimit(resource, &limit) == 0 }
}

/// Limits of a frozen process on its memory, which are lifted as far as we may until this is
/// dropped.
#[derive(Debug)]
pub struct Lifted {
    pid: Pid,
    before: Vec<(u32, libc::rlimit)>,
}

impl Lifted {
    /// So that it may map a little more.
    pub fn for_mapping(pid: Pid) -> Self {
        let mut lifted = Self { pid, before: Vec::new() };
        for resource in [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK] {
            let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: `before` is live; nothing is set.
            let known = unsafe { libc::prlimit(pid.0, resource, std::ptr::null(), &mut before) } == 0;
            if !known || before.rlim_cur == libc::RLIM_INFINITY {
                continue;
            }
            let most = libc::RLIM_INFINITY;
            if lifted.put(resource, libc::rlimit { rlim_cur: most, rlim_max: most })
                || lifted.put(resource, libc::rlimit { rlim_cur: before.rlim_max, ..before })
            {
                lifted.before.push((resource, before));
            }
        }
        lifted
    }

    fn put(&self, resource: u32, limit: libc::rlimit) -> bool {
        // SAFETY: `limit` is live; nothing is read.
        unsafe { libc::prlimit(self.pid.0, resource, &limit, std::ptr::null_mut()) == 0 }
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        for (resource, before) in self.before.drain(..).collect::<Vec<_>>() {
            // Lowering is allowed to whoever was allowed to raise.
            self.put(resource, before);
        }
    }
}
