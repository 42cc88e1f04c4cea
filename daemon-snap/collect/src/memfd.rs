//! Memory that is a file: memfds, and what is mapped by several without any file.

use super::object::{Object, Seen, Surroundings};
use crate::blockers::{Found, failed};
use snap_error::Error;
use snap_state::{InodeKindV1, MemfdV1, Pid, SharedAnonV1, XattrsV1};
use snap_sys::{fdquery, xattr};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

/// A memfd; its seals are read from its description.
pub(super) fn recognise(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    let name = seen.path.strip_prefix(b"/memfd:").filter(|_| seen.is_nameless_memory())?;
    Some(Ok(InodeKindV1::Memfd(MemfdV1 { name: name.to_vec(), flags: 0, seals: 0 })))
}

/// MAP_SHARED | MAP_ANONYMOUS
pub(super) fn recognise_shared(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    (seen.is_nameless_memory() && seen.path == b"/dev/zero").then_some(Ok(InodeKindV1::SharedAnon))
}

impl Object for MemfdV1 {
    fn complete(&self, file: &File, pid: Pid) -> Found<Option<InodeKindV1>> {
        const MFD_ALLOW_SEALING: u32 = 2;
        const F_SEAL_SEAL: u32 = 1;
        let seals = fdquery::seals(file.as_fd()).map_err(failed("read seals", pid, "memfd"))?;
        // A memfd that was made without the flag is born with exactly this seal.
        let flags = if seals == F_SEAL_SEAL { 0 } else { MFD_ALLOW_SEALING };
        Ok(Some(InodeKindV1::Memfd(Self { name: self.name.clone(), flags, seals })))
    }

    fn xattrs(&self, seen: &Seen<'_>, _: &Surroundings<'_>) -> Found<XattrsV1> {
        let magic = seen.handle.magic;
        let read = xattr::all_behind(Path::new(magic));
        Ok(read.map_err(|e| Error::kernel("read extended attributes", magic, e))?)
    }
}

impl Object for SharedAnonV1 {}
