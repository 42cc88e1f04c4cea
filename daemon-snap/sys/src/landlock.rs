//! Whether a thread has restricted itself (landlock(7), since Linux 5.13). The kernel shows that to
//! nobody; but who is in a domain may not look into a process outside of it, whoever else might.

use super::child::Child;
use super::label::LSM_ID_APPARMOR;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use std::mem::size_of_val;
use std::os::fd::BorrowedFd;

/// Whether this kernel has Landlock switched on.
pub fn is_enabled() -> bool {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no pointer, makes nothing, and tells a version.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, LANDLOCK_CREATE_RULESET_VERSION) };
    version > 0
}

/// Whether Landlock is asked before AppArmor (lsm_list_modules(2), since Linux 6.8).
pub fn is_asked_first() -> bool {
    const SYS_LSM_LIST_MODULES: i64 = 461;
    const LSM_ID_LANDLOCK: u64 = 110;
    let mut ids = [0u64; 32];
    let mut len_bytes = size_of_val(&ids) as u32;
    // SAFETY: the array is live and as long as the length says.
    let count =
        unsafe { libc::syscall(SYS_LSM_LIST_MODULES, ids.as_mut_ptr(), &raw mut len_bytes, 0) }.max(0);
    let found = ids.iter().take(count as usize).find(|id| [LSM_ID_APPARMOR, LSM_ID_LANDLOCK].contains(id));
    found == Some(&LSM_ID_LANDLOCK)
}

/// A process outside of every domain but ours, with these ids (as we see them) and no capability,
/// in the user namespace `userns`, or in ours. Any process with the same ids there may look into it
/// (ptrace(2), ptrace access mode checking), unless a domain forbids it.
///
/// # Errors
/// `EPERM` when we may not become that.
pub fn bystander(uid: u32, gid: u32, userns: Option<BorrowedFd<'_>>) -> Result<Child, Errno> {
    Child::make(|| {
        // SAFETY: plain system calls without pointers, and not libc's, which would speak to threads
        // that a child does not have.
        unsafe {
            Errno::result(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            Errno::result(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
            Errno::result(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        }
        if let Some(userns) = userns {
            // The capability for it is still permitted.
            set_capabilities(permitted()?)?;
            setns(userns, CloneFlags::CLONE_NEWUSER)?;
        }
        set_capabilities([Capabilities::default(); 2])?;
        nix::sys::prctl::set_dumpable(true)?;
        // Yama lets nobody but ancestors and whom it is told of. Where there is none the call
        // fails. SAFETY: plain system call without pointers.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
        // Who takes other ids has to ask again for it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
    })
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Version, and the calling thread.
const HEADER: [u32; 2] = [0x2008_0522, 0];

/// All that is permitted, made effective.
fn permitted() -> Result<[Capabilities; 2], Errno> {
    let mut held = [Capabilities::default(); 2];
    // SAFETY: both are live, and of the sizes that this version of the header asks for.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, HEADER.as_ptr(), held.as_mut_ptr()) })?;
    Ok(held.map(|word| Capabilities { effective: word.permitted, ..word }))
}

fn set_capabilities(wanted: [Capabilities; 2]) -> Result<(), Errno> {
    // SAFETY: as in `permitted`; nothing is written.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, HEADER.as_ptr(), wanted.as_ptr()) }).map(drop)
}
