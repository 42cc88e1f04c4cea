//! Ops that fill mapped memory with pages of the image.

use super::area::{Area, Region};
use super::assembly::Assembly;
use super::env::TapeEnv;
use super::inherited::{part_of, split};
use super::op::{Op, Record, RecordKind, Step, Want};
use super::sequence::Sequence;
use snap_error::Result;
use snap_state::{Addr, PAGE_BYTES, PageRunV1};
use snap_sys::uffd;
use std::ops::Range;

/// Since Linux 5.14.
const MADV_POPULATE_WRITE: u64 = 23;
/// `IOV_MAX`.
const MAX_VECTORS: usize = 1024;
const IOVEC_BYTES: u64 = 16;

/// Largest read of one request. Small enough to keep a device queue full, large enough that
/// requests cost nothing.
const CHUNK_BYTES: u64 = 2 << 20;

/// What is read at a time to be copied: it is still in the processor's second-level cache then.
const COPIED_BYTES: u64 = 256 << 10;

/// From this length on it pays to ask for the pages before they are read into: one call instead of
/// a fault a page.
const POPULATE_BYTES: u64 = 16 * PAGE_BYTES;

/// Consecutive bytes of the image and the places they go to.
#[derive(Debug)]
pub struct Chunk {
    pub image_offset: u64,
    pub len_bytes: u64,
    /// Address and length; at most IOV_MAX.
    pub vectors: Vec<(u64, u64)>,
}

/// Cuts page runs into reads that are consecutive in the image.
pub fn chunks(runs: &[PageRunV1], chunk_bytes: u64) -> Vec<Chunk> {
    let mut out: Vec<Chunk> = Vec::new();
    for run in runs {
        let (mut addr, mut offset) = (run.addr.0, run.image_offset);
        let mut left = u64::from(run.pages) * PAGE_BYTES;
        while left > 0 {
            let fits = out.last().is_some_and(|c| {
                c.image_offset + c.len_bytes == offset
                    && c.len_bytes < chunk_bytes
                    && c.vectors.len() < MAX_VECTORS
            });
            if !fits {
                out.push(Chunk { image_offset: offset, len_bytes: 0, vectors: Vec::new() });
            }
            if let Some(chunk) = out.last_mut() {
                let take = left.min(chunk_bytes - chunk.len_bytes);
                chunk.vectors.push((addr, take));
                chunk.len_bytes += take;
                (addr, offset, left) = (addr + take, offset + take, left - take);
            }
        }
    }
    out
}

fn chunk_bytes(loads: &[PageRunV1]) -> u64 {
    let total: u64 = loads.iter().map(|r| u64::from(r.pages) * PAGE_BYTES).sum();
    CHUNK_BYTES.max((total / 8192).next_multiple_of(PAGE_BYTES))
}

/// Loads all pages, or those that this process reads itself, and waits for the others.
pub(super) fn ops(asm: &mut Assembly<'_>, loads: &[PageRunV1], seq: &mut Sequence) -> Result<()> {
    let env = asm.env;
    let fd = env.fds.pages.map(|fd| fd as u64);
    if let Some(fd) = fd {
        for range in env.now.copy_areas {
            let at = asm.area.put(Region::Drop, &uffd::Register::new(range).bytes(), 8)?;
            let args = [fd, uffd::UFFDIO_REGISTER, at];
            seq.push(Op::syscall(Step::ReadPages, libc::SYS_ioctl, &args, Want::Exactly(0)));
        }
    }
    match env.now.awaits_all_but {
        Some(common) => await_ops(asm, split(loads, common), seq)?,
        None => own_ops(env, &mut asm.area, loads, seq)?,
    }
    if let Some(fd) = fd {
        // The worker has none any more: the areas are as any others from here on.
        seq.push(Op::syscall(Step::ReadPages, libc::SYS_close, &[fd], Want::Exactly(0)));
    }
    Ok(())
}

