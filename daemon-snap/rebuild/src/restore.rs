//! The restore path: locate → validate → load → rebuild → hand over.
//!
//! [`restore`] must be called in a process with one thread: it forks the recorded tree from itself.

pub use crate::bus_claim::Claim;
pub use crate::context::UnitContext;
use crate::copy_areas;
use crate::desk::Desk;
use crate::kind::{Adder, Context, Natures, Today};
use crate::late::Late;
use crate::load::{self, Delivery, Loading, Pagers};
use crate::numbers::Numbers;
use crate::object::SealWhen;
use crate::own_maps::OwnMaps;
use crate::process::Builder;
use crate::rights::Rights;
use crate::stall::Stall;
use crate::status_flags::rebuild_owners;
pub use crate::stored::Stored;
use crate::sysv::Made;
use crate::tape::{Inherited, Record, RecordKind, Step, reason_of};
use crate::tids::Tids;
use crate::{
    cgroup, inherit, inode, keyring, kinds, label, namespaces, node, plan, reseed, stopped, stored,
    sysv_queue, sysv_semaphore, volatile,
};
use image_store::{Image, ReasonCode, Stamp, fault};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{get_dumpable, set_dumpable};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{fstat, fstatat};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{getpgid, getsid, pipe2, read, write};
use snap_error::{Error, RestoreFault, Result};
use snap_state::check::Corrupt;
use snap_state::{Pid, ProcessV1, TargetFd, Tree};
use snap_sys as sys;
use snap_sys::procfs_own::OwnProc;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Everything that one restore needs.
#[derive(Debug)]
pub struct Request<'a> {
    pub image: &'a Image,
    pub tree: Tree,
    /// `None`: restore where we are (plumbing command).
    pub unit: Option<UnitContext>,
    /// Chunks of pages, from the first on, that somebody has compared with their checksums already;
    /// the others are compared here, while the processes load them.
    pub checked_chunks: u64,
    /// What the image was when they began: it must not be written to until the processes have
    /// loaded it.
    pub stamp: Stamp,
    pub deadline: Instant,
}

/// A tree that runs again.
#[derive(Debug)]
pub struct Restored {
    /// Roots of the tree, children of the caller until it exits.
    pub roots: Vec<Pid>,
    pub times: Times,
    /// For systemd's store, in the order in which it listed them.
    pub stored: Vec<Stored>,
    /// The name that systemd waits for, still to be claimed.
    pub claim: Option<Claim>,
}

/// How long each step took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Namespaces and shared objects.
    pub objects: Duration,
    /// Until all processes exist. They go on by themselves from there.
    pub tree: Duration,
    /// Comparing pages with their checksums.
    pub check: Duration,
    /// What the processes still needed after that.
    pub load: Duration,
    /// From the go until nothing was left that could fail.
    pub release: Duration,
}

