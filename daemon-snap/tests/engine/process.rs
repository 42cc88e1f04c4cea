//! Process numbers: a band of its own for each subject, the members of a tree, and who is left of
//! it.

use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

const PID_MAX: &str = "4194304";
const FIRST: u32 = 1_000_000;
const LAST: u32 = 4_000_000;
/// Numbers between two subjects: a subject's threads and children, and what else starts meanwhile.
const SPAN: u32 = 256;

/// Numbers below this one have been given to a subject of this run.
static GIVEN: Mutex<u32> = Mutex::new(0);

/// Starts a process whose number, and those of its children, nobody will reuse while a test runs:
/// numbers are given in ascending order from the last one, so the last one is moved above all that
/// subjects have had.
pub fn spawn_in_band(command: &mut Command) -> Child {
    let mut given = GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if *given == 0 {
        be_alone();
        fs::write("/proc/sys/kernel/pid_max", PID_MAX).expect("raise pid_max");
        *given = FIRST + std::process::id().wrapping_mul(7919) % (LAST - FIRST);
    }
    let last: u32 = read_number("/proc/sys/kernel/ns_last_pid");
    let base = if last > *given && last < LAST { last + 1 } else { *given };
    fs::write("/proc/sys/kernel/ns_last_pid", base.to_string()).expect("write ns_last_pid");
    let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    *given = if base + 2 * SPAN < LAST { base + SPAN } else { FIRST };
    child
}

/// Two runs at a time would take each other's numbers. The lock goes with this process.
fn be_alone() {
    static LOCK: OnceLock<Flock<File>> = OnceLock::new();
    LOCK.get_or_init(|| {
        let path = std::env::temp_dir().join("fastboot-engine-tests.lock");
        let file = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Flock::lock(file, FlockArg::LockExclusive).unwrap_or_else(|(_, e)| panic!("{}: {e}", path.display()))
    });
}

fn read_number(path: &str) -> u32 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Page faults of a process that needed no device.
pub fn minor_faults(pid: i32) -> u64 {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat());
    stat.unwrap_or_else(|e| panic!("stat of {pid}: {e}")).minflt
}

/// A process and all its descendants, without their threads.
pub fn tree(root: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|word| word.parse().ok());
            open.extend(children.filter(|&child| found.insert(child)));
        }
    }
    found
}

/// All threads of a process.
pub fn threads(pid: i32) -> BTreeSet<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Whether anything has this number: a process, a thread, or a zombie.
pub fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Those of the numbers that are still taken after a while: the machine's first process is who
/// waits for orphans, and may be busy.
pub fn left_of(pids: &BTreeSet<i32>) -> BTreeSet<i32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left: BTreeSet<i32> = pids.iter().copied().filter(|&pid| exists(pid)).collect();
        if left.is_empty() || Instant::now() > deadline {
            return left;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills those of the numbers that still belong to the subject in `directory`, which is in its
/// arguments.
pub fn kill_subject(pids: &BTreeSet<i32>, directory: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let name = directory.as_os_str().as_bytes();
    for &pid in pids {
        let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if cmdline.windows(name.len()).any(|window| window == name) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// Who moves the counter of process numbers to a number of its choice holds this alone: a number of
/// another test's tree that has ended and not come back yet might be given out.
pub static NUMBERS: RwLock<()> = RwLock::new(());
