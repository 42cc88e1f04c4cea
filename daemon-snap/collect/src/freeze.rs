//! Stopping a whole process tree: `Running → Stopped`, and back.
//!
//! Everything of ptrace(2) belongs to the thread that seized, so a [`Stopped`] tree must stay in
//! its thread.

use nix::errno::Errno;
use snap_error::obstacle::ProcessObstacle;
use snap_error::{Blocker, Error, Part, Result};
use snap_state::{Addr, PAGE_BYTES, Pid};
use snap_sys::kcmp::{self, Resource};
use snap_sys::leftover;
use snap_sys::proc::{self, Stat, Status};
use snap_sys::ptrace::{self, Regs, Wait};
use snap_sys::{sched, vmread};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Who takes orphans, and waits for them.
const INIT: Pid = Pid(1);
/// How long a thread may take to stop. A running one needs microseconds; only a thread in
/// uninterruptible wait needs more.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one may take to stop before it is looked whether it waits for a child of vfork(2),
/// which we have stopped.
const VFORK_DOUBT: Duration = Duration::from_millis(2);

/// Which processes belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TreeSelector {
    /// A process and all its descendants.
    Root(Pid),
    /// All processes of a control group (a directory of cgroup v2) and of the groups below it.
    Cgroup(PathBuf),
}

/// A tree that runs.
#[derive(Debug)]
pub struct Running(TreeSelector);

/// A thread that we have seized.
#[derive(Clone, Copy, Debug)]
pub struct Tracee {
    pub pid: Pid,
    pub tid: Pid,
    pub stop: StopKind,
}

/// How a thread stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// Seized and told to stop.
    Pending,
    Interrupted,
    /// Was stopped by a signal before we came; goes on being stopped when we let go.
    GroupStop,
}

/// A tree of which every thread is stopped and to which nothing can be added. Dropping it lets it
/// run.
#[derive(Debug)]
pub struct Stopped {
    /// By thread id.
    tracees: BTreeMap<Pid, Tracee>,
    /// Processes in the order of their numbers, each with its leader's stat.
    processes: BTreeMap<Pid, Stat>,
    /// Processes that have ended and not been waited for.
    zombies: BTreeMap<Pid, Stat>,
    /// Tasks that cannot be stopped: dead ones, workers of the kernel.
    passed_over: BTreeSet<Pid>,
    /// Children of vfork(2) that were let go because their parents cannot stop before, with these
    /// parents.
    vforked: BTreeMap<Pid, Pid>,
    blockers: Vec<Blocker>,
    since: Instant,
    /// ptrace requests are accepted from the seizing thread only.
    not_send: PhantomData<*const ()>,
}

impl Running {
    /// The tree that `selector` describes.
    pub fn new(selector: TreeSelector) -> Self {
        Self(selector)
    }

    /// Seizes and stops every thread of every process, until a look at the whole tree finds no new
    /// one.
    ///
    /// # Errors
    /// [`Error::Gone`] when there is no process, [`Error::Kernel`] when the kernel does not let us.
    /// Everything that had been stopped runs again then. What merely forbids a dump is kept as
    /// blockers.
    pub fn stop(self) -> Result<Stopped> {
        let options = seize_options();
        let mut stopped = Stopped {
            tracees: BTreeMap::new(),
            processes: BTreeMap::new(),
            zombies: BTreeMap::new(),
            passed_over: BTreeSet::new(),
            vforked: BTreeMap::new(),
            blockers: Vec::new(),
            since: Instant::now(),
            not_send: PhantomData,
        };
        // Each round can only find children and threads made before their makers were stopped.
        loop {
            let members = members(&self.0)?;
            let mut news = false;
            for &pid in &members {
                news |= stopped.seize_process(pid, options)?;
            }
            stopped.wait_for_all()?;
            // Who was let go is stopped in the next round.
            let let_go = !std::mem::take(&mut stopped.vforked).is_empty();
            if let_go && stopped.since.elapsed() > STOP_TIMEOUT {
                let pid = members.first().copied().unwrap_or(Pid(0));
                return Err(Blocker::new(pid, Part::Process, ProcessObstacle::VforkRepeated).into());
            }
            if !news && !let_go {
                break;
            }
        }
        stopped.read_processes(&self.0)?;
        Ok(stopped)
    }
}