impl Times {
    /// Each step with its name, in order.
    pub fn steps(&self) -> [(&'static str, Duration); 5] {
        [
            ("objects", self.objects),
            ("tree", self.tree),
            ("check", self.check),
            ("load", self.load),
            ("release", self.release),
        ]
    }
}

/// How often the worker looks whether a process died without a word (a signal, the OOM killer).
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// Restores a tree. When this returns `Ok`, all processes run; when it returns an error, none of
/// them exists any more.
///
/// # Errors
/// Any; the tree is gone then.
pub fn restore(request: Request<'_>) -> Result<Restored> {
    let mask = sys::own::signal_mask();
    sys::own::block_all_signals();
    sys::own::become_subreaper(true);
    // Every process of the tree begins as a copy of this one, with the image and all that is open,
    // and takes the user of the service long before the last of that is closed. Nobody but root may
    // look into it until then; the tape says when.
    let was_dumpable = get_dumpable().unwrap_or(true);
    let hidden = set_dumpable(false).map_err(|e| Error::kernel("PR_SET_DUMPABLE", "worker", e));
    let mut released = Vec::new();
    let made = Rc::new(Made::default());
    let result = hidden.and_then(|()| attempt(&request, &made, &mut released));
    if result.is_ok() {
        made.keep();
    } else {
        end_all_children();
        for process in &released {
            // Gone already is what we want.
            let _ = sys::pidfd::send_signal(process.as_fd(), libc::SIGKILL);
        }
    }
    // Where this fails the worker stays hidden, which harms nobody.
    let _ = set_dumpable(was_dumpable);
    sys::own::set_signal_mask(mask);
    result
}

/// `released`: processes that are no children of ours any more.
fn attempt(request: &Request<'_>, made: &Rc<Made>, released: &mut Vec<OwnedFd>) -> Result<Restored> {
    let started = Instant::now();
    let (mut last, mut times) = (started, Times::default());
    let tree = &request.tree;
    stored::check_keeper(&tree.stored, request.unit.is_some())?;
    let tids = Tids::open(request.deadline);
    let mut desk = Desk::new(&tree.processes, tree.files(), request.unit.is_some())?;
    desk.made = Rc::clone(made);
    // While /proc is the one that we began with.
    let means = load::Means::find(request.image);
    let image = request.image.file().try_clone().map_err(|e| Error::io("dup", "image", &e))?;
    let image = desk.raise(image.into())?;
    let cgroups = match &request.unit {
        Some(unit) => cgroup::rebuild_cgroups(&desk, &tree.cgroups, unit.cgroup.as_fd())?,
        None => cgroup::Cgroups::default(),
    };
    let user = match &request.unit {
        Some(unit) => {
            label::check_confinement(tree.confinement.as_ref())?;
            if let Some(keyring) = &tree.session_keyring {
                keyring::rebuild_session_keyring(keyring, unit.shim_pid)?;
            }
            namespaces::enter(&desk, unit)?
        }
        None => namespaces::UserNamespace::default(),
    };
    let given = request.unit.as_ref().map_or(&[][..], |unit| &unit.stdio);
    desk.rights = Rights::of(tree, user.fd.is_some(), given);
    let natures = kinds::natures(tree.files(), tree.inodes());
    let today = Today { unit: request.unit.as_ref(), deadline: request.deadline };
    make_objects(&mut desk, tree, request.image)?;
    make_files(&mut desk, tree, &natures, today)?;
    namespaces::continue_clocks(&desk, &tree.clocks)?;

    times.objects = lap(&mut last);

    let (status_read, status_write) = pipe(&desk)?;
    let go = tree.processes.iter().map(|_| pipe(&desk)).collect::<Result<Vec<_>>>()?;
    let own = |id: nix::Result<nix::unistd::Pid>| {
        id.map(|p| Pid(p.as_raw())).map_err(|e| Error::kernel("getsid", "self", e))
    };
    let births = plan::plan(&tree.processes, &tree.zombies, own(getsid(None))?, own(getpgid(None))?)?;
    let helper_tids = {
        let numbers = Numbers::new()?;
        numbers.await_freed(&tree.processes, &tree.zombies, request.deadline);
        numbers.of_helpers(&tree.processes, &tree.zombies)
    };
    let inherited_memory = inherit::plan_inherited_memory(&tree.processes);
    let mut copy_areas = copy_areas::plan(tree, &inherited_memory, means.huge_pages);
    let loading = Loading::choose(request.image, tree, &inherited_memory, &mut copy_areas, means)?;
    let own_maps = OwnMaps::read(&desk)?;
    let builder = Builder {
        vdso: own_maps.vdso_of(&tree.vdso, &tree.processes)?,
        mapped: own_maps.ranges(),
        helper_tids,
        own_affinity: sys::own::affinity(0).map_err(|e| Error::kernel("sched_getaffinity", "self", e))?,
        inherited_memory,
        awaits_all_but: loading.awaits_all_but(),
        copy_areas,
        reseed: reseed::plan(&desk, tree, request.image)?,
        desk: &desk,
        tree,
        natures: &natures,
        today,
        image,
        status: status_write,
        go,
        late: Late::prepare(&desk, &tree.processes, &natures)?,
        user,
        cgroups,
    };
    let intermediate = match tree.roots().any(|root| root.threads.iter().any(|t| t.pdeath_signal != 0)) {
        true => Some(IntermediateParent::open(&builder, &births)?),
        false => {
            builder.create(&births, &Inherited::default())?;
            None
        }
    };
    let Builder { go, status, late, .. } = builder;
    drop(status);
    let go: Vec<OwnedFd> = go.into_iter().map(|(_, write_end)| write_end).collect();

    times.tree = lap(&mut last);
    let cx = Context::new(&desk, tree, &natures, today);
    let mut watch = Watch {
        cx,
        go: &go,
        status: status_read,
        late,
        tids,
        started,
        seen: Seen::default(),
        pagers: Pagers::default(),
    };
    match loading {
        Loading::ByProcesses => request.image.verify_pages_from(request.checked_chunks, 1)?,
        Loading::ByWorker(delivery) => watch.deliver(*delivery, request.checked_chunks)?,
    }
    times.check = lap(&mut last);
    watch.until_ready()?;
    // What was compared is what was loaded: by the worker the same bytes, through the page cache by
    // one open file.
    request.image.require_unwritten_since(request.stamp)?;
    times.load = lap(&mut last);
    rebuild_owners(&desk, tree.files())?;
    inode::rebuild_seals(&desk, tree.inodes(), SealWhen::AfterMapping)?;
    desk.release_segments();
    let stored = stored::hand_out(&desk, &tree.stored)?;
    let claim = kinds::settle(&cx)?;
    fault::point("worker.mid").map_err(|e| Error::io("fault point", "worker.mid", &e))?;
    if let Some(intermediate) = intermediate {
        // As long as they are ours their numbers are nobody else's.
        for process in &tree.processes {
            let pidfd = sys::pidfd::open(process.pid);
            released.push(pidfd.map_err(|e| Error::kernel("pidfd_open", process.pid, e))?);
        }
        intermediate.close()?;
    }
    stopped::rebuild_stopped(&desk.proc, &tree.processes, &go, request.deadline)?;
    for (pipe, _) in go.iter().zip(&tree.processes).filter(|(_, process)| !process.stopped) {
        write(pipe, &[1]).map_err(|e| Error::kernel("releasing", "a process", e))?;
    }
    watch.until_released()?;
    drop(watch);
    if tree.processes.iter().flat_map(|process| &process.threads).any(|thread| !thread.seccomp.is_empty()) {
        check_filters(&desk, &tree.processes, request.deadline)?;
    }
    times.release = lap(&mut last);
    Ok(Restored { roots: tree.roots().map(|p| p.pid).collect(), times, stored, claim })
}

/// Shared objects, and what has to lie in volatile directories.
fn make_objects(desk: &mut Desk, tree: &Tree, image: &Image) -> Result<()> {
    volatile::rebuild_volatile_dirs(&tree.volatile_dirs)?;
    inode::rebuild_inodes(desk, tree, image)?;
    sysv_queue::rebuild_queues(desk, &tree.sysv.queues)?;
    sysv_semaphore::rebuild_sets(desk, &tree.sysv.semaphore_sets)?;
    volatile::rebuild_volatile_nodes(desk, &tree.volatile_nodes, tree.inodes())
}

/// Every description that there can be before there are processes.
fn make_files(desk: &mut Desk, tree: &Tree, natures: &Natures, today: Today<'_>) -> Result<()> {
    let cx = Context::new(desk, tree, natures, today);
    kinds::check(&cx)?;
    kinds::make(&cx)?;
    kinds::connect(&cx)?;
    kinds::fill(&cx)?;
    node::rebuild_nodes(desk, tree.files())?;
    inode::rebuild_seals(desk, tree.inodes(), SealWhen::BeforeMapping)?;
    inode::close_files_on_disk(desk, tree.inodes());
    let cx = Context::new(desk, tree, natures, today);
    kinds::observe(&cx)?;
    kinds::watch(Adder::Worker, &cx)
}

/// Time since `last`, which becomes now.
fn lap(last: &mut Instant) -> Duration {
    let before = std::mem::replace(last, Instant::now());
    *last - before
}

fn pipe(desk: &Desk) -> Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::kernel("pipe2", "worker", e))?;
    Ok((desk.raise(read_end)?, desk.raise(write_end)?))
}

