//! System V semaphores, and what processes undo of them when they end.

use super::desk::Desk;
use super::sysv::{Creation, Kind, check_left_behind, in_the_name_of, list};
use snap_error::{Error, Result};
use snap_state::{Pid, SemaphoreSetV1, SemaphoreV1, SysvV1};
use snap_sys::sysv_semaphore;
use std::collections::BTreeMap;

/// Makes all sets. Setting a value makes every process forget what it would undo, so that this
/// comes before there are processes.
///
/// # Errors
/// `Stale`: key or id belong to somebody else. Kernel errors: more than today's limits allow.
pub fn rebuild_sets(desk: &Desk, sets: &[SemaphoreSetV1]) -> Result<()> {
    const NEW: SemaphoreV1 = SemaphoreV1 { value: 0, last_user: Pid(0) };
    if sets.is_empty() {
        return Ok(());
    }
    let there = list()?.semaphore_sets;
    for set in sets {
        let (identity, id) = (&set.identity, set.identity.id);
        let failed = |e| Error::kernel("setting", format!("semid {id}"), e);
        let left = there.iter().find(|there| there.identity.id == id);
        if let Some(left) = left {
            check_left_behind(Kind::Semaphores, &left.identity, &left.users, identity)?;
        } else {
            let make = || sysv_semaphore::create(identity.key, set.semaphores.len(), identity.mode);
            Creation::of(Kind::Semaphores, identity).run(desk, make)?;
        }
        let now = |index: usize| {
            let left = left.and_then(|left| left.values.get(index).zip(left.users.get(index)));
            left.map_or(NEW, |(value, user)| SemaphoreV1 { value: *value, last_user: Pid(*user) })
        };
        let mut by_user: BTreeMap<Pid, Vec<(i32, u16)>> = BTreeMap::new();
        for (index, semaphore) in set.semaphores.iter().enumerate() {
            if now(index) != *semaphore {
                by_user.entry(semaphore.last_user).or_default().push((index as i32, semaphore.value));
            }
        }
        for (user, changes) in by_user {
            let change = || {
                changes.iter().try_for_each(|(index, value)| sysv_semaphore::set_value(id, *index, *value))
            };
            in_the_name_of(user, change).map_err(failed)?;
        }
        sysv_semaphore::set_owner(identity).map_err(failed)?;
    }
    Ok(())
}

/// Called in a process: what it will undo when it ends.
///
/// # Errors
/// As semop(2).
pub fn rebuild_undo(sysv: &SysvV1, pid: Pid) -> Result<()> {
    for undo in sysv.undo.iter().filter(|undo| undo.pid == pid) {
        let set = sysv.semaphore_sets.iter().find(|set| set.identity.id == undo.semid);
        let semaphore = set.and_then(|set| set.semaphores.get(usize::from(undo.number)));
        let value = semaphore.map_or(0, |semaphore| semaphore.value);
        for call in sysv_semaphore::adjusting(undo.number, value, undo.adjustment) {
            sysv_semaphore::operate(undo.semid, &call)
                .map_err(|e| Error::kernel("semop", format!("semid {}", undo.semid), e))?;
        }
    }
    Ok(())
}
