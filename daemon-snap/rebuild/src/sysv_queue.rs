//! System V message queues, with what waited in them.

use super::desk::Desk;
use super::sysv::{Creation, Kind, check_left_behind, in_the_name_of, list};
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{MessageQueueV1, Pid, QueuedMessageV1};
use snap_sys::sysv_queue;
use snap_sys::sysvipc::Queue;

/// Makes all of them.
///
/// # Errors
/// `Stale`: key or id belong to somebody else. Kernel errors: more than today's limits allow.
pub fn rebuild_queues(desk: &Desk, queues: &[MessageQueueV1]) -> Result<()> {
    if queues.is_empty() {
        return Ok(());
    }
    let there = list()?.queues;
    for queue in queues {
        let identity = &queue.identity;
        let failed = |e| Error::kernel("filling", format!("msqid {}", identity.id), e);
        let left = there.iter().find(|there| there.identity.id == identity.id);
        if let Some(left) = left {
            check_left_behind(Kind::Queue, &left.identity, &left.users, identity)?;
            if is_as_recorded(left, queue).map_err(failed)? {
                continue;
            }
            sysv_queue::drain(identity.id).map_err(failed)?;
        } else {
            let make = || sysv_queue::create(identity.key, identity.mode);
            Creation::of(Kind::Queue, identity).run(desk, make)?;
        }
        fill(queue).map_err(failed)?;
        sysv_queue::set(identity, queue.max_bytes).map_err(failed)?;
    }
    Ok(())
}

/// Nobody has touched it since.
fn is_as_recorded(there: &Queue, was: &MessageQueueV1) -> std::result::Result<bool, Errno> {
    let id = was.identity.id;
    Ok(there.identity == was.identity
        && there.users.map(Pid) == [was.last_sender, was.last_receiver]
        && sysv_queue::max_bytes(id)? == was.max_bytes
        && sysv_queue::messages(id)? == was.messages)
}

/// Who sent and received last is who does it last here.
fn fill(queue: &MessageQueueV1) -> std::result::Result<(), Errno> {
    let id = queue.identity.id;
    // It may have been given less room than what lay in it, by bytes or by number.
    let len_bytes: usize = queue.messages.iter().map(|message| message.data.len()).sum();
    let room = len_bytes.max(queue.messages.len() + 1) as u64;
    if room > sysv_queue::max_bytes(id)? {
        sysv_queue::set(&queue.identity, room)?;
    }
    if queue.last_receiver.0 != 0 {
        let any = QueuedMessageV1 { kind: 1, data: Vec::new() };
        in_the_name_of(queue.last_sender, || sysv_queue::send(id, &any))?;
        in_the_name_of(queue.last_receiver, || sysv_queue::drain(id))?;
    }
    if queue.messages.is_empty() {
        return Ok(());
    }
    let send = || queue.messages.iter().try_for_each(|message| sysv_queue::send(id, message));
    in_the_name_of(queue.last_sender, send)
}