/// A process between the worker and roots that want a signal when their parent dies. It ends before
/// the go and leaves the roots to PID 1, so that the end of the worker is no death of theirs.
struct IntermediateParent {
    pid: i32,
    hold: OwnedFd,
}

impl IntermediateParent {
    fn open(builder: &Builder<'_>, births: &[plan::Birth]) -> Result<Self> {
        let (wait, hold) = pipe(builder.desk)?;
        match sys::fork::fork(None, 0, None).map_err(|e| Error::kernel("clone3", "intermediate parent", e))? {
            sys::fork::Side::Child => {
                drop(hold);
                builder.or_report(Pid(0), || {
                    builder.create(births, &Inherited::default())?;
                    builder.forget_go();
                    let mut end = [0];
                    let _ = read(&wait, &mut end);
                    sys::fork::exit_now(0)
                })
            }
            sys::fork::Side::Parent { child } => Ok(Self { pid: child, hold }),
        }
    }

    fn close(self) -> Result<()> {
        sys::own::become_subreaper(false);
        drop(self.hold);
        waitpid(nix::unistd::Pid::from_raw(self.pid), Some(WaitPidFlag::__WALL))
            .map(drop)
            .map_err(|e| Error::kernel("waitpid", "intermediate parent", e))
    }
}

/// The worker's side of the conversation with the processes under construction.
struct Watch<'a> {
    cx: Context<'a>,
    go: &'a [OwnedFd],
    status: OwnedFd,
    late: Option<Late>,
    tids: Tids,
    started: Instant,
    seen: Seen,
    pagers: Pagers,
}

