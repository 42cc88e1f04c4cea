//! Where a thread can be made to execute a system call, with instructions that it has anyway.
//!
//! The vDSO always has a `syscall`. Better is one with a `ret` behind it, and `rt_sigreturn` as the
//! C library (or the Go runtime) keeps it for signal handlers: with a signal frame on a stack of
//! its own, a thread whose tracer dies in mid-call comes back by itself to where it was.

use super::memory::AddressSpace;
use snap_state::{Addr, BackingV1, InodeId, Pid, VmaV1};
use snap_sys::vmread;
use std::collections::HashMap;

const SYSCALL: &[u8] = &[0x0f, 0x05];
const SYSCALL_RET: &[u8] = &[0x0f, 0x05, 0xc3];
/// `mov $15, %rax; syscall` in both encodings.
const SIGRETURN: [&[u8]; 2] =
    [&[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05], &[0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05]];
/// The longest of them.
const LONGEST: usize = 9;
const PROT_READ_EXEC: u8 = 5;
const PROT_WRITE: u8 = 2;
/// Bytes read at once, and most bytes looked at in one process.
const PIECE_BYTES: usize = 256 << 10;
const MAX_BYTES: usize = 32 << 20;

/// Instructions to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gate {
    /// A `syscall` that leads anywhere afterwards.
    pub syscall: Addr,
    /// The way back when nobody steers the thread any more.
    pub safe: Option<SafeGate>,
}

/// A pair of instructions that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SafeGate {
    /// `syscall; ret`
    pub syscall_ret: Addr,
    /// `mov $SYS_rt_sigreturn, %rax; syscall`
    pub sigreturn: Addr,
}

/// Offsets in mapped files that were found already: most processes of a tree have the same C
/// library.
#[derive(Debug, Default)]
pub(super) struct Gates(HashMap<(InodeId, u64), (u64, u64)>);

impl Gates {
    /// Finds a gate; `None` when the process has no vDSO.
    pub(super) fn find(&mut self, pid: Pid, space: &AddressSpace) -> Option<Gate> {
        let vdso = space.vdso()?;
        let bytes = vmread::read(pid, vdso.start, vdso.len_bytes() as usize).ok()?;
        let syscall = Addr(vdso.start.0 + position(&bytes, SYSCALL)? as u64);
        Some(Gate { syscall, safe: self.find_safe(pid, space) })
    }

    fn find_safe(&mut self, pid: Pid, space: &AddressSpace) -> Option<SafeGate> {
        let is_code = |vma: &&VmaV1| vma.prot & (PROT_READ_EXEC | PROT_WRITE) == PROT_READ_EXEC;
        let files = space.areas.iter().map(|area| &area.vma).filter(is_code);
        let mut candidates: Vec<(&VmaV1, InodeId, u64)> = files
            .filter_map(|vma| match vma.backing {
                BackingV1::Inode { inode, offset, .. } if !vma.shared => Some((vma, inode, offset)),
                _ => None,
            })
            .collect();
        for (vma, inode, offset) in &candidates {
            if let Some((syscall_ret, sigreturn)) = self.0.get(&(*inode, *offset)) {
                let at = |offset: &u64| Addr(vma.start.0 + offset);
                let gate = SafeGate { syscall_ret: at(syscall_ret), sigreturn: at(sigreturn) };
                return is_intact(pid, gate).then_some(gate);
            }
        }
        // A C library is neither the smallest nor the largest; small ones cost least to look at.
        candidates.sort_by_key(|(vma, ..)| vma.len_bytes());
        let mut budget = MAX_BYTES;
        for (vma, inode, offset) in candidates {
            if let Some((syscall_ret, sigreturn)) = search(pid, vma, &mut budget) {
                self.0.insert((inode, offset), (syscall_ret, sigreturn));
                let at = |offset: u64| Addr(vma.start.0 + offset);
                return Some(SafeGate { syscall_ret: at(syscall_ret), sigreturn: at(sigreturn) });
            }
        }
        None
    }
}

/// Offsets of both patterns in an area, if it has both.
fn search(pid: Pid, vma: &VmaV1, budget: &mut usize) -> Option<(u64, u64)> {
    let len = vma.len_bytes() as usize;
    let (mut syscall_ret, mut sigreturn) = (None, None);
    let mut at = 0;
    while at < len && *budget > 0 {
        let now = PIECE_BYTES.min(len - at);
        let bytes = vmread::read(pid, Addr(vma.start.0 + at as u64), now).ok()?;
        let found = |pattern| position(&bytes, pattern).map(|offset| (at + offset) as u64);
        syscall_ret = syscall_ret.or_else(|| found(SYSCALL_RET));
        sigreturn = sigreturn.or_else(|| SIGRETURN.into_iter().find_map(found));
        if let (Some(syscall_ret), Some(sigreturn)) = (syscall_ret, sigreturn) {
            return Some((syscall_ret, sigreturn));
        }
        *budget = budget.saturating_sub(now);
        // Pieces overlap, so that nothing on their edge is missed.
        at += if now < PIECE_BYTES { now } else { now - LONGEST };
    }
    None
}

/// Another process may have changed its copy of the code.
fn is_intact(pid: Pid, gate: SafeGate) -> bool {
    let starts =
        |addr, pattern: &[u8]| vmread::read(pid, addr, pattern.len()).is_ok_and(|bytes| bytes == pattern);
    starts(gate.syscall_ret, SYSCALL_RET)
        && SIGRETURN.into_iter().any(|pattern| starts(gate.sigreturn, pattern))
}

fn position(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    // Few bytes are 0x0f or 0x48; looking for the first one alone is what the compiler makes fast.
    let first = pattern[0];
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&b| b == first) {
        if bytes[from + at..].starts_with(pattern) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found_where_they_are() {
        let mut bytes = vec![0x48; 64];
        bytes.extend_from_slice(SIGRETURN[0]);
        bytes.extend_from_slice(&[0x0f, 0x0f, 0x05, 0xc3]);
        assert_eq!(position(&bytes, SIGRETURN[0]), Some(64));
        assert_eq!(position(&bytes, SYSCALL_RET), Some(64 + 9 + 1));
        assert_eq!(position(&bytes, SIGRETURN[1]), None);
    }
}
