//! The signal frame that `rt_sigreturn` turns into registers (x86-64: `struct rt_sigframe`).
//!
//! It also sets the signal mask and the alternate stack of the thread.

use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::ThreadV1;
use snap_state::check::Corrupt;
use std::arch::x86_64::__cpuid_count;

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Offset of `fpu_sw_bytes` in the legacy area.
const SW_BYTES: usize = 464;
/// Legacy area and XSAVE header.
const XSTATE_MIN: usize = 576;
/// pretcode, ucontext (uc_flags … uc_sigmask), siginfo.
const FRAME_HEAD: usize = 8 + 304 + 128;
const AMX: u64 = 1 << 17 | 1 << 18;

/// Bytes of the user part of XSAVE in standard format, without AMX tile data, and the mask of its
/// components.
fn xstate_shape(xcr0: u64) -> (usize, u64) {
    let features = xcr0 & !AMX;
    let mut len = XSTATE_MIN;
    for feature in 2..63u32 {
        if features & (1 << feature) != 0 {
            let leaf = __cpuid_count(0xd, feature);
            len = len.max((leaf.eax + leaf.ebx) as usize);
        }
    }
    (len, features)
}

/// Alignment of a frame, bytes.
pub const ALIGN_BYTES: u64 = 64;

/// Upper bound of [`build`]'s result for a thread, bytes.
pub fn len_bound(thread: &ThreadV1) -> u64 {
    let xcr0 = thread
        .xstate
        .get(SW_BYTES..SW_BYTES + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes);
    (FRAME_HEAD.next_multiple_of(64) + xstate_shape(xcr0).0 + 4).next_multiple_of(64) as u64
}

/// The frame's bytes when it is placed at `at` (a multiple of 64).
///
/// # Errors
/// The recorded extended state uses tile registers, which cannot be set this way.
pub fn build(thread: &ThreadV1, at: u64) -> Result<Vec<u8>> {
    let regs = &thread.regs;
    let xstate = &thread.xstate;
    if xstate.len() < XSTATE_MIN {
        return Err(Corrupt::ExtendedState { tid: thread.tid, len_bytes: xstate.len() }.into());
    }
    let word_at = |offset: usize| -> u64 {
        xstate.get(offset..offset + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()))
    };
    let xcr0 = word_at(SW_BYTES);
    let in_use = word_at(512);
    if in_use & AMX != 0 {
        return Err(Error::stale(
            ReasonCode::CpuChanged,
            format!("thread {} uses AMX tile registers", thread.tid),
        ));
    }
    let (xstate_len, features) = xstate_shape(xcr0);
    if xstate_len > xstate.len() {
        return Err(Error::stale(
            ReasonCode::CpuChanged,
            format!(
                "thread {}: this CPU saves {xstate_len} bytes of registers, the image has {}",
                thread.tid,
                xstate.len()
            ),
        ));
    }
    let fp_offset = FRAME_HEAD.next_multiple_of(64);
    let mut out = Vec::with_capacity(fp_offset + xstate_len + 4);
    let mut word = |value: u64| out.extend_from_slice(&value.to_le_bytes());
    word(0); // pretcode
    word(UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS);
    word(0); // uc_link
    word(thread.altstack.sp.0);
    word(thread.altstack.flags as u32 as u64);
    word(thread.altstack.len_bytes);
    for value in [
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rdi,
        regs.rsi,
        regs.rbp,
        regs.rbx,
        regs.rdx,
        regs.rax,
        regs.rcx,
        regs.rsp,
        regs.rip,
        regs.eflags,
    ] {
        word(value);
    }
    word(regs.cs & 0xffff | (regs.ss & 0xffff) << 48);
    word(0); // err
    word(0); // trapno
    word(0); // oldmask
    word(0); // cr2
    word(at + fp_offset as u64);
    for _ in 0..8 {
        word(0);
    }
    word(thread.sigmask);
    out.resize(fp_offset, 0);
    out.extend_from_slice(&xstate[..xstate_len]);
    let fp = &mut out[fp_offset..];
    fp[SW_BYTES..SW_BYTES + 4].copy_from_slice(&FP_XSTATE_MAGIC1.to_le_bytes());
    fp[SW_BYTES + 4..SW_BYTES + 8].copy_from_slice(&(xstate_len as u32 + 4).to_le_bytes());
    fp[SW_BYTES + 8..SW_BYTES + 16].copy_from_slice(&features.to_le_bytes());
    fp[SW_BYTES + 16..SW_BYTES + 20].copy_from_slice(&(xstate_len as u32).to_le_bytes());
    fp[SW_BYTES + 20..512].fill(0);
    out.extend_from_slice(&FP_XSTATE_MAGIC2.to_le_bytes());
    Ok(out)
}
