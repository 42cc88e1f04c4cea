//! Ops that replace the address space: park, unmap, map, protect.

use super::area::{Area, Region, TASK_END};
use super::assembly::Assembly;
use super::env::{TapeEnv, VdsoPart};
use super::inherited::Kept;
use super::op::{Op, Step, Want};
use super::pages;
use super::reseed::Placed;
use super::sequence::Sequence;
use super::vacancy::{self, Unplaceable};
use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::{BackingV1, LockFutureV1, MmV1, PAGE_BYTES, PageRunV1, VmaV1};

const MREMAP_MOVE_TO: u64 = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as u64;
const WRITABLE: u8 = (libc::PROT_READ | libc::PROT_WRITE) as u8;
const MAP_DROPPABLE: i32 = 0x08;
const MADV_WIPEONFORK: u64 = 18;
/// Since Linux 6.13.
const MADV_GUARD_INSTALL: u64 = 102;
/// Since Linux 6.10.
const SYS_MSEAL: i64 = 462;

/// What of the memory is there already, and what is added to it.
#[derive(Debug)]
pub struct MemoryPlan<'a> {
    pub kept: Kept,
    pub reseed: Option<Placed<'a>>,
}

/// Moves vDSO parts out of the way and unmaps all but the area and what is kept. `parking` is
/// page-aligned room in the drop region.
pub fn unmap_ops(asm: &Assembly<'_>, kept: &Kept, parking: u64) -> Result<Sequence> {
    let (env, process, area) = (asm.env, asm.process, &asm.area);
    let mut seq = Sequence::default();
    let mut places = Vec::new();
    let mut at = parking;
    for part in &env.now.vdso_parts {
        let len = part.end - part.start;
        seq.push(Op::syscall(
            Step::ParkVdso,
            libc::SYS_mremap,
            &[part.start, len, len, MREMAP_MOVE_TO, at],
            Want::Exactly(at as i64),
        ));
        places.push((part.backing, at, len));
        at += len;
    }
    let whole = area.range();
    let unmap = |start: u64, end: u64| {
        Op::syscall(Step::UnmapOld, libc::SYS_munmap, &[start, end - start], Want::Exactly(0))
    };
    let mut staying: Vec<(u64, u64)> = kept.pieces.iter().map(|piece| (piece.start, piece.end)).collect();
    staying.push((whole.start, whole.end));
    staying.sort_unstable();
    let mut from = 0;
    for (start, end) in staying.into_iter().chain([(TASK_END, TASK_END)]) {
        if from < start {
            seq.push(unmap(from, start));
        }
        from = end;
    }
    for vma in &process.mm.vmas {
        let wanted = match vma.backing {
            BackingV1::Vdso => VdsoPart::Code,
            BackingV1::Vvar { part } => VdsoPart::Data(part),
            _ => continue,
        };
        let found = places.iter().find(|(part, _, len)| *part == wanted && *len == vma.len_bytes());
        let Some((_, from, len)) = found else {
            return Err(Error::stale(
                ReasonCode::KernelChanged,
                format!("vDSO area at {} has another shape on this kernel", vma.start),
            ));
        };
        seq.push(Op::syscall(
            Step::MoveVdso,
            libc::SYS_mremap,
            &[*from, *len, *len, MREMAP_MOVE_TO, vma.start.0],
            Want::Exactly(vma.start.0 as i64),
        ));
    }
    Ok(seq)
}

/// Which VMAs receive pages from the image.
fn receives_pages(mm: &MmV1, loads: &[PageRunV1]) -> Vec<bool> {
    let mut out = vec![false; mm.vmas.len()];
    let mut index = 0;
    for run in loads {
        let (start, end) = (run.addr.0, run.addr.0 + u64::from(run.pages) * PAGE_BYTES);
        while index < mm.vmas.len() && mm.vmas[index].end.0 <= start {
            index += 1;
        }
        let mut covered = index;
        while covered < mm.vmas.len() && mm.vmas[covered].start.0 < end {
            out[covered] = true;
            covered += 1;
        }
    }
    out
}

/// Maps `start..end` of an area.
fn map_op(env: &TapeEnv<'_>, vma: &VmaV1, start: u64, end: u64, prot: u64) -> Result<Option<Op>> {
    if let BackingV1::Inode { inode, may_write, .. } = vma.backing
        && let Some(segment) = env.objects.segment(inode)
    {
        let how =
            if may_write { 0 } else { libc::SHM_RDONLY } | if prot & 4 != 0 { libc::SHM_EXEC } else { 0 };
        let args = [segment as u64, start, how as u64];
        return Ok(Some(Op::syscall(Step::Map, libc::SYS_shmat, &args, Want::Exactly(start as i64))));
    }
    let mut flags = libc::MAP_FIXED_NOREPLACE;
    let (fd, offset) = match &vma.backing {
        BackingV1::Vdso | BackingV1::Vvar { .. } => return Ok(None),
        // There already.
        BackingV1::Inode { inode, .. } if env.objects.is_unplaceable(*inode) => return Ok(None),
        BackingV1::Anon => {
            flags |= libc::MAP_ANONYMOUS;
            flags |= if vma.flags.droppable { MAP_DROPPABLE } else { libc::MAP_PRIVATE };
            (-1, 0)
        }
        BackingV1::Inode { inode, offset, may_write } => {
            flags |= if vma.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
            (env.objects.mapped_fd(*inode, vma.shared && *may_write)?, *offset + (start - vma.start.0))
        }
    };
    if vma.flags.grows_down {
        flags |= libc::MAP_GROWSDOWN;
    }
    if vma.flags.no_reserve && !vma.flags.droppable {
        flags |= libc::MAP_NORESERVE;
    }
    let args = [start, end - start, prot, flags as u64, fd as i64 as u64, offset];
    Ok(Some(Op::syscall(Step::Map, libc::SYS_mmap, &args, Want::Exactly(start as i64))))
}

