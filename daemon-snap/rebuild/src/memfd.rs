//! Memory that is a file: memfds, and what is mapped by several without any file.

use super::content::{fill, finish};
use super::desk::Desk;
use super::object::{Object, SealWhen, Source};
use nix::fcntl::OFlag;
use snap_error::{Error, Result};
use snap_state::{FileKindV1, FileV1, InodeId, InodeV1, MemfdV1, OpenInodeV1, PAGE_BYTES, SharedAnonV1};
use snap_sys as sys;
use std::fs::File;

const F_ADD_SEALS: i32 = 1033;

impl Object for MemfdV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, from: &Source<'_>) -> Result<()> {
        let flags = self.flags | if self.seals != 1 { libc::MFD_ALLOW_SEALING } else { 0 };
        let fd = sys::rebuild::memfd(&self.name, flags)
            .map_err(|e| Error::kernel("memfd_create", String::from_utf8_lossy(&self.name), e))?;
        let file = File::from(fd);
        finish(&file, inode, "memfd", from.image)?;
        if let Some(made) = from.files.iter().find(|file| may_have_made(file, inode.id)) {
            let first = file.try_clone().map_err(|e| Error::io("dup", inode.id, &e))?;
            desk.put_file(made.id, first.into())?;
        }
        desk.put_object(inode.id, file.into())
    }

    /// Seals come after every writable mapping description was opened: a write seal forbids opening
    /// for writing. One that forbids only later writable mappings comes when all mappings are
    /// there, and with it the one that forbids further seals.
    fn seal(&self, inode: &InodeV1, desk: &Desk, when: SealWhen) -> Result<()> {
        const F_SEAL_SEAL: u32 = 1;
        const F_SEAL_FUTURE_WRITE: u32 = 0x10;
        let late = if self.seals & F_SEAL_FUTURE_WRITE != 0 { F_SEAL_SEAL | F_SEAL_FUTURE_WRITE } else { 0 };
        let seals = if when == SealWhen::AfterMapping { self.seals & late } else { self.seals & !late };
        // A memfd that was made without seals is born with the first one.
        if (seals > F_SEAL_SEAL || late & seals != 0)
            && let Some(fd) = desk.object(inode.id)
        {
            sys::rebuild::fcntl_number(fd, F_ADD_SEALS, seals as i32)
                .map_err(|e| Error::kernel("sealing a memfd", inode.id, e))?;
        }
        Ok(())
    }

    /// Whoever opens a memfd for writing counts as a writer ([`may_have_made`]).
    fn is_mapped_as_made(&self, writable: bool) -> bool {
        writable
    }
}

impl Object for SharedAnonV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, from: &Source<'_>) -> Result<()> {
        let file = create_shared_anonymous(desk, inode)?;
        fill(&file, inode, from.image)?;
        desk.put_object(inode.id, file.into())
    }
}

/// A description that memfd_create(2) may have made. It counts as nobody who writes, others do: the
/// memfd could not be executed then.
fn may_have_made(file: &FileV1, id: InodeId) -> bool {
    let reads_and_writes = file.flags & (libc::O_ACCMODE | libc::O_PATH) == libc::O_RDWR;
    reads_and_writes && matches!(file.kind, FileKindV1::Inode(OpenInodeV1 { inode, .. }) if inode == id)
}

fn create_shared_anonymous(desk: &Desk, inode: &InodeV1) -> Result<File> {
    let len = inode.len_bytes.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
    let what = "making shared memory again";
    let range = sys::rebuild::map_shared_anonymous(len).map_err(|e| Error::kernel(what, inode.id, e))?;
    let path = format!("self/map_files/{:x}-{:x}", range.start, range.end);
    let opened = desk.proc.open(&path, OFlag::O_RDWR);
    sys::rebuild::unmap(range);
    opened.map(File::from).map_err(|e| Error::kernel(what, path, e))
}
