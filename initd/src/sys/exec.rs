//! Becoming another program without changing anything else.
//!
//! `std::process::Command` resets SIGPIPE and the signal mask; the program that is started here
//! must find both as systemd has set them up.

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
    // SAFETY: `environ` is a null-terminated array of terminated strings that the C library set up
    // before main; the shim has one thread and never changes its environment. `path`, `arguments`
    // and the arrays outlive the call.
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

/// Run `exec` in a child that has nothing but the standard descriptors, and wait for it. Its exit
/// status; 128 and the number of a signal that ended it; 203 where it could not be executed.
///
/// # Errors
/// `fork(2)` or `waitpid(2)` fails.
pub fn in_child(exec: impl FnOnce() -> io::Error) -> io::Result<i32> {
    const EXIT_EXEC: i32 = 203;
    // SAFETY: the shim has one thread, so its child may do what it may do itself.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: the child ends in exec or in _exit: nothing uses the descriptors that are
            // closed here.
            unsafe {
                libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32);
                drop(exec());
                libc::_exit(EXIT_EXEC)
            }
        }
        child => loop {
            let mut status = 0;
            // SAFETY: `status` is live for the call; the child is ours and not yet waited for.
            if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
                return Ok(match libc::WIFEXITED(status) {
                    true => libc::WEXITSTATUS(status),
                    false => 128 + libc::WTERMSIG(status),
                });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        },
    }
}
