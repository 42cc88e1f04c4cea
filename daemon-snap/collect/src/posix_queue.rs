//! POSIX message queues. Their messages can only be read by taking them out: they are put back at
//! once, in the same order.

use super::object::{Object, Seen, Surroundings};
use crate::blockers::{Blockers, Found, failed, refused};
use crate::member::Member;
use nix::errno::Errno;
use snap_error::obstacle::FileObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{InodeKindV1, Pid, PosixMessageV1, PosixQueueV1, RawPath};
use snap_sys::posix_queue::{self, Limits};
use snap_sys::proc;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;

/// `f_type` of their file system.
const MQUEUE_MAGIC: i64 = 0x1980_0202;

/// A queue that a process has open; without its messages.
pub(super) fn recognise(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    (seen.fs == MQUEUE_MAGIC).then(|| collect(seen))
}

fn collect(seen: &Seen<'_>) -> Found<InodeKindV1> {
    let Seen { pid, handle, .. } = *seen;
    let name = seen.path.strip_prefix(b"/").filter(|name| !name.contains(&b'/'));
    let (Some(name), true) = (name, handle.open && !handle.by_name_only) else {
        // Opened below a mount point, as a file.
        return refused(FileObstacle::KernelFile { file_system: "POSIX message queue", path: seen.shown() });
    };
    let fail = |step| failed(step, pid, handle.magic);
    let file = open(handle.magic)?;
    let Limits { max_messages, message_bytes } =
        posix_queue::limits(file.as_fd()).map_err(fail("mq_getattr"))?;
    let status = std::fs::read_to_string(handle.magic);
    let status = status.map_err(|e| Error::io("read", handle.magic, &e))?;
    if is_notifying(&status) {
        return refused(FileObstacle::QueueNotifies { path: seen.shown() });
    }
    let (name, messages) = (name.to_vec(), Vec::new());
    let removed = seen.found.st_nlink == 0;
    let ino = if removed { 0 } else { seen.found.st_ino };
    let queue = PosixQueueV1 { name, removed, max_messages, message_bytes, messages, ino };
    Ok(InodeKindV1::MessageQueue(queue))
}

/// Somebody has asked for a notification (mq_notify(3)): the kernel does not tell its value.
fn is_notifying(status: &str) -> bool {
    let pid = status.split_ascii_whitespace().find_map(|word| word.strip_prefix("NOTIFY_PID:"));
    pid.is_none_or(|pid| pid != "0")
}

impl Object for PosixQueueV1 {
    fn has_pages(&self) -> bool {
        false
    }

    fn open(&self, magic: &str) -> Result<Option<File>> {
        open(magic).map(Some)
    }

    fn collect_own(&self, file: &File) -> Result<Option<InodeKindV1>> {
        let messages = collect_messages(file, self)?;
        Ok(Some(InodeKindV1::MessageQueue(Self { messages, ..self.clone() })))
    }

    /// The file has whole pages, of which none is its.
    fn len_bytes(&self, _: &Seen<'_>, _: &Surroundings<'_>) -> Found<u64> {
        Ok(0)
    }
}

/// Our own description of a queue.
fn open(magic: &str) -> Result<File> {
    let mut options = File::options();
    let opened = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(magic);
    opened.map_err(|e| Error::io("open", magic, &e))
}

/// Queues that others have open are not the tree's alone.
pub(crate) fn inspect_holders<'a>(
    queues: impl Iterator<Item = (&'a PosixQueueV1, (u64, u64))>,
    members: &[Member],
    blockers: &mut Blockers,
) -> Result<()> {
    let tree: Vec<Pid> = members.iter().map(|member| member.pid).collect();
    for (queue, (dev, ino)) in queues {
        let outside = proc::holder_outside(dev, ino, &tree);
        if let Some(by) = outside.map_err(|e| Error::io("look for holders", "a message queue", &e))?
            && let Some(pid) = tree.first()
        {
            let path = RawPath([b"/", queue.name.as_slice()].concat());
            blockers.add(*pid, Part::Process, FileObstacle::QueueOfOthers { path, by });
        }
    }
    Ok(())
}

/// What lies in a queue.
fn collect_messages(file: &File, queue: &PosixQueueV1) -> Result<Vec<PosixMessageV1>> {
    let failed = |step| {
        let name = String::from_utf8_lossy(&queue.name).into_owned();
        move |e| Error::kernel(step, format!("message queue {name}"), e)
    };
    let mut taken = Taken { file, messages: Vec::new(), put_back: 0 };
    loop {
        match posix_queue::receive(file.as_fd(), Limits::of(queue)) {
            Ok(message) => taken.messages.push(message),
            Err(Errno::EAGAIN) => break,
            // What was taken goes back.
            Err(e) => return Err(failed("mq_receive")(e)),
        }
    }
    taken.finish().map_err(failed("mq_send"))
}

/// Messages that are not in their queue. Dropped, they are put back as far as that is possible.
struct Taken<'a> {
    file: &'a File,
    messages: Vec<PosixMessageV1>,
    put_back: usize,
}

impl Taken<'_> {
    fn finish(mut self) -> std::result::Result<Vec<PosixMessageV1>, Errno> {
        self.put_back()?;
        Ok(std::mem::take(&mut self.messages))
    }

    fn put_back(&mut self) -> std::result::Result<(), Errno> {
        while let Some(message) = self.messages.get(self.put_back) {
            posix_queue::send(self.file.as_fd(), message)?;
            self.put_back += 1;
        }
        Ok(())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // An error is on its way already.
        let _ = self.put_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_notify_somebody_are_known() {
        assert!(!is_notifying("QSIZE:12         NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n"));
        assert!(is_notifying("QSIZE:0          NOTIFY:1     SIGNO:0     NOTIFY_PID:812   \n"));
        assert!(is_notifying("nothing that is known"));
    }
}
