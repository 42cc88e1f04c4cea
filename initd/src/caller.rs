//! Who has connected: a process, and the unit whose control group it is in. Any local process may;
//! nothing that it sends has been read yet, and no descriptor of it taken.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use fastboot_runtime::ProcessId;
use nix::sys::socket::{getsockopt, sockopt};
use snap_state::Pid;
use snap_sys::proc::Stat;

use crate::sys::peer::peer_pidfd;
use crate::sys::process::{pidfd_open, wait_ended};

/// A process that has connected.
#[derive(Debug)]
pub struct Caller {
    /// Which one.
    pub process: ProcessId,
    /// The same process.
    pub pidfd: OwnedFd,
    /// Effective user that it connected with.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Its parent, as /proc told.
    pub(crate) parent: i32,
    /// The service that it is in.
    pub unit: String,
    /// Control group of that service, below the mount of the unified hierarchy, with `/` in front.
    pub cgroup: String,
}

/// Where units are: the control group of systemd itself without its last part.
#[derive(Clone, Debug)]
pub struct UnitsRoot(String);

impl UnitsRoot {
    /// Look at PID 1.
    ///
    /// # Errors
    /// When it cannot be looked at, or is in no unified hierarchy; nobody can be believed then.
    pub fn collect() -> io::Result<UnitsRoot> {
        let text = fs::read_to_string("/proc/1/cgroup")?;
        let own = unified_path(&text)
            .ok_or_else(|| io::Error::other("systemd is not in a unified cgroup hierarchy"))?;
        Ok(UnitsRoot(own.strip_suffix("/init.scope").unwrap_or(own).trim_end_matches('/').to_owned()))
    }

    /// Units below this path. For tests.
    pub fn at(path: &str) -> UnitsRoot {
        UnitsRoot(path.to_owned())
    }
}

impl Caller {
    /// Find out who has connected. Costs a few reads of /proc.
    ///
    /// # Errors
    /// When it has gone, or is in no service of the system.
    pub fn identify(connection: impl AsFd, units: &UnitsRoot) -> io::Result<Caller> {
        let credentials = getsockopt(&connection.as_fd(), sockopt::PeerCredentials)?;
        let pid = credentials.pid();
        // Where the kernel has no pidfd of the peer, its number may have passed to somebody else
        // before it is opened here. What is sent later has to come from the same process, by the
        // kernel's word (SCM_CREDENTIALS).
        let pidfd = match peer_pidfd(connection.as_fd())? {
            Some(pidfd) if pid_of(&pidfd)? == pid => pidfd,
            Some(_) => return Err(io::Error::other(format!("pid {pid} has ended"))),
            None => pidfd_open(pid)?,
        };
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let stat = Stat::of(Pid(pid)).map_err(io::Error::other)?;
        // What was read belongs to the process of the pidfd only if that is still there.
        if wait_ended(&pidfd, Duration::ZERO) {
            return Err(io::Error::other(format!("pid {pid} has ended")));
        }
        let refuse = |what: &str| io::Error::other(format!("pid {pid} {what}"));
        let cgroup = unified_path(&cgroups).ok_or_else(|| refuse("is in no unified cgroup"))?;
        let (unit, cgroup) = unit_of(&units.0, cgroup).ok_or_else(|| refuse("is in no service"))?;
        let process = ProcessId { pid, start_ticks: stat.start_ticks };
        let (uid, gid) = (credentials.uid(), credentials.gid());
        Ok(Caller { process, pidfd, uid, gid, parent: stat.ppid.0, unit, cgroup })
    }
}

/// The number of a pidfd's process; 0 or below when it has ended.
fn pid_of(pidfd: &OwnedFd) -> io::Result<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| io::Error::other("a pidfd does not tell its process"))
}

/// The path in the unified hierarchy from the text of `/proc/PID/cgroup`.
fn unified_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Unit of a cgroup path, and the path of its own group: the first part below the slices. What a
/// unit makes below itself, or systemd for it (DelegateSubgroup=), has no say.
fn unit_of(root: &str, path: &str) -> Option<(String, String)> {
    let below = path.strip_prefix(root)?.strip_prefix('/')?;
    let mut end = path.len() - below.len();
    let mut parts = below.split('/').inspect(|part| end += part.len() + 1);
    let part = parts.find(|part| !part.ends_with(".slice"))?;
    let own = path.get(..end - 1)?.to_owned();
    // systemd puts an underscore before names that the kernel could mistake for one of its own
    // files.
    let unit = part.strip_prefix('_').unwrap_or(part);
    unit.ends_with(".service").then(|| (unit.to_owned(), own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

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
    fn a_strange_program_name_does_not_hide_parent_and_start() {
        let own = || Stat::of(Pid(std::process::id() as i32)).unwrap();
        let before = own();
        std::thread::spawn(move || {
            // The leader's name is the process's.
            std::fs::write("/proc/self/comm", b"a) R 9\xff\n").unwrap();
            let named = own();
            std::fs::write("/proc/self/comm", "caller").unwrap();
            assert_eq!((named.ppid, named.start_ticks), (before.ppid, before.start_ticks));
            assert_eq!(named.ppid.0, std::os::unix::process::parent_id() as i32);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_kernel_tells_the_process_that_made_a_connection() {
        let (ours, _theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        // Before Linux 6.5 there is none.
        if let Some(pidfd) = peer_pidfd(&ours).unwrap() {
            assert_eq!(pid_of(&pidfd).unwrap(), std::process::id() as i32);
        }
    }
}
