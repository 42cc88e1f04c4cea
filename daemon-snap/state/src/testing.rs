//! Small trees for tests of pure code.

use super::*;

/// A tree of (pid, parent, sid, pgid) with empty memory and one thread each.
pub fn tree_of(processes: &[(i32, Option<i32>, i32, i32)]) -> TreeV1 {
    TreeV1 {
        clocks: ClocksV1 { monotonic_ns: 0, boottime_ns: 0, realtime_ns: 0 },
        vdso: VdsoV1 { digest: [0; 32], len_bytes: 0 },
        processes: processes
            .iter()
            .map(|(pid, parent, sid, pgid)| process(*pid, *parent, *sid, *pgid))
            .collect(),
        files: Vec::new(),
        inodes: Vec::new(),
        pipes: Vec::new(),
        seccomp_filters: Vec::new(),
        volatile_dirs: Vec::new(),
        volatile_files: Vec::new(),
        mapped_locks: Vec::new(),
        volatile_nodes: Vec::new(),
        zombies: Vec::new(),
        cgroups: Vec::new(),
        session_keyring: None,
        confinement: None,
        stored: Vec::new(),
        sysv: SysvV1::default(),
    }
}

fn process(pid: i32, parent: Option<i32>, sid: i32, pgid: i32) -> ProcessV1 {
    let zero = Addr(0);
    ProcessV1 {
        pid: Pid(pid),
        parent: parent.map(Pid),
        pgid: Pid(pgid),
        sid: Pid(sid),
        exit_signal: 17,
        exe: InodeId(0),
        cwd: FileId(0),
        root: None,
        umask: 0o22,
        personality: 0,
        dumpable: 1,
        child_subreaper: false,
        thp_disable: false,
        mdwe: 0,
        oom_score_adj: 0,
        coredump_filter: 0x33,
        membarrier: 0,
        tiles: false,
        rlimits: vec![(0, 0); 16],
        mm: MmV1 {
            layout: MmLayoutV1 {
                start_code: zero,
                end_code: zero,
                start_data: zero,
                end_data: zero,
                start_brk: zero,
                brk: zero,
                start_stack: zero,
                arg_start: zero,
                arg_end: zero,
                env_start: zero,
                env_end: zero,
            },
            auxv: Vec::new(),
            vmas: Vec::new(),
            runs: Vec::new(),
            guards: Vec::new(),
            lock_future: Default::default(),
            merge_all: false,
        },
        sigactions: vec![None; 64],
        pending: Vec::new(),
        itimers: [IntervalTimerV1::default(); 3],
        posix_timers: Vec::new(),
        fds: Vec::new(),
        locks: Vec::new(),
        threads: Vec::new(),
        stopped: false,
        told_stops: Vec::new(),
        profile: None,
    }
}
