//! An attempt that comes to no good end leaves nothing in the control group of its unit: no
//! process, and no group that was not there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastboot_runtime::RunDir;
use image_store::{ReasonCode, Stamp, fault};
use initd::attempt::{Attempt, Means, Outcome};
use initd::standby::Standby;
use initd::sys::pulse::Pulse;
use initd::unit_cgroup::UnitCgroup;
use initd::worker::Order;
use initd::zygote::Zygote;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket, socketpair,
};
use test_frame::{Need, tests};

/// For a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than any test: a worker that waits so long is in the middle of its work.
const WORKER_WAITS: &str = "worker.start:sleep=600000";

fn main() -> std::process::ExitCode {
    // The zygote is forked, so there must be no other thread.
    test_frame::libtest::main_one_by_one(tests![[Need::Root, Need::ControlGroups];
        an_attempt_whose_shim_goes_away_in_the_middle_leaves_nothing,
        an_attempt_that_is_given_up_before_its_worker_is_there_leaves_nothing,
        an_attempt_that_is_dropped_by_a_panic_leaves_nothing,
    ])
}

/// A control group with one process in it, as that of a unit with its shim.
struct Unit {
    dir: PathBuf,
    shim: Child,
}

impl Unit {
    fn new(name: &str) -> Unit {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists());
        let dir = root.unwrap().join(format!("fastboot-attempt-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let shim = started_in(&dir);
        Unit { dir, shim }
    }

    fn cgroup(&self) -> UnitCgroup {
        UnitCgroup::from_dir(File::open(&self.dir).unwrap().into()).unwrap()
    }

    fn members(&self) -> BTreeSet<u32> {
        members_of(&self.dir)
    }

    /// Somebody in a group of its own below the unit's, as a restore makes them.
    fn add_below(dir: &Path) -> Child {
        let below = dir.join("below");
        fs::create_dir(&below).unwrap();
        started_in(&below)
    }

    /// Whatever was there before is there, and nobody and nothing else.
    fn require_as_before(&mut self) {
        assert_eq!(self.members(), BTreeSet::from([self.shim.id()]));
        assert!(self.shim.try_wait().unwrap().is_none(), "the shim was ended too");
        assert!(!self.dir.join("below").exists(), "a group is left");
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = self.shim.kill();
        let _ = self.shim.wait();
        let below = self.dir.join("below");
        let left = if below.exists() { members_of(&below) } else { BTreeSet::new() };
        for pid in left {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid as i32),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let began = Instant::now();
        while (below.exists() && fs::remove_dir(&below).is_err() || fs::remove_dir(&self.dir).is_err())
            && began.elapsed() < PATIENCE
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// How many threads this process has, as the zygote counts them before it is forked.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn members_of(dir: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap();
    text.lines().map(|pid| pid.parse().unwrap()).collect()
}

/// A process in a group, when it is there.
fn started_in(dir: &Path) -> Child {
    let script = format!("echo 0 > {}/cgroup.procs; exec sleep 600", dir.display());
    let child = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    wait_until("a member", || members_of(dir).contains(&child.id()));
    child
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A zygote whose workers wait in the middle.
struct Workers {
    zygote: Zygote,
    _dir: tempfile::TempDir,
}

impl Workers {
    fn that_wait() -> Workers {
        if !fault::IS_ON {
            panic!("this build knows no faults: it has no debug assertions");
        }
        let dir = tempfile::tempdir().unwrap();
        let listener =
            socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(listener.as_raw_fd(), &UnixAddr::new(&dir.path().join("socket")).unwrap()).unwrap();
        listen(&listener, Backlog::new(1).unwrap()).unwrap();
        let standby = Standby::new(listener, Arc::new(Pulse::new().unwrap()));
        // The thread of an attempt before may still be on its way out of the kernel: whoever waits for
        // a thread, as a scope does too, is told before the kernel has taken it off its list.
        wait_until("end of the other threads", || threads() == 1);
        // What this thread has armed the zygote has too, and so have its workers.
        let _armed = fault::arm(WORKER_WAITS);
        let zygote = Zygote::start(standby, &RunDir::at(dir.path())).unwrap();
        Workers { zygote, _dir: dir }
    }
}

fn order() -> Order {
    Order {
        unit: "a.service".to_owned(),
        image_path: "/dev/null".to_owned(),
        sent_us: 0,
        deadline_us: u64::MAX,
        checked_chunks: 0,
        is_light: true,
        stamp: Stamp { device: 0, inode: 0, len_bytes: 0, written_ns: 0 },
        shim_pid: 0,
        owner: (0, 0),
        main_pid: 1,
        pid_file: String::new(),
        bus_name: String::new(),
        listen_names: Vec::new(),
    }
}

/// The connection of a shim: ours and its.
fn connection() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// Runs an attempt; `meanwhile` when its worker is in the middle and has made somebody in a group
/// below.
fn attempt<'a>(
    workers: &'a Workers,
    unit: &Unit,
    limit: Duration,
    meanwhile: impl FnOnce(OwnedFd) + Send,
) -> Outcome<'a> {
    let (ours, theirs) = connection();
    let (image, shim) = (File::open("/dev/null").unwrap(), OwnedFd::from(File::open("/dev/null").unwrap()));
    let means = Means { image: image.as_fd(), shim: &shim, connection: &ours, inherited: &[] };
    let dir = unit.dir.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            wait_until("worker", || members_of(&dir).len() == 2);
            let mut made = Unit::add_below(&dir);
            meanwhile(theirs);
            // Whoever ends it: it is our child, and a zombie is in its group no more.
            made.wait().unwrap();
        });
        Attempt::new(&workers.zygote, unit.cgroup()).run(&order(), &means, Instant::now() + limit)
    })
}

