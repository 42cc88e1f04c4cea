//! What a kind of file system or memory object does in a restore.
//!
//! A kind is one file of this crate with an implementation of [`Object`]. What a kind takes no part
//! in does nothing.

use super::desk::Desk;
use super::rights::{Recorded, Whose};
use image_store::Image;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use snap_error::{Error, Result};
use snap_state::{Files, InodeId, InodeV1, RawPath, SysvV1};
use snap_sys as sys;
use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Where the content of objects comes from, and who has them.
pub struct Source<'a> {
    pub image: &'a Image,
    pub files: Files<'a>,
    pub sysv: &'a SysvV1,
    /// Volatile files that nobody may have open.
    pub loose: BTreeSet<InodeId>,
}

/// An object that is opened for somebody.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    pub desk: &'a Desk,
    pub inode: &'a InodeV1,
    pub whose: Whose,
    pub flags: OFlag,
}

/// Whether the daemon's memory is mapped already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealWhen {
    BeforeMapping,
    AfterMapping,
}

/// A kind of object; the entry that it belongs to is given to each phase.
pub trait Object {
    /// Makes what does not stay by itself, before there are processes. What stays is opened when it
    /// is needed.
    ///
    /// # Errors
    /// `Stale`: somebody else has what it needs. Kernel errors otherwise.
    fn make(&self, inode: &InodeV1, desk: &mut Desk, from: &Source<'_>) -> Result<()> {
        let _ = (inode, desk, from);
        Ok(())
    }

    /// Opens it; ordinarily what was made once more.
    ///
    /// # Errors
    /// `Stale`: missing, another kind of file or device than recorded, or not what the processes
    /// that had it may open ([`super::rights::Rights::open`]).
    fn open(&self, opening: Opening<'_>) -> Result<OwnedFd> {
        opening.made()
    }

    /// Forbids what is forbidden from then on.
    ///
    /// # Errors
    /// fcntl(2).
    fn seal(&self, inode: &InodeV1, desk: &Desk, when: SealWhen) -> Result<()> {
        let _ = (inode, desk, when);
        Ok(())
    }

    /// The path that only the process that has it can open it by.
    fn path_of_process(&self) -> Option<&RawPath> {
        None
    }

    /// It is mapped through the descriptor that made it.
    fn is_mapped_as_made(&self, writable: bool) -> bool {
        let _ = writable;
        false
    }

    /// Others may watch it: our descriptor of it is closed as soon as it is not needed.
    fn is_on_disk(&self) -> bool {
        false
    }
}

impl Opening<'_> {
    /// What was made of it, opened once more.
    ///
    /// # Errors
    /// Nobody made it: a defect, never ignored. open(2).
    pub fn made(self) -> Result<OwnedFd> {
        let made = self.desk.made_object(self.inode.id)?;
        let failed = |e| Error::kernel("opening", format!("{:?}", self.inode.kind), e);
        self.desk.reopen(made, self.flags).map_err(failed)
    }

    /// What stands at a path, and is what was recorded.
    ///
    /// # Errors
    /// As [`Object::open`].
    pub fn by_path(
        self,
        path: &RawPath,
        reopen: &dyn Fn(BorrowedFd<'_>) -> nix::Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        self.desk.rights.open(self.whose, Recorded { inode: self.inode, path }, reopen)
    }

    /// The same, opened as it was found.
    ///
    /// # Errors
    /// As [`Object::open`].
    pub fn found(self, path: &RawPath) -> Result<OwnedFd> {
        self.by_path(path, &|found| open_found(self.desk, path, found, self.flags))
    }
}

/// Opens what was found under a path. Our link in /proc cannot be followed with O_NOFOLLOW, which
/// stays visible among the flags.
fn open_found(desk: &Desk, path: &RawPath, found: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    if !flags.contains(OFlag::O_NOFOLLOW) {
        return desk.reopen(found, flags);
    }
    // Where somebody puts a FIFO there just now, nobody waits for it. openat2(2) takes nothing
    // meaningless beside O_PATH.
    let only_path = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let asked = if flags.contains(OFlag::O_PATH) { flags & only_path } else { flags | OFlag::O_NONBLOCK };
    let how = OpenHow::new().flags(asked).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let opened = openat2(AT_FDCWD, path.as_path(), how)?;
    let (wanted, got) = (fstat(found)?, fstat(&opened)?);
    if (wanted.st_dev, wanted.st_ino) != (got.st_dev, got.st_ino) {
        return Err(Errno::ELOOP);
    }
    if !flags.intersects(OFlag::O_NONBLOCK | OFlag::O_PATH) {
        let kept = flags & (OFlag::O_APPEND | OFlag::O_DIRECT | OFlag::O_NOATIME);
        sys::rebuild::fcntl_number(opened.as_fd(), libc::F_SETFL, kept.bits())?;
    }
    Ok(opened)
}

/// Whether two descriptors lead to one object.
pub fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let id = |fd| fstat(fd).map(|found| (found.st_dev, found.st_ino));
    id(one).is_ok_and(|one| id(other) == Ok(one))
}

/// Whether the object was of this type.
pub fn is_of_type(inode: &InodeV1, file_type: SFlag) -> bool {
    SFlag::from_bits_truncate(inode.mode) & SFlag::S_IFMT == file_type
}
