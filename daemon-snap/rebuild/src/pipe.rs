//! Pipes, anonymous or behind a named FIFO.

use super::desk::Desk;
use super::kind::{Context, Kind};
use super::rights::Whose;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{pipe2, write};
use snap_error::{Error, Result};
use snap_state::{FileKindV1, FileV1, OpenPipeV1, PipeEnd, PipeId, PipeV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

const F_SETPIPE_SZ: i32 = 1031;

impl Kind for OpenPipeV1 {
    fn sets_flags(&self) -> bool {
        true
    }

    /// A pipe is made with the first of its descriptions, and all the others with it.
    fn make(&self, file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        if !cx.desk.has_file(file.id) {
            rebuild_pipe(self.pipe, cx)?;
        }
        Ok(None)
    }
}

/// Makes a pipe and opens every recorded description of it.
fn rebuild_pipe(id: PipeId, cx: &Context<'_>) -> Result<()> {
    let desk = cx.desk;
    let failed = |step: &'static str| move |e| Error::kernel(step, format!("pipe {id}"), e);
    let pipe = cx.pipes.get(id);
    let fifo = pipe.fifo.map(|fifo| cx.inodes.get(fifo));
    let held = || {
        cx.files.iter().filter_map(|file| match file.kind {
            FileKindV1::Pipe(OpenPipeV1 { pipe, end }) if pipe == id => Some((file, end)),
            _ => None,
        })
    };
    let ends = |wanted| held().filter(move |(_, end)| *end == wanted).map(|(file, _)| file);
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
        return Ok(());
    }
    let (reader, writer) = match fifo {
        None => pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("pipe2"))?,
        Some(fifo) => {
            // For us, to put back what was unread; who had only one end may not be able to open
            // the other.
            let mut holders = ends(PipeEnd::Both).chain(ends(PipeEnd::Read)).chain(ends(PipeEnd::Write));
            let holder = holders.next().ok_or(Errno::ENXIO).map_err(failed("opening a FIFO"))?;
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
    for (file, end) in held() {
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