/// Maps every VMA, loads pages, sets protection and advice.
pub fn map_ops(asm: &mut Assembly<'_>, plan: &MemoryPlan<'_>) -> Result<Sequence> {
    let kept = &plan.kept;
    let mut seq = unplaceable_ops(asm, kept)?;
    let (env, mm) = (asm.env, &asm.process.mm);
    let loaded = receives_pages(mm, &kept.loads);
    let mut now = Vec::with_capacity(mm.vmas.len());
    for (vma, loads) in mm.vmas.iter().zip(&loaded) {
        let pieces = kept.inside(vma);
        // Parts of one area are mapped alike, so that they become one again.
        let prot = match pieces.first() {
            Some(piece) => piece.prot,
            None if *loads => vma.prot | WRITABLE,
            None => prot_as_mapped(env, vma),
        };
        now.push(prot);
        let mut from = vma.start.0;
        for (start, end) in
            pieces.iter().map(|piece| (piece.start, piece.end)).chain([(vma.end.0, vma.end.0)])
        {
            if from < start
                && let Some(op) = map_op(env, vma, from, start, u64::from(prot))?
            {
                seq.push(op);
            }
            from = end;
        }
        // Decides how faults allocate, so it comes before the pages.
        for (set, advice) in
            [(vma.flags.huge_page, libc::MADV_HUGEPAGE), (vma.flags.no_huge_page, libc::MADV_NOHUGEPAGE)]
        {
            if set {
                seq.push(advise(vma, advice as u64));
            }
        }
    }
    for drop in &kept.drops {
        let args = [drop.start, drop.end - drop.start, libc::MADV_DONTNEED as u64];
        seq.push(Op::syscall(Step::Advise, libc::SYS_madvise, &args, Want::Exactly(0)));
    }
    pages::ops(asm, &kept.loads, &mut seq)?;
    let area = &mut asm.area;
    if let Some(reseed) = &plan.reseed {
        seq.append(reseed.ops(area)?);
    }
    for (vma, prot) in mm.vmas.iter().zip(now) {
        // Pieces of several inherited areas may differ among themselves.
        let mixed = kept.inside(vma).iter().any(|piece| piece.prot != prot);
        after_load(area, mm, vma, mixed || prot != vma.prot, &mut seq)?;
    }
    Ok(seq)
}

/// What is mapped while nothing else is.
fn unplaceable_ops(asm: &Assembly<'_>, kept: &Kept) -> Result<Sequence> {
    let (env, process, area) = (asm.env, asm.process, &asm.area);
    let mut wanted = Vec::new();
    let mut taken = vec![area.range()];
    taken.extend(kept.pieces.iter().map(|piece| piece.start..piece.end));
    for vma in &process.mm.vmas {
        match vma.backing {
            BackingV1::Vdso | BackingV1::Vvar { .. } => taken.push(vma.start.0..vma.end.0),
            BackingV1::Inode { inode, offset, may_write } if env.objects.is_unplaceable(inode) => {
                let fd = env.objects.mapped_fd(inode, vma.shared && may_write)?;
                let (start, end) = (vma.start.0, vma.end.0);
                wanted.push(Unplaceable { start, end, prot: u64::from(vma.prot), fd, offset });
            }
            _ => {}
        }
    }
    Ok(if wanted.is_empty() { Sequence::default() } else { vacancy::fill_ops(&taken, &wanted) })
}

/// shmat(2) knows only two protections.
fn prot_as_mapped(env: &TapeEnv<'_>, vma: &VmaV1) -> u8 {
    match vma.backing {
        BackingV1::Inode { inode, may_write, .. } if env.objects.segment(inode).is_some() => {
            vma.prot & libc::PROT_EXEC as u8 | if may_write { WRITABLE } else { libc::PROT_READ as u8 }
        }
        _ => vma.prot,
    }
}

fn advise(vma: &VmaV1, advice: u64) -> Op {
    Op::syscall(Step::Advise, libc::SYS_madvise, &[vma.start.0, vma.len_bytes(), advice], Want::Exactly(0))
}

