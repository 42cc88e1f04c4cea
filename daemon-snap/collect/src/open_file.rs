//! What is open by a path: files, directories, devices, and what only looks like a file.

use super::description::{Description, Open};
use super::handle::Handle;
use super::objects::kind_of;
use super::pipe::Pipes;
use super::{inhibitor, kernel_file};
use crate::blockers::{Found, failed, refused};
use crate::inode::Inodes;
use crate::options::{ActivationSocket, CollectOptions};
use snap_error::Obstacle;
use snap_error::obstacle::{DescriptorObstacle, FileObstacle};
use snap_state::{FIFO, FileKindV1, OpenInodeV1, RawPath, RebindV1};
use snap_sys::fdquery;
use std::os::fd::BorrowedFd;

/// An inhibitor or a FIFO of systemd, a named FIFO, a pressure trigger, or a file.
pub(super) fn collect(open: Open<'_>, pipes: &mut Pipes, inodes: &mut Inodes<'_>) -> Found<FileKindV1> {
    let Open { file, fd, info } = open;
    let access = info.flags & libc::O_ACCMODE;
    let magic = format!("/proc/{}/fd/{}", file.pid, file.fd);
    let handle = Handle {
        magic: &magic,
        link: &file.link,
        by_name_only: info.flags & libc::O_PATH != 0,
        writable: access == libc::O_WRONLY,
        open: true,
        duplicate: Some(fd),
    };
    if let Some(given) = given_fifo(file, fd, inodes.options())? {
        return Ok(given);
    }
    if inodes.options().unit
        && let Some(held) = inhibitor::collect(file)?
    {
        return Ok(FileKindV1::Inhibitor(held));
    }
    let inode = inodes.intern(file.pid, handle)?;
    if !handle.by_name_only && inodes.is_fifo(inode) {
        return Ok(pipes.add(file, info.flags, Some(inode)));
    }
    let writes = access != libc::O_RDONLY && !handle.by_name_only;
    if let Some(trigger) = kernel_file::collect_trigger(file, fd, inode, writes)? {
        return Ok(trigger);
    }
    Ok(FileKindV1::Inode(OpenInodeV1 { inode, pos: info.pos }))
}

/// A file below a process's own directory of /proc is opened by that process.
pub(super) fn in_flight(kind: &FileKindV1, inodes: &Inodes<'_>) -> Option<Obstacle> {
    is_of_process(kind, inodes).then(|| DescriptorObstacle::ProcInFlight.into())
}

/// The same, and an inhibitor is asked for by the process that has it.
pub(super) fn shared(file: &Description, kind: &FileKindV1, inodes: &Inodes<'_>) -> Option<Obstacle> {
    let path = RawPath(file.link.clone());
    match kind {
        FileKindV1::Inhibitor(_) => Some(DescriptorObstacle::InhibitorShared { path }.into()),
        kind => is_of_process(kind, inodes).then(|| FileObstacle::ProcShared { path }.into()),
    }
}

fn is_of_process(kind: &FileKindV1, inodes: &Inodes<'_>) -> bool {
    let FileKindV1::Inode(OpenInodeV1 { inode, .. }) = kind else { return false };
    inodes.get(*inode).is_some_and(|inode| kind_of(&inode.kind).is_of_process())
}

/// A FIFO that systemd passes (ListenFIFO=).
fn given_fifo(file: &Description, fd: BorrowedFd<'_>, options: &CollectOptions) -> Found<Option<FileKindV1>> {
    let given = options.activation.iter().find(|s| s.socket_type == FIFO && s.address == file.link);
    let Some(given) = given else { return Ok(None) };
    let events = fdquery::poll_now(fd, libc::POLLIN).map_err(failed("poll", file.pid, file.fd))?;
    if events & libc::POLLIN != 0 {
        return refused(FileObstacle::FifoUnread);
    }
    let ActivationSocket { address, socket_type, name } = given.clone();
    Ok(Some(FileKindV1::Rebind(RebindV1::Activation { address, socket_type, name })))
}
