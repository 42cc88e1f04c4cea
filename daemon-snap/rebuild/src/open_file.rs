//! Descriptions of files, directories, devices, memfds and shared memory.

use super::desk::Desk;
use super::inode::open_inode;
use super::kind::{Birth, Context, Kind};
use super::objects::kind_of;
use super::rights::Whose;
use super::status_flags::set_status_flags;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};
use snap_error::{Error, Result};
use snap_state::{FileV1, InodeV1, Inodes, OpenInodeV1, RawPath};
use std::os::fd::OwnedFd;

/// Flags that only mean something at the moment of opening, or that are set later.
const OPENING_FLAGS: i32 =
    libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_ASYNC;
/// Also refused by our own link in /proc, through which objects are opened once more.
const NOT_BY_LINK: i32 = libc::O_NOFOLLOW;

impl Kind for OpenInodeV1 {
    /// What lies in a process's own directory of /proc only that process can open.
    fn birth(&self, inodes: Inodes<'_>) -> Birth {
        match kind_of(inodes.get(self.inode)).path_of_process() {
            Some(_) => Birth::Process,
            None => Birth::Worker,
        }
    }

    fn sets_flags(&self) -> bool {
        true
    }

    fn make(&self, file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        let inode = cx.inodes.get(self.inode);
        if let Some(path) = kind_of(inode).path_of_process() {
            return open_own(file, path, self.pos).map(Some);
        }
        if !cx.desk.has_file(file.id) {
            return open_object(cx.desk, file, inode, self.pos).map(Some);
        }
        // It came with its object.
        let fd = cx.desk.file(file.id)?;
        lseek(fd, self.pos as i64, Whence::SeekSet).map_err(|e| Error::kernel("lseek", file.id, e))?;
        set_status_flags(&fd, file)?;
        Ok(None)
    }
}

fn open_object(desk: &Desk, file: &FileV1, inode: &InodeV1, pos: u64) -> Result<OwnedFd> {
    let mut flags = file.flags & !OPENING_FLAGS;
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        flags &= !libc::O_TMPFILE;
    }
    if desk.object(inode.id).is_some() {
        flags &= !NOT_BY_LINK;
    }
    let fd = open_inode(desk, inode, Whose::File(file.id), OFlag::from_bits_retain(flags))?;
    if pos != 0 && flags & libc::O_PATH == 0 {
        lseek(&fd, pos as i64, Whence::SeekSet).map_err(|e| Error::kernel("lseek", file.id, e))?;
    }
    Ok(fd)
}

fn open_own(file: &FileV1, path: &RawPath, pos: u64) -> Result<OwnedFd> {
    const AT_OPEN: i32 =
        libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_APPEND | libc::O_DIRECTORY | libc::O_PATH;
    let failed = |step| move |e| Error::kernel(step, path, e);
    let flags = OFlag::from_bits_retain(file.flags & AT_OPEN) | OFlag::O_CLOEXEC;
    let fd = open(path.as_path(), flags, Mode::empty()).map_err(failed("opening"))?;
    if pos != 0 {
        lseek(&fd, pos as i64, Whence::SeekSet).map_err(failed("lseek"))?;
    }
    Ok(fd)
}
