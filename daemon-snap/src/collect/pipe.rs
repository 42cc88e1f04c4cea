//! Anonymous pipes: both ends belong together.

use super::file::Description;
use super::{Blockers, Found, failed, refused};
use crate::error::Result;
use crate::state::{FileKindV1, PipeEnd, PipeId, PipeV1};
use crate::sys::fdquery;
use nix::sys::stat::fstat;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Pipes of the tree, by inode number.
#[derive(Debug, Default)]
pub(super) struct Pipes(BTreeMap<u64, Pipe>);

#[derive(Debug)]
struct Pipe {
    id: PipeId,
    /// First description of each direction.
    reader: Option<Description>,
    writer: Option<Description>,
}

impl Pipes {
    /// Notes one end.
    pub fn add(&mut self, file: &Description, flags: i32) -> Found<FileKindV1> {
        if flags & libc::O_DIRECT != 0 {
            return refused("a pipe in packet mode");
        }
        let end = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => PipeEnd::Read,
            libc::O_WRONLY => PipeEnd::Write,
            _ => PipeEnd::Both,
        };
        let next = PipeId(self.0.len() as u32);
        let pipe = self.0.entry(file.ino).or_insert(Pipe { id: next, reader: None, writer: None });
        if end != PipeEnd::Write {
            pipe.reader.get_or_insert_with(|| file.clone());
        }
        if end != PipeEnd::Read {
            pipe.writer.get_or_insert_with(|| file.clone());
        }
        Ok(FileKindV1::Pipe { pipe: pipe.id, end })
    }

    /// Content and size of all pipes, by id.
    pub fn collect(
        self,
        duplicate: impl Fn(&Description) -> Result<OwnedFd>,
        blockers: &mut Blockers,
    ) -> Result<Vec<PipeV1>> {
        let mut pipes: Vec<Pipe> = self.0.into_values().collect();
        pipes.sort_by_key(|pipe| pipe.id);
        let mut collected = Vec::with_capacity(pipes.len());
        for pipe in &pipes {
            let Some(holder) = pipe.reader.as_ref().or(pipe.writer.as_ref()) else { continue };
            let fd = duplicate(holder)?;
            if pipe.other_end_is_outside(fd.as_fd(), holder)? {
                blockers.add(holder.pid, holder.part(), "a pipe whose other end is held outside the tree");
            }
            collected.push(pipe.content(fd.as_fd(), holder)?);
        }
        Ok(collected)
    }
}

impl Pipe {
    /// Only one end is in the tree, and the kernel does not report a hang-up on it.
    fn other_end_is_outside(&self, fd: BorrowedFd<'_>, holder: &Description) -> Result<bool> {
        let (asked, alone) = match (&self.reader, &self.writer) {
            (Some(_), Some(_)) => return Ok(false),
            (Some(_), None) => (libc::POLLIN, libc::POLLHUP),
            _ => (libc::POLLOUT, libc::POLLERR),
        };
        let now = fdquery::poll_now(fd, asked).map_err(failed("poll pipe", holder.pid, holder.fd))?;
        Ok(now & alone == 0)
    }

    fn content(&self, fd: BorrowedFd<'_>, holder: &Description) -> Result<PipeV1> {
        let fail = |step| failed(step, holder.pid, holder.fd);
        let stat = fstat(fd).map_err(fail("stat pipe"))?;
        let capacity_bytes = fdquery::pipe_capacity(fd).map_err(fail("size of pipe"))?;
        let data = match self.reader {
            Some(_) => fdquery::pipe_content(fd, capacity_bytes).map_err(fail("read pipe"))?,
            // Nobody will ever read it.
            None => Vec::new(),
        };
        Ok(PipeV1 { capacity_bytes, data, uid: stat.st_uid, gid: stat.st_gid })
    }
}
