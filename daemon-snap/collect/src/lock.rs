//! File locks and who holds them.
//!
//! `fdinfo` lists a lock of a process under the descriptors of that process only, and a lock of a
//! description under every descriptor that refers to it.

use super::description::{Description, Slot};
use crate::blockers::Blockers;
use nix::fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::stat::Mode;
use snap_error::Part;
use snap_error::obstacle::FileObstacle;
use snap_state::{FileId, FileLockV1, LockKindV1, RawPath};
use snap_sys::proc::{LockClass, LockLine};
use std::collections::HashSet;

/// Locks of the tree.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    /// In the order of the members.
    pub tables: Vec<Vec<FileLockV1>>,
    pub(super) lines: HashSet<LockLine>,
}

/// Who holds leases is told when others open the file, and we would be such others: nothing may be
/// opened before this.
pub(super) fn inspect_leases(slots: &[Slot], blockers: &mut Blockers) -> bool {
    let mut found = false;
    for slot in slots {
        if slot.info.locks.iter().any(|line| line.class == LockClass::Lease) {
            let Description { pid, fd, link, .. } = &slot.description;
            blockers.add(*pid, Part::Fd(*fd), FileObstacle::Lease { path: RawPath(link.clone()) });
            found = true;
        }
    }
    found
}

/// Each lock once, with the process that will take it again.
pub(super) fn collect_locks(slots: &[Slot], members: usize) -> Locks {
    let mut locks = Locks { tables: vec![Vec::new(); members], lines: HashSet::new() };
    // Of which process or description, and which.
    let mut known: HashSet<(Option<usize>, FileId, &LockLine)> = HashSet::new();
    for slot in slots {
        for line in &slot.info.locks {
            let (owner, kind) = match line.class {
                LockClass::Posix => (Some(slot.owner), LockKindV1::Posix),
                LockClass::Ofd => (None, LockKindV1::Ofd),
                LockClass::Flock => (None, LockKindV1::Flock),
                LockClass::Lease => continue,
            };
            let id = slot.description.id;
            locks.lines.insert(line.clone());
            if !known.insert((owner, id, line)) {
                continue;
            }
            // The kernel notes who took it; whoever else has the description will do.
            let has = |slot: &&Slot| slot.description.id == id;
            let taker =
                slots.iter().filter(has).find(|slot| slot.description.pid == line.pid).unwrap_or(slot);
            locks.tables[taker.owner].push(FileLockV1 {
                fd: taker.description.fd,
                kind,
                exclusive: line.exclusive,
                start: line.start,
                last: line.last,
            });
        }
    }
    locks
}

/// Whether nobody has a lock on a file. Where that cannot be found out: no.
///
/// Only who takes a lock of flock(2) learns that there is none.
pub(super) fn is_free(path: &str) -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(file) = open(path, flags, Mode::empty()) else { return false };
    // The whole file.
    let mut conflict = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let asked = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut conflict));
    if asked.is_err() || conflict.l_type != libc::F_UNLCK as libc::c_short {
        return false;
    }
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::{Pid, TargetFd};
    use snap_sys::proc::FdInfo;

    fn slot(owner: usize, fd: i32, id: u32, locks: Vec<LockLine>) -> Slot {
        let description = Description {
            id: FileId(id),
            pid: Pid(10 + owner as i32),
            fd: TargetFd(fd),
            dev: 1,
            ino: 2,
            link: b"/f".to_vec(),
        };
        Slot { owner, description, info: FdInfo::of_locks(locks) }
    }

    fn line(class: LockClass, pid: i32) -> LockLine {
        LockLine { class, exclusive: true, pid: Pid(pid), object: "1:2:3".into(), start: 0, last: None }
    }

    #[test]
    fn lock_of_a_description_is_taken_once_by_who_took_it() {
        let flock = line(LockClass::Flock, 11);
        let slots = [
            slot(0, 3, 0, vec![flock.clone()]),
            slot(1, 4, 0, vec![flock.clone()]),
            slot(1, 5, 0, vec![flock]),
        ];
        let locks = collect_locks(&slots, 2);
        assert!(locks.tables[0].is_empty());
        assert_eq!(locks.tables[1].iter().map(|lock| lock.fd).collect::<Vec<_>>(), [TargetFd(4)]);
    }

    #[test]
    fn locks_of_processes_stay_with_them() {
        let slots = [
            slot(0, 3, 0, vec![line(LockClass::Posix, 10)]),
            slot(1, 3, 0, vec![line(LockClass::Posix, 11)]),
            slot(1, 7, 0, vec![line(LockClass::Posix, 11)]),
        ];
        let locks = collect_locks(&slots, 2);
        assert_eq!((locks.tables[0].len(), locks.tables[1].len()), (1, 1));
    }
}