/// What this process reads itself.
fn own_ops(env: &TapeEnv<'_>, area: &mut Area, loads: &[PageRunV1], seq: &mut Sequence) -> Result<()> {
    let Some(fd) = env.fds.pages else { return load_ops(env, area, loads, seq) };
    let (copied, read) = by_areas(loads, env.now.copy_areas);
    load_ops(env, area, &read, seq)?;
    copy_ops(env, area, (fd, &copied), seq)
}

/// Reads pages to where they belong.
fn load_ops(env: &TapeEnv<'_>, area: &mut Area, loads: &[PageRunV1], seq: &mut Sequence) -> Result<()> {
    let chunks = chunks(loads, chunk_bytes(loads));
    let mut placed = Vec::with_capacity(chunks.len());
    for chunk in &chunks {
        let mut bytes = Vec::with_capacity(chunk.vectors.len() * IOVEC_BYTES as usize);
        for (addr, len) in &chunk.vectors {
            bytes.extend_from_slice(&addr.to_ne_bytes());
            bytes.extend_from_slice(&len.to_ne_bytes());
        }
        placed.push(area.put(Region::Drop, &bytes, 8)?);
    }
    for (chunk, vectors) in chunks.iter().zip(placed) {
        // Chunk by chunk, so that what has just been zeroed is still in the processor's cache when
        // it is read into.
        seq.extend(chunk.vectors.iter().filter(|(_, len)| *len >= POPULATE_BYTES).map(populate));
        let args = [env.fds.image as u64, vectors, chunk.vectors.len() as u64, chunk.image_offset, 0];
        let want = Want::Exactly(chunk.len_bytes as i64);
        seq.push(Op::syscall(Step::ReadPages, libc::SYS_preadv, &args, want));
    }
    Ok(())
}

/// Reads pages aside and copies them into areas that are registered with the descriptor.
fn copy_ops(
    env: &TapeEnv<'_>,
    area: &mut Area,
    (fd, loads): (i32, &[PageRunV1]),
    seq: &mut Sequence,
) -> Result<()> {
    let chunks = chunks(loads, COPIED_BYTES.max(chunk_bytes(loads) / 8));
    let Some(longest) = chunks.iter().map(|chunk| chunk.len_bytes).max() else { return Ok(()) };
    let aside = area.reserve(Region::Drop, longest, PAGE_BYTES)?;
    for chunk in &chunks {
        let args = [env.fds.image as u64, aside, chunk.len_bytes, chunk.image_offset];
        let want = Want::Exactly(chunk.len_bytes as i64);
        seq.push(Op::syscall(Step::ReadPages, libc::SYS_pread64, &args, want));
        let mut from = aside;
        for (addr, len) in &chunk.vectors {
            let copy = area.put(Region::Drop, &uffd::Copy::new(Addr(*addr), from, *len).bytes(), 8)?;
            let args = [fd as u64, uffd::UFFDIO_COPY, copy];
            seq.push(Op::syscall(Step::ReadPages, libc::SYS_ioctl, &args, Want::Exactly(0)));
            from += len;
        }
    }
    Ok(())
}

