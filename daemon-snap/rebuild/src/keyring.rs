//! The session keyring of a unit, as systemd makes it for a cold start.

use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{Pid, SessionKeyringV1};
use snap_sys::{keyring, proc};

/// Gives the worker, and with it every process that it makes, the keyring of the unit instead of
/// that of the restore daemon. `shim`: who has this boot's invocation id in its environment.
///
/// # Errors
/// When the keyring cannot be made although there are some.
pub fn rebuild_session_keyring(recorded: &SessionKeyringV1, shim: Pid) -> Result<()> {
    let failed = |step| move |errno| Error::kernel(step, "session keyring", errno);
    let SessionKeyringV1 { uid, gid, has_user_keyring } = *recorded;
    match keyring::join_new_session(uid, gid, has_user_keyring) {
        Ok(()) => {}
        // systemd goes on without one here too (no keyrings in the kernel, a container, the user's
        // quota).
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES | Errno::EDQUOT) => return Ok(()),
        Err(errno) => return Err(failed("join")(errno)),
    }
    match invocation_id(&proc::read(shim, "environ")?) {
        Some(id) => keyring::add_readable_key(c"invocation_id", &id).map_err(failed("add invocation id to")),
        None => Ok(()),
    }
}

fn invocation_id(environment: &[u8]) -> Option<[u8; 16]> {
    let text = std::str::from_utf8(proc::variable(environment, b"INVOCATION_ID")?)
        .ok()
        .filter(|text| text.len() == 32)?;
    Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocation_id_is_found_in_the_environment() {
        let environment = b"A=b\0INVOCATION_ID=00112233445566778899aabbccddeeff\0C=\0";
        let id = invocation_id(environment).unwrap();
        assert_eq!((id[0], id[1], id[15]), (0, 0x11, 0xff));
        assert_eq!(invocation_id(b"INVOCATION_ID=12\0"), None);
        assert_eq!(invocation_id(b""), None);
    }
}
