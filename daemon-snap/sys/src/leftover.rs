//! What an earlier restore left in a process: how the next snapshot knows it.

use crate::vmread;
use snap_state::{Addr, Pid};

/// First bytes of an area that an earlier restore left behind: the next snapshot knows it by them
/// and skips it, also where the kernel has no names for anonymous memory (CONFIG_ANON_VMA_NAME,
/// since Linux 5.17).
pub const MAGIC: [u8; 16] = *b"fastboot tape v1";

/// Whether such an area begins at an address of another process.
pub fn begins_at(pid: Pid, addr: Addr) -> bool {
    vmread::read(pid, addr, MAGIC.len()).is_ok_and(|head| head == MAGIC)
}
