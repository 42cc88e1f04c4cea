//! eventfd, timerfd, signalfd, inotify.

use super::desk::Desk;
use super::rights;
use super::trail::{self, Last};
use super::unix_name::WorkingDirectory;
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::{read, write};
use snap_error::{Error, Result};
use snap_state::{FileId, FileKindV1, InotifyWatchV1, TimerFdV1, TreeV1};
use snap_sys as sys;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const TFD_TIMER_CANCEL_ON_SET: i32 = 2;

/// eventfd(2) with its counter.
///
/// # Errors
/// As eventfd(2).
pub fn rebuild_eventfd(id: FileId, count: u64, semaphore: bool) -> Result<OwnedFd> {
    let failed = |e| Error::kernel("eventfd", id, e);
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK | if semaphore { libc::EFD_SEMAPHORE } else { 0 };
    let fd = sys::rebuild::eventfd(0, flags).map_err(failed)?;
    if count > 0 {
        write(&fd, &count.to_ne_bytes()).map_err(failed)?;
    }
    Ok(fd)
}

/// timerfd_create(2); keeps the remaining time, whatever the clock says today.
///
/// # Errors
/// As timerfd_settime(2).
pub fn rebuild_timerfd(id: FileId, timer: &TimerFdV1, realtime_ns: i64) -> Result<OwnedFd> {
    let failed = |e| Error::kernel("timerfd", id, e);
    let fd = sys::rebuild::timerfd(timer.clock_id).map_err(failed)?;
    // One that has expired and not been read stands still, but still has its interval.
    let expired = timer.remaining_ns == 0 && timer.interval_ns != 0;
    if expired {
        sys::rebuild::timerfd_set(fd.as_fd(), 0, 1, timer.interval_ns).map_err(failed)?;
        let mut wait = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
        poll(&mut wait, 1000u16).map_err(failed)?;
    } else if timer.remaining_ns != 0 {
        let can_be_set = matches!(timer.clock_id, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_ALARM);
        if can_be_set && timer.settime_flags & libc::TFD_TIMER_ABSTIME != 0 {
            // An absolute time goes along with a clock that is set, and only such a timer can be
            // cancelled by that.
            let at = (realtime_ns as u64).saturating_add(timer.remaining_ns);
            let flags = timer.settime_flags & (libc::TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
            sys::rebuild::timerfd_set(fd.as_fd(), flags, at, timer.interval_ns).map_err(failed)?;
        } else {
            sys::rebuild::timerfd_set(fd.as_fd(), 0, timer.remaining_ns, timer.interval_ns)
                .map_err(failed)?;
        }
    }
    if timer.ticks != 0 {
        sys::rebuild::timerfd_set_ticks(fd.as_fd(), timer.ticks).map_err(failed)?;
    }
    Ok(fd)
}

/// signalfd(2).
///
/// # Errors
/// As signalfd(2).
pub fn rebuild_signalfd(id: FileId, mask: u64) -> Result<OwnedFd> {
    sys::rebuild::signalfd(mask).map_err(|e| Error::kernel("signalfd", id, e))
}

/// inotify_init(2), without watches.
///
/// # Errors
/// As inotify_init(2).
pub fn rebuild_inotify(id: FileId) -> Result<OwnedFd> {
    sys::rebuild::inotify().map_err(|e| Error::kernel("inotify", id, e))
}

/// The same watches under the same numbers. We have opened and closed by now what would be seen in
/// them.
///
/// # Errors
/// `Stale`: a watched path is gone.
pub fn rebuild_watches(
    desk: &Desk,
    id: FileId,
    fd: BorrowedFd<'_>,
    watches: &[InotifyWatchV1],
) -> Result<()> {
    let failed = |e| Error::kernel("inotify", id, e);
    let mut ordered: Vec<&InotifyWatchV1> = watches.iter().collect();
    ordered.sort_by_key(|w| w.wd);
    // What a path has led to is named by our descriptor of it, below this directory.
    let _there = WorkingDirectory::enter(desk.proc.as_fd())?;
    for watch in ordered {
        sys::rebuild::inotify_set_next(fd, watch.wd).map_err(failed)?;
        let path = watch.path.as_path();
        let add = || {
            let found = trail::resolve(path, Last::Itself)?;
            sys::rebuild::inotify_add(fd, Desk::name_of(found.as_fd()).as_bytes(), watch.mask)
        };
        let got = desk.rights.act(path, add).map_err(|e| match e {
            Errno::ELOOP => rights::failed(&watch.path, e),
            Errno::ENOENT => {
                Error::stale(ReasonCode::FileMissing, format!("watched path {} is missing", watch.path))
            }
            e => Error::kernel("inotify_add_watch", &watch.path, e),
        })?;
        if got != watch.wd {
            return Err(Error::stale(
                ReasonCode::HostUnsupported,
                format!("inotify watch {} of {} got number {got}", watch.wd, watch.path),
            ));
        }
    }
    Ok(())
}

/// Takes out what the restore itself has done to watched files. The daemon runs only afterwards.
///
/// # Errors
/// Nobody made the descriptors: a defect.
pub fn empty_inotify(desk: &Desk, tree: &TreeV1) -> Result<()> {
    for file in tree.files.iter().filter(|file| matches!(file.kind, FileKindV1::Inotify(_))) {
        let fd = desk.file(file.id)?;
        let mut buffer = [0; 4096];
        while sys::fdquery::unread_bytes(fd).is_ok_and(|bytes| bytes > 0)
            && matches!(read(fd, &mut buffer), Ok(n) if n > 0)
        {}
    }
    Ok(())
}