/// A thread of the kernel that carries out requests of an io_uring: there are as many as it takes,
/// and rings are taken only when none has anything to do. It can be stopped, but runs no system
/// calls for us.
fn is_io_worker(pid: Pid, tid: Pid) -> bool {
    const PF_IO_WORKER: u64 = 0x10;
    if tid == pid {
        return false;
    }
    proc::task_flags(pid, tid).is_ok_and(|flags| flags & PF_IO_WORKER != 0)
}

/// SUSPEND_SECCOMP is for CAP_SYS_ADMIN without a filter of its own; who has one lives under the
/// same filter as the tree.
fn seize_options() -> usize {
    let own = Pid(std::process::id() as i32);
    let unfiltered = Status::of(own, own).is_ok_and(|status| status.seccomp_mode == 0);
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let admin = Status::of(own, own).is_ok_and(|status| status.cap_effective & CAP_SYS_ADMIN != 0);
    ptrace::TRACE_SYSGOOD | if unfiltered && admin { ptrace::SUSPEND_SECCOMP } else { 0 }
}

/// Members as far as they can be seen now.
fn members(selector: &TreeSelector) -> Result<Vec<Pid>> {
    match selector {
        TreeSelector::Root(root) => {
            let mut members = vec![*root];
            let mut next = 0;
            while let Some(&pid) = members.get(next) {
                next += 1;
                // A process that has just ended has no children any more.
                for tid in proc::threads(pid).unwrap_or_default() {
                    members.extend(proc::children(pid, tid).unwrap_or_default());
                }
            }
            Ok(members)
        }
        TreeSelector::Cgroup(dir) => {
            let mut members = Vec::new();
            cgroup_members(dir, &mut members)
                .map_err(|e| Error::io("read cgroup.procs", dir.display(), &e))?;
            members.sort_unstable();
            Ok(members)
        }
    }
}

fn cgroup_members(dir: &Path, members: &mut Vec<Pid>) -> std::io::Result<()> {
    let text = match std::fs::read_to_string(dir.join("cgroup.procs")) {
        // A threaded group: its processes are listed in the one that it belongs to.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        read => read?,
    };
    members.extend(text.lines().filter_map(|line| line.parse().ok().map(Pid)));
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            cgroup_members(&entry.path(), members)?;
        }
    }
    Ok(())
}

impl Stopped {
    /// A thread, with its process, that executes the last step of a restore.
    pub fn being_restored(&self) -> Option<(Pid, Pid)> {
        let executes_tape = |tracee: &&Tracee| {
            let Ok(Some(regs)) = ptrace::regs(tracee.tid) else { return false };
            leftover::begins_at(tracee.pid, Addr(regs.rip & !(PAGE_BYTES - 1)))
        };
        self.tracees.values().find(executes_tape).map(|tracee| (tracee.pid, tracee.tid))
    }

    /// Threads of a process, the leader first.
    pub fn threads(&self, pid: Pid) -> Vec<Pid> {
        let mut tids: Vec<Pid> = self.tracees.values().filter(|t| t.pid == pid).map(|t| t.tid).collect();
        tids.sort_by_key(|&tid| (tid != pid, tid));
        tids
    }

    /// Processes with their parents before them.
    pub fn processes(&self) -> Vec<(Pid, Stat)> {
        let mut ordered: Vec<(Pid, Stat)> = Vec::with_capacity(self.processes.len());
        let mut placed = BTreeSet::new();
        while ordered.len() < self.processes.len() {
            let before = ordered.len();
            for (&pid, stat) in &self.processes {
                let waits = self.processes.contains_key(&stat.ppid) && !placed.contains(&stat.ppid);
                if !waits && placed.insert(pid) {
                    ordered.push((pid, *stat));
                }
            }
            if ordered.len() == before {
                break;
            }
        }
        ordered
    }

