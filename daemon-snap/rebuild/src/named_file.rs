//! Files that stay where they are, and those that are found under another name.

use super::desk::Desk;
use super::object::{Object, Opening, Source, is_same};
use super::rights;
use super::trail::{self, Last, Place};
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::fstat;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use snap_error::{Error, Result};
use snap_state::{InodeV1, NamedFileV1, RawPath, RenamedFileV1};
use std::os::fd::{AsFd as _, OwnedFd};

impl Object for NamedFileV1 {
    fn open(&self, opening: Opening<'_>) -> Result<OwnedFd> {
        opening.found(&self.path)
    }
}

impl Object for RenamedFileV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, _: &Source<'_>) -> Result<()> {
        let fd = find_renamed(desk, inode, &self.was, &self.path)?;
        desk.put_object(inode.id, fd)
    }

    fn open(&self, opening: Opening<'_>) -> Result<OwnedFd> {
        let Opening { desk, inode, flags, .. } = opening;
        let object = desk.made_object(inode.id)?;
        opening.by_path(&self.path, &|found| {
            let found = if is_same(object, found) { object } else { found };
            desk.reopen(found, flags & !OFlag::O_NOFOLLOW)
        })
    }
}

/// A file under its other name. Where nothing has taken the old name meanwhile it gets that one
/// back for a moment, so that its description says the same as before. It is only looked at here:
/// who may open it is asked when it is opened.
fn find_renamed(desk: &Desk, inode: &InodeV1, was: &RawPath, path: &RawPath) -> Result<OwnedFd> {
    let found = trail::resolve(path.as_path(), Last::Itself).map_err(|e| rights::failed(path, e))?;
    let stat = fstat(&found).map_err(|e| Error::kernel("stat", path, e))?;
    rights::check_kind(&stat, inode, path)?;
    let Ok(old) = Place::of(was.as_path()) else { return Ok(found) };
    let name = Desk::name_of(found.as_fd());
    let is_recorded = (stat.st_uid, stat.st_gid, stat.st_mode) == (inode.uid, inode.gid, inode.mode);
    if !is_recorded
        || linkat(&desk.proc, name.as_str(), &old.directory, old.name, AtFlags::AT_SYMLINK_FOLLOW).is_err()
    {
        return Ok(found);
    }
    let again = old.look();
    unlinkat(&old.directory, old.name, UnlinkatFlags::NoRemoveDir)
        .map_err(|e| Error::kernel("unlink", was, e))?;
    // Somebody may have put something else there just now.
    Ok(again.ok().filter(|again| is_same(again.as_fd(), found.as_fd())).unwrap_or(found))
}
