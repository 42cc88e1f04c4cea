//! The entry point that the C library calls.

use std::ffi::{c_char, c_int};

/// `std::env::args_os` works without Rust's start-up code on Linux with glibc, so the arguments are
/// not looked at here.
// SAFETY: the C start-up code calls `main` once, with this signature; no other symbol of that name
// is linked.
#[unsafe(no_mangle)]
pub extern "C" fn main(_count: c_int, _arguments: *const *const c_char) -> c_int {
    initd::shim::main()
}
