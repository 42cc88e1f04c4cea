//! System V IPC: shared memory, message queues, semaphores (sysvipc(7)).

use super::check::{Around, Result, check};
use super::object::{Mapped, ObjectState};
use super::{InodeId, InodeKindV1, InodeV1, Pid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `shmget(2)`. Its length is that of the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentV1 {
    pub id: i32,
    /// 0 is IPC_PRIVATE.
    pub key: i32,
    /// Permissions.
    pub mode: u32,
    /// IPC_RMID was called: it ends with the last who has it attached.
    pub removed: bool,
    /// SHM_LOCK was called.
    pub locked: bool,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
}

impl ObjectState for SegmentV1 {
    fn check(&self, len_bytes: u64) -> Result<()> {
        check(self.id >= 0 && len_bytes > 0, "an empty segment")
    }

    fn check_mapping(&self, mapped: Mapped) -> Result<()> {
        check(mapped.whole, "a part of a segment")
    }
}

/// Most semaphores of a set (SEMMSL), highest value of one (SEMVMX).
const SET_MAX: usize = 65_535;
const VALUE_MAX: u16 = 32_767;

/// What a tree has of System V IPC, beside the segments that it has attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysvV1 {
    /// Ascending by id, as the others.
    pub queues: Vec<MessageQueueV1>,
    pub semaphore_sets: Vec<SemaphoreSetV1>,
    /// Ascending by process, set and number.
    pub undo: Vec<UndoV1>,
    /// Segments that nobody has attached.
    pub loose_segments: Vec<LooseSegmentV1>,
}

/// What an object is known by, and who may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpcIdentityV1 {
    pub id: i32,
    /// 0 is IPC_PRIVATE.
    pub key: i32,
    /// Permissions.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
    /// Made, or last changed; seconds since 1970. Cannot be set: it tells in the same boot whether
    /// an object with this id is still the same.
    pub changed_s: i64,
}

/// `msgget(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageQueueV1 {
    pub identity: IpcIdentityV1,
    /// `msg_qbytes`.
    pub max_bytes: u64,
    /// In the order in which they were sent.
    pub messages: Vec<QueuedMessageV1>,
    /// 0: nobody yet.
    pub last_sender: Pid,
    /// 0: nobody yet.
    pub last_receiver: Pid,
}

/// A message that nobody has taken yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedMessageV1 {
    /// `mtype`, which is positive.
    pub kind: i64,
    pub data: Vec<u8>,
}

/// `semget(2)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemaphoreSetV1 {
    pub identity: IpcIdentityV1,
    pub semaphores: Vec<SemaphoreV1>,
}

/// One of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SemaphoreV1 {
    pub value: u16,
    /// Who last operated on it; 0: nobody yet.
    pub last_user: Pid,
}

/// What is added to a semaphore when a process ends (SEM_UNDO).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoV1 {
    pub pid: Pid,
    pub semid: i32,
    pub number: u16,
    /// Not 0.
    pub adjustment: i16,
}

/// A segment that nobody has attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LooseSegmentV1 {
    pub inode: InodeId,
    pub creator: Pid,
}

impl SysvV1 {
    pub(crate) fn check(&self, inodes: &[InodeV1], around: &Around<'_>) -> Result<()> {
        check_identities(self.queues.iter().map(|queue| &queue.identity))?;
        check_identities(self.semaphore_sets.iter().map(|set| &set.identity))?;
        let typed = |queue: &MessageQueueV1| queue.messages.iter().all(|message| message.kind > 0);
        check(self.queues.iter().all(typed), "a message without a type")?;
        let in_range = |set: &SemaphoreSetV1| {
            let values = set.semaphores.iter().all(|semaphore| semaphore.value <= VALUE_MAX);
            values && (1..=SET_MAX).contains(&set.semaphores.len())
        };
        check(self.semaphore_sets.iter().all(in_range), "semaphores out of range")?;
        let of_set = |undo: &UndoV1| {
            let set = self.semaphore_sets.iter().find(|set| set.identity.id == undo.semid);
            set.is_some_and(|set| usize::from(undo.number) < set.semaphores.len())
        };
        let sound = |undo: &UndoV1| undo.adjustment != 0 && around.has_process(undo.pid) && of_set(undo);
        check(self.undo.iter().all(sound), "an adjustment of nothing")?;
        let place = |undo: &UndoV1| (undo.pid, undo.semid, undo.number);
        check(self.undo.is_sorted_by(|a, b| place(a) < place(b)), "adjustments out of order")?;
        let is_segment = |loose: &LooseSegmentV1| {
            let inode = inodes.get(loose.inode.index());
            inode.is_some_and(|inode| matches!(inode.kind, InodeKindV1::Segment(_)))
        };
        check(self.loose_segments.iter().all(is_segment), "a segment that is none")?;
        let each: BTreeSet<InodeId> = self.loose_segments.iter().map(|loose| loose.inode).collect();
        check(each.len() == self.loose_segments.len(), "a segment twice")
    }
}

fn check_identities<'a>(identities: impl Iterator<Item = &'a IpcIdentityV1>) -> Result<()> {
    let identities: Vec<_> = identities.collect();
    let plain = |identity: &&IpcIdentityV1| identity.id >= 0 && identity.mode & !0o777 == 0;
    check(identities.iter().all(plain), "an IPC object out of range")?;
    check(identities.is_sorted_by(|a, b| a.id < b.id), "IPC objects out of order")
}
