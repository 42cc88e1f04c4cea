//! Locks of files that are mapped but not open any more.

use crate::blockers::Blockers;
use crate::inode::Inodes;
use crate::lock::Locks;
use crate::member::Member;
use snap_error::obstacle::FileObstacle;
use snap_error::{Error, Part, Result};
use snap_state::MappedLockV1;
use snap_sys::proc::{LockClass, locks_of_all};

/// A description that lives on only in a mapping keeps its locks too, but no `fdinfo` tells of it.
/// Those of flock(2) are carried: the description that the mapping is made from takes them again.
///
/// `/proc/locks` is read only where there may be one: the kernel waits for a grace period of RCU
/// when it is, which is more than all else that is done for a small daemon.
pub(crate) fn collect_hidden_locks(
    locks: &Locks,
    members: &[Member],
    inodes: &Inodes<'_>,
    blockers: &mut Blockers,
) -> Result<Vec<MappedLockV1>> {
    if !inodes.may_be_locked() {
        return Ok(Vec::new());
    }
    let all = locks_of_all().map_err(|e| Error::io("read", "/proc/locks", &e))?;
    let mut carried = Vec::new();
    for line in all.iter().filter(|line| line.class != LockClass::Lease && !locks.lines.contains(*line)) {
        let taker = members.iter().find(|member| member.pid == line.pid).map(|member| member.pid);
        let mapped = inodes.mapped_object(&line.object);
        // Locks of descriptions name nobody.
        let holder = match line.class {
            LockClass::Ofd if mapped.is_some() => members.first().map(|member| member.pid),
            _ => taker,
        };
        match (holder, line.class, mapped) {
            (None, ..) => {}
            // The description is neither open nor mapped here: somebody else has it. systemd holds
            // the lock of a dynamic user like this, which the process took before it became the
            // service.
            (Some(_), LockClass::Flock, None) => {}
            (Some(pid), LockClass::Flock, Some(inode)) => {
                carried.push(MappedLockV1 { pid, inode, exclusive: line.exclusive });
            }
            (Some(pid), ..) => {
                let object = line.object.clone();
                blockers.add(pid, Part::Process, FileObstacle::MappedFileLocked { object });
            }
        }
    }
    Ok(carried)
}
