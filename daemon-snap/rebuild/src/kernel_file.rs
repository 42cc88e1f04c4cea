//! Descriptors of namespaces, and pressure triggers.

use super::inode::open_inode;
use super::kind::{Context, Kind};
use super::rights::Whose;
use nix::fcntl::OFlag;
use nix::unistd::write;
use snap_error::{Error, Result};
use snap_state::{FileV1, NamespaceOfV1, NamespaceV1, PressureTriggerV1};
use std::os::fd::OwnedFd;

impl Kind for NamespaceV1 {
    fn sets_flags(&self) -> bool {
        true
    }

    /// Opens a namespace of the unit, in which we are by now, or of PID 1.
    fn make(&self, _: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        let whose = match self.of {
            NamespaceOfV1::Tree => "self",
            NamespaceOfV1::Init => "1",
        };
        let path = format!("{whose}/ns/{}", self.name);
        let opened = cx.desk.proc.open(&path, OFlag::O_RDONLY);
        opened.map(Some).map_err(|e| Error::kernel("opening", path, e))
    }
}

impl Kind for PressureTriggerV1 {
    fn sets_flags(&self) -> bool {
        true
    }

    /// Opens a pressure file and asks to be told again.
    fn make(&self, file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        let flags = OFlag::from_bits_retain(file.flags & (libc::O_ACCMODE | libc::O_NONBLOCK));
        let fd = open_inode(cx.desk, cx.inodes.get(self.inode), Whose::File(file.id), flags)?;
        write(&fd, &self.text).map_err(|e| Error::kernel("writing a pressure trigger", file.id, e))?;
        Ok(Some(fd))
    }
}
