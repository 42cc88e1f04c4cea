//! Mapping at recorded addresses what the kernel maps where it likes.
//!
//! Since Linux 6.5 an io_uring can be mapped neither at an address nor moved to one. So everything
//! else is taken by memory that nobody may touch, the kernel has one place left, and then all of
//! that is unmapped again.

use super::area::TASK_END;
use super::op::{Op, Step, Want};
use super::sequence::Sequence;
use std::ops::Range;

/// Below this nobody without privilege may map (`vm.mmap_min_addr`).
const LOWEST: u64 = 0x1_0000;
/// Keeps the kernel from what lies below [`LOWEST`] (since Linux 6.6).
const MAP_ABOVE4G: i32 = 0x80;

/// A mapping whose place is known and cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplaceable {
    pub start: u64,
    pub end: u64,
    pub prot: u64,
    pub fd: i32,
    pub offset: u64,
}

/// Ops that map all of `wanted` while there is nothing but `taken`.
pub fn fill_ops(taken: &[Range<u64>], wanted: &[Unplaceable]) -> Sequence {
    let mut seq = Sequence::default();
    let places = wanted.iter().map(|place| place.start..place.end);
    let gaps = gaps(taken.iter().cloned().chain(places).collect());
    seq.extend(gaps.iter().map(block));
    // Each in its turn is the only place left.
    seq.extend(wanted.iter().skip(1).map(|place| block(&(place.start..place.end))));
    for (index, place) in wanted.iter().enumerate() {
        if index > 0 {
            seq.push(unblock(&(place.start..place.end)));
        }
        let flags = libc::MAP_SHARED | MAP_ABOVE4G;
        let args =
            [0, place.end - place.start, place.prot, flags as u64, place.fd as i64 as u64, place.offset];
        seq.push(Op::syscall(Step::Map, libc::SYS_mmap, &args, Want::Exactly(place.start as i64)));
    }
    seq.extend(gaps.iter().map(unblock));
    seq
}

fn block(range: &Range<u64>) -> Op {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let args = [range.start, range.end - range.start, 0, flags as u64, -1i64 as u64, 0];
    Op::syscall(Step::Map, libc::SYS_mmap, &args, Want::Exactly(range.start as i64))
}

fn unblock(range: &Range<u64>) -> Op {
    let args = [range.start, range.end - range.start];
    Op::syscall(Step::Map, libc::SYS_munmap, &args, Want::Exactly(0))
}

/// What lies between ranges.
fn gaps(mut taken: Vec<Range<u64>>) -> Vec<Range<u64>> {
    taken.push(TASK_END..TASK_END);
    taken.sort_unstable_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut from = LOWEST;
    for range in taken {
        if from < range.start {
            gaps.push(from..range.start.min(TASK_END));
        }
        from = from.max(range.end);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_all_that_is_not_taken() {
        let taken = vec![0x40_0000..0x50_0000, 0x30_0000..0x40_0000, 0x7000_0000..0x7100_0000];
        let expected = [LOWEST..0x30_0000, 0x50_0000..0x7000_0000, 0x7100_0000..TASK_END];
        assert_eq!(gaps(taken), expected);
        assert_eq!(gaps(vec![0x1000..0x2000, LOWEST..0x2_0000]), vec![0x2_0000..TASK_END]);
    }
}
