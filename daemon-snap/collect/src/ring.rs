//! io_uring rings at rest.
//!
//! The kernel tells its counters in `fdinfo`, and everything else that counts lies in memory that
//! it shares. What a ring was set up with it does not tell. That is found out by asking, by looking
//! at what requests and completions have left behind in the ring, and by comparing with a ring of
//! the same size. Not found out, and so not carried: IORING_SETUP_IOPOLL, IORING_SETUP_SUBMIT_ALL,
//! IORING_SETUP_COOP_TASKRUN (completions then come earlier than the daemon asked for), limits and
//! affinity of the kernel's workers, a group of provided buffers or credentials that no request has
//! used lately (before Linux 6.15 credentials are told).

use super::description::Description;
use super::object::Object;
use crate::blockers::failed;
use nix::errno::Errno;
use snap_error::obstacle::RingObstacle;
use snap_error::{Blocker, Part, Result};
use snap_state::{Pid, RingV1, TargetFd};
use snap_sys::inject::Injector;
use snap_sys::pidfd;
use snap_sys::proc::{FdInfo, RingInfo};
use snap_sys::ring::{self, Params};
use std::os::fd::{AsFd as _, BorrowedFd};

/// The name of its descriptors and mappings.
pub(crate) const LINK: &[u8] = b"anon_inode:[io_uring]";
/// As many turns take a quarter of a second to repeat.
const MOST_TURNS: u32 = 1 << 22;
/// IOSQE_BUFFER_SELECT, IOSQE_CQE_SKIP_SUCCESS
const UNEVEN_REQUEST: u8 = 1 << 5 | 1 << 6;
/// IORING_CQE_F_BUFFER, IORING_CQE_F_MORE
const UNEVEN_COMPLETION: u32 = 1 | 1 << 1;

/// It has memory, but no pages of a file.
impl Object for RingV1 {
    fn has_pages(&self) -> bool {
        false
    }
}

/// A ring, or why it cannot be carried.
pub(super) fn collect(
    file: &Description,
    fd: BorrowedFd<'_>,
    info: &FdInfo,
) -> Result<std::result::Result<RingV1, RingObstacle>> {
    let Some(info) = info.ring() else { return Ok(Err(RingObstacle::Untold)) };
    if let Some(obstacle) = inspect(&info).or_else(|| inspect_answers(fd)) {
        return Ok(Err(obstacle));
    }
    // One of the same size tells what lies where.
    let alike = |flags| {
        let setup = ring::setup(info.sq_mask + 1, info.cq_mask + 1, ring::SETUP_CQSIZE | flags);
        setup.map(|(_, params)| params)
    };
    let with_array = alike(0).map_err(failed("io_uring_setup", file.pid, file.fd))?;
    let queues = |params: Params| {
        let bytes = ring::read_area(fd, ring::OFF_QUEUES, params.queues_bytes()).ok()?;
        Some((params, bytes))
    };
    // Who has an array fills it; an empty one stands in the same place as none.
    let has_array = |(params, bytes): &(Params, Vec<u8>)| array(bytes, params).iter().any(|byte| *byte != 0);
    let found = match alike(ring::SETUP_NO_SQARRAY) {
        Ok(without) => queues(with_array).filter(has_array).or_else(|| queues(without)),
        Err(_) => queues(with_array),
    };
    let requests = ring::read_area(fd, ring::OFF_REQUESTS, with_array.requests_bytes());
    let (Some((params, queues)), Ok(requests)) = (found, requests) else {
        return Ok(Err(RingObstacle::SizeDiffers));
    };
    if let Some(obstacle) = inspect_areas(&info, &params, &queues, &requests) {
        return Ok(Err(obstacle));
    }
    Ok(Ok(RingV1 {
        sq_entries: params.sq_entries,
        cq_entries: params.cq_entries,
        no_array: params.flags & ring::SETUP_NO_SQARRAY != 0,
        turns: info.cached_sq_head,
        queues,
        requests,
    }))
}

/// Numbers under which a thread has registered rings (IORING_REGISTER_RING_FDS, since Linux 5.18),
/// with a descriptor of each.
///
/// Which ring a number means is found out by marking the rings in turn: one that has an event
/// descriptor does not take another.
///
/// # Errors
/// [`Error::Refused`] when it is none of `rings`.
pub(super) fn collect_numbers(
    (pid, tid): (Pid, Pid),
    injector: &mut Injector,
    rings: &[TargetFd],
) -> Result<Vec<(u32, TargetFd)>> {
    const ENTER_REGISTERED_RING: u64 = 1 << 4;
    const REGISTERED_MAX: u32 = 16;
    let mut found = Vec::new();
    for number in 0..REGISTERED_MAX {
        // Without anything to submit or to wait for, it only finds the ring or does not.
        let args = [u64::from(number), 0, 0, ENTER_REGISTERED_RING, 0, 0];
        match injector.call(libc::SYS_io_uring_enter, args) {
            // The thread has never used a ring.
            Err(Errno::EINVAL | Errno::ENOSYS) if number == 0 => break,
            Err(Errno::EBADF | Errno::EINVAL) => continue,
            _ => {}
        }
        let Some(fd) = ring_of_number((pid, number), injector, rings)? else {
            return Err(Blocker::new(pid, Part::Thread(tid), RingObstacle::NumberOfClosed { number }).into());
        };
        found.push((number, fd));
    }
    Ok(found)
}

