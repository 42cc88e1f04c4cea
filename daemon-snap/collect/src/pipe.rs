//! Pipes, anonymous or behind a named FIFO: both ends belong together.

use super::description::{Description, node_of};
use crate::blockers::{Blockers, failed};
use crate::member::Member;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use snap_error::obstacle::{DescriptorObstacle, FileObstacle, LogindObject};
use snap_error::{Error, Obstacle, Result};
use snap_state::{FileKindV1, InodeId, OpenPipeV1, PipeEnd, PipeId, PipeV1, RawPath};
use snap_sys::{fdquery, proc};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// Pipes of the tree, by device and inode number.
#[derive(Debug, Default)]
pub(super) struct Pipes(BTreeMap<(u64, u64), Pipe>);

#[derive(Debug)]
struct Pipe {
    id: PipeId,
    fifo: Option<InodeId>,
    packets: bool,
    /// First description of each direction.
    reader: Option<Description>,
    writer: Option<Description>,
}

impl Pipes {
    /// Notes one end; `fifo` is what it was opened through.
    pub fn add(&mut self, file: &Description, flags: i32, fifo: Option<InodeId>) -> FileKindV1 {
        let end = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => PipeEnd::Read,
            libc::O_WRONLY => PipeEnd::Write,
            _ => PipeEnd::Both,
        };
        let next = PipeId(self.0.len() as u32);
        let new = Pipe { id: next, fifo, packets: false, reader: None, writer: None };
        let pipe = self.0.entry((file.dev, file.ino)).or_insert(new);
        pipe.packets |= flags & libc::O_DIRECT != 0;
        if end != PipeEnd::Write {
            pipe.reader.get_or_insert_with(|| file.clone());
        }
        if end != PipeEnd::Read {
            pipe.writer.get_or_insert_with(|| file.clone());
        }
        FileKindV1::Pipe(OpenPipeV1 { pipe: pipe.id, end })
    }

    /// Content and size of all pipes, by id.
    pub fn collect(
        self,
        duplicate: impl Fn(&Description) -> Result<OwnedFd>,
        members: &[Member],
        blockers: &mut Blockers,
    ) -> Result<Vec<PipeV1>> {
        let mut pipes: Vec<Pipe> = self.0.into_values().collect();
        pipes.sort_by_key(|pipe| pipe.id);
        let mut collected = Vec::with_capacity(pipes.len());
        for pipe in &pipes {
            let Some(holder) = pipe.reader.as_ref().or(pipe.writer.as_ref()) else { continue };
            let fd = duplicate(holder)?;
            if pipe.fifo.is_some() {
                let tree: Vec<_> = members.iter().map(|member| member.pid).collect();
                let outside = proc::holder_outside(holder.dev, holder.ino, &tree);
                if let Some(other) = outside.map_err(|e| Error::io("look for holders", holder.fd, &e))? {
                    let path = RawPath(holder.link.clone());
                    let obstacle: Obstacle = match logind_object(&holder.link) {
                        Some(object) => DescriptorObstacle::OfLogind { object, path }.into(),
                        None => FileObstacle::FifoHeldOutside { path, by: other }.into(),
                    };
                    blockers.add(holder.pid, holder.part(), obstacle);
                }
            } else if pipe.other_end_is_outside(fd.as_fd(), holder)? {
                blockers.add(holder.pid, holder.part(), DescriptorObstacle::PipeHeldOutside);
            }
            collected.push(pipe.content(fd.as_fd(), holder)?);
        }
        Ok(collected)
    }
}

/// What logind takes to be held as long as a FIFO of its own is open.
fn logind_object(path: &[u8]) -> Option<LogindObject> {
    match path.strip_prefix(b"/run/systemd/")? {
        rest if rest.starts_with(b"inhibit/") => Some(LogindObject::Inhibitor),
        rest if rest.starts_with(b"sessions/") => Some(LogindObject::Session),
        _ => None,
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
        let capacity_bytes = fdquery::pipe_capacity(fd).map_err(fail("size of pipe"))?;
        let read = |fd| fdquery::pipe_content(fd, capacity_bytes, self.packets).map_err(fail("read pipe"));
        let pieces = match (&self.reader, self.fifo) {
            (Some(_), _) => read(fd)?,
            // Who opens the FIFO later gets what is in it.
            (None, Some(_)) => {
                let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
                let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                read(open(again.as_str(), flags, Mode::empty()).map_err(fail("open FIFO"))?.as_fd())?
            }
            // Nobody will ever read it.
            (None, None) => Vec::new(),
        };
        let hung_up = match (&self.reader, &self.writer, self.fifo) {
            (Some(_), None, Some(_)) => {
                fdquery::poll_now(fd, libc::POLLIN).map_err(fail("poll FIFO"))? & libc::POLLHUP != 0
            }
            _ => false,
        };
        Ok(PipeV1 {
            capacity_bytes,
            packets: if self.packets {
                pieces.iter().map(|piece| piece.len() as u32).collect()
            } else {
                Vec::new()
            },
            data: pieces.concat(),
            fifo: self.fifo,
            hung_up,
            node: node_of(fd).map_err(fail("stat pipe"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifos_of_logind_are_named_for_what_they_stand_for() {
        assert_eq!(logind_object(b"/run/systemd/inhibit/3.ref"), Some(LogindObject::Inhibitor));
        assert_eq!(logind_object(b"/run/systemd/sessions/c1.ref"), Some(LogindObject::Session));
        assert_eq!(logind_object(b"/run/initctl"), None);
    }
}
