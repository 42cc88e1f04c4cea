//! What lies in directories that do not outlive a reboot and is neither an open file nor a socket
//! that somebody has.

use super::{InodeId, RawPath};
use serde::{Deserialize, Serialize};

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
