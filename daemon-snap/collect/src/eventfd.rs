//! eventfd(2).

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use nix::errno::Errno;
use nix::unistd::{read, write};
use snap_error::obstacle::DescriptorObstacle;
use snap_state::{EventFdV1, FileKindV1};
use snap_sys::proc::FdInfo;
use std::os::fd::BorrowedFd;

/// The counter, from fdinfo; whether it is a semaphore as well, where the kernel says so (since
/// Linux 6.5).
pub(super) fn collect(file: &Description, fd: BorrowedFd<'_>, info: &FdInfo) -> Found<FileKindV1> {
    let Some(count) = info.eventfd_count() else {
        return refused(DescriptorObstacle::EventfdUntold);
    };
    let semaphore = match info.eventfd_semaphore() {
        Some(semaphore) => semaphore,
        None => tried(fd, count).map_err(failed("try out eventfd", file.pid, file.fd))?,
    };
    Ok(FileKindV1::EventFd(EventFdV1 { count, semaphore }))
}

/// Finds out by reading from a counter of two or more, which is what it was afterwards. Whoever
/// waits for it is frozen; who is woken by this looks again and finds nothing new.
fn tried(fd: BorrowedFd<'_>, count: u64) -> Result<bool, Errno> {
    let added = 2u64.saturating_sub(count);
    if added > 0 {
        add(fd, added)?;
    }
    let taken = take(fd)?;
    let semaphore = taken == 1;
    match (taken, added) {
        (1, 0) => add(fd, 1)?,
        // One of the two that were added is left.
        (1, 2) => take(fd).map(drop)?,
        (1, _) => {}
        (all, added) if all > added => add(fd, all - added)?,
        _ => {}
    }
    Ok(semaphore)
}

fn add(fd: BorrowedFd<'_>, count: u64) -> Result<(), Errno> {
    write(fd, &count.to_ne_bytes()).map(drop)
}

fn take(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut count = [0; 8];
    read(fd, &mut count)?;
    Ok(u64::from_ne_bytes(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::{EfdFlags, EventFd};
    use std::os::fd::AsFd;

    fn count(fd: &EventFd) -> u64 {
        let text =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(fd)));
        let text = text.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("eventfd-count:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }

    #[test]
    fn a_semaphore_is_told_apart_and_no_counter_changes() {
        for value in [0, 1, 2, 3, 4096, u64::MAX - 1] {
            for flags in [EfdFlags::empty(), EfdFlags::EFD_SEMAPHORE, EfdFlags::EFD_NONBLOCK] {
                let fd = EventFd::from_value_and_flags(0, flags).unwrap();
                if value > 0 {
                    fd.write(value).unwrap();
                }
                let is_semaphore = tried(fd.as_fd(), value).unwrap();
                assert_eq!(is_semaphore, flags.contains(EfdFlags::EFD_SEMAPHORE), "{value}");
                assert_eq!(count(&fd), value, "{flags:?}");
            }
        }
    }
}
