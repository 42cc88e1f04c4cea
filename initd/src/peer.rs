//! Who is at the other end of a connection: only a shim that systemd has started as a unit's own process is believed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use crate::sys::process::{pidfd_open, wait_ended};

/// A shim.
#[derive(Debug)]
pub struct Peer {
    /// In our PID namespace.
    pub pid: i32,
    /// The same process, for good.
    pub pidfd: OwnedFd,
    /// Effective user that it connected with.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Unit whose cgroup it is in.
    pub unit: String,
    /// That cgroup, below the mount of the unified hierarchy, with `/` in front.
    pub cgroup: String,
}

/// What makes a shim recognisable.
#[derive(Clone, Debug)]
pub struct ShimIdentity {
    device: u64,
    inode: u64,
    /// cgroup of systemd itself without its last part: everything below belongs to units.
    cgroup_root: String,
}

impl ShimIdentity {
    /// Look at the shim's file and at PID 1.
    ///
    /// # Errors
    /// When either cannot be looked at; nobody can be believed then.
    pub fn collect(shim: &Path) -> io::Result<ShimIdentity> {
        let metadata = fs::metadata(shim)?;
        let own = unified_path(&fs::read_to_string("/proc/1/cgroup")?)
            .ok_or_else(|| io::Error::other("systemd is not in a unified cgroup hierarchy"))?
            .to_owned();
        let root = own.strip_suffix("/init.scope").unwrap_or(&own).trim_end_matches('/');
        Ok(ShimIdentity { device: metadata.dev(), inode: metadata.ino(), cgroup_root: root.to_owned() })
    }
}

impl Peer {
    /// Find out who has connected.
    ///
    /// # Errors
    /// When it has gone, or is not a shim that was started by PID 1 inside the cgroup of a unit.
    pub fn identify(connection: impl AsFd, shim: &ShimIdentity) -> io::Result<Peer> {
        let credentials = getsockopt(&connection.as_fd(), sockopt::PeerCredentials)?;
        let pid = credentials.pid();
        let pidfd = pidfd_open(pid)?;
        let proc_file = |name: &str| format!("/proc/{pid}/{name}");
        let cgroups = fs::read_to_string(proc_file("cgroup"))?;
        let stat = fs::read_to_string(proc_file("stat"))?;
        let exe = fs::metadata(proc_file("exe"))?;
        // What was read belongs to this pidfd's process only if that is still there, and to the connection only if
        // its number was not given to somebody else before: the program and the cgroup have to fit as well.
        if wait_ended(&pidfd, Duration::ZERO) {
            return Err(io::Error::other(format!("pid {pid} has ended")));
        }
        let refuse = |what: &str| Err(io::Error::other(format!("pid {pid} {what}")));
        if (exe.dev(), exe.ino()) != (shim.device, shim.inode) {
            return refuse("is not fastboot-exec");
        }
        if parent_of(&stat) != Some(1) {
            return refuse("was not started by systemd");
        }
        let Some(cgroup) = unified_path(&cgroups) else { return refuse("is in no unified cgroup") };
        let Some((unit, cgroup)) = unit_of(&shim.cgroup_root, cgroup) else { return refuse("is in no unit") };
        let (uid, gid) = (credentials.uid(), credentials.gid());
        Ok(Peer { pid, pidfd, uid, gid, unit, cgroup })
    }
}

/// The path in the unified hierarchy from the text of `/proc/PID/cgroup`.
fn unified_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Unit of a cgroup path, and the path of its own group: the first part below the slices. What a unit makes below itself, or systemd for
/// it (DelegateSubgroup=), has no say.
fn unit_of(root: &str, path: &str) -> Option<(String, String)> {
    let below = path.strip_prefix(root)?.strip_prefix('/')?;
    let mut end = path.len() - below.len();
    let mut parts = below.split('/').inspect(|part| end += part.len() + 1);
    let part = parts.find(|part| !part.ends_with(".slice"))?;
    let own = path.get(..end - 1)?.to_owned();
    // systemd puts an underscore before names that the kernel could mistake for one of its own files.
    let unit = part.strip_prefix('_').unwrap_or(part);
    unit.ends_with(".service").then(|| (unit.to_owned(), own))
}

/// Parent from the text of `/proc/PID/stat`; the program's name in parentheses may contain anything.
pub(crate) fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_first_part_below_the_slices() {
        let unit = |path: &str| unit_of("", path).map(|(unit, _)| unit);
        assert_eq!(unit("/system.slice/redis.service").as_deref(), Some("redis.service"));
        assert_eq!(unit("/system.slice/system-a.slice/a@b.service/sub").as_deref(), Some("a@b.service"));
        assert_eq!(unit("/system.slice/_memory.service").as_deref(), Some("memory.service"));
        let (name, own) = unit_of("/box", "/box/system.slice/a.service/sub/more").unwrap();
        assert_eq!((name.as_str(), own.as_str()), ("a.service", "/box/system.slice/a.service"));
        assert_eq!(unit_of("/box", "/box/a.service"), Some(("a.service".into(), "/box/a.service".into())));
        assert_eq!(unit_of("/box", "/other/a.service"), None);
        assert_eq!(unit("/init.scope"), None);
        assert_eq!(unit("/"), None);
    }

    #[test]
    fn a_user_cannot_pose_as_a_system_unit() {
        let path = "/user.slice/user-1000.slice/user@1000.service/app.slice/redis.service";
        assert_eq!(unit_of("", path).map(|(unit, _)| unit).as_deref(), Some("user@1000.service"));
    }

    #[test]
    fn a_strange_program_name_does_not_hide_the_parent() {
        assert_eq!(parent_of("12 (a) R 9) S 1 12 12 0"), Some(1));
        assert_eq!(parent_of("12 (a"), None);
    }
}
