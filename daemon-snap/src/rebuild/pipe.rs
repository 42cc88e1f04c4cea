//! Anonymous pipes.

use super::desk::Desk;
use crate::error::{Error, Result};
use crate::state::{FileKindV1, FileV1, PipeEnd, PipeId, TreeV1};
use crate::sys;
use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, fchown, pipe2, write};
use std::os::fd::{AsFd, OwnedFd};

const F_SETPIPE_SZ: i32 = 1031;

/// Makes each pipe once and opens every recorded description of it.
///
/// # Errors
/// pipe(2), fcntl(2), write(2).
pub fn rebuild_pipes(desk: &mut Desk, tree: &TreeV1) -> Result<()> {
    for (index, pipe) in tree.pipes.iter().enumerate() {
        let id = PipeId(index as u32);
        let failed = |step: &'static str| move |e| Error::kernel(step, format!("pipe {id}"), e);
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(failed("pipe2"))?;
        sys::rebuild::fcntl_number(writer.as_fd(), F_SETPIPE_SZ, pipe.capacity_bytes as i32)
            .map_err(failed("F_SETPIPE_SZ"))?;
        let mut sent = 0;
        while sent < pipe.data.len() {
            sent += write(&writer, &pipe.data[sent..]).map_err(failed("refilling"))?;
        }
        if (pipe.uid, pipe.gid) != (0, 0) {
            fchown(&reader, Some(Uid::from_raw(pipe.uid)), Some(Gid::from_raw(pipe.gid)))
                .map_err(failed("chown"))?;
        }
        let spare = reader.try_clone().map_err(|e| Error::io("dup", format!("pipe {id}"), &e))?;
        let (mut reader, mut writer) = (Some(reader), Some(writer));
        for file in &tree.files {
            let FileKindV1::Pipe { pipe, end } = file.kind else { continue };
            if pipe != id {
                continue;
            }
            // The first description of an end is the one that pipe2 made; more of them are opened anew.
            let first = match end {
                PipeEnd::Read => reader.take(),
                PipeEnd::Write => writer.take(),
                PipeEnd::Both => None,
            };
            let fd = match first {
                Some(fd) => fd,
                None => reopen(desk, &spare, file, end)?,
            };
            super::files::set_status_flags(&fd, file)?;
            desk.put_file(file.id, fd)?;
        }
    }
    Ok(())
}

fn reopen(desk: &Desk, pipe: &OwnedFd, file: &FileV1, end: PipeEnd) -> Result<OwnedFd> {
    let access = match end {
        PipeEnd::Read => OFlag::O_RDONLY,
        PipeEnd::Write => OFlag::O_WRONLY,
        PipeEnd::Both => OFlag::O_RDWR,
    };
    desk.reopen(pipe.as_fd(), access | OFlag::O_NONBLOCK)
        .map_err(|e| Error::kernel("opening a pipe", file.id, e))
}
