//! The interpreter's code and how it is entered. The only architecture-dependent part beside the
//! signal frame.

use std::arch::{asm, global_asm};

global_asm!(include_str!("x86_64.s"));

unsafe extern "C" {
    static fastboot_tape_start: u8;
    static fastboot_tape_end: u8;
    static fastboot_answer_start: u8;
    static fastboot_answer_end: u8;
}

/// Of the page that answers in the place of getpid(2): where its key is, and where it is called.
const KEY_AT: usize = 16;
/// Bytes from the beginning of that page to its first instruction.
pub const ANSWER_AT: u64 = 24;

/// The interpreter as bytes; runs wherever it is copied.
pub fn code() -> &'static [u8] {
    let start = &raw const fastboot_tape_start;
    let end = &raw const fastboot_tape_end;
    // SAFETY: both symbols bound one run of instructions in our text section (x86_64.s), start
    // before end.
    unsafe { std::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// The page that answers in the place of getpid(2), as far as it is not empty; its length is a
/// multiple of 8.
pub fn answer_page(key: u32) -> Vec<u8> {
    let mut page = answer_template().to_vec();
    page[KEY_AT..KEY_AT + 4].copy_from_slice(&key.to_ne_bytes());
    page
}

/// The key in such a page; `None` for any other.
pub fn answer_key(page: &[u8]) -> Option<u32> {
    let (mark, rest) = page.split_at_checked(KEY_AT)?;
    let is_one = answer_template().starts_with(mark);
    is_one.then(|| rest.first_chunk().copied().map(u32::from_ne_bytes)).flatten()
}

fn answer_template() -> &'static [u8] {
    let start = &raw const fastboot_answer_start;
    let end = &raw const fastboot_answer_end;
    // SAFETY: both symbols bound one run of bytes in our text section (x86_64.s), start before end.
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
