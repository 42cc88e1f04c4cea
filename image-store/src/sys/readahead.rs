//! Pulling a range of a file into the page cache, with as many requests under way as the device
//! takes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

use io_uring::{IoUring, opcode, types};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// One request. The kernel cuts a longer one to the larger of the device's read-ahead window and
/// its longest transfer, silently; 128 KiB is the default and smallest of these.
const STEP_LEN: u64 = 128 << 10;
const QUEUE_DEPTH: u32 = 64;

/// Start reading `range` of `file` into the page cache; returns when all requests have been handed
/// over.
pub(crate) fn readahead(file: &File, range: Range<u64>) -> io::Result<()> {
    match readahead_uring(file, range.clone()) {
        Ok(()) => Ok(()),
        // io_uring may be disabled (sysctl, seccomp) or lack the operation: the plain call does the
        // same, one by one.
        Err(_) => readahead_plain(file, range),
    }
}

fn steps(range: Range<u64>) -> impl Iterator<Item = (u64, u32)> {
    let end = range.end;
    let len_at = move |offset: u64| (end - offset).min(STEP_LEN) as u32;
    range.step_by(STEP_LEN as usize).map(move |offset| (offset, len_at(offset)))
}

fn readahead_uring(file: &File, range: Range<u64>) -> io::Result<()> {
    let mut ring = IoUring::new(QUEUE_DEPTH)?;
    let mut steps = steps(range).peekable();
    let mut under_way = 0u32;
    let mut first_error = None;
    while under_way > 0 || (steps.peek().is_some() && first_error.is_none()) {
        while under_way < QUEUE_DEPTH && first_error.is_none() {
            let Some((offset, len)) = steps.next() else { break };
            let advise =
                opcode::Fadvise::new(types::Fd(file.as_raw_fd()), len.into(), libc::POSIX_FADV_WILLNEED)
                    .offset(offset)
                    .build();
            // SAFETY: the operation refers to no memory of ours. Its descriptor is open when it is
            // submitted, because `file` is borrowed until this function returns; from then on the
            // kernel holds the file itself.
            let pushed = unsafe { ring.submission().push(&advise) };
            if pushed.is_err() {
                first_error = Some(io::Error::from_raw_os_error(libc::EBUSY));
                break;
            }
            under_way += 1;
        }
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Dropping the ring waits for, or cancels, what the kernel has taken.
            Err(error) => return Err(error),
        }
        for completion in ring.completion() {
            under_way -= 1;
            if completion.result() < 0 {
                first_error.get_or_insert(io::Error::from_raw_os_error(-completion.result()));
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn readahead_plain(file: &File, range: Range<u64>) -> io::Result<()> {
    for (offset, len) in steps(range) {
        posix_fadvise(file, offset as i64, len.into(), PosixFadviseAdvice::POSIX_FADV_WILLNEED)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_the_range_without_overlap() {
        let mut next = 4096;
        for (offset, len) in steps(4096..4096 + 3 * STEP_LEN + 8192) {
            assert_eq!(offset, next);
            next += u64::from(len);
        }
        assert_eq!(next, 4096 + 3 * STEP_LEN + 8192);
        assert_eq!(steps(10..10).count(), 0);
    }

    #[test]
    fn both_ways_accept_a_real_file() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        readahead_plain(&file, 0..1 << 20).unwrap();
        readahead(&file, 4096..1 << 20).unwrap();
    }
}