/// Which processes have come how far, by number.
#[derive(Debug, Default)]
struct Seen {
    existing: HashSet<i32>,
    /// Or wait for no pages.
    mapped: HashSet<i32>,
    ready: HashSet<i32>,
}

impl Watch<'_> {
    fn until_ready(&mut self) -> Result<()> {
        while self.seen.ready.len() < self.cx.processes.len() {
            self.take_record(|seen| &seen.ready)?;
        }
        self.tids.done();
        Ok(())
    }

    /// Waits until every process that wants pages has a place for them, puts them there and tells
    /// the processes. What these read themselves is compared first where nobody waits for a device.
    fn deliver(&mut self, delivery: Delivery<'_>, checked_chunks: u64) -> Result<()> {
        let (started, deadline) = (self.started, self.cx.today.deadline);
        let in_time = &mut || load::in_time(started, deadline);
        let is_cached = delivery.is_cached();
        if is_cached {
            delivery.compare(checked_chunks, in_time)?;
        }
        let (waiting, others): (Vec<_>, Vec<_>) =
            self.cx.processes.iter().zip(self.go).enumerate().partition(|(index, _)| delivery.is_for(*index));
        self.seen.mapped.extend(others.iter().map(|(_, (process, _))| process.pid.0));
        while self.seen.mapped.len() < self.cx.processes.len() {
            self.take_record(|seen| &seen.mapped)?;
        }
        // One that has died is missed by the next write into it. The pagers are gone before anybody
        // is told: the areas become ordinary ones when the process closes its own.
        delivery.write(&std::mem::take(&mut self.pagers), in_time)?;
        if !is_cached {
            delivery.compare(checked_chunks, in_time)?;
        }
        for (_, (process, go)) in waiting {
            write(go, &[1]).map_err(|e| Error::kernel("telling of the pages", process.pid, e))?;
        }
        Ok(())
    }

    /// Hears of one step. `reached`: who has come as far as is waited for.
    fn take_record(&mut self, reached: fn(&Seen) -> &HashSet<i32>) -> Result<()> {
        let is_pending = |pid: Pid| !reached(&self.seen).contains(&pid.0);
        let Some(record) = self.next(is_pending, Stall::of_everyone())? else {
            return Err(RestoreFault::EndedBeforeReady.into());
        };
        if record.kind == RecordKind::Ready as u32 {
            self.seen.ready.insert(record.pid);
        } else if record.kind == RecordKind::Mapped as u32 {
            self.seen.mapped.insert(record.pid);
            if let Ok(number @ 0..) = i32::try_from(record.result) {
                self.pagers.take(Pid(record.pid), TargetFd(number))?;
            }
        } else if record.kind == RecordKind::Exists as u32 {
            self.seen.existing.insert(record.pid);
            if self.seen.existing.len() == self.cx.processes.len()
                && let Some(late) = self.late.take()
            {
                kinds::make_late(&self.cx)?;
                late.deliver(&self.cx)?;
            }
        } else if record.kind == RecordKind::WantTid as u32 {
            self.give_tid(&record)?;
        } else if record.kind == RecordKind::TidTaken as u32 {
            self.tids.taken(&self.cx.desk.proc)?;
        } else if let Some(holder) = self.tids.holder(&self.cx.desk.proc, &record) {
            return Err(Error::stale(ReasonCode::ThreadIdTaken, holder));
        } else {
            return Err(failure(&record));
        }
        Ok(())
    }

    /// Processes close their end when nothing is left to do that can fail.
    fn until_released(&mut self) -> Result<()> {
        let pipe = fstat(&self.status).map_err(|e| Error::kernel("stat", "status pipe", e))?.st_ino;
        let proc = &self.cx.desk.proc;
        match self.next(|pid| has_pipe(proc, pid, pipe), Stall::of_pending())? {
            None => Ok(()),
            Some(record) => Err(failure(&record)),
        }
    }

    /// The next record; `None`: nobody will say anything any more. `is_pending` tells for whom we
    /// wait.
    fn next(&self, is_pending: impl Fn(Pid) -> bool, mut stall: Stall) -> Result<Option<Record>> {
        loop {
            let left = self.cx.today.deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.status.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left.min(LOOK_AROUND)).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, timeout) {
                Ok(0) if left.is_zero() => {
                    return Err(Error::Deadline(self.started.elapsed().as_millis() as u64));
                }
                Ok(0) => {
                    check_alive()?;
                    let pids = self.cx.processes.iter().map(|process| process.pid);
                    let pending: Vec<Pid> = pids.filter(|pid| is_pending(*pid)).collect();
                    stall.look(&self.cx.desk.proc, &pending)?;
                    continue;
                }
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(Error::kernel("poll", "status pipe", e)),
            }
            let mut bytes = [0; Record::BYTES];
            return match read(&self.status, &mut bytes) {
                Ok(0) => Ok(None),
                Ok(Record::BYTES) => Ok(Some(Record::parse(&bytes))),
                Ok(n) => {
                    Err(Error::Internal { step: "restore", message: format!("a status record of {n} bytes") })
                }
                Err(e) => Err(Error::kernel("read", "status pipe", e)),
            };
        }
    }

    /// Lets the process that asked make its thread now.
    fn give_tid(&mut self, record: &Record) -> Result<()> {
        let index = self.cx.processes.iter().position(|p| p.pid.0 == record.pid);
        let index = index.ok_or(Corrupt::ProcessUnknown(Pid(record.pid)))?;
        self.tids.make_next(&self.cx.desk.proc, Pid(record.pid), record.result)?;
        write(&self.go[index], &[1]).map(drop).map_err(|e| Error::kernel("answering", record.pid, e))
    }
}

