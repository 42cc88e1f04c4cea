//! Epoll sets. Watches are keyed by description *and* number, so each is added under its recorded number.

use super::desk::Desk;
use crate::error::{Error, Result};
use crate::state::{EpollWatchV1, FdV1, FileId, FileKindV1, FileV1, ProcessV1, TargetFd, TreeV1};
use crate::sys;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Makes the empty sets; they may be watched themselves.
///
/// # Errors
/// epoll_create1(2).
pub fn rebuild_epolls(desk: &mut Desk, tree: &TreeV1) -> Result<()> {
    for file in tree.files.iter().filter(|f| matches!(f.kind, FileKindV1::Epoll { .. })) {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|e| Error::kernel("epoll_create1", file.id, e))?;
        super::files::set_status_flags(&epoll.0, file)?;
        desk.put_file(file.id, epoll.0)?;
    }
    Ok(())
}

/// Adds the watches. Uses recorded numbers of this process for a moment: none of ours may lie there.
///
/// # Errors
/// epoll_ctl(2).
pub fn rebuild_watches(desk: &Desk, tree: &TreeV1) -> Result<()> {
    let (spent, live): (Vec<_>, Vec<_>) = all_watches(tree).partition(|(_, watch)| watch.is_spent());
    let armed = |watch: &EpollWatchV1| EpollWatchV1 { events: watch.events | SPEND, ..*watch };
    for_each(desk, spent.iter().map(|(set, watch)| (*set, armed(watch))), sys::rebuild::epoll_add)?;
    // Nothing else is in the sets yet whose event could be taken instead.
    let mut left = spent;
    for set in left.iter().map(|(set, _)| *set).collect::<BTreeSet<_>>() {
        let taken = sys::rebuild::epoll_take(desk.file(set)?);
        let taken = taken.map_err(|e| Error::kernel("epoll_wait", set, e))?;
        left.retain(|(of, watch)| *of != set || !taken.contains(&watch.data));
    }
    // Not ready: armed after all, for errors and hang-ups.
    for_each(desk, left.into_iter().map(|(set, watch)| (set, *watch)), sys::rebuild::epoll_modify)?;
    for_each(desk, live.into_iter().map(|(set, watch)| (set, *watch)), sys::rebuild::epoll_add)
}

/// Whatever can happen to a descriptor that is ready at all, once. The kernel adds errors and hang-ups to whatever is asked for, so a
/// watch that is spent can only be made by letting it have an event.
const SPEND: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLONESHOT) as u32;

/// Watches with their sets; what only its process can open is added by that process.
fn all_watches<'a>(tree: &'a TreeV1) -> impl Iterator<Item = (FileId, &'a EpollWatchV1)> {
    let of_file = |file: &'a FileV1| match &file.kind {
        FileKindV1::Epoll { watches } => Some((file.id, watches.iter())),
        _ => None,
    };
    let all =
        tree.files.iter().filter_map(of_file).flat_map(|(set, watches)| watches.map(move |one| (set, one)));
    all.filter(|(set, watch)| {
        super::kernel_file::own_path(tree, watch.file).is_none()
            && adder(tree, *set, watch).is_none()
            && !super::pidfd::is_late(tree, watch.file)
    })
}

/// The process that has to add a watch itself. A signalfd tells of the signals of whoever adds it (signalfd(2), "epoll(7) semantics").
fn adder<'a>(tree: &'a TreeV1, set: FileId, watch: &EpollWatchV1) -> Option<(&'a ProcessV1, TargetFd)> {
    let kind = tree.files.get(watch.file.0 as usize).map(|file| &file.kind);
    if !matches!(kind, Some(FileKindV1::SignalFd { .. })) {
        return None;
    }
    // Of several that share the set, the one that is the parent of the others.
    tree.processes.iter().find_map(|process| {
        let has = |entry: &&FdV1| entry.fd == watch.fd && entry.file == watch.file;
        process.fds.iter().find(has)?;
        process.fds.iter().find(|entry| entry.file == set).map(|entry| (process, entry.fd))
    })
}

/// Adds the watches on descriptors of processes, which exist by now.
///
/// # Errors
/// epoll_ctl(2).
pub fn rebuild_late_watches(desk: &Desk, tree: &TreeV1) -> Result<()> {
    let of_file = |file: &FileV1| match &file.kind {
        FileKindV1::Epoll { watches } => watches.iter().map(|watch| (file.id, *watch)).collect(),
        _ => Vec::new(),
    };
    let all = tree.files.iter().flat_map(of_file);
    for_each(desk, all.filter(|(_, watch)| super::pidfd::is_late(tree, watch.file)), sys::rebuild::epoll_add)
}

/// Adds the watches that are this process's own; its descriptors are in place.
///
/// # Errors
/// epoll_ctl(2).
pub fn add_own_watches(tree: &TreeV1, process: &ProcessV1) -> Result<()> {
    for file in &tree.files {
        let FileKindV1::Epoll { watches } = &file.kind else { continue };
        for watch in watches {
            let Some((of, set)) = adder(tree, file.id, watch).filter(|(of, _)| of.pid == process.pid) else {
                continue;
            };
            sys::rebuild::epoll_add(sys::rebuild::placed(set.0), watch.fd.0, watch.events, watch.data)
                .map_err(|e| {
                    let what = format!("fd {set} of pid {} watching fd {}", of.pid, watch.fd);
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

/// A description under a recorded number for as long as this lives; what was there before comes back.
struct Placed {
    number: i32,
    before: Option<OwnedFd>,
}

impl Placed {
    fn at(desk: &Desk, fd: BorrowedFd<'_>, number: i32) -> Result<Self> {
        let before = sys::rebuild::duplicate_number(number, desk.first_own_fd);
        sys::rebuild::place(fd, number, true).map_err(|e| Error::kernel("dup3", number, e))?;
        Ok(Self { number, before })
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // Nothing useful could be done about a failure: both calls only fail for numbers that were never open.
        let _ = match &self.before {
            Some(fd) => sys::rebuild::place(fd.as_fd(), self.number, self.number > 2),
            None => sys::rebuild::close_numbers(self.number, self.number),
        };
    }
}
