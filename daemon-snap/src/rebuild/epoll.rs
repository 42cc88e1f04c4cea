//! Epoll sets. Watches are keyed by description *and* number, so each is added under its recorded number.

use super::desk::Desk;
use crate::error::{Error, Result};
use crate::state::{EpollWatchV1, FileKindV1, TreeV1};
use crate::sys;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use std::collections::BTreeMap;
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
    // Number, then target: each pair is placed once for all sets that watch it.
    let mut by_place: BTreeMap<(i32, u32), Vec<(crate::state::FileId, EpollWatchV1)>> = BTreeMap::new();
    for file in &tree.files {
        if let FileKindV1::Epoll { watches } = &file.kind {
            // What only its process can open is added by that process.
            for watch in
                watches.iter().filter(|watch| super::kernel_file::own_path(tree, watch.file).is_none())
            {
                by_place.entry((watch.fd.0, watch.file.0)).or_default().push((file.id, *watch));
            }
        }
    }
    for ((number, _), watches) in by_place {
        let target = desk.file(watches[0].1.file)?;
        let _placed = Placed::at(desk, target, number)?;
        for (set, watch) in watches {
            sys::rebuild::epoll_add(desk.file(set)?, number, watch.events, watch.data).map_err(|e| {
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
