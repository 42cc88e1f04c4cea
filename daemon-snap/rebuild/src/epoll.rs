//! Epoll sets. Watches are keyed by description *and* number, so each is added under its recorded
//! number.

use super::desk::Desk;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use snap_error::{Error, Result};
use snap_state::{EpollV1, EpollWatchV1, FdV1, FileId, FileKindV1, ProcessV1, TargetFd, TreeV1};
use snap_sys as sys;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// Makes the empty sets; they may be watched themselves.
///
/// # Errors
/// epoll_create1(2).
pub fn rebuild_epolls(desk: &mut Desk, tree: &TreeV1) -> Result<()> {
    for file in &tree.files {
        let FileKindV1::Epoll(EpollV1 { busy_poll, .. }) = &file.kind else { continue };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|e| Error::kernel("epoll_create1", file.id, e))?;
        super::status_flags::set_status_flags(&epoll.0, file)?;
        if let Some(busy_poll) = busy_poll {
            sys::rebuild::set_busy_poll(epoll.0.as_fd(), *busy_poll)
                .map_err(|e| Error::kernel("EPIOCSPARAMS", file.id, e))?;
        }
        desk.put_file(file.id, epoll.0)?;
    }
    Ok(())
}

/// Adds the watches. Uses recorded numbers of this process for a moment: none of ours may lie
/// there.
///
/// # Errors
/// epoll_ctl(2).
pub fn rebuild_watches(desk: &Desk, tree: &TreeV1) -> Result<()> {
    let (spent, live): (Vec<_>, Vec<_>) = all_watches(tree).partition(|(_, watch)| watch.is_spent());
    let armed = |watch: &EpollWatchV1| EpollWatchV1 { events: watch.events | SPEND, ..*watch };
    let roused = Roused::new(desk, tree, &spent)?;
    for_each(desk, spent.iter().map(|(set, watch)| (*set, armed(watch))), sys::rebuild::epoll_add)?;
    // Nothing else is in the sets yet whose event could be taken instead.
    let mut left = spent;
    for set in left.iter().map(|(set, _)| *set).collect::<BTreeSet<_>>() {
        let taken = sys::rebuild::epoll_take(desk.file(set)?);
        let taken = taken.map_err(|e| Error::kernel("epoll_wait", set, e))?;
        left.retain(|(of, watch)| *of != set || !taken.contains(&watch.data));
    }
    roused.finish(desk)?;
    // Not ready: armed after all, for errors and hang-ups.
    for_each(desk, left.into_iter().map(|(set, watch)| (set, *watch)), sys::rebuild::epoll_modify)?;
    for_each(desk, live.into_iter().map(|(set, watch)| (set, *watch)), sys::rebuild::epoll_add)
}

/// Sets that are watched themselves by watches that have had their event, ready for as long as
/// those need it: empty as they are they would never be. Their users see nothing of it.
struct Roused {
    sets: Vec<FileId>,
    ready: OwnedFd,
}

impl Roused {
    fn new(desk: &Desk, tree: &TreeV1, spent: &[(FileId, &EpollWatchV1)]) -> Result<Self> {
        let failed = |e| Error::kernel("eventfd", "of a watched epoll set", e);
        let ready = desk.raise(sys::rebuild::eventfd(1, libc::EFD_CLOEXEC).map_err(failed)?)?;
        let is_set = |id: &FileId| matches!(tree.files[id.0 as usize].kind, FileKindV1::Epoll(_));
        let sets: BTreeSet<FileId> = spent.iter().map(|(_, watch)| watch.file).filter(is_set).collect();
        let sets: Vec<FileId> = sets.into_iter().collect();
        for &set in &sets {
            // Whoever takes the events of this set must not think that they are those of a watch.
            let used = |data| spent.iter().any(|(of, watch)| *of == set && watch.data == data);
            let free = (0..).find(|data| !used(*data)).unwrap_or_default();
            sys::rebuild::epoll_add(desk.file(set)?, ready.as_raw_fd(), libc::EPOLLIN as u32, free)
                .map_err(|e| Error::kernel("epoll_ctl", set, e))?;
        }
        Ok(Self { sets, ready })
    }

    fn finish(self, desk: &Desk) -> Result<()> {
        for set in self.sets {
            sys::rebuild::epoll_remove(desk.file(set)?, self.ready.as_raw_fd())
                .map_err(|e| Error::kernel("epoll_ctl", set, e))?;
        }
        Ok(())
    }
}

/// Whatever can happen to a descriptor that is ready at all, once.
const SPEND: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLONESHOT) as u32;

/// Watches with their sets, without those that a process has to add itself and those that wait
/// until processes exist.
fn all_watches(tree: &TreeV1) -> impl Iterator<Item = (FileId, &EpollWatchV1)> {
    let all = tree.files.iter().flat_map(|file| file.kind.watches().iter().map(|watch| (file.id, watch)));
    all.filter(|(set, watch)| adder(tree, *set, watch).is_none() && !super::pidfd::is_late(tree, watch.file))
}

