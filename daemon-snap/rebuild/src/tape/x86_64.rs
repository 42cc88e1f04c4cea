//! The interpreter's code and how it is entered. The only architecture-dependent part beside the
//! signal frame.

use std::arch::{asm, global_asm};

global_asm!(include_str!("x86_64.s"));

unsafe extern "C" {
    static fastboot_tape_start: u8;
    static fastboot_tape_end: u8;
}

/// The interpreter as bytes; runs wherever it is copied.
pub fn code() -> &'static [u8] {
    let start = &raw const fastboot_tape_start;
    let end = &raw const fastboot_tape_end;
    // SAFETY: both symbols bound one run of instructions in our text section (x86_64.s), start
    // before end.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// Runs a compiled tape in this process. Does not return: the process becomes the recorded one or
/// ends.
///
/// `code` is the address of the interpreter, `context` that of the first thread's context.
pub fn run(code: u64, context: u64) -> ! {
    // SAFETY: `code` is the interpreter in its area, mapped executable by `compile`; `context` is a
    // `Context` in the same area. The interpreter needs no stack and never returns; all signals are
    // blocked by the caller, so no handler runs on the memory that it unmaps.
    unsafe {
        asm!("jmp {code}", code = in(reg) code, in("r12") context, options(noreturn));
    }
}
