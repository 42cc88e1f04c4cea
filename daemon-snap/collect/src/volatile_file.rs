//! Files on file systems that a reboot empties.

use super::object::{Object, Seen, Surroundings};
use crate::blockers::Found;
use nix::sys::stat::SFlag;
use snap_error::Error;
use snap_state::{InodeKindV1, RawPath, VolatileFileV1, XattrsV1};
use snap_sys::xattr;

/// A file, a directory or a FIFO where a reboot takes it away.
pub(super) fn recognise(seen: &Seen<'_>, around: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    let path = seen.path();
    let plain = matches!(seen.file_type, SFlag::S_IFREG | SFlag::S_IFDIR | SFlag::S_IFIFO);
    let volatile = plain && around.is_volatile(seen.fs, seen.found, path.as_path());
    volatile.then_some(Ok(InodeKindV1::Volatile(VolatileFileV1 { path })))
}

impl Object for VolatileFileV1 {
    fn xattrs(&self, _: &Seen<'_>, around: &Surroundings<'_>) -> Found<XattrsV1> {
        let place = around.spaces.reachable(&self.path);
        Ok(xattr::all(&place).map_err(|e| Error::kernel("read extended attributes", &self.path, e))?)
    }

    fn volatile_name(&self) -> Option<&RawPath> {
        Some(&self.path)
    }
}
