//! Owner and permissions of objects without a name: pipes and sockets.

use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, setfsgid, setfsuid};
use snap_error::{Error, Result};
use snap_state::{Files, NodeV1};
use std::os::fd::AsFd;

/// Who makes files and sockets until this is dropped: firewalls ask for the file system ids that a
/// socket was opened with (owner match of netfilter, `meta skuid`), which nothing changes later.
#[derive(Debug)]
pub struct Maker {
    before: (Uid, Gid),
}

impl Maker {
    /// Takes the ids of a recorded object. What needs the privilege of root over files fails until
    /// the end, all else does not.
    pub fn begin(node: NodeV1) -> Self {
        let gid = setfsgid(Gid::from_raw(node.gid));
        Self { before: (setfsuid(Uid::from_raw(node.uid)), gid) }
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        setfsuid(self.before.0);
        setfsgid(self.before.1);
    }
}

/// Gives an object its recorded owner and permissions, in this order: a new owner takes set-ids
/// away.
///
/// # Errors
/// fchown(2), fchmod(2).
pub fn set_node(fd: &impl AsFd, node: NodeV1) -> nix::Result<()> {
    let found = fstat(fd)?;
    let moves = (found.st_uid, found.st_gid) != (node.uid, node.gid);
    if moves {
        fchown(fd, Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)))?;
    }
    if moves || found.st_mode & 0o7777 != node.mode {
        fchmod(fd, Mode::from_bits_truncate(node.mode))?;
    }
    Ok(())
}

/// All recorded ones of sockets, which exist by now.
///
/// # Errors
/// As [`set_node`].
pub fn rebuild_nodes(desk: &super::desk::Desk, files: Files<'_>) -> Result<()> {
    for file in files {
        let Some(node) = file.node else { continue };
        set_node(&desk.file(file.id)?, node)
            .map_err(|e| Error::kernel("giving an owner", format!("open file {} (socket)", file.id), e))?;
    }
    Ok(())
}
