//! System V IPC objects, with the ids that the daemon knows them by, and shared memory segments.

use super::content::fill_content;
use super::desk::Desk;
use super::object::{Object, Source};
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::kill;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Uid, getpid, setegid, seteuid};
use snap_error::{Error, RestoreFault, Result};
use snap_state::{InodeV1, IpcIdentityV1, Pid, SegmentV1, SysvV1};
use snap_sys as sys;
use snap_sys::sysvipc::Objects;
use snap_sys::{posix_queue, sysv_queue, sysv_semaphore, sysvipc};
use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::fmt;
use std::fs::File;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Segment,
    Queue,
    Semaphores,
}

impl Kind {
    /// The id that the next object gets (since Linux 3.9).
    fn next_id(self) -> &'static str {
        match self {
            Self::Segment => "sys/kernel/shm_next_id",
            Self::Queue => "sys/kernel/msg_next_id",
            Self::Semaphores => "sys/kernel/sem_next_id",
        }
    }

    fn remove(self, id: i32) -> std::result::Result<(), Errno> {
        match self {
            Self::Segment => sysvipc::control(id, libc::IPC_RMID),
            Self::Queue => sysv_queue::remove(id),
            Self::Semaphores => sysv_semaphore::remove(id),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Segment => "SysV shared memory",
            Self::Queue => "SysV message queue",
            Self::Semaphores => "SysV semaphores",
        })
    }
}

/// Objects that this restore has made. No process holds them, so that they are removed here when it
/// fails: a daemon that starts cold makes its own.
#[derive(Debug)]
pub struct Made {
    /// Processes that are forked from us have a copy, and remove nothing.
    maker: nix::unistd::Pid,
    objects: RefCell<Vec<(Kind, i32)>>,
    posix_queues: RefCell<Vec<CString>>,
    kept: Cell<bool>,
}

impl Default for Made {
    fn default() -> Self {
        Self {
            maker: getpid(),
            objects: RefCell::default(),
            posix_queues: RefCell::default(),
            kept: Cell::new(false),
        }
    }
}

impl Made {
    /// The tree that they are for runs.
    pub fn keep(&self) {
        self.kept.set(true);
    }
}

impl Made {
    /// A POSIX message queue.
    pub fn note_posix_queue(&self, name: CString) {
        self.posix_queues.borrow_mut().push(name);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.kept.get() || self.maker != getpid() {
            return;
        }
        for (kind, id) in self.objects.take() {
            // One that was marked for removal has gone with the last who had it.
            let _ = kind.remove(id);
        }
        for name in self.posix_queues.take() {
            let _ = posix_queue::unlink(&name);
        }
    }
}

/// The objects that there are today.
///
/// # Errors
/// They cannot be listed.
pub fn list() -> Result<Objects> {
    sysvipc::list(None).map_err(|e| Error::io("list", "System V IPC objects", &e))
}

/// How an object comes to be. The kernel notes for ever who made it.
#[derive(Clone, Copy, Debug)]
pub struct Creation {
    pub kind: Kind,
    pub id: i32,
    pub uid: u32,
    pub gid: u32,
    /// `None`: nobody looks.
    pub pid: Option<Pid>,
}

impl Creation {
    /// Of a queue or a set.
    pub fn of(kind: Kind, identity: &IpcIdentityV1) -> Self {
        let IpcIdentityV1 { id, creator_uid: uid, creator_gid: gid, .. } = *identity;
        Self { kind, id, uid, gid, pid: None }
    }

    /// Has it made, by `make`, with its id.
    ///
    /// # Errors
    /// `Stale`: key or id belong to somebody else.
    pub fn run(self, desk: &Desk, make: impl Fn() -> std::result::Result<i32, Errno>) -> Result<()> {
        let Self { kind, id, uid, gid, pid } = self;
        let next_id = kind.next_id();
        desk.proc.write(next_id, &id.to_string()).map_err(|e| Error::kernel("writing", next_id, e))?;
        let forked = match sys::fork::fork(pid.map(|pid| pid.0), 0, None) {
            // Another one has the number of a process that has ended since.
            Err(Errno::EEXIST | Errno::EINVAL) if pid.is_some() => sys::fork::fork(None, 0, None),
            other => other,
        };
        // A change of ids has side effects: another process does it.
        let done = match forked.map_err(|e| Error::kernel("clone3", "creator", e))? {
            sys::fork::Side::Child => {
                let made = setegid(Gid::from_raw(gid))
                    .and_then(|()| seteuid(Uid::from_raw(uid)))
                    .and_then(|()| make());
                sys::fork::exit_now(match made {
                    Ok(made) if made == id => 0,
                    Ok(other) => {
                        let _ = kind.remove(other);
                        libc::EEXIST
                    }
                    Err(e) => e as i32,
                })
            }
            sys::fork::Side::Parent { child } => {
                waitpid(nix::unistd::Pid::from_raw(child), Some(WaitPidFlag::__WALL))
                    .map_err(|e| Error::kernel("waitpid", child, e))?
            }
        };
        match done {
            WaitStatus::Exited(_, 0) => {
                desk.made.objects.borrow_mut().push((kind, id));
                Ok(())
            }
            WaitStatus::Exited(_, libc::EEXIST) => {
                let sentence = format!("{kind} id {id} or its key is taken");
                Err(Error::stale(ReasonCode::AddressTaken, sentence))
            }
            WaitStatus::Exited(_, errno) => {
                Err(Error::kernel("making", format!("{kind} id {id}"), Errno::from_raw(errno)))
            }
            _ => Err(RestoreFault::CreatorDied.into()),
        }
    }
}

