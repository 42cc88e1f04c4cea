//! One process on its way from a fork of the worker to its tape.

use super::cgroup::Cgroups;
use super::desk::Desk;
use super::inherit::InheritedMemory;
use super::kind::{Adder, Birth, Context, Natures, Today};
use super::kinds;
use super::late::Late;
use super::namespaces::UserNamespace;
use super::own_maps::OwnMaps;
use super::plan::{self, Group};
use super::status_flags::set_async;
use crate::tape::{
    self, Duties, Inherited, Objects, OwnFds, ProcessNow, Record, RecordKind, Reseed, TapeEnv, TidMode,
    VdsoPlace, code_of,
};
use image_store::{ReasonCode, fault};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{chroot, fchdir, getpgid, setpgid, setsid, write};
use snap_error::{Error, Result};
use snap_state::{FdV1, FileId, InodeId, PageRunV1, Pid, ProcessV1, Tree};
use snap_sys as sys;
use snap_sys::fork::Side;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What every process of a restore shares; built once by the worker, copied by fork.
pub struct Builder<'a> {
    pub desk: &'a Desk,
    pub tree: &'a Tree,
    pub natures: &'a Natures,
    pub today: Today<'a>,
    pub image: OwnedFd,
    pub status: OwnedFd,
    /// Read and write end per process, in the order of the tree.
    pub go: Vec<(OwnedFd, OwnedFd)>,
    /// When the tree has descriptors of its own processes.
    pub late: Option<Late>,
    pub user: UserNamespace,
    pub cgroups: Cgroups,
    pub vdso: Vec<VdsoPlace>,
    /// What the worker has mapped, which its children inherit.
    pub mapped: Vec<Range<u64>>,
    /// By index of the process: an id that nobody else has or gets.
    pub helper_tids: Vec<i32>,
    pub own_affinity: Vec<u64>,
    /// By index of the process.
    pub inherited_memory: Vec<InheritedMemory>,
    /// By index of the process: `Some` when the worker writes its pages into it, but for those at
    /// the addresses of these.
    pub awaits_all_but: Vec<Option<Vec<PageRunV1>>>,
    /// By index of the process: areas into which pages are copied.
    pub copy_areas: Vec<Vec<Range<u64>>>,
    /// By index of the process: what has its libraries seed themselves again.
    pub reseed: Vec<Option<Reseed>>,
}

impl std::fmt::Debug for Builder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("desk", self.desk).finish_non_exhaustive()
    }
}

