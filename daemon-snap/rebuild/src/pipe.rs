//! Pipes, anonymous or behind a named FIFO.

use super::desk::Desk;
use super::rights::Whose;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, write};
use snap_error::{Error, Result};
use snap_state::{FileKindV1, FileV1, OpenPipeV1, PipeEnd, PipeId, PipeV1, TreeV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

const F_SETPIPE_SZ: i32 = 1031;

/// Makes each pipe once and opens every recorded description of it.
///
/// # Errors
/// pipe(2), open(2), fcntl(2), write(2); `Stale` when a named FIFO is missing.
pub fn rebuild_pipes(desk: &mut Desk, tree: &TreeV1) -> Result<()> {
    for (index, pipe) in tree.pipes.iter().enumerate() {
        let id = PipeId(index as u32);
        let failed = |step: &'static str| move |e| Error::kernel(step, format!("pipe {id}"), e);
        let fifo = match pipe.fifo {
            Some(fifo) => {
                let inode = tree.inodes.get(fifo.0 as usize);
                Some(inode.ok_or_else(|| Error::Corrupt(format!("no object {fifo}")))?)
            }
            None => None,
        };
        let ends = |wanted| {
            tree.files.iter().filter(move |file| match file.kind {
                FileKindV1::Pipe(open) => open.pipe == id && open.end == wanted,
                _ => false,
            })
        };
        // A reader of a FIFO that nobody has written to since it was opened does not see a hang-up:
        // it is opened first.
        let writers = ends(PipeEnd::Write).chain(ends(PipeEnd::Both)).count();
        if let (Some(fifo), 0, false, true) = (fifo, writers, pipe.hung_up, pipe.data.is_empty()) {
            for file in ends(PipeEnd::Read) {
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
                let fd = desk.raise(super::inode::open_inode(desk, fifo, Whose::File(file.id), flags)?)?;
                sys::rebuild::fcntl_number(fd.as_fd(), F_SETPIPE_SZ, pipe.capacity_bytes as i32)
                    .map_err(failed("F_SETPIPE_SZ"))?;
                super::status_flags::set_status_flags(&fd, file)?;
                desk.put_file(file.id, fd)?;
            }
            continue;
        }
        let (reader, writer) = match fifo {
            None => pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("pipe2"))?,
            Some(fifo) => {
                // For us, to put back what was unread; who had only one end may not be able to open
                // the other.
                let mut holders = ends(PipeEnd::Both).chain(ends(PipeEnd::Read)).chain(ends(PipeEnd::Write));
                let Some(holder) = holders.next() else {
                    return Err(Error::Corrupt(format!("pipe {id} belongs to nobody")));
                };
                let found = super::inode::open_inode(desk, fifo, Whose::File(holder.id), OFlag::O_PATH)?;
                let again = |flags| desk.reopen(found.as_fd(), flags | OFlag::O_NONBLOCK);
                let both = again(OFlag::O_RDWR).map_err(failed("opening a FIFO"))?;
                (both, again(OFlag::O_WRONLY).map_err(failed("opening a FIFO"))?)
            }
        };
        sys::rebuild::fcntl_number(writer.as_fd(), F_SETPIPE_SZ, pipe.capacity_bytes as i32)
            .map_err(failed("F_SETPIPE_SZ"))?;
        refill(&writer, pipe).map_err(failed("refilling"))?;
        if fifo.is_none() {
            super::node::set_node(&reader, pipe.node).map_err(failed("giving an owner"))?;
        }
        let spare = reader.try_clone().map_err(|e| Error::io("dup", format!("pipe {id}"), &e))?;
        let (mut reader, mut writer) = (Some(reader), Some(writer));
        for file in &tree.files {
            let FileKindV1::Pipe(OpenPipeV1 { pipe, end }) = file.kind else { continue };
            if pipe != id {
                continue;
            }
            // The first description of an end is the one that pipe2 made; more of them are opened
            // anew.
            let first = match end {
                PipeEnd::Read if fifo.is_none() => reader.take(),
                PipeEnd::Write if fifo.is_none() => writer.take(),
                _ => None,
            };
            let fd = match (first, fifo) {
                (Some(fd), _) => fd,
                (None, None) => reopen(desk, &spare, file, end)?,
                (None, Some(fifo)) => super::inode::open_inode(
                    desk,
                    fifo,
                    Whose::File(file.id),
                    access_of(end) | OFlag::O_NONBLOCK,
                )?,
            };
            super::status_flags::set_status_flags(&fd, file)?;
            desk.put_file(file.id, fd)?;
        }
    }
    Ok(())
}

/// Writes what was unread; packets one by one (O_DIRECT, pipe(2)).
fn refill(writer: &OwnedFd, pipe: &PipeV1) -> nix::Result<()> {
    if pipe.packets.is_empty() {
        let mut sent = 0;
        while sent < pipe.data.len() {
            sent += write(writer, &pipe.data[sent..])?;
        }
        return Ok(());
    }
    sys::rebuild::fcntl_number(writer.as_fd(), libc::F_SETFL, libc::O_NONBLOCK | libc::O_DIRECT)?;
    let mut rest = pipe.data.as_slice();
    for len in &pipe.packets {
        let (packet, after) = rest.split_at_checked(*len as usize).ok_or(Errno::EINVAL)?;
        if write(writer, packet)? != packet.len() {
            return Err(Errno::EIO);
        }
        rest = after;
    }
    sys::rebuild::fcntl_number(writer.as_fd(), libc::F_SETFL, libc::O_NONBLOCK).map(drop)
}

fn access_of(end: PipeEnd) -> OFlag {
    match end {
        PipeEnd::Read => OFlag::O_RDONLY,
        PipeEnd::Write => OFlag::O_WRONLY,
        PipeEnd::Both => OFlag::O_RDWR,
    }
}

fn reopen(desk: &Desk, pipe: &OwnedFd, file: &FileV1, end: PipeEnd) -> Result<OwnedFd> {
    desk.reopen(pipe.as_fd(), access_of(end) | OFlag::O_NONBLOCK)
        .map_err(|e| Error::kernel("opening a pipe", file.id, e))
}
