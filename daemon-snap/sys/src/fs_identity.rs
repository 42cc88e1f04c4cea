//! The identity that the kernel asks for when a path is resolved and a file opened
//! (credentials(7)): file-system ids, groups, capabilities.

use nix::errno::Errno;
use nix::sys::prctl::{get_pdeathsig, set_pdeathsig};
use nix::unistd::{Gid, Uid, getgroups, getppid, setfsgid, setfsuid, setgroups};

/// Who opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsIdentity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Bit n is capability n.
    pub caps: u64,
}

impl FsIdentity {
    /// Does something with this identity. The calling thread must be the only one of its process,
    /// be root, and is what it was afterwards; were it not, the process ends. Others of this user
    /// may not look into it meanwhile (ptrace(2) asks for the real ids).
    ///
    /// # Errors
    /// The identity cannot be taken.
    pub fn act<T>(&self, what: impl FnOnce() -> T) -> Result<T, Errno> {
        let own = Own::read()?;
        let parent = getppid();
        let taken = self.take(&own);
        let done = taken.map(|()| what());
        if own.give_back().is_err() {
            // Nothing that follows may happen with an identity that is not meant.
            std::process::abort();
        }
        // A change of these ids takes the signal away; the parent may have ended meanwhile.
        if let Some(signal) = own.death_signal {
            set_pdeathsig(signal)?;
            if getppid() != parent {
                nix::sys::signal::raise(signal)?;
            }
        }
        done
    }

    fn take(&self, own: &Own) -> Result<(), Errno> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        setgroups(&groups)?;
        set_ids(self.uid, self.gid)?;
        set_effective(&own.caps, self.caps & own.caps.permitted)
    }
}

/// What this thread is by itself.
struct Own {
    groups: Vec<Gid>,
    uid: u32,
    gid: u32,
    caps: Caps,
    death_signal: Option<nix::sys::signal::Signal>,
}

impl Own {
    fn read() -> Result<Self, Errno> {
        const NONE: u32 = u32::MAX;
        Ok(Self {
            groups: getgroups()?,
            // An id that cannot be set changes nothing, and the answer is the one that is set.
            uid: setfsuid(Uid::from_raw(NONE)).as_raw(),
            gid: setfsgid(Gid::from_raw(NONE)).as_raw(),
            caps: Caps::read()?,
            death_signal: get_pdeathsig()?,
        })
    }

    /// Capabilities first: the others need them.
    fn give_back(&self) -> Result<(), Errno> {
        set_effective(&self.caps, self.caps.effective)?;
        set_ids(self.uid, self.gid)?;
        // A change from a user to root has raised some.
        set_effective(&self.caps, self.caps.effective)?;
        setgroups(&self.groups)
    }
}

/// These calls do not say whether they have done anything, so they are asked once more.
fn set_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if setfsgid(gid) == gid && setfsuid(uid) == uid { Ok(()) } else { Err(Errno::EPERM) }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Two halves of effective, permitted, inheritable (capget(2), version 3).
type Words = [[u32; 3]; 2];

const VERSION_3: u32 = 0x2008_0522;

struct Caps {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

impl Caps {
    fn read() -> Result<Self, Errno> {
        let (mut header, mut words) = (Header { version: VERSION_3, pid: 0 }, Words::default());
        // SAFETY: both are live and laid out as version 3 wants them.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr().cast::<u32>())
        })?;
        let set = |index: usize| u64::from(words[0][index]) | u64::from(words[1][index]) << 32;
        Ok(Self { effective: set(0), permitted: set(1), inheritable: set(2) })
    }
}

fn set_effective(own: &Caps, effective: u64) -> Result<(), Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| [effective, own.permitted, own.inheritable].map(|set| (set >> shift) as u32);
    let words: Words = [half(0), half(32)];
    // SAFETY: both are live and laid out as version 3 wants them; only this thread changes.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr().cast::<u32>()) })
        .map(drop)
}
