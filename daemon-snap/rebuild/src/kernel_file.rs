//! Descriptors of namespaces, pressure triggers, and files in a process's own directory of /proc.

use super::desk::Desk;
use super::rights::Whose;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek, write};
use snap_error::{Error, Result};
use snap_state::{
    FdV1, FileId, FileKindV1, FileV1, InodeKindV1, InodeV1, NamespaceOfV1, OpenInodeV1, RawPath, TreeV1,
};
use snap_sys as sys;
use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

/// Opens a namespace of the unit, in which we are by now, or of PID 1.
///
/// # Errors
/// open(2).
pub fn open_namespace(desk: &Desk, name: &str, of: NamespaceOfV1) -> Result<OwnedFd> {
    let whose = match of {
        NamespaceOfV1::Tree => "self",
        NamespaceOfV1::Init => "1",
    };
    let path = format!("{whose}/ns/{name}");
    desk.proc.open(&path, OFlag::O_RDONLY).map_err(|e| Error::kernel("opening", path, e))
}

/// Opens a pressure file and asks to be told again.
///
/// # Errors
/// open(2); write(2).
pub fn rebuild_trigger(desk: &Desk, file: &FileV1, inode: &InodeV1, text: &[u8]) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(file.flags & (libc::O_ACCMODE | libc::O_NONBLOCK));
    let fd = super::inode::open_inode(desk, inode, Whose::File(file.id), flags)?;
    write(&fd, text).map_err(|e| Error::kernel("writing a pressure trigger", file.id, e))?;
    Ok(fd)
}

/// The path of a description that only its process can open.
pub fn own_path(tree: &TreeV1, file: FileId) -> Option<(&FileV1, &RawPath, u64)> {
    let file = tree.files.get(file.0 as usize)?;
    let FileKindV1::Inode(OpenInodeV1 { inode, pos }) = file.kind else { return None };
    match &tree.inodes.get(inode.0 as usize)?.kind {
        InodeKindV1::OfProcess { path } => Some((file, path, pos)),
        _ => None,
    }
}

/// Opens what the process has of its own directory in /proc.
///
/// # Errors
/// open(2).
pub fn place_own_files(desk: &Desk, tree: &TreeV1, fds: &[FdV1]) -> Result<()> {
    let mut opened: HashMap<FileId, OwnedFd> = HashMap::new();
    for fd in fds {
        let Some((file, path, pos)) = own_path(tree, fd.file) else { continue };
        let failed = |step| move |e| Error::kernel(step, path, e);
        let from = match opened.entry(file.id) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => {
                const AT_OPEN: i32 =
                    libc::O_ACCMODE | libc::O_NONBLOCK | libc::O_APPEND | libc::O_DIRECTORY | libc::O_PATH;
                let flags = OFlag::from_bits_retain(file.flags & AT_OPEN) | OFlag::O_CLOEXEC;
                let fd =
                    desk.raise(open(path.as_path(), flags, Mode::empty()).map_err(failed("opening"))?)?;
                if pos != 0 {
                    lseek(&fd, pos as i64, Whence::SeekSet).map_err(failed("lseek"))?;
                }
                free.insert(fd)
            }
        };
        sys::rebuild::place(from.as_fd(), fd.fd.0, fd.cloexec)
            .map_err(|e| Error::kernel("dup3", fd.fd, e))?;
    }
    Ok(())
}
