//! System V message queues, with what waits in them.

use crate::blockers::Blockers;
use crate::sysv_owner::Makers;
use nix::errno::Errno;
use snap_error::obstacle::MemoryObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{MessageQueueV1, Pid};
use snap_sys::{sysv_queue, sysvipc};
use std::io;
use std::os::fd::BorrowedFd;

/// Those of the tree.
pub(super) fn collect(
    queues: &[sysvipc::Queue],
    namespace: Option<BorrowedFd<'_>>,
    makers: &Makers<'_>,
    blockers: &mut Blockers,
) -> Result<Vec<MessageQueueV1>> {
    let mut found = Vec::new();
    for queue in queues {
        let (identity, msqid) = (queue.identity, queue.identity.id);
        let owner = makers.owner(&identity, &queue.users, &[libc::SYS_msgrcv, libc::SYS_msgsnd]);
        let Some(pid) = owner.and_then(|owner| owner.judge("message queue", msqid, blockers)) else {
            continue;
        };
        if makers.has_other_user(&queue.users) {
            blockers.add(pid, Part::Process, MemoryObstacle::QueueOfOthers { msqid });
            continue;
        }
        let read = || Ok::<_, io::Error>((sysv_queue::max_bytes(msqid)?, sysv_queue::messages(msqid)?));
        let [last_sender, last_receiver] = queue.users.map(Pid);
        match sysvipc::within(namespace, read) {
            Ok((max_bytes, messages)) => {
                found.push(MessageQueueV1 { identity, max_bytes, messages, last_sender, last_receiver });
            }
            // Without CONFIG_CHECKPOINT_RESTORE, or a message is longer than may be sent today.
            Err(e) if is_untold(&e) => {
                blockers.add(pid, Part::Process, MemoryObstacle::QueueUntold { msqid });
            }
            Err(e) => return Err(Error::io("read", format!("msqid {msqid}"), &e)),
        }
    }
    found.sort_by_key(|queue| queue.identity.id);
    Ok(found)
}

fn is_untold(e: &io::Error) -> bool {
    [Errno::ENOSYS, Errno::EINVAL].iter().any(|errno| e.raw_os_error() == Some(*errno as i32))
}
