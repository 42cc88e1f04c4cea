//! Labels that AppArmor gives and takes.

use super::fork::{self, Side};
use super::proc;
use super::ptrace::{self, Wait};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use nix::unistd::{pipe2, read, write};
use snap_state::Pid;
use std::ffi::{CString, c_char};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// `lsm_set_self_attr(2)`, since Linux 6.8.
pub const SYS_LSM_SET_SELF_ATTR: i64 = 460;
pub const LSM_ATTR_CURRENT: u64 = 100;
pub(super) const LSM_ID_APPARMOR: u64 = 104;
/// Where AppArmor shows the label of a process, whatever other security modules there are (since
/// Linux 5.8).
pub const APPARMOR_CURRENT: &str = "attr/apparmor/current";

/// Whether AppArmor labels processes here.
pub fn is_apparmor_on() -> bool {
    proc::read(Pid(std::process::id() as i32), APPARMOR_CURRENT).is_ok()
}

/// `struct lsm_ctx` that moves the calling thread to a profile.
pub fn change_profile_context(profile: &str) -> Vec<u8> {
    const HEADER_WORDS: usize = 4;
    let command = format!("changeprofile {profile}\0");
    let len = (HEADER_WORDS * size_of::<u64>() + command.len()).next_multiple_of(size_of::<u64>());
    let mut bytes = Vec::with_capacity(len);
    for word in [LSM_ID_APPARMOR, 0, len as u64, command.len() as u64] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(command.as_bytes());
    bytes.resize(len, 0);
    bytes
}

/// Whether this kernel lets a thread change its profile without a descriptor.
pub fn can_change_profile() -> bool {
    // SAFETY: without context and size the call does nothing but to look at its arguments.
    let refused = unsafe { libc::syscall(SYS_LSM_SET_SELF_ATTR, LSM_ATTR_CURRENT, 0, 0, 0) };
    refused == 0 || Errno::last() != Errno::ENOSYS
}

/// Whether the other end of a unix socket can ask for the label of who made it (SO_PEERSEC,
/// unix(7)).
///
/// # Errors
/// No descriptor is left.
pub fn has_labelled_sockets() -> Result<bool, Errno> {
    let (one, _other) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    let mut label: [c_char; 256] = [0; 256];
    let mut len = label.len() as libc::socklen_t;
    // SAFETY: buffer and length are live and belong together.
    let got = unsafe {
        libc::getsockopt(
            one.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERSEC,
            label.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Ok(got == 0 || Errno::last() == Errno::ERANGE)
}

/// The label that a program has when we execute it. It is: in a child of ours, which is stopped
/// before the first instruction of the program and ended.
///
/// # Errors
/// `ENOEXEC` when it cannot be executed; `ENODATA` where AppArmor shows no labels.
pub fn of_executed(program: &Path) -> Result<String, Errno> {
    let path = CString::new(program.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let (waits, go) = pipe2(OFlag::O_CLOEXEC)?;
    match fork::fork(None, libc::SIGCHLD, None)? {
        Side::Child => {
            let mut word = [0];
            // Who made us ends: then nobody is there to stop us.
            drop(go);
            if read(&waits, &mut word) == Ok(1) {
                let (arguments, environment) = ([path.as_ptr(), std::ptr::null()], [std::ptr::null()]);
                // SAFETY: the path is terminated, both arrays end with null; all live until the
                // call replaces us or returns.
                unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
            }
            fork::exit_now(127)
        }
        Side::Parent { child } => {
            drop(waits);
            let label = label_at_exec(Pid(child), &go);
            let child = nix::unistd::Pid::from_raw(child);
            // It may have ended by itself; then there is only its status to take, or not even that.
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
            label
        }
    }
}

fn label_at_exec(child: Pid, go: &impl AsFd) -> Result<String, Errno> {
    ptrace::seize(child, ptrace::EXIT_KILL | ptrace::TRACE_EXEC)?;
    write(go, &[1])?;
    loop {
        match ptrace::wait(child, true)? {
            // The event of execve(2).
            Wait::Signal(libc::SIGTRAP) => break,
            Wait::Signal(signal) => ptrace::resume(child, signal)?,
            Wait::Exited => return Err(Errno::ENOEXEC),
            _ => ptrace::resume(child, 0)?,
        }
    }
    let text = proc::read(child, APPARMOR_CURRENT).map_err(|_| Errno::ENODATA)?;
    Ok(text_of(&text))
}

/// A label as /proc shows it.
pub fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches(['\0', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_padded_and_terminated() {
        let bytes = change_profile_context("a b");
        assert_eq!(bytes.len() % 8, 0);
        let word = |at: usize| u64::from_ne_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
        assert_eq!((word(0), word(1), word(2) as usize, word(3)), (104, 0, bytes.len(), 18));
        assert!(bytes[32..].starts_with(b"changeprofile a b\0"));
    }

    #[test]
    fn program_is_stopped_before_it_does_anything() {
        let mark = std::env::temp_dir().join(format!("fastboot-executed-{}", std::process::id()));
        let script = mark.with_extension("sh");
        std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        // With AppArmor a label, elsewhere the kernel's word that there are none; the program ends
        // in both cases.
        assert!(matches!(of_executed(&script), Ok(_) | Err(Errno::ENODATA)));
        assert!(!mark.exists());
        std::fs::remove_file(&script).unwrap();
        assert_eq!(of_executed(&script), Err(Errno::ENOEXEC));
    }
}