/// A watch that its process adds, and where this has set and target.
struct OwnWatch<'a> {
    process: &'a ProcessV1,
    set: TargetFd,
    target: TargetFd,
}

/// The process that has to add a watch itself: only it can open the target, or the target is a
/// signalfd, which tells of the signals of whoever adds it (signalfd(2), "epoll(7) semantics").
fn adder<'a>(tree: &'a TreeV1, set: FileId, watch: &EpollWatchV1) -> Option<OwnWatch<'a>> {
    let kind = tree.files.get(watch.file.0 as usize).map(|file| &file.kind);
    let is_signalfd = matches!(kind, Some(FileKindV1::SignalFd(_)));
    if !is_signalfd && super::kernel_file::own_path(tree, watch.file).is_none() {
        return None;
    }
    let number_of = |process: &'a ProcessV1, file| process.fds.iter().find(|e| e.file == file).map(|e| e.fd);
    let users = tree.processes.iter().filter_map(|process| {
        let (set, target) = (number_of(process, set)?, number_of(process, watch.file)?);
        Some(OwnWatch { process, set, target })
    });
    // Of several that share the set, the one that is the parent of the others; rather one that has
    // the target under the watch's number.
    let named = |entry: &FdV1| entry.fd == watch.fd && entry.file == watch.file;
    users.min_by_key(|user| !user.process.fds.iter().any(named))
}

/// Adds the watches on descriptors of processes, which exist by now.
///
/// # Errors
/// epoll_ctl(2).
pub fn rebuild_late_watches(desk: &Desk, tree: &TreeV1) -> Result<()> {
    let all = tree.files.iter().flat_map(|file| file.kind.watches().iter().map(|watch| (file.id, *watch)));
    for_each(desk, all.filter(|(_, watch)| super::pidfd::is_late(tree, watch.file)), sys::rebuild::epoll_add)
}

/// Adds the watches that are this process's own; its descriptors are in place.
///
/// # Errors
/// epoll_ctl(2).
pub fn add_own_watches(desk: &Desk, tree: &TreeV1, process: &ProcessV1) -> Result<()> {
    for file in &tree.files {
        for watch in file.kind.watches() {
            let own = adder(tree, file.id, watch).filter(|own| own.process.pid == process.pid);
            let Some(OwnWatch { set, target, .. }) = own else { continue };
            let (set, target) = (sys::rebuild::placed(set.0), sys::rebuild::placed(target.0));
            // Whatever the number means by now.
            let _placed = Placed::at(desk, target, watch.fd.0)?;
            sys::rebuild::epoll_add(set, watch.fd.0, watch.events, watch.data).map_err(|e| {
                let what = format!("open file {} of pid {} watching fd {}", file.id, process.pid, watch.fd);
                Error::kernel("epoll_ctl", what, e)
            })?;
        }
    }
    Ok(())
}

fn for_each(
    desk: &Desk,
    watches: impl Iterator<Item = (FileId, EpollWatchV1)>,
    call: fn(BorrowedFd<'_>, i32, u32, u64) -> std::result::Result<(), Errno>,
) -> Result<()> {
    // Number, then target: each pair is placed once for all sets that watch it.
    let mut by_place: BTreeMap<(i32, u32), Vec<(FileId, EpollWatchV1)>> = BTreeMap::new();
    for (set, watch) in watches {
        by_place.entry((watch.fd.0, watch.file.0)).or_default().push((set, watch));
    }
    for ((number, _), watches) in by_place {
        let target = desk.file(watches[0].1.file)?;
        let _placed = Placed::at(desk, target, number)?;
        for (set, watch) in watches {
            call(desk.file(set)?, number, watch.events, watch.data).map_err(|e| {
                Error::kernel("epoll_ctl", format!("open file {set} watching fd {number}"), e)
            })?;
        }
    }
    Ok(())
}

/// A description under a recorded number for as long as this lives; what was there before comes
/// back.
struct Placed {
    number: i32,
    before: Option<(OwnedFd, bool)>,
    /// It was there already.
    is_there: bool,
}

impl Placed {
    fn at(desk: &Desk, fd: BorrowedFd<'_>, number: i32) -> Result<Self> {
        if fd.as_raw_fd() == number {
            return Ok(Self { number, before: None, is_there: true });
        }
        let before = match sys::rebuild::duplicate_number(number, desk.first_own_fd) {
            Some(before) => {
                let flags = sys::rebuild::fcntl_number(sys::rebuild::placed(number), libc::F_GETFD, 0)
                    .map_err(|e| Error::kernel("F_GETFD", number, e))?;
                Some((before, flags & libc::FD_CLOEXEC != 0))
            }
            None => None,
        };
        sys::rebuild::place(fd, number, true).map_err(|e| Error::kernel("dup3", number, e))?;
        Ok(Self { number, before, is_there: false })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        if self.is_there {
            return;
        }
        // Nothing useful could be done about a failure: both calls only fail for numbers that were
        // never open.
        let _ = match &self.before {
            Some((fd, cloexec)) => sys::rebuild::place(fd.as_fd(), self.number, *cloexec),
            None => sys::rebuild::close_numbers(self.number, self.number),
        };
    }
}
