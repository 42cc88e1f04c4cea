//! POSIX message queues, with what waited in them.

use super::desk::Desk;
use super::object::{Object, Source};
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, getuid, setresuid};
use snap_error::{Error, Result};
use snap_state::check::Corrupt;
use snap_state::{FileKindV1, FileV1, Files, InodeV1, OpenInodeV1, PosixQueueV1};
use snap_sys::posix_queue::{self, Limits};
use snap_sys::{fork, proc};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

const MODE_BITS: u32 = 0o7777;
/// What mq_open(3) leaves among the flags, and what open(2) alone does.
const BY_MQ_OPEN: i32 = libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_CLOEXEC;
const NOT_BY_MQ_OPEN: i32 = KERNEL_LARGEFILE | libc::O_PATH;
/// O_LARGEFILE, which is 0 for a program of 64 bits.
const KERNEL_LARGEFILE: i32 = 0o100_000;

/// Where a queue has its name: here, or, where somebody else has that of a removed queue today, in
/// an IPC namespace of its own, which is given up with the name.
struct Place(Option<OwnedFd>);

impl Place {
    fn elsewhere(desk: &Desk) -> std::result::Result<Self, Errno> {
        let own = fork::open_aside(|| {
            unshare(CloneFlags::CLONE_NEWIPC)?;
            desk.proc.open("self/ns/ipc", OFlag::O_RDONLY | OFlag::O_CLOEXEC)
        });
        own.map(Some).map(Self)
    }

    fn open(
        &self,
        job: impl FnOnce() -> std::result::Result<OwnedFd, Errno>,
    ) -> std::result::Result<OwnedFd, Errno> {
        match &self.0 {
            None => job(),
            Some(namespace) => fork::open_aside(|| {
                setns(namespace, CloneFlags::CLONE_NEWIPC)?;
                job()
            }),
        }
    }

    fn unlink(&self, name: &CStr) -> std::result::Result<(), Errno> {
        let Some(namespace) = &self.0 else { return posix_queue::unlink(name) };
        fork::do_aside(|| {
            setns(namespace, CloneFlags::CLONE_NEWIPC)?;
            posix_queue::unlink(name)
        })
    }
}

impl Object for PosixQueueV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, from: &Source<'_>) -> Result<()> {
        let fd = rebuild_queue(desk, inode, self, from.files)?;
        desk.put_object(inode.id, fd)
    }
}

/// Makes a queue and fills it, with all descriptions that mq_open(3) made of it. Its length counts
/// for the real user who makes it (RLIMIT_MSGQUEUE), which is its owner.
///
/// # Errors
/// `Stale`: the name belongs to somebody else.
fn rebuild_queue(desk: &Desk, inode: &InodeV1, queue: &PosixQueueV1, files: Files<'_>) -> Result<OwnedFd> {
    let shown = || format!("message queue {}", String::from_utf8_lossy(&queue.name));
    let failed = |step| move |e| Error::kernel(step, shown(), e);
    let name = CString::new(queue.name.clone()).map_err(|_| Corrupt::Rule("a name with NUL"))?;
    let create = |place: &Place| {
        let create = || place.open(|| posix_queue::create(&name, inode.mode, Limits::of(queue)));
        as_real_user(inode.uid, create)
    };
    let mut place = Place(None);
    let fd = match create(&place) {
        Ok(fd) => {
            if !queue.removed {
                desk.made.note_posix_queue(name.clone());
            }
            fd
        }
        Err(Errno::EEXIST) if queue.removed => {
            place = Place::elsewhere(desk).map_err(failed("unshare"))?;
            create(&place).map_err(failed("mq_open"))?
        }
        Err(Errno::EEXIST) => {
            let fd = posix_queue::open(&name, posix_queue::OPEN).map_err(failed("mq_open"))?;
            check_left_behind(inode, queue, &fd)?;
            drain(&fd, queue).map_err(failed("mq_receive"))?;
            fd
        }
        Err(e) => return Err(failed("mq_open")(e)),
    };
    fchown(&fd, Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid))).map_err(failed("fchown"))?;
    fchmod(&fd, Mode::from_bits_truncate(inode.mode & MODE_BITS)).map_err(failed("fchmod"))?;
    for message in &queue.messages {
        posix_queue::send(fd.as_fd(), message).map_err(failed("mq_send"))?;
    }
    let is_its = |file: &&FileV1| matches!(file.kind, FileKindV1::Inode(OpenInodeV1 { inode: of, .. }) if of == inode.id);
    for file in files.iter().filter(is_its).filter(|file| file.flags & NOT_BY_MQ_OPEN == 0) {
        let open = || posix_queue::open(&name, file.flags & BY_MQ_OPEN);
        desk.put_file(file.id, place.open(open).map_err(failed("mq_open"))?)?;
    }
    if queue.removed {
        place.unlink(&name).map_err(failed("mq_unlink"))?;
    }
    Ok(fd)
}

fn taken(queue: &PosixQueueV1) -> Error {
    let name = String::from_utf8_lossy(&queue.name);
    Error::stale(ReasonCode::AddressTaken, format!("message queue {name} belongs to somebody else"))
}

/// In the same boot the daemon's own queue may still be there.
fn check_left_behind(inode: &InodeV1, queue: &PosixQueueV1, fd: &OwnedFd) -> Result<()> {
    let there = fstat(fd).map_err(|e| Error::kernel("stat", "a message queue", e))?;
    let essence = (there.st_ino, there.st_uid, there.st_gid, there.st_mode);
    let limits = posix_queue::limits(fd.as_fd());
    let is_same = essence == (queue.ino, inode.uid, inode.gid, inode.mode) && limits == Ok(Limits::of(queue));
    // Where /proc is not to be seen, nobody is.
    let holder = proc::holder_outside(there.st_dev, there.st_ino, &[]).unwrap_or_default();
    if is_same && holder.is_none() { Ok(()) } else { Err(taken(queue)) }
}

fn drain(fd: &OwnedFd, queue: &PosixQueueV1) -> std::result::Result<(), Errno> {
    loop {
        match posix_queue::receive(fd.as_fd(), Limits::of(queue)) {
            Ok(_) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// With another real user id; privileges are those of the effective one, which stays.
fn as_real_user<T>(
    uid: u32,
    what: impl FnOnce() -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    const SAME: Uid = Uid::from_raw(u32::MAX);
    let own = getuid();
    setresuid(Uid::from_raw(uid), SAME, SAME)?;
    let done = what();
    setresuid(own, SAME, SAME)?;
    done
}