/// Whether a process has this pipe open.
fn has_pipe(proc: &OwnProc, pid: Pid, ino: u64) -> bool {
    let leads_there = |fd: i32| {
        fstatat(proc, format!("{pid}/fd/{fd}").as_str(), AtFlags::empty())
            .is_ok_and(|found| found.st_ino == ino)
    };
    proc.list(&format!("{pid}/fd")).unwrap_or_default().into_iter().any(leads_there)
}

/// Fails when a child has ended that should not have.
fn check_alive() -> Result<()> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
    match waitid(Id::All, flags) {
        Ok(WaitStatus::Exited(pid, status)) => Err(died(pid, format!("ended with status {status}"))),
        Ok(WaitStatus::Signaled(pid, signal, _)) => Err(died(pid, format!("was killed by {signal}"))),
        _ => Ok(()),
    }
}

fn died(pid: nix::unistd::Pid, how: String) -> Error {
    Error::Tape {
        pid: Pid(pid.as_raw()),
        step: "being restored".into(),
        result: how,
        wanted: "a running process".into(),
    }
}

fn failure(record: &Record) -> Error {
    if record.kind == RecordKind::RebuildFailed as u32 {
        let text = record.text();
        return match reason_of(record.result) {
            Some(code) => Error::stale(code, text),
            None => Error::Tape {
                pid: Pid(record.pid),
                step: text,
                result: "an error".into(),
                wanted: "success".into(),
            },
        };
    }
    let result = match record.result {
        e @ -4095..=-1 => Errno::from_raw(-e as i32).to_string(),
        other => other.to_string(),
    };
    let step = Step::text(record.label);
    if record.label == Step::CloneThread as u64 && record.result == -i64::from(libc::EEXIST) {
        return Error::stale(
            ReasonCode::PidTaken,
            format!("an id of a thread of process {} is taken", record.pid),
        );
    }
    if record.label == Step::FileLock as u64 && record.result == -i64::from(libc::EAGAIN) {
        return Error::stale(
            ReasonCode::AddressTaken,
            format!("somebody else holds a file lock of process {}", record.pid),
        );
    }
    Error::Tape { pid: Pid(record.pid), step: step.into(), result, wanted: "its recorded value".into() }
}

