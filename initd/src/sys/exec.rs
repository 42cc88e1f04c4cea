//! Becoming another program without changing anything else.
//!
//! `std::process::Command` resets SIGPIPE and the signal mask; the program that is started here must find both as
//! systemd has set them up.

use std::ffi::{CStr, CString, c_char};
use std::io;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// `execve(2)` with this process's environment, in its order, without the variables in `without`.
///
/// Returns only when it failed.
pub fn exec(path: &CStr, arguments: &[CString], without: &[&str]) -> io::Error {
    let mut argv: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    let mut envp = Vec::new();
    // SAFETY: `environ` is a null-terminated array of terminated strings that the C library set up before main; the
    // shim has one thread and never changes its environment. `path`, `arguments` and the arrays outlive the call.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = CStr::from_ptr(*entry).to_bytes();
            let is_left_out = without.iter().any(|name| {
                text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
            });
            if !is_left_out {
                envp.push(*entry);
            }
            entry = entry.add(1);
        }
        envp.push(std::ptr::null());
        libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
    }
    io::Error::last_os_error()
}