    /// Children of theirs that have ended and not been waited for, ascending.
    pub fn zombies(&self) -> impl Iterator<Item = (Pid, &Stat)> {
        self.zombies.iter().map(|(&pid, stat)| (pid, stat))
    }

    /// Whether a process had been stopped by a signal before we came.
    pub fn is_stopped(&self, pid: Pid) -> bool {
        self.tracees.get(&pid).is_some_and(|leader| leader.stop == StopKind::GroupStop)
    }

    /// What was found while stopping that forbids a dump.
    pub fn blockers(&self) -> &[Blocker] {
        &self.blockers
    }

    /// When the first thread was stopped.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Lets everything run again.
    ///
    /// # Errors
    /// None today: a thread that has ended meanwhile needs nothing.
    pub fn thaw(mut self) -> Result<()> {
        self.release();
        Ok(())
    }

    /// Ends every process of the tree and waits until they are dead.
    ///
    /// # Errors
    /// [`Error::Kernel`] when a process cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.tracees.keys().for_each(|tid| forget_robust_locks(*tid));
        for &pid in self.processes.keys() {
            let killed = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.0), nix::sys::signal::SIGKILL);
            match killed {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(Error::kernel("kill", format!("pid {pid}"), e)),
            }
        }
        // Leaders are reported last, after their threads.
        let tracees = std::mem::take(&mut self.tracees);
        let (leaders, others): (Vec<Pid>, Vec<Pid>) =
            tracees.values().map(|t| t.tid).partition(|tid| self.processes.contains_key(tid));
        for tid in others.into_iter().chain(leaders) {
            while matches!(ptrace::wait(tid, true), Ok(wait) if wait != Wait::Exited) {}
        }
        self.wait_until_reaped();
        Ok(())
    }

    /// Nothing of the tree runs when this returns. Orphans are reaped by init in its own time, which
    /// is long on a busy machine; a restore of the same numbers may come at once, so that is waited
    /// for. Another parent may never do it.
    fn wait_until_reaped(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        for (pid, stat) in self.processes.iter().chain(&self.zombies) {
            let has_parent_inside = self.processes.contains_key(&stat.ppid);
            let takes_it = |parent: Pid| parent == INIT || self.processes.contains_key(&parent);
            let may_go_on = || Stat::of(*pid).is_ok_and(|now| now.state != b'Z' || takes_it(now.ppid));
            while has_parent_inside && may_go_on() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn seize_process(&mut self, pid: Pid, options: usize) -> Result<bool> {
        let mut news = false;
        for tid in proc::threads(pid).unwrap_or_default() {
            if self.tracees.contains_key(&tid) || self.passed_over.contains(&tid) {
                continue;
            }
            if is_io_worker(pid, tid) {
                self.passed_over.insert(tid);
                continue;
            }
            match ptrace::seize(tid, options) {
                Ok(()) => {
                    // ESRCH: it ends just now, which the wait will tell.
                    let _ = ptrace::interrupt(tid);
                    self.tracees.insert(tid, Tracee { pid, tid, stop: StopKind::Pending });
                    news = true;
                }
                Err(Errno::ESRCH) => {}
                Err(e) => self.not_seized(pid, tid, e)?,
            }
        }
        Ok(news)
    }

    /// A task that is there and cannot be seized.
    fn not_seized(&mut self, pid: Pid, tid: Pid, errno: Errno) -> Result<()> {
        let Ok(status) = Status::of(pid, tid) else { return Ok(()) };
        let state = proc::read_task(pid, tid, "stat").map(|text| {
            let after_name = text.iter().rposition(|&b| b == b')').map_or(0, |at| at + 2);
            text.get(after_name).copied().unwrap_or_default()
        });
        let obstacle = match state {
            Err(_) => return Ok(()),
            Ok(b'Z' | b'X') if pid != tid => return Ok(()),
            Ok(b'Z' | b'X') if proc::threads(pid).is_ok_and(|threads| threads.len() > 1) => {
                ProcessObstacle::LeaderEnded
            }
            Ok(b'Z' | b'X') if status.tracer.is_none() => {
                // Whoever has not stopped yet may wait for it even now; then it is nobody's.
                if let Ok(stat) = Stat::of(pid) {
                    self.passed_over.insert(tid);
                    // Who has stopped by now may still have waited for it: looked at once more at
                    // the end.
                    self.zombies.insert(pid, stat);
                }
                return Ok(());
            }
            Ok(_) => match status.tracer {
                Some(tracer) => ProcessObstacle::Traced { tracer },
                None => return Err(Error::kernel("seize", format!("thread {tid} of pid {pid}"), errno)),
            },
        };
        self.passed_over.insert(tid);
        self.blockers.push(Blocker::new(pid, Part::Process, obstacle));
        Ok(())
    }

    fn wait_for_all(&mut self) -> Result<()> {
        let (began, deadline) = (Instant::now(), Instant::now() + STOP_TIMEOUT);
        let mut spins = 0u32;
        loop {
            let pending: Vec<Pid> =
                self.tracees.values().filter(|t| t.stop == StopKind::Pending).map(|t| t.tid).collect();
            if pending.is_empty() {
                return Ok(());
            }
            for tid in pending {
                self.poll(tid)?;
            }
            spins += 1;
            match spins {
                0..200 => std::thread::yield_now(),
                _ if Instant::now() < deadline => {
                    if began.elapsed() > VFORK_DOUBT && spins.is_multiple_of(8) {
                        self.let_vforked_go()?;
                    }
                    std::thread::sleep(Duration::from_micros(100));
                }
                _ => return Err(self.refuse_unstoppable()),
            }
        }
    }

    fn poll(&mut self, tid: Pid) -> Result<()> {
        let stop = match ptrace::wait(tid, false) {
            Ok(Wait::Running) => return Ok(()),
            Ok(Wait::Interrupted) => StopKind::Interrupted,
            Ok(Wait::GroupStop) => StopKind::GroupStop,
            // It came while the thread still ran, so the thread gets it; the stop that we asked for
            // follows.
            Ok(Wait::Signal(signal)) => {
                return ptrace::resume(tid, signal)
                    .or_else(|e| if e == Errno::ESRCH { Ok(()) } else { Err(e) })
                    .map_err(|e| Error::kernel("resume", format!("thread {tid}"), e));
            }
            Ok(Wait::Syscall) => {
                return ptrace::resume(tid, 0)
                    .map_err(|e| Error::kernel("resume", format!("thread {tid}"), e));
            }
            Ok(Wait::Exited) | Err(Errno::ECHILD) => {
                self.tracees.remove(&tid);
                return Ok(());
            }
            Err(e) => return Err(Error::kernel("wait for", format!("thread {tid}"), e)),
        };
        if let Some(tracee) = self.tracees.get_mut(&tid) {
            tracee.stop = stop;
        }
        Ok(())
    }

    /// Lets children go that have their parent's memory while a thread of it does not stop: a
    /// parent in vfork(2) stops when its child has executed a program or ended.
    fn let_vforked_go(&mut self) -> Result<()> {
        let pending = self.tracees.values().filter(|t| t.stop == StopKind::Pending);
        let waiting: BTreeSet<Pid> = pending.map(|t| t.pid).collect();
        let children: BTreeSet<Pid> = self.tracees.values().map(|t| t.pid).collect();
        for child in children {
            let Ok(stat) = Stat::of(child) else { continue };
            // ESRCH: one of them is gone.
            if waiting.contains(&stat.ppid)
                && kcmp::compare(stat.ppid, child, Resource::Vm).is_ok_and(Ordering::is_eq)
            {
                self.vforked.insert(child, stat.ppid);
            }
        }
        let free: Vec<Tracee> = self
            .tracees
            .values()
            .filter(|t| self.vforked.contains_key(&t.pid) && t.stop != StopKind::Pending)
            .copied()
            .collect();
        for tracee in free {
            soften_waits(tracee.tid);
            match ptrace::detach(tracee.tid) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(Error::kernel("let go of", format!("thread {}", tracee.tid), e)),
            }
            self.tracees.remove(&tracee.tid);
        }
        Ok(())
    }

    fn refuse_unstoppable(&mut self) -> Error {
        let stuck = self.tracees.values().filter(|t| t.stop == StopKind::Pending);
        let obstacle = |t: &Tracee| match self.vforked.iter().find(|(_, parent)| **parent == t.pid) {
            Some((&child, _)) => ProcessObstacle::VforkStuck { child },
            None => ProcessObstacle::UninterruptibleWait,
        };
        let blocker = |t: &Tracee| Blocker::new(t.pid, Part::of_task(t.pid, t.tid), obstacle(t));
        Error::Refused(stuck.map(blocker).collect())
    }

    fn read_processes(&mut self, selector: &TreeSelector) -> Result<()> {
        // Nothing can be asked of a process whose leader has ended; it is refused already.
        let pids = self.tracees.values().map(|t| t.pid).filter(|pid| !self.passed_over.contains(pid));
        let pids: BTreeSet<Pid> = pids.collect();
        for pid in pids {
            self.processes.insert(pid, Stat::of(pid)?);
        }
        for &pid in self.processes.keys() {
            let (stopped, all) = self.count_stopped(pid);
            if stopped != 0 && stopped != all {
                self.blockers.push(Blocker::new(pid, Part::Process, ProcessObstacle::PartlyStopped));
            }
        }
        self.read_zombies()?;
        if matches!(selector, TreeSelector::Cgroup(_)) {
            self.read_children();
        }
        if self.processes.is_empty() && self.blockers.is_empty() {
            return Err(match selector {
                TreeSelector::Root(pid) => Error::Gone { pid: *pid, step: "freeze" },
                TreeSelector::Cgroup(dir) => {
                    Error::kernel("freeze: no process in", dir.display(), Errno::ESRCH)
                }
            });
        }
        Ok(())
    }

    /// Threads of a process that had been stopped by a signal, and all of them.
    fn count_stopped(&self, pid: Pid) -> (usize, usize) {
        let threads = self.tracees.values().filter(|t| t.pid == pid);
        threads
            .fold((0, 0), |(stopped, all), t| (stopped + usize::from(t.stop == StopKind::GroupStop), all + 1))
    }

    /// Zombies whose parent had not waited for them when it stopped.
    fn read_zombies(&mut self) -> Result<()> {
        for pid in std::mem::take(&mut self.zombies).into_keys() {
            let stat = match Stat::of(pid) {
                Ok(stat) => stat,
                Err(Error::Gone { .. }) => continue,
                Err(e) => return Err(e),
            };
            if self.processes.contains_key(&stat.ppid) {
                self.zombies.insert(pid, stat);
            } else {
                self.blockers.push(Blocker::new(pid, Part::Process, ProcessObstacle::ZombieOfOutside));
            }
        }
        Ok(())
    }

    /// Control groups do not list zombies, their parents do. A child that has left the group would
    /// be lost to its parent.
    fn read_children(&mut self) {
        let mut strangers = Vec::new();
        for &pid in self.processes.keys() {
            let tids = self.threads(pid).into_iter();
            let children = tids.flat_map(|tid| proc::children(pid, tid).unwrap_or_default());
            let is_known =
                |child: &Pid| self.processes.contains_key(child) || self.zombies.contains_key(child);
            strangers.extend(children.filter(|child| !is_known(child)).map(|child| (pid, child)));
        }
        for (pid, child) in strangers {
            match Stat::of(child) {
                Ok(stat) if stat.state == b'Z' => drop(self.zombies.insert(child, stat)),
                _ => {
                    let obstacle = ProcessObstacle::ChildInOtherCgroup { child };
                    self.blockers.push(Blocker::new(pid, Part::Process, obstacle));
                }
            }
        }
    }

    fn release(&mut self) {
        let tracees = std::mem::take(&mut self.tracees);
        let (stopped, pending): (Vec<Tracee>, Vec<Tracee>) =
            tracees.into_values().partition(|t| t.stop != StopKind::Pending);
        for tracee in stopped {
            soften_waits(tracee.tid);
            // ESRCH: has been killed meanwhile.
            let _ = ptrace::detach(tracee.tid);
        }
        // A thread in vfork stops as soon as its child goes on, which it does now.
        let deadline = Instant::now() + STOP_TIMEOUT;
        for tracee in pending {
            while Instant::now() < deadline {
                match ptrace::wait(tracee.tid, false) {
                    Ok(Wait::Running) => std::thread::sleep(Duration::from_micros(100)),
                    Ok(Wait::Signal(signal)) => drop(ptrace::resume(tracee.tid, signal)),
                    Ok(Wait::Exited) | Err(_) => break,
                    Ok(_) => {
                        let _ = ptrace::detach(tracee.tid);
                        break;
                    }
                }
            }
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.release();
    }
}

/// When a thread ends the kernel walks its list of robust locks and marks each as that of a dead
/// owner, in files that live on too. The image has the owner, who comes back.
fn forget_robust_locks(tid: Pid) {
    // struct robust_list_head: first lock, or the head itself; offset of the lock word; the lock
    // that is being taken.
    const WORD_BYTES: u64 = 8;
    const PENDING: u64 = 2 * WORD_BYTES;
    let Ok((head, 1..)) = sched::robust_list(tid) else { return };
    // A head that cannot be read is one that the kernel does not follow either.
    let Ok(bytes) = vmread::read(tid, head, (PENDING + WORD_BYTES) as usize) else { return };
    let empty = head.0.to_ne_bytes();
    if bytes[..8] != empty {
        let _ = vmread::write(tid, head, &empty);
    }
    if bytes[PENDING as usize..] != [0; 8] {
        let _ = vmread::write(tid, Addr(head.0 + PENDING), &[0; 8]);
    }
}

/// Calls that a mere stop ends with EINTR. Where epoll_wait or sigtimedwait has no time limit nothing
/// is lost by asking the kernel to repeat it, unless a handler has run meanwhile (-ERESTARTNOHAND);
/// nor does a program without handlers expect EINTR of a semaphore or of a socket.
fn soften_waits(tid: Pid) {
    const ERESTARTNOHAND: i64 = -514;
    if let Ok(Some(regs)) = ptrace::regs(tid)
        && is_interrupted_wait(&regs)
    {
        // Without this the thread sees an EINTR, as after any SIGSTOP and SIGCONT.
        let _ = ptrace::set_regs(tid, &Regs { rax: ERESTARTNOHAND as u64, ..regs });
    }
}

/// Whether the thread is about to return -EINTR from an epoll_wait or sigtimedwait that has no time
/// limit, from an operation on System V semaphores, or from one on a socket with SO_RCVTIMEO or
/// SO_SNDTIMEO: without these options the kernel repeats them by itself. Semaphores and sockets
/// with a time limit wait for the whole of it again. A loop around epoll_wait with one computes it
/// anew after EINTR, which is nearer to the truth.
pub fn is_interrupted_wait(regs: &Regs) -> bool {
    let interrupted = regs.rax as i64 == -i64::from(libc::EINTR);
    interrupted
        && match regs.orig_rax as i64 {
            libc::SYS_epoll_wait | libc::SYS_epoll_pwait => (regs.r10 as i32) < 0,
            libc::SYS_epoll_pwait2 => regs.r10 == 0,
            libc::SYS_rt_sigtimedwait => regs.rdx == 0,
            libc::SYS_semop | libc::SYS_semtimedop => true,
            libc::SYS_recvfrom
            | libc::SYS_recvmsg
            | libc::SYS_recvmmsg
            | libc::SYS_read
            | libc::SYS_readv
            | libc::SYS_accept
            | libc::SYS_accept4
            | libc::SYS_connect
            | libc::SYS_sendto
            | libc::SYS_sendmsg
            | libc::SYS_sendmmsg
            | libc::SYS_write
            | libc::SYS_writev => true,
            _ => false,
        }
}
