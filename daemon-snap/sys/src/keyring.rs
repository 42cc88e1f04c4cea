//! The session keyring of this process (keyctl(2), add_key(2)).

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getgid, getuid, setresgid, setresuid};
use std::ffi::CStr;

pub const KEYCTL_GET_KEYRING_ID: u64 = 0;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
const KEYCTL_SETPERM: libc::c_long = 5;
pub const KEYCTL_DESCRIBE: u64 = 6;
const KEYCTL_LINK: libc::c_long = 8;
pub const KEYCTL_READ: u64 = 11;

pub const KEY_SPEC_THREAD_KEYRING: i32 = -1;
pub const KEY_SPEC_PROCESS_KEYRING: i32 = -2;
pub const KEY_SPEC_SESSION_KEYRING: i32 = -3;
const KEY_SPEC_USER_KEYRING: i32 = -4;

/// Leaves the session keyring that we have for a new one, of user `uid` and group `gid`, with no
/// name and nothing in it but the user's own keyring if `link_user` says so. The process must have
/// one thread.
///
/// # Errors
/// `EDQUOT`; `ENOSYS` or `EPERM` where a filter forbids it.
pub fn join_new_session(uid: u32, gid: u32, link_user: bool) -> Result<(), Errno> {
    // The kernel takes the owner from the real ids.
    let own = (getuid(), getgid());
    set_real_group(Gid::from_raw(gid))?;
    let joined = set_real_user(Uid::from_raw(uid)).and_then(|()| {
        let joined = keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0).and_then(|()| match link_user {
            true => keyctl(KEYCTL_LINK, KEY_SPEC_USER_KEYRING.into(), KEY_SPEC_SESSION_KEYRING.into()),
            false => Ok(()),
        });
        set_real_user(own.0).and(joined)
    });
    set_real_group(own.1).and(joined)
}

fn set_real_user(uid: Uid) -> Result<(), Errno> {
    let unchanged = Uid::from_raw(u32::MAX);
    setresuid(uid, unchanged, unchanged)
}

fn set_real_group(gid: Gid) -> Result<(), Errno> {
    let unchanged = Gid::from_raw(u32::MAX);
    setresgid(gid, unchanged, unchanged)
}

/// Adds a key of type `user` to the session keyring, which its possessor and its owner may see,
/// read and find, and nobody may change.
///
/// # Errors
/// As [`join_new_session`].
pub fn add_readable_key(description: &CStr, payload: &[u8]) -> Result<(), Errno> {
    const VIEW_READ_SEARCH: libc::c_long = 0x0b0b_0000;
    // SAFETY: both texts are terminated, the payload is live and of the length that is given; the
    // kernel copies all three.
    let key = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            description.as_ptr(),
            payload.as_ptr(),
            payload.len(),
            KEY_SPEC_SESSION_KEYRING,
        )
    })?;
    keyctl(KEYCTL_SETPERM, key, VIEW_READ_SEARCH)
}

fn keyctl(operation: libc::c_long, first: libc::c_long, second: libc::c_long) -> Result<(), Errno> {
    // SAFETY: none of the operations used here takes a pointer (a null name for the first).
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, operation, first, second, 0, 0) }).map(drop)
}