impl Builder<'_> {
    /// Forks the given processes; each of them forks its own children. `inherited` is what the
    /// caller has put in place.
    ///
    /// # Errors
    /// A PID is taken (`Stale`), or the kernel refuses.
    pub fn create(&self, births: &[plan::Birth], inherited: &Inherited) -> Result<()> {
        for birth in births {
            match birth {
                plan::Birth::Process { index, .. } => {
                    let process = &self.tree.processes[*index];
                    if self.fork(process.pid, process.exit_signal)? == Side::Child {
                        self.or_report(process.pid, || self.become_process(birth, inherited));
                    }
                }
                plan::Birth::Zombie { index, setsid, group } => {
                    let zombie = &self.tree.zombies[*index];
                    if self.fork(zombie.pid, zombie.exit_signal)? == Side::Child {
                        self.or_report(zombie.pid, || self.become_zombie(zombie, *setsid, *group));
                    }
                }
                plan::Birth::Leader { sid, members } => self.lead(*sid, members, inherited)?,
            }
        }
        Ok(())
    }

    fn fork(&self, pid: Pid, exit_signal: i32) -> Result<Side> {
        sys::fork::fork(Some(pid.0), exit_signal, self.cgroups.of(pid)).map_err(|e| match e {
            Errno::EEXIST => Error::stale(ReasonCode::PidTaken, format!("PID {pid} is taken")),
            e => Error::kernel("clone3", format!("PID {pid}"), e),
        })
    }

    /// A session leader that lives until its members exist. Its end sends no signal.
    fn lead(&self, sid: Pid, members: &[plan::Birth], inherited: &Inherited) -> Result<()> {
        match self.fork(sid, 0)? {
            Side::Child => self.or_report(sid, || {
                setsid().map_err(|e| Error::kernel("setsid", sid, e))?;
                self.create(members, inherited)?;
                sys::fork::exit_now(0)
            }),
            Side::Parent { child } => reap(child),
        }
    }

    /// Runs the life of a child; an error is sent to the worker and ends the process.
    pub fn or_report(&self, pid: Pid, life: impl FnOnce() -> Result<std::convert::Infallible>) -> ! {
        let Err(error) = life();
        let record = match &error {
            Error::Stale(reason) => Record::new(RecordKind::RebuildFailed, pid.0, code_of(reason.code))
                .with_text(&reason.sentence),
            other => Record::new(RecordKind::RebuildFailed, pid.0, 0).with_text(&other.to_string()),
        };
        // Nobody is left to tell if this fails; the worker's deadline catches it.
        let _ = write(&self.status, &record.bytes());
        sys::fork::exit_now(127)
    }

    fn become_process(&self, birth: &plan::Birth, inherited: &Inherited) -> Result<std::convert::Infallible> {
        let plan::Birth::Process { index, before_setsid, setsid: own_session, after_setsid, group } = birth
        else {
            return Err(Error::Internal { step: "rebuild", message: "not a process".into() });
        };
        let process = &self.tree.processes[*index];
        self.forget_go();
        fault::point("worker.process").map_err(|e| Error::io("fault point", "worker.process", &e))?;
        if process.child_subreaper {
            sys::own::become_subreaper(true);
        }
        let inherited = self.put_in_place(*index, inherited)?;
        self.create(before_setsid, &inherited)?;
        if *own_session {
            setsid().map_err(|e| Error::kernel("setsid", process.pid, e))?;
        }
        self.create(after_setsid, &inherited)?;
        self.join_group(process.pid, process.pgid, *group)?;
        self.await_zombies(process)?;
        let cx = self.context();
        kinds::act(process, &cx)?;
        super::sysv_semaphore::rebuild_undo(&self.tree.sysv, process.pid)?;
        super::inode::take_mapped_locks(self.desk, &self.tree.mapped_locks, process.pid)?;
        self.place_descriptors(process, &cx)?;
        kinds::watch(Adder::Process(process), &cx)?;
        self.enter_root(process)?;
        umask(Mode::from_bits_truncate(process.umask));
        self.set_oom_score(process)?;
        self.set_coredump_filter(process)?;
        self.set_handlers(process)?;
        sys::own::unregister_rseq().map_err(|e| Error::kernel("unregistering rseq", process.pid, e))?;
        if let Some(user) = &self.user.fd {
            // systemd forbids setgroups(2) in the namespaces that it makes; groups set before stay.
            self.set_groups(process)?;
            nix::sched::setns(user, nix::sched::CloneFlags::CLONE_NEWUSER)
                .map_err(|e| Error::kernel("setns", "user namespace", e))?;
        }
        // A process of a family has what it inherited in place already, the only one has what the
        // worker has.
        let read = || OwnMaps::read(self.desk).map(|maps| maps.ranges());
        let mapped = if self.tree.processes.len() == 1 { self.mapped.clone() } else { read()? };
        let tape = match self.compile(*index, process, mapped, &inherited) {
            // Memory that we have mapped since the worker looked is where the tape should go.
            Err(Error::Kernel { errno: Errno::EEXIST, .. }) => {
                self.compile(*index, process, read()?, &inherited)
            }
            done => done,
        }?;
        tape.run()
    }

    /// The worker alone may hold write ends: their closing tells everybody that it is gone.
    pub fn forget_go(&self) {
        let ends = self.go.iter().map(|(_, write_end)| write_end.as_raw_fd());
        for number in ends.chain(self.late.iter().flat_map(Late::senders)) {
            // The number is open; close_range cannot fail for it.
            let _ = sys::rebuild::close_numbers(number, number);
        }
    }

    /// Gets this process, whose number is `own`, into its group.
    ///
    /// # Errors
    /// `Stale`: the kernel put it elsewhere.
    pub fn join_group(&self, own: Pid, pgid: Pid, group: Group) -> Result<()> {
        let pid = |p: Pid| nix::unistd::Pid::from_raw(p.0);
        let this = nix::unistd::Pid::from_raw(0);
        let failed = |e| Error::kernel("setpgid", format!("{} into {}", own, pgid), e);
        match group {
            Group::Inherited => {}
            Group::Own => setpgid(this, this).map_err(failed)?,
            Group::Make(leader) => match self.fork(leader, 0)? {
                Side::Child => {
                    let done = setpgid(this, this);
                    sys::fork::exit_now(i32::from(done.is_err()))
                }
                Side::Parent { child } => {
                    // A process that has ended but was not waited for still holds its group open.
                    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::__WALL;
                    waitid(Id::Pid(nix::unistd::Pid::from_raw(child)), flags).map_err(failed)?;
                    setpgid(this, pid(leader)).map_err(failed)?;
                    reap(child)?;
                }
            },
            Group::Join(leader) => loop {
                match setpgid(this, pid(leader)) {
                    Ok(()) => break,
                    // The leader, or the member that makes the group, has not come so far yet.
                    Err(Errno::EPERM | Errno::ESRCH) if Instant::now() < self.today.deadline => {
                        std::thread::sleep(Duration::from_micros(100));
                    }
                    Err(e) => return Err(failed(e)),
                }
            },
        }
        let got = getpgid(None).map_err(failed)?;
        if got == pid(pgid) {
            return Ok(());
        }
        Err(Error::stale(
            ReasonCode::HostUnsupported,
            format!("process {} is in group {got} instead of {}", own, pgid),
        ))
    }

    fn context(&self) -> Context<'_> {
        Context::new(self.desk, self.tree, self.natures, self.today)
    }

    /// Everything under its recorded number and nothing else below ours; what comes late has its
    /// number free.
    fn place_descriptors(&self, process: &ProcessV1, cx: &Context<'_>) -> Result<()> {
        let of = |birth| process.fds.iter().filter(move |fd| cx.natures.birth(fd.file) == birth);
        for fd in of(Birth::Worker) {
            place(self.desk.file(fd.file)?, fd)?;
            set_async(sys::rebuild::placed(fd.fd.0), cx.files.get(fd.file))?;
        }
        let mut own: HashMap<FileId, OwnedFd> = HashMap::new();
        for fd in of(Birth::Process) {
            let made = match own.entry(fd.file) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(free) => {
                    free.insert(self.desk.raise(kinds::make_own(cx.files.get(fd.file), cx)?)?)
                }
            };
            place(made.as_fd(), fd)?;
        }
        let placed = of(Birth::Worker).chain(of(Birth::Process));
        let mut numbers: Vec<i32> = placed.map(|fd| fd.fd.0).collect();
        numbers.sort_unstable();
        let mut next = 0;
        for number in numbers.into_iter().chain([self.desk.first_own_fd]) {
            if number > next {
                sys::rebuild::close_numbers(next, number - 1)
                    .map_err(|e| Error::kernel("close_range", next, e))?;
            }
            next = number + 1;
        }
        Ok(())
    }

    fn enter_root(&self, process: &ProcessV1) -> Result<()> {
        if let Some(root) = process.root {
            fchdir(self.desk.file(root)?).map_err(|e| Error::kernel("fchdir", "root directory", e))?;
            chroot(".").map_err(|e| Error::kernel("chroot", process.pid, e))?;
        }
        fchdir(self.desk.file(process.cwd)?).map_err(|e| Error::kernel("fchdir", "working directory", e))
    }

    fn set_oom_score(&self, process: &ProcessV1) -> Result<()> {
        let path = "self/oom_score_adj";
        let now = self.desk.proc.read(path).map_err(|e| Error::kernel("reading", path, e))?;
        if String::from_utf8_lossy(&now).trim() == process.oom_score_adj.to_string() {
            return Ok(());
        }
        self.desk
            .proc
            .write(path, &process.oom_score_adj.to_string())
            .map_err(|e| Error::kernel("writing", path, e))
    }

    /// Which mappings a core dump holds (core(5)); inherited over exec, so the unit's own setting.
    fn set_coredump_filter(&self, process: &ProcessV1) -> Result<()> {
        let path = "self/coredump_filter";
        match self.desk.proc.write(path, &format!("{:#x}", process.coredump_filter)) {
            // A kernel without core dumps has no such file, and recorded zero.
            Err(Errno::ENOENT) if process.coredump_filter == 0 => Ok(()),
            done => done.map_err(|e| Error::kernel("writing", path, e)),
        }
    }

    fn set_handlers(&self, process: &ProcessV1) -> Result<()> {
        for (index, action) in process.sigactions.iter().enumerate() {
            let signal = index as i32 + 1;
            if signal == libc::SIGKILL || signal == libc::SIGSTOP {
                continue;
            }
            sys::own::set_signal_action(signal, action.as_ref())
                .map_err(|e| Error::kernel("rt_sigaction", format!("signal {signal}"), e))?;
        }
        Ok(())
    }

    fn set_groups(&self, process: &ProcessV1) -> Result<()> {
        let groups = process.threads.first().map_or(&[][..], |t| t.creds.groups.as_slice());
        if let Some(other) = process.threads.iter().find(|t| t.creds.groups != groups) {
            return Err(Error::stale(
                ReasonCode::HostUnsupported,
                format!("thread {} has groups of its own in a user namespace", other.tid),
            ));
        }
        let groups: Vec<nix::unistd::Gid> = groups.iter().copied().map(nix::unistd::Gid::from_raw).collect();
        nix::unistd::setgroups(&groups).map_err(|e| Error::kernel("setgroups", process.pid, e))
    }

    fn compile(
        &self,
        index: usize,
        process: &ProcessV1,
        mapped_now: Vec<Range<u64>>,
        inherited: &Inherited,
    ) -> Result<tape::Compiled> {
        let (caps, bounding) =
            sys::own::capabilities().map_err(|e| Error::kernel("capget", process.pid, e))?;
        let has_stopped_children =
            self.tree.processes.iter().any(|child| child.parent == Some(process.pid) && child.stopped);
        let copy_areas = self.copy_areas.get(index).map_or(&[][..], Vec::as_slice);
        let env = TapeEnv {
            fds: OwnFds {
                image: self.image.as_raw_fd(),
                exe: self.desk.mapped(process.exe, false)?,
                status: self.status.as_raw_fd(),
                pages: self.open_pages(copy_areas)?.map(IntoRawFd::into_raw_fd),
                go: self.go[index].0.as_raw_fd(),
                late: self.late.as_ref().and_then(|late| late.receiver(index)),
                first: self.desk.first_own_fd,
            },
            now: ProcessNow {
                mapped: mapped_now,
                vdso_parts: self.vdso.clone(),
                inherited,
                awaits_all_but: self.awaits_all_but.get(index).and_then(Option::as_deref),
                copy_areas,
                caps,
                bounding,
                affinity: &self.own_affinity,
            },
            duties: Duties {
                tid_mode: if self.user.fd.is_some() { TidMode::LastPid } else { TidMode::SetTid },
                helper_tid: self.helper_tids.get(index).copied().unwrap_or_default(),
                announces: self.late.is_some(),
                has_stopped_children,
                sets_groups: self.user.fd.is_none(),
            },
            reseed: self.reseed.get(index).and_then(Option::as_ref),
            objects: self,
            filters: &self.tree.seccomp_filters,
        };
        tape::compile(process, &env)
    }

    /// What pages are copied with into this process, which has forked its children. `None` where
    /// nothing is to be copied, or the kernel or a filter has no such descriptor: they are read then.
    fn open_pages(&self, areas: &[Range<u64>]) -> Result<Option<OwnedFd>> {
        if areas.is_empty() {
            return Ok(None);
        }
        sys::uffd::open().ok().map(|fd| self.desk.raise(fd)).transpose()
    }
}

impl Objects for Builder<'_> {
    fn mapped_fd(&self, id: InodeId, writable: bool) -> Result<i32> {
        self.desk.mapped(id, writable)
    }

    fn segment(&self, id: InodeId) -> Option<i32> {
        self.desk.segment(id)
    }

    fn is_unplaceable(&self, id: InodeId) -> bool {
        self.desk.is_unplaceable(id)
    }

    fn is_late(&self, id: FileId) -> bool {
        self.natures.birth(id) == Birth::Late
    }

    fn map_uid(&self, uid: u32) -> Result<u32> {
        self.user.map_uid(uid)
    }

    fn map_gid(&self, gid: u32) -> Result<u32> {
        self.user.map_gid(gid)
    }
}

fn place(from: BorrowedFd<'_>, fd: &FdV1) -> Result<()> {
    sys::rebuild::place(from, fd.fd.0, fd.cloexec).map_err(|e| Error::kernel("dup3", fd.fd, e))
}

fn reap(child: i32) -> Result<()> {
    waitpid(nix::unistd::Pid::from_raw(child), Some(WaitPidFlag::__WALL))
        .map(drop)
        .map_err(|e| Error::kernel("waitpid", child, e))
}
