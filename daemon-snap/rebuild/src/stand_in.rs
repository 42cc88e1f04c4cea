//! Doing something in the name of a process of then, where the kernel keeps who did it
//! (SO_PEERCRED, SCM_CREDENTIALS).

use image_store::ReasonCode;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getgroups, setgroups, setresgid, setresuid};
use snap_error::{Error, Result};
use snap_state::{CredentialsV1, PeerV1, Pid};
use snap_sys as sys;

/// Does something with other effective ids and groups. Ours are given back; what the kernel resets
/// with them (dumpable, PDEATHSIG) the tape sets later.
///
/// # Errors
/// Those of `what` and of changing ids.
pub fn as_user<T>(
    uid: u32,
    gid: u32,
    groups: &[u32],
    what: impl FnOnce() -> std::result::Result<T, Errno>,
) -> std::result::Result<T, Errno> {
    let ids = OtherIds::take(uid, gid, groups)?;
    let done = what();
    ids.give_back()?;
    done
}

/// Other effective ids and groups than ours, until this is given back or dropped: on every path, a
/// panic's included.
struct OtherIds {
    own_groups: Vec<Gid>,
    are_back: bool,
}

impl OtherIds {
    fn take(uid: u32, gid: u32, groups: &[u32]) -> std::result::Result<Self, Errno> {
        let ids = Self { own_groups: getgroups()?, are_back: false };
        // From here on, what fails drops them.
        let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        set_effective(uid, gid)?;
        Ok(ids)
    }

    fn give_back(mut self) -> std::result::Result<(), Errno> {
        self.are_back = true;
        self.set_own()
    }

    fn set_own(&self) -> std::result::Result<(), Errno> {
        // The user first: only root may set the others.
        set_effective_user(0)?;
        set_effective_group(0)?;
        setgroups(&self.own_groups)
    }
}

impl Drop for OtherIds {
    fn drop(&mut self) {
        if !self.are_back {
            // An error is on its way already, and ends the attempt.
            let _ = self.set_own();
        }
    }
}

/// The group first: only root may set it.
fn set_effective(uid: u32, gid: u32) -> std::result::Result<(), Errno> {
    set_effective_group(gid)?;
    set_effective_user(uid)
}

const SAME: u32 = u32::MAX;

fn set_effective_user(uid: u32) -> std::result::Result<(), Errno> {
    setresuid(Uid::from_raw(SAME), Uid::from_raw(uid), Uid::from_raw(SAME))
}

fn set_effective_group(gid: u32) -> std::result::Result<(), Errno> {
    setresgid(Gid::from_raw(SAME), Gid::from_raw(gid), Gid::from_raw(SAME))
}

/// Does something as another process: a stand-in with its number, effective ids and groups, which
/// shares our descriptors. The number is free again afterwards. Without a process it is done by us.
///
/// # Errors
/// `Stale`: the number is taken. Those of `what`.
pub fn as_process(
    who: Option<&PeerV1>,
    step: &'static str,
    what: impl FnOnce() -> std::result::Result<[i32; 2], Errno>,
) -> Result<[i32; 2]> {
    let failed = |e| Error::kernel(step, "in the name of a process", e);
    let Some(PeerV1 { credentials, groups }) = who else { return what().map_err(failed) };
    let CredentialsV1 { pid, uid, gid } = *credentials;
    sys::fork::stand_in(pid.0, || as_user(uid, gid, groups, what)).map_err(|e| match e {
        Errno::EEXIST => taken(pid),
        e => failed(e),
    })
}

/// The same with our own user, who may name any other in what it sends.
///
/// # Errors
/// As [`as_process`].
pub fn as_sender(pid: Pid, what: impl FnOnce() -> std::result::Result<[i32; 2], Errno>) -> Result<[i32; 2]> {
    sys::fork::stand_in(pid.0, what).map_err(|e| match e {
        Errno::EEXIST => taken(pid),
        e => Error::kernel("sending", format!("in the name of process {pid}"), e),
    })
}

fn taken(pid: Pid) -> Error {
    Error::stale(ReasonCode::PidTaken, format!("PID {pid} is taken"))
}