/// Filters are installed after the last descriptor is closed, so their success is read from
/// outside.
fn check_filters(desk: &Desk, processes: &[ProcessV1], deadline: Instant) -> Result<()> {
    let count = |pid: &str| -> Option<usize> {
        let text = desk.proc.read(&format!("{pid}/status")).ok()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.lines().any(|l| l.starts_with("State:") && l.contains('Z')) {
            return None;
        }
        text.lines().find_map(|l| l.strip_prefix("Seccomp_filters:"))?.trim().parse().ok()
    };
    let own = count("self").unwrap_or(0);
    for process in processes {
        let wanted = own + process.threads.first().map_or(0, |t| t.seccomp.len());
        if wanted == own {
            continue;
        }
        loop {
            match count(&process.pid.to_string()) {
                Some(now) if now >= wanted => break,
                Some(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(50)),
                Some(now) => {
                    let wanted = format!("{wanted} filters");
                    let result = format!("{now} filters");
                    return Err(Error::Tape {
                        pid: process.pid,
                        step: "installing seccomp filters".into(),
                        result,
                        wanted,
                    });
                }
                None => return Err(Error::Gone { pid: process.pid, step: "installing seccomp filters" }),
            }
        }
    }
    Ok(())
}

/// Ends every descendant: as their subreaper we inherit the children of those that end.
fn end_all_children() {
    let Ok(proc) = sys::procfs_own::OwnProc::mount() else { return };
    let path = format!("self/task/{}/children", nix::unistd::gettid());
    for _ in 0..10_000 {
        let text = proc.read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let children: Vec<i32> = text.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        if children.is_empty() {
            return;
        }
        for child in children {
            let pid = nix::unistd::Pid::from_raw(child);
            // A child that has not been waited for keeps its number: this can be nobody else.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
        }
    }
}