/// In the same boot an object with this id has to be the daemon's own: all that identifies it
/// agrees, down to the second in which it was made, and whoever used it last is gone.
///
/// # Errors
/// `Stale`: it belongs to somebody else.
pub fn check_left_behind(
    kind: Kind,
    there: &IpcIdentityV1,
    users: &[i32],
    was: &IpcIdentityV1,
) -> Result<()> {
    let essence = |identity: &IpcIdentityV1| {
        (identity.key, identity.creator_uid, identity.creator_gid, identity.changed_s)
    };
    let is_gone = |pid: &i32| *pid == 0 || kill(nix::unistd::Pid::from_raw(*pid), None) == Err(Errno::ESRCH);
    if essence(there) == essence(was) && users.iter().all(is_gone) {
        return Ok(());
    }
    let sentence = format!("{kind} id {} belongs to somebody else", was.id);
    Err(Error::stale(ReasonCode::AddressTaken, sentence))
}

/// Does something to an object that the kernel notes the doer of; 0: nobody looks.
///
/// # Errors
/// Those of `what`.
pub fn in_the_name_of(
    who: Pid,
    what: impl Fn() -> std::result::Result<(), Errno>,
) -> std::result::Result<(), Errno> {
    if who.0 == 0 {
        return what();
    }
    match sys::fork::stand_in(who.0, || what().map(|()| [0; 2])) {
        // The number is taken or out of range. One of the tree will be missed when that is made.
        Err(Errno::EEXIST | Errno::EINVAL | Errno::EPERM) => what(),
        done => done.map(drop),
    }
}

impl Object for SegmentV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, from: &Source<'_>) -> Result<()> {
        let (file, at) = rebuild_segment(desk, inode, self, from.sysv)?;
        fill_content(&file, inode, from.image)?;
        desk.segments.push((inode.id, self.id, at));
        Ok(())
    }
}

/// Makes a segment and attaches it, so that it stays while nobody else has it. Returns its content
/// as a file, and where it is attached.
///
/// # Errors
/// `Stale`: key or id belong to somebody else.
fn rebuild_segment(desk: &Desk, inode: &InodeV1, segment: &SegmentV1, sysv: &SysvV1) -> Result<(File, u64)> {
    let failed = |step| move |e| Error::kernel(step, format!("shmid {}", segment.id), e);
    if !is_segment_left_behind(inode, segment)? {
        // A removed segment has lost its key.
        let key = if segment.removed { libc::IPC_PRIVATE } else { segment.key };
        let SegmentV1 { id, creator_uid: uid, creator_gid: gid, .. } = *segment;
        let loose = sysv.loose_segments.iter().find(|loose| loose.inode == inode.id);
        let pid = loose.map(|loose| loose.creator).filter(|pid| pid.0 > 0);
        Creation { kind: Kind::Segment, id, uid, gid, pid }
            .run(desk, || sysvipc::create_segment(key, inode.len_bytes, segment.mode))?;
    }
    let id = segment.id;
    sysvipc::set_owner(id, segment.uid, segment.gid, segment.mode).map_err(failed("IPC_SET"))?;
    if segment.locked {
        sysvipc::control(id, libc::SHM_LOCK).map_err(failed("SHM_LOCK"))?;
    }
    let at = sysvipc::attach(id).map_err(failed("shmat"))?;
    if segment.removed {
        sysvipc::control(id, libc::IPC_RMID).map_err(failed("IPC_RMID"))?;
    }
    let len = inode.len_bytes.next_multiple_of(snap_state::PAGE_BYTES);
    let path = format!("self/map_files/{at:x}-{:x}", at + len);
    let file = desk.proc.open(&path, OFlag::O_RDWR).map_err(failed("opening a segment"))?;
    Ok((File::from(file), at))
}

/// In the same boot the daemon's own segment may still be there: nobody has attached it, and all
/// that identifies it agrees.
fn is_segment_left_behind(inode: &InodeV1, segment: &SegmentV1) -> Result<bool> {
    let objects = list()?;
    let Some(there) = objects.segments.iter().find(|there| there.id == segment.id) else { return Ok(false) };
    let same = there.key == segment.key
        && there.len_bytes == inode.len_bytes
        && (there.creator_uid, there.creator_gid) == (segment.creator_uid, segment.creator_gid);
    if same && there.attached == 0 {
        return Ok(true);
    }
    Err(Error::stale(
        ReasonCode::AddressTaken,
        format!("SysV shared memory id {} belongs to somebody else", segment.id),
    ))
}