fn after_load(area: &mut Area, mm: &MmV1, vma: &VmaV1, protect: bool, seq: &mut Sequence) -> Result<()> {
    if matches!(vma.backing, BackingV1::Vdso | BackingV1::Vvar { .. }) {
        return Ok(());
    }
    let (start, len) = (vma.start.0, vma.len_bytes());
    if protect {
        let args = [start, len, u64::from(vma.prot)];
        seq.push(Op::syscall(Step::Protect, libc::SYS_mprotect, &args, Want::Exactly(0)));
    }
    for (set, advice) in [
        (vma.flags.sequential, libc::MADV_SEQUENTIAL as u64),
        (vma.flags.random, libc::MADV_RANDOM as u64),
        (vma.flags.dont_fork, libc::MADV_DONTFORK as u64),
        (vma.flags.dont_dump && !vma.flags.droppable, libc::MADV_DONTDUMP as u64),
        (vma.flags.wipe_on_fork && !vma.flags.droppable, MADV_WIPEONFORK),
        (vma.flags.mergeable, libc::MADV_MERGEABLE as u64),
    ] {
        if set {
            seq.push(advise(vma, advice));
        }
    }
    // Not allowed in locked memory.
    let first = mm.guards.partition_point(|guard| guard.end <= vma.start);
    for guard in mm.guards[first..].iter().take_while(|guard| guard.start < vma.end) {
        let (from, to) = (guard.start.0.max(start), guard.end.0.min(vma.end.0));
        let args = [from, to - from, MADV_GUARD_INSTALL];
        seq.push(Op::syscall(Step::Guard, libc::SYS_madvise, &args, Want::Exactly(0)));
    }
    if vma.flags.locked {
        let on_fault = u64::from(vma.flags.lock_on_fault);
        // The attribute is set first; what cannot be brought in afterwards is an error even so.
        let has_guards = mm.guards.get(first).is_some_and(|guard| guard.start < vma.end);
        let empty = on_fault == 0 && (vma.prot == 0 || has_guards);
        let want = if empty { -i64::from(libc::ENOMEM) } else { 0 };
        seq.push(Op::syscall(Step::Lock, libc::SYS_mlock2, &[start, len, on_fault], Want::Exactly(want)));
    }
    if let Some(name) = &vma.name {
        let mut bytes = name.clone();
        bytes.push(0);
        let at = area.put(Region::Drop, &bytes, 1)?;
        let args = [libc::PR_SET_VMA as u64, libc::PR_SET_VMA_ANON_NAME as u64, start, len, at];
        seq.push(Op::syscall(Step::NameMemory, libc::SYS_prctl, &args, Want::Exactly(0)));
    }
    if vma.flags.sealed {
        seq.push(Op::syscall(Step::Seal, SYS_MSEAL, &[start, len, 0], Want::Exactly(0)));
    }
    Ok(())
}

/// What holds for all memory, that which is mapped later too.
pub fn future_ops(mm: &MmV1) -> Sequence {
    const PR_SET_MEMORY_MERGE: u64 = 67;
    const MCL_ONFAULT: i32 = 4;
    let mut seq = Sequence::default();
    let ok = Want::Exactly(0);
    let how = match mm.lock_future {
        LockFutureV1::No => None,
        LockFutureV1::AtOnce => Some(libc::MCL_FUTURE),
        LockFutureV1::OnFault => Some(libc::MCL_FUTURE | MCL_ONFAULT),
    };
    seq.extend(how.map(|how| Op::syscall(Step::LockFuture, libc::SYS_mlockall, &[how as u64], ok)));
    if mm.merge_all {
        let args = [PR_SET_MEMORY_MERGE, 1, 0, 0, 0];
        seq.push(Op::syscall(Step::MergeMemory, libc::SYS_prctl, &args, ok));
        // It holds for what is there as well, whatever was taken out since.
        let private = mm.vmas.iter().filter(|vma| vma.backing == BackingV1::Anon && !vma.flags.droppable);
        seq.extend(
            private.filter(|vma| !vma.flags.mergeable).map(|vma| advise(vma, libc::MADV_UNMERGEABLE as u64)),
        );
    }
    seq
}

/// `PR_SET_MM_MAP`: layout, auxiliary vector and executable link (prctl(2), since Linux 3.18).
pub fn layout_op(asm: &mut Assembly<'_>) -> Result<Op> {
    let (env, mm, area) = (asm.env, &asm.process.mm, &mut asm.area);
    let auxv = area.put(Region::Drop, &mm.auxv, 8)?;
    let l = &mm.layout;
    let mut bytes = Vec::with_capacity(104);
    for addr in [
        l.start_code,
        l.end_code,
        l.start_data,
        l.end_data,
        l.start_brk,
        l.brk,
        l.start_stack,
        l.arg_start,
        l.arg_end,
        l.env_start,
        l.env_end,
    ] {
        bytes.extend_from_slice(&addr.0.to_ne_bytes());
    }
    bytes.extend_from_slice(&auxv.to_ne_bytes());
    bytes.extend_from_slice(&(mm.auxv.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(&env.fds.exe.to_ne_bytes());
    let at = area.put(Region::Drop, &bytes, 8)?;
    let args = [libc::PR_SET_MM as u64, libc::PR_SET_MM_MAP as u64, at, bytes.len() as u64, 0];
    Ok(Op::syscall(Step::SetMm, libc::SYS_prctl, &args, Want::Exactly(0)))
}
