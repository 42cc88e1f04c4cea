//! Whom to believe: a caller that is the shim, in the namespaces that systemd made for its unit.
//! That it is the unit's main process systemd says itself ([`crate::systemd`]).
//!
//! A worker of a service may execute the shim as well, in namespaces of its own, where it has
//! mounted whatever it likes over what a restore opens as root. Without privilege it can make such
//! namespaces only below a user namespace of its own, so who owns them tells.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::caller::Caller;
use crate::sys::peer::{maker_of_user_namespace, owning_user_namespace};
use crate::sys::process::wait_ended;

/// Namespaces that a restore enters or depends on.
const NAMESPACES: [&str; 6] = ["mnt", "net", "ipc", "uts", "cgroup", "pid"];

/// Device and inode: what makes a file or a namespace itself.
type FileId = (u64, u64);

/// What makes a shim recognisable.
#[derive(Clone, Debug)]
pub struct ShimIdentity {
    file: FileId,
    /// Our user namespace, which is that of systemd.
    user_namespace: FileId,
    /// Those of systemd itself, one for each of [`NAMESPACES`]. In a container they may belong to
    /// somebody outside.
    of_systemd: Vec<FileId>,
}

impl ShimIdentity {
    /// Look at the shim's file and at ourselves.
    ///
    /// # Errors
    /// When either cannot be looked at; nobody can be believed then.
    pub fn collect(shim: &Path) -> io::Result<ShimIdentity> {
        let file = file_id(&fs::metadata(shim)?);
        let user_namespace = file_id(&fs::metadata("/proc/self/ns/user")?);
        let of_systemd = NAMESPACES.map(|name| Ok(file_id(&fs::metadata(format!("/proc/1/ns/{name}"))?)));
        let of_systemd = of_systemd.into_iter().collect::<io::Result<_>>()?;
        Ok(ShimIdentity { file, user_namespace, of_systemd })
    }

    /// Whether this caller is a shim that systemd has started.
    ///
    /// # Errors
    /// What it is instead, or that it has gone.
    pub fn check(&self, caller: &Caller) -> io::Result<()> {
        let pid = caller.process.pid;
        let refuse = |what: String| Err(io::Error::other(format!("pid {pid} {what}")));
        if file_id(&fs::metadata(format!("/proc/{pid}/exe"))?) != self.file {
            return refuse("is not fastboot-exec".to_owned());
        }
        if caller.parent != 1 {
            return refuse("was not started by systemd".to_owned());
        }
        // Whoever traces it speaks in its name.
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        if !status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() == "0")) {
            return refuse("is being traced".to_owned());
        }
        for (name, of_systemd) in NAMESPACES.iter().zip(&self.of_systemd) {
            let namespace = File::open(format!("/proc/{pid}/ns/{name}"))?;
            if file_id(&namespace.metadata()?) == *of_systemd {
                continue;
            }
            // One that is owned from outside of ours cannot be asked about: it is none of systemd's
            // either.
            let owner = owning_user_namespace(&namespace).map(File::from);
            let owner = owner.and_then(|owner| owner.metadata());
            if !owner.is_ok_and(|owner| file_id(&owner) == self.user_namespace) {
                return refuse(format!("is in a {name} namespace that systemd has not made"));
            }
        }
        let user = File::open(format!("/proc/{pid}/ns/user"))?;
        // PrivateUsers=: made by systemd for the unit before it gave up being root.
        if file_id(&user.metadata()?) != self.user_namespace && maker_of_user_namespace(&user)? != 0 {
            return refuse("is in a user namespace that systemd has not made".to_owned());
        }
        // All of this was about the process of the pidfd only if that is still there.
        if wait_ended(&caller.pidfd, Duration::ZERO) {
            return refuse("has ended".to_owned());
        }
        Ok(())
    }
}

fn file_id(metadata: &fs::Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}
