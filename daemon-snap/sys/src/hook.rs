//! A command in the surroundings of a service.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Ids that a command gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// It may not gain privileges by executing something.
    pub no_new_privs: bool,
}

/// Has `command` enter the namespaces of `process`, its user namespace excepted, and become that
/// user, before it is executed.
pub fn in_context(command: &mut Command, process: OwnedFd, ids: Ids) {
    const NAMESPACES: i32 = libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let (one, zero) = (1 as libc::c_ulong, 0 as libc::c_ulong);
    let enter = move || -> std::io::Result<()> {
        // SAFETY: plain system calls on values that live in this closure; raw calls act on this
        // thread, the only one of a child between fork and exec, and take no lock.
        unsafe {
            Errno::result(libc::setns(process.as_raw_fd(), NAMESPACES))?;
            Errno::result(libc::syscall(libc::SYS_setgroups, ids.groups.len(), ids.groups.as_ptr()))?;
            Errno::result(libc::syscall(libc::SYS_setresgid, ids.gid, ids.gid, ids.gid))?;
            Errno::result(libc::syscall(libc::SYS_setresuid, ids.uid, ids.uid, ids.uid))?;
            if ids.no_new_privs {
                Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, one, zero, zero, zero))?;
            }
        }
        Ok(())
    };
    // SAFETY: `enter` allocates nothing and takes no lock, so it may run between fork and exec of a
    // process with threads.
    unsafe { command.pre_exec(enter) };
}
