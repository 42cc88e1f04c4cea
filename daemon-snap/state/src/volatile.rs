//! What lies in directories that do not outlive a reboot and is neither an open file nor a socket
//! that somebody has.

use super::check::{Result, check, is_path};
use super::{InodeId, InodeV1, RawPath};
use serde::{Deserialize, Serialize};

/// A directory on a volatile file system (tmpfs, PrivateTmp).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolatileDirV1 {
    pub path: RawPath,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub xattrs: XattrsV1,
}

/// An entry of a directory that is made again as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolatileNodeV1 {
    pub path: RawPath,
    pub kind: VolatileNodeKindV1,
    pub uid: u32,
    pub gid: u32,
}

/// What kind of entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolatileNodeKindV1 {
    Symlink {
        target: Vec<u8>,
    },
    /// A socket's node that nobody listens on any more.
    DeadSocket {
        mode: u32,
    },
    /// One more name of a file.
    Link {
        inode: InodeId,
    },
}

/// Extended attributes: name and value.
pub type XattrsV1 = Vec<(Vec<u8>, Vec<u8>)>;

impl VolatileDirV1 {
    pub(crate) fn check(&self) -> Result<()> {
        check(is_path(&self.path.0), "a directory that is not a path")
    }
}

impl VolatileNodeV1 {
    /// `inodes`: of the whole tree.
    pub(crate) fn check(&self, inodes: &[InodeV1]) -> Result<()> {
        let has_a_path = |inode: &InodeV1| inode.kind.first_name().is_some();
        let sound = match &self.kind {
            VolatileNodeKindV1::Symlink { target } => !target.is_empty() && !target.contains(&0),
            VolatileNodeKindV1::DeadSocket { .. } => true,
            VolatileNodeKindV1::Link { inode } => inodes.get(inode.index()).is_some_and(has_a_path),
        };
        check(sound && is_path(&self.path.0), "an odd entry of a volatile directory")
    }
}
