//! The phases of all file system and memory objects.

use super::desk::Desk;
use super::object::{Opening, SealWhen, Source};
use super::objects::kind_of;
use super::rights::Whose;
use image_store::{Image, ReasonCode};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use snap_error::{Error, Result};
use snap_state::{BackingV1, InodeId, InodeV1, Inodes, MappedLockV1, Pid, ProcessV1, Tree};
use snap_sys as sys;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

/// Makes every object whose content travels in the image, and opens all that is mapped or executed.
///
/// # Errors
/// `Stale`: a file is missing or is another kind of file. Kernel errors otherwise.
pub fn rebuild_inodes(desk: &mut Desk, tree: &Tree, image: &Image) -> Result<()> {
    let loose = tree.volatile_files.iter().copied().collect();
    let from = Source { image, files: tree.files(), sysv: &tree.sysv, loose };
    for inode in tree.inodes() {
        kind_of(inode).make(inode, desk, &from)?;
    }
    open_mapped(desk, &tree.processes, tree.inodes())
}

/// Forbids what is forbidden from then on.
///
/// # Errors
/// fcntl(2).
pub fn rebuild_seals(desk: &Desk, inodes: Inodes<'_>, when: SealWhen) -> Result<()> {
    inodes.into_iter().try_for_each(|inode| kind_of(inode).seal(inode, desk, when))
}

/// Gives up our own descriptions of files that others may watch; the daemon's have been opened by
/// now.
pub fn close_files_on_disk(desk: &mut Desk, inodes: Inodes<'_>) {
    desk.close_objects(|id| kind_of(inodes.get(id)).is_on_disk());
}

/// Opens an object with the wanted flags: by path, or once more if it was made again.
///
/// # Errors
/// As [`super::object::Object::open`].
pub fn open_inode(desk: &Desk, inode: &InodeV1, whose: Whose, flags: OFlag) -> Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    kind_of(inode).open(Opening { desk, inode, whose, flags })
}

/// Opens what is mapped or executed, once each.
fn open_mapped(desk: &mut Desk, processes: &[ProcessV1], inodes: Inodes<'_>) -> Result<()> {
    let mut wanted: BTreeSet<(InodeId, bool)> = processes.iter().map(|p| (p.exe, false)).collect();
    for vma in processes.iter().flat_map(|p| &p.mm.vmas) {
        if let BackingV1::Inode { inode, may_write, .. } = vma.backing {
            wanted.insert((inode, vma.shared && may_write));
        }
    }
    // Segments are attached by their ids.
    wanted.retain(|(id, _)| desk.segment(*id).is_none());
    for (id, writable) in wanted {
        let inode = inodes.get(id);
        let flags = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let fd = match desk.object(id) {
            Some(made) if kind_of(inode).is_mapped_as_made(writable) => {
                made.try_clone_to_owned().map_err(|e| Error::io("dup", id, &e))?
            }
            _ => open_inode(desk, inode, Whose::Mapped(id), flags)?,
        };
        desk.put_mapped(id, writable, fd)?;
    }
    Ok(())
}

/// Locks that this process took through descriptions which only its mappings keep; called in it,
/// because the kernel notes who takes a lock. The mapping that is made from the description keeps
/// it, and so the lock, when all descriptors are closed.
///
/// # Errors
/// `Stale`: somebody else has the lock.
pub fn take_mapped_locks(desk: &Desk, locks: &[MappedLockV1], pid: Pid) -> Result<()> {
    for lock in locks.iter().filter(|lock| lock.pid == pid) {
        let number = desk.mapped(lock.inode, true).or_else(|_| desk.mapped(lock.inode, false))?;
        sys::rebuild::flock(sys::rebuild::placed(number), lock.exclusive).map_err(|e| match e {
            Errno::EWOULDBLOCK => Error::stale(
                ReasonCode::AddressTaken,
                format!("somebody else has a lock of mapped object {}", lock.inode),
            ),
            e => Error::kernel("flock", lock.inode, e),
        })?;
    }
    Ok(())
}
