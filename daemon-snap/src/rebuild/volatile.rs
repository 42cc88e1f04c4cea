//! Directories on volatile file systems that recorded files and sockets live in.

use crate::error::{Error, Result};
use crate::state::TreeV1;
use nix::errno::Errno;
use nix::sys::stat::{Mode, lstat};
use nix::unistd::{Gid, Uid, chown, mkdir};
use std::os::unix::fs::PermissionsExt;

/// Makes missing directories with their recorded owner and mode; those that exist are left as they are.
///
/// # Errors
/// mkdir(2), chown(2), chmod(2).
pub fn rebuild_volatile_dirs(tree: &TreeV1) -> Result<()> {
    for dir in &tree.volatile_dirs {
        let path = dir.path.as_path();
        match mkdir(path, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => continue,
            // A read-only parent cannot hold anything of ours either, unless the directory is there.
            Err(e) => match lstat(path) {
                Ok(_) => continue,
                Err(_) => return Err(Error::kernel("mkdir", &dir.path, e)),
            },
        }
        chown(path, Some(Uid::from_raw(dir.uid)), Some(Gid::from_raw(dir.gid)))
            .map_err(|e| Error::kernel("chown", &dir.path, e))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(dir.mode & 0o7777))
            .map_err(|e| Error::io("chmod", &dir.path, &e))?;
    }
    Ok(())
}