/// Says that all is mapped, loads what is for this process itself, and waits until the worker has
/// written the rest. It writes while the kernel makes the pages; where it comes first, its write
/// makes them.
fn await_ops(
    asm: &mut Assembly<'_>,
    (own, awaited): (Vec<PageRunV1>, Vec<PageRunV1>),
    seq: &mut Sequence,
) -> Result<()> {
    let (env, area) = (asm.env, &mut asm.area);
    // With the number of what the worker copies with.
    let number = env.fds.pages.map_or(-1, i64::from);
    let mapped = Record::new(RecordKind::Mapped, asm.process.pid.0, number).bytes();
    let write = [env.fds.status as u64, area.put(Region::Drop, &mapped, 8)?, Record::BYTES as u64];
    seq.push(Op::syscall(Step::WaitPages, libc::SYS_write, &write, Want::Exactly(Record::BYTES as i64)));
    own_ops(env, area, &own, seq)?;
    let mut awaited = match env.fds.pages {
        Some(_) => by_areas(&awaited, env.now.copy_areas).1,
        None => awaited,
    };
    // In the order in which they come.
    awaited.sort_unstable_by_key(|run| run.image_offset);
    let areas = awaited.iter().map(|run| (run.addr.0, u64::from(run.pages) * PAGE_BYTES));
    let long: Vec<(u64, u64)> = areas.filter(|(_, len)| *len >= POPULATE_BYTES).collect();
    seq.extend(long.iter().map(populate));
    let answer = area.reserve(Region::Drop, 8, 8)?;
    let read = [env.fds.go as u64, answer, 1];
    seq.push(Op::syscall(Step::WaitPages, libc::SYS_read, &read, Want::Exactly(1)));
    Ok(())
}

/// Older kernels do not know this, and then the pages come by faults.
fn populate((addr, len): &(u64, u64)) -> Op {
    Op::syscall(Step::ReadPages, libc::SYS_madvise, &[*addr, *len, MADV_POPULATE_WRITE], Want::Anything)
}

/// Runs inside of the areas, and the rest. A run may reach over several areas.
pub fn by_areas(runs: &[PageRunV1], areas: &[Range<u64>]) -> (Vec<PageRunV1>, Vec<PageRunV1>) {
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for run in runs {
        let end = run.addr.0 + u64::from(run.pages) * PAGE_BYTES;
        let mut at = run.addr.0;
        while at < end {
            let next = areas.get(areas.partition_point(|area| area.end <= at));
            let (to, out) = match next {
                Some(area) if area.start <= at => (area.end.min(end), &mut inside),
                Some(area) => (area.start.min(end), &mut outside),
                None => (end, &mut outside),
            };
            out.push(part_of(run, at, to));
            at = to;
        }
    }
    (inside, outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_the_image_not_the_addresses() {
        let run = |addr, pages, image_offset| PageRunV1 { addr: Addr(addr), pages, image_offset };
        let runs = [run(0x1000, 2, 0x4000), run(0x9000, 1, 0x6000), run(0x20000, 1, 0x9000)];
        let cut = chunks(&runs, CHUNK_BYTES);
        assert_eq!(cut.len(), 2);
        assert_eq!(cut[0].vectors, vec![(0x1000, 0x2000), (0x9000, 0x1000)]);
        assert_eq!((cut[0].image_offset, cut[0].len_bytes), (0x4000, 0x3000));
        assert_eq!((cut[1].image_offset, cut[1].len_bytes), (0x9000, 0x1000));
    }

    #[test]
    fn long_runs_are_cut_at_the_chunk_size() {
        let runs = [PageRunV1 { addr: Addr(0x10_0000), pages: 5, image_offset: 0x1000 }];
        let cut = chunks(&runs, 2 * PAGE_BYTES);
        assert_eq!(cut.iter().map(|c| c.len_bytes).collect::<Vec<_>>(), vec![0x2000, 0x2000, 0x1000]);
        assert_eq!(cut[2].vectors, vec![(0x10_4000, 0x1000)]);
    }

    #[test]
    fn runs_are_cut_where_areas_begin_and_end() {
        let run = |addr, pages, image_offset| PageRunV1 { addr: Addr(addr), pages, image_offset };
        let areas = [0x2000..0x4000, 0x4000..0x5000, 0x8000..0x9000];
        let (inside, outside) = by_areas(&[run(0x1000, 6, 0x10000), run(0x8000, 1, 0x20000)], &areas);
        assert_eq!(inside, [run(0x2000, 2, 0x11000), run(0x4000, 1, 0x13000), run(0x8000, 1, 0x20000)]);
        assert_eq!(outside, [run(0x1000, 1, 0x10000), run(0x5000, 2, 0x14000)]);
    }
}