fn an_attempt_whose_shim_goes_away_in_the_middle_leaves_nothing() {
    let workers = Workers::that_wait();
    let mut unit = Unit::new("shim-gone");
    let outcome = attempt(&workers, &unit, PATIENCE * 2, drop);
    assert!(matches!(outcome, Outcome::Abandoned), "{outcome:?}");
    unit.require_as_before();
}

/// The zygote comes to an order when nobody waits for its worker any more.
fn an_attempt_that_is_given_up_before_its_worker_is_there_leaves_nothing() {
    let workers = Workers::that_wait();
    let (mut unit, mut next) = (Unit::new("early"), Unit::new("next"));
    let (ours, _theirs) = connection();
    let (image, shim) = (File::open("/dev/null").unwrap(), OwnedFd::from(File::open("/dev/null").unwrap()));
    let means = Means { image: image.as_fd(), shim: &shim, connection: &ours, inherited: &[] };
    let outcome = Attempt::new(&workers.zygote, unit.cgroup()).run(&order(), &means, Instant::now());
    let Outcome::Failed(reason) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        (reason.code, reason.sentence.as_str()),
        (ReasonCode::Deadline, "restore was not done in time")
    );
    // It does one thing after the other, so it has done with the first when the second has run.
    let outcome = attempt(&workers, &next, PATIENCE * 2, drop);
    assert!(matches!(outcome, Outcome::Abandoned), "{outcome:?}");
    wait_until("end of the worker", || unit.members().len() == 1);
    unit.require_as_before();
    next.require_as_before();
}

fn an_attempt_that_is_dropped_by_a_panic_leaves_nothing() {
    let workers = Workers::that_wait();
    let mut unit = Unit::new("panic");
    let dir = unit.dir.clone();
    let cgroup = unit.cgroup();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let _attempt = Attempt::new(&workers.zygote, cgroup);
        let made = Unit::add_below(&dir);
        assert_eq!(members_of(&dir.join("below")), BTreeSet::from([made.id()]));
        std::panic::resume_unwind(Box::new(made));
    }));
    let mut made = ended.unwrap_err().downcast::<Child>().unwrap();
    let how = made.try_wait().unwrap();
    assert!(how.is_some_and(|how| !how.success()), "{how:?}");
    unit.require_as_before();
}