fn ring_of_number(
    (pid, number): (Pid, u32),
    injector: &mut Injector,
    rings: &[TargetFd],
) -> Result<Option<TargetFd>> {
    for &fd in rings {
        let fail = |step| failed(step, pid, fd);
        let process = pidfd::open(pid).map_err(fail("pidfd_open"))?;
        let ring = pidfd::get_fd(process.as_fd(), fd).map_err(fail("duplicate descriptor"))?;
        // At rest nothing completes, so the mark is never told of anything.
        let mark = ring::Mark::put(ring.as_fd()).map_err(fail("mark a ring"))?;
        let answer = injector.call(libc::SYS_io_uring_register, ring::question_by_number(number));
        mark.remove().map_err(fail("unmark a ring"))?;
        if answer == Err(Errno::EBUSY) {
            return Ok(Some(fd));
        }
    }
    Ok(None)
}

fn array<'a>(queues: &'a [u8], params: &Params) -> &'a [u8] {
    queues.get(params.sq_off.array as usize..).unwrap_or_default()
}

/// What `fdinfo` tells.
fn inspect(info: &RingInfo) -> Option<RingObstacle> {
    if info.has_thread {
        Some(RingObstacle::PollingThread)
    } else if info.files > 0 {
        Some(RingObstacle::RegisteredFiles)
    } else if info.buffers > 0 {
        Some(RingObstacle::RegisteredBuffers)
    } else if info.has_personalities {
        Some(RingObstacle::RegisteredCredentials)
    } else if info.polls > 0 || info.cached_sq_head != info.cached_cq_tail {
        Some(RingObstacle::InUse)
    } else if info.overflown > 0 {
        Some(RingObstacle::Overflown)
    } else if info.cached_sq_head > MOST_TURNS {
        Some(RingObstacle::TooManyTurns { turns: info.cached_sq_head })
    } else {
        None
    }
}

/// What it answers to questions that change nothing.
fn inspect_answers(fd: BorrowedFd<'_>) -> Option<RingObstacle> {
    if ring::enter(fd, 0) == Err(Errno::EBADFD) {
        return Some(RingObstacle::NotEnabled);
    }
    match ring::answer_to_eventfd(fd) {
        Errno::EFAULT => None,
        Errno::EBUSY => Some(RingObstacle::RegisteredEventfd),
        Errno::EEXIST => Some(RingObstacle::SingleThread),
        Errno::EACCES => Some(RingObstacle::Restricted),
        errno => Some(RingObstacle::OddAnswer { errno }),
    }
}

/// What requests and completions have left behind.
fn inspect_areas(info: &RingInfo, params: &Params, queues: &[u8], requests: &[u8]) -> Option<RingObstacle> {
    let word = |at: u32| {
        let bytes = queues.get(at as usize..)?.first_chunk::<4>()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let (sq, cq) = (&params.sq_off, &params.cq_off);
    let expected = [
        (sq.ring_mask, info.sq_mask),
        (cq.ring_mask, info.cq_mask),
        (sq.head, info.cached_sq_head),
        (cq.tail, info.cached_cq_tail),
        (sq.flags, 0),
        (sq.dropped, 0),
        (cq.overflow, 0),
    ];
    if expected.iter().any(|(at, value)| word(*at) != Some(*value)) {
        return Some(RingObstacle::Layout);
    }
    const FLAGS_AT: usize = 1;
    const PERSONALITY_AT: usize = 42;
    let has_personality = |request: &[u8]| request[PERSONALITY_AT..PERSONALITY_AT + 2] != [0, 0];
    if requests.chunks_exact(ring::REQUEST_BYTES as usize).any(has_personality) {
        return Some(RingObstacle::RegisteredCredentials);
    }
    let uneven_request = |request: &[u8]| request[FLAGS_AT] & UNEVEN_REQUEST != 0;
    let completions = queues.get(cq.cqes as usize..).unwrap_or_default();
    let completions =
        completions.chunks_exact(ring::COMPLETION_BYTES as usize).take(params.cq_entries as usize);
    let uneven_completion = |completion: &[u8]| {
        let flags = completion.last_chunk::<4>().map(|flags| u32::from_ne_bytes(*flags));
        flags.is_some_and(|flags| flags & UNEVEN_COMPLETION != 0)
    };
    let mut requests = requests.chunks_exact(ring::REQUEST_BYTES as usize);
    (requests.any(uneven_request) || completions.into_iter().any(uneven_completion))
        .then_some(RingObstacle::UnevenRequests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> RingInfo {
        RingInfo { sq_mask: 7, cq_mask: 15, ..RingInfo::default() }
    }

    #[test]
    fn a_ring_at_rest_has_answered_everything() {
        assert_eq!(inspect(&info()), None);
        let rest = RingInfo { cached_sq_head: 9, cached_cq_tail: 9, ..info() };
        assert_eq!(inspect(&rest), None);
        for busy in [RingInfo { cached_cq_tail: 8, ..rest }, RingInfo { polls: 1, ..rest }] {
            assert_eq!(inspect(&busy), Some(RingObstacle::InUse));
        }
    }

    #[test]
    fn what_completes_unevenly_is_seen() {
        let (fd, params) = ring::setup(8, 16, 0).unwrap();
        let queues = ring::read_area(fd.as_fd(), ring::OFF_QUEUES, params.queues_bytes()).unwrap();
        let mut requests = vec![0; params.requests_bytes() as usize];
        assert_eq!(inspect_areas(&info(), &params, &queues, &requests), None);
        requests[64 + 1] = 1 << 6;
        assert!(inspect_areas(&info(), &params, &queues, &requests).is_some());
        requests[64 + 1] = 0;
        let mut more = queues.clone();
        more[params.cq_off.cqes as usize + 3 * 16 + 12] = 2;
        assert!(inspect_areas(&info(), &params, &more, &requests).is_some());
        let mut dropped = queues;
        dropped[params.sq_off.dropped as usize] = 1;
        assert!(inspect_areas(&info(), &params, &dropped, &requests).is_some());
    }
}
