//! A process that never existed: state written by hand, restored, observed. Tests rebuild and tape
//! without the dump side.
//!
//! Needs root (clone3 with chosen ids). The restore runs in a process of its own, which has one
//! thread as the engine wants: a copy of one with several could wait for ever for a lock that
//! another thread had.

mod own_vdso;

use image_store::{Durability, ImageWriter, SectionKind, UncheckedImage};
use snap_rebuild::restore::{Request, restore};
use snap_state::*;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const CODE: u64 = 0x40_0000;
const STACK: u64 = 0x7000_0000;
const PAGE: u64 = 4096;

/// Machine code: exit_group(rbx).
const EXIT_WITH_RBX: &[u8] = &[
    0x89, 0xdf, // mov edi, ebx
    0xb8, 0xe7, 0, 0, 0, // mov eax, 231
    0x0f, 0x05, // syscall
];

fn thread(tid: i32) -> ThreadV1 {
    let mut xstate = vec![0u8; 4096];
    // x87 control word and MXCSR as after exec; the mask of enabled features where the kernel's
    // regset has it.
    xstate[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
    xstate[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    xstate[464..472].copy_from_slice(&7u64.to_le_bytes());
    ThreadV1 {
        tid: Pid(tid),
        comm: b"hand-made".to_vec(),
        regs: RegsV1 {
            rip: CODE,
            rsp: STACK + PAGE,
            rbx: 42,
            cs: 0x33,
            ss: 0x2b,
            eflags: 0x202,
            ..RegsV1::default()
        },
        xstate,
        sigmask: 0,
        altstack: AltStackV1 { sp: Addr(0), flags: 2, len_bytes: 0 },
        pending: vec![],
        rseq: None,
        robust_list: (Addr(0), 0),
        tid_address: Addr(0),
        pdeath_signal: 0,
        timer_slack_ns: 50_000,
        creds: CredsV1 {
            uids: [0; 4],
            gids: [0; 4],
            groups: vec![],
            cap_inheritable: 0,
            cap_permitted: 0,
            cap_effective: 0,
            cap_bounding: 0,
            cap_ambient: 0,
            securebits: 0,
        },
        sched: SchedV1 {
            policy: 0,
            flags: 0,
            nice: 0,
            priority: 0,
            runtime_ns: 0,
            deadline_ns: 0,
            period_ns: 0,
            ioprio: 0,
        },
        affinity: vec![u64::MAX],
        no_new_privs: true,
        seccomp: vec![],
        ring_numbers: Vec::new(),
        control: ThreadControlV1::default(),
    }
}

fn path_inode(id: u32, path: &str) -> InodeV1 {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).unwrap();
    InodeV1 {
        id: InodeId(id),
        kind: InodeKindV1::Path(NamedFileV1 { path: RawPath(path.as_bytes().to_vec()) }),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        len_bytes: meta.len(),
        rdev: meta.rdev(),
        mtime_ns: 0,
        atime_ns: 0,
        xattrs: Vec::new(),
        content: vec![],
    }
}

fn anon(start: u64, prot: u8) -> VmaV1 {
    VmaV1 {
        start: Addr(start),
        end: Addr(start + PAGE),
        prot,
        shared: false,
        backing: BackingV1::Anon,
        flags: VmaFlagsV1::default(),
        name: None,
    }
}

fn tree(pid: i32, code_offset: u64) -> TreeV1 {
    let limits = (0..16).map(|r| snap_sys::limits::get(r).unwrap()).collect();
    let at = |a| Addr(a);
    TreeV1 {
        clocks: ClocksV1 { monotonic_ns: 0, boottime_ns: 0, realtime_ns: 0 },
        vdso: VdsoV1 { digest: own_vdso::digest(), len_bytes: 0 },
        processes: vec![ProcessV1 {
            pid: Pid(pid),
            parent: None,
            pgid: Pid(pid),
            sid: Pid(pid),
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
            rlimits: limits,
            mm: MmV1 {
                layout: MmLayoutV1 {
                    start_code: at(CODE),
                    end_code: at(CODE + PAGE),
                    start_data: at(CODE),
                    end_data: at(CODE + PAGE),
                    start_brk: at(0x50_0000),
                    brk: at(0x50_0000),
                    start_stack: at(STACK + PAGE - 16),
                    arg_start: at(STACK + 1),
                    arg_end: at(STACK + 2),
                    env_start: at(STACK + 2),
                    env_end: at(STACK + 3),
                },
                auxv: vec![0; 16],
                vmas: vec![anon(CODE, 5), anon(STACK, 3)],
                runs: vec![PageRunV1 { addr: Addr(CODE), pages: 1, image_offset: code_offset }],
                guards: Vec::new(),
                lock_future: Default::default(),
                merge_all: false,
            },
            sigactions: vec![None; 64],
            pending: vec![],
            itimers: [IntervalTimerV1::default(); 3],
            posix_timers: vec![],
            locks: vec![],
            fds: vec![],
            threads: vec![thread(pid)],
            stopped: false,
            told_stops: Vec::new(),
            profile: None,
        }],
        files: vec![FileV1 {
            id: FileId(0),
            flags: libc::O_PATH,
            owner: None,
            node: None,
            kind: FileKindV1::Inode(OpenInodeV1 { inode: InodeId(1), pos: 0 }),
        }],
        inodes: vec![path_inode(0, "/usr/bin/env"), path_inode(1, "/")],
        pipes: vec![],
        seccomp_filters: vec![],
        volatile_dirs: vec![],
        volatile_files: vec![],
        mapped_locks: vec![],
        volatile_nodes: Vec::new(),
        zombies: Vec::new(),
        cgroups: Vec::new(),
        session_keyring: None,
        confinement: None,
        stored: vec![],
        sysv: snap_state::SysvV1::default(),
    }
}

type Change = fn(&mut TreeV1);

/// What is changed about the process before it is restored.
const CHANGES: [(&str, Change); 5] = [
    ("nothing", |_| {}),
    ("missing", |tree| {
        tree.inodes[1].kind = InodeKindV1::Path(NamedFileV1 { path: RawPath(b"/nowhere/at/all".to_vec()) });
    }),
    ("unused", |tree| tree.inodes.push(path_inode(2, "/etc"))),
    ("kept", |tree| tree.stored.push(StoredV1 { name: "kept".into(), file: FileId(0), polled: false })),
    ("taken", |tree| {
        // The test.
        let taken = Pid(nix::unistd::getppid().as_raw());
        let process = &mut tree.processes[0];
        (process.pid, process.sid, process.pgid, process.threads[0].tid) = (taken, taken, taken, taken);
    }),
];

/// The word that makes this program restore in place of testing.
const RESTORE: &str = "--restore";

/// Restores the changed process and returns what it exited with, or what stood against it.
fn run(change: &str) -> Result<i32, String> {
    let mut own = Command::new(std::env::current_exe().unwrap());
    let output = own.arg(RESTORE).arg(change).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    match text.trim().strip_prefix("exit ") {
        Some(code) => Ok(code.parse().unwrap()),
        None => Err(format!("{}{}", text.trim(), String::from_utf8_lossy(&output.stderr))),
    }
}

fn restore_here(change: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let mut writer = ImageWriter::create(&path).unwrap();
    let mut page = vec![0u8; PAGE as usize];
    page[..EXIT_WITH_RBX.len()].copy_from_slice(EXIT_WITH_RBX);
    let offset = writer.append_pages(&page).unwrap();
    writer.add_section(SectionKind::STATE, 1, b"hand-made").unwrap();
    writer.finish(Durability::NoSync).unwrap();
    let image = UncheckedImage::open(&path).unwrap().check().unwrap();
    let pid = 3_900_000 + (std::process::id() as i32 % 1000) * 10;
    std::fs::write("/proc/sys/kernel/pid_max", "4194304").unwrap();
    let mut tree = tree(pid, offset);
    let (_, change) = CHANGES.iter().find(|(name, _)| *name == change).expect("a known change");
    change(&mut tree);
    let tree = match Tree::check(tree, &image.page_area()) {
        Ok(tree) => tree,
        Err(corrupt) => return corrupt.to_string(),
    };
    let (stamp, deadline) = (image.stamp(), Instant::now() + Duration::from_secs(5));
    match restore(Request { image: &image, tree, unit: None, checked_chunks: 0, stamp, deadline }) {
        Ok(_) => match nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Ok(nix::sys::wait::WaitStatus::Exited(_, code)) => format!("exit {code}"),
            other => format!("{other:?}"),
        },
        Err(error) => error.to_string(),
    }
}

fn hand_made_process_runs_and_is_refused_when_its_world_is_missing() {
    assert_eq!(run("nothing"), Ok(42));
    assert_eq!(run("missing"), Err("image is stale: /nowhere/at/all is missing".into()));
    assert!(run("unused").unwrap_err().contains("belongs to nothing"));
    assert!(run("kept").unwrap_err().contains("can only be restored by its unit"));
    assert_eq!(run("taken"), Err(format!("image is stale: PID {} is taken", std::process::id())));
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, restore, change] = arguments.as_slice()
        && restore == RESTORE
    {
        println!("{}", restore_here(change));
        return ExitCode::SUCCESS;
    }
    test_frame::libtest::main(test_frame::tests![
        [test_frame::Need::Root];
        hand_made_process_runs_and_is_refused_when_its_world_is_missing,
    ])
}
