//! Landlock: a domain that a thread is in cannot be read, let alone be given to another; who has
//! one is refused.

use crate::blockers::failed;
use nix::errno::Errno;
use snap_error::obstacle::SandboxObstacle;
use snap_error::{Blocker, Error, Part, Result};
use snap_state::{Pid, ThreadV1};
use snap_sys::child::Child;
use snap_sys::inject::Injector;
use snap_sys::{landlock, ptrace};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

/// Processes that the threads of a tree try to look into, one for each user namespace and pair of
/// ids.
#[derive(Debug)]
pub(super) struct Bystanders {
    enabled: bool,
    asked_first: bool,
    /// Those of `made` that we trace.
    traced: HashSet<Pid>,
    made: HashMap<(u64, u32, u32), Child>,
    /// Ours, and that of the process whose threads are asked.
    own: Option<UserNamespace>,
    of_process: Option<(Pid, UserNamespace)>,
}

#[derive(Debug)]
struct UserNamespace {
    inode: u64,
    file: File,
}

impl UserNamespace {
    fn open(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/user");
        let opened = File::open(&path).and_then(|file| Ok(Self { inode: file.metadata()?.ino(), file }));
        opened.map_err(|e| Error::io("open", path, &e))
    }
}

impl Default for Bystanders {
    fn default() -> Self {
        Self {
            enabled: landlock::is_enabled(),
            asked_first: landlock::is_asked_first(),
            traced: HashSet::new(),
            made: HashMap::new(),
            own: None,
            of_process: None,
        }
    }
}

impl Bystanders {
    /// Refuses a thread that is in a domain. `profile`: that of AppArmor, which may forbid the
    /// same.
    pub fn inspect(
        &mut self,
        pid: Pid,
        thread: &ThreadV1,
        profile: Option<&str>,
        injector: &mut Injector,
    ) -> Result<()> {
        const KCMP_VM: u64 = 1;
        if !self.enabled {
            return Ok(());
        }
        let bystander = self.of_thread(pid, thread)?.pid();
        let look = [bystander.0 as u64, bystander.0 as u64, KCMP_VM, 0, 0, 0];
        let obstacle = match (injector.call(libc::SYS_kcmp, look), profile) {
            (Ok(_), _) => return Ok(()),
            (Err(Errno::EPERM), None) => SandboxObstacle::LandlockDomain,
            (Err(Errno::EPERM), Some(profile)) => match self.is_forbidden_by_profile(bystander, injector)? {
                true => return Ok(()),
                false => SandboxObstacle::LandlockHidden { profile: profile.to_owned() },
            },
            (Err(errno), _) => SandboxObstacle::LandlockUnknown { errno },
        };
        Err(Blocker::new(pid, Part::of_task(pid, thread.tid), obstacle).into())
    }

    /// Whether it was AppArmor that said no. Most calls do not tell who did; tracing does. It
    /// cannot come to that: we do.
    fn is_forbidden_by_profile(&mut self, bystander: Pid, injector: &mut Injector) -> Result<bool> {
        if !self.asked_first {
            return Ok(false);
        }
        if self.traced.insert(bystander) {
            ptrace::seize(bystander, 0).map_err(failed("seize", bystander, "a process to look into"))?;
        }
        let seize = [u64::from(libc::PTRACE_SEIZE), bystander.0 as u64, 0, 0, 0, 0];
        Ok(injector.call(libc::SYS_ptrace, seize) == Err(Errno::EACCES))
    }

    fn of_thread(&mut self, pid: Pid, thread: &ThreadV1) -> Result<&Child> {
        let own = match &mut self.own {
            Some(own) => own,
            none => none.insert(UserNamespace::open(Pid(std::process::id() as i32))?),
        };
        // All threads of a process are in one.
        let (_, userns) = match &mut self.of_process {
            Some(known) if known.0 == pid => known,
            other => other.insert((pid, UserNamespace::open(pid)?)),
        };
        // As the real ids are what the kernel judges by here.
        let (uid, gid) = (thread.creds.uids[0], thread.creds.gids[0]);
        match self.made.entry((userns.inode, uid, gid)) {
            Entry::Occupied(made) => Ok(made.into_mut()),
            Entry::Vacant(place) => {
                let entered = (userns.inode != own.inode).then(|| userns.file.as_fd());
                let child = landlock::bystander(uid, gid, entered).map_err(failed(
                    "make a process to look into",
                    pid,
                    format!("uid {uid} gid {gid}"),
                ))?;
                Ok(place.insert(child))
            }
        }
    }
}
