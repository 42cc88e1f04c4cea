//! Epoll sets. Watches are keyed by description *and* number, so each is added under its recorded
//! number.

use super::desk::Desk;
use super::kind::{Adder, Birth, Context, Kind};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use snap_error::{Error, Result};
use snap_state::{EpollV1, EpollWatchV1, FdV1, FileId, FileKindV1, FileV1, Files, ProcessV1, TargetFd};
use snap_sys as sys;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

impl Kind for EpollV1 {
    /// An empty set; it may be watched itself.
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|e| Error::kernel("epoll_create1", file.id, e))?;
        if let Some(busy_poll) = self.busy_poll {
            sys::rebuild::set_busy_poll(set.0.as_fd(), busy_poll)
                .map_err(|e| Error::kernel("EPIOCSPARAMS", file.id, e))?;
        }
        Ok(Some(set.0))
    }

    fn watch(&self, adder: Adder<'_>, cx: &Context<'_>) -> Result<()> {
        match adder {
            Adder::Worker => add_watches(cx),
            Adder::Process(process) => add_own_watches(process, cx),
            Adder::Late => add_late_watches(cx),
        }
    }
}

fn all_watches(files: Files<'_>) -> impl Iterator<Item = (FileId, &EpollWatchV1)> {
    files.iter().flat_map(|file| file.kind.watches().iter().map(|watch| (file.id, watch)))
}

/// Adds the watches. Uses recorded numbers of this process for a moment: none of ours may lie
/// there.
fn add_watches(cx: &Context<'_>) -> Result<()> {
    let desk = cx.desk;
    let (spent, live): (Vec<_>, Vec<_>) = watches_of_worker(cx).partition(|(_, watch)| watch.is_spent());
    let armed = |watch: &EpollWatchV1| EpollWatchV1 { events: watch.events | SPEND, ..*watch };
    let roused = Roused::new(desk, cx.files, &spent)?;
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
    fn new(desk: &Desk, files: Files<'_>, spent: &[(FileId, &EpollWatchV1)]) -> Result<Self> {
        let failed = |e| Error::kernel("eventfd", "of a watched epoll set", e);
        let ready = desk.raise(sys::rebuild::eventfd(1, libc::EFD_CLOEXEC).map_err(failed)?)?;
        let is_set = |id: &FileId| matches!(files.get(*id).kind, FileKindV1::Epoll(_));
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
fn watches_of_worker<'a>(cx: &Context<'a>) -> impl Iterator<Item = (FileId, &'a EpollWatchV1)> {
    all_watches(cx.files).filter(|(set, watch)| {
        adder(*set, watch, cx).is_none() && cx.natures.birth(watch.file) != Birth::Late
    })
}

/// A watch that its process adds, and where this has set and target.
struct OwnWatch<'a> {
    process: &'a ProcessV1,
    set: TargetFd,
    target: TargetFd,
}

/// The process that has to add a watch itself: only it can open the target, or the target tells
/// whoever adds the watch about itself.
fn adder<'a>(set: FileId, watch: &EpollWatchV1, cx: &Context<'a>) -> Option<OwnWatch<'a>> {
    if !cx.natures.is_watched_by_holder(watch.file) {
        return None;
    }
    let number_of = |process: &'a ProcessV1, file| process.fds.iter().find(|e| e.file == file).map(|e| e.fd);
    let users = cx.processes.iter().filter_map(|process| {
        let (set, target) = (number_of(process, set)?, number_of(process, watch.file)?);
        Some(OwnWatch { process, set, target })
    });
    // Of several that share the set, the one that is the parent of the others; rather one that has
    // the target under the watch's number.
    let named = |entry: &FdV1| entry.fd == watch.fd && entry.file == watch.file;
    users.min_by_key(|user| !user.process.fds.iter().any(named))
}

/// Adds the watches on descriptors of processes, which exist by now.
fn add_late_watches(cx: &Context<'_>) -> Result<()> {
    let late = all_watches(cx.files).filter(|(_, watch)| cx.natures.birth(watch.file) == Birth::Late);
    for_each(cx.desk, late.map(|(set, watch)| (set, *watch)), sys::rebuild::epoll_add)
}

/// Adds the watches that are this process's own; its descriptors are in place.
fn add_own_watches(process: &ProcessV1, cx: &Context<'_>) -> Result<()> {
    for (id, watch) in all_watches(cx.files) {
        let own = adder(id, watch, cx).filter(|own| own.process.pid == process.pid);
        let Some(OwnWatch { set, target, .. }) = own else { continue };
        let (set, target) = (sys::rebuild::placed(set.0), sys::rebuild::placed(target.0));
        // Whatever the number means by now.
        let _placed = Placed::at(cx.desk, target, watch.fd.0)?;
        sys::rebuild::epoll_add(set, watch.fd.0, watch.events, watch.data).map_err(|e| {
            let what = format!("open file {id} of pid {} watching fd {}", process.pid, watch.fd);
            Error::kernel("epoll_ctl", what, e)
        })?;
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
