//! The unit's namespaces, entered through the shim, and the time namespace that lets clocks go on.

use super::desk::Desk;
use crate::context::UnitContext;
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};
use snap_error::{Error, Result};
use snap_state::{ClocksV1, Pid};
use std::os::fd::{AsFd, OwnedFd};

/// What cannot be entered before the processes exist.
#[derive(Debug, Default)]
pub struct UserNamespace {
    /// `None`: the unit has none of its own.
    pub fd: Option<OwnedFd>,
    uids: IdMap,
    gids: IdMap,
}

/// Lines of /proc/PID/uid_map: first id inside, first id outside, count.
#[derive(Debug, Default)]
struct IdMap(Vec<[u32; 3]>);

impl IdMap {
    fn parse(text: &str) -> Self {
        let line = |l: &str| {
            let mut words = l.split_whitespace().map(str::parse);
            Some([words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?])
        };
        Self(text.lines().filter_map(line).collect())
    }

    fn inside(&self, outside: u32) -> Option<u32> {
        self.0.iter().find_map(|[inner, outer, count]| {
            let distance = outside.checked_sub(*outer)?;
            (distance < *count).then(|| inner + distance)
        })
    }
}

impl UserNamespace {
    /// A recorded user id as system calls inside the namespace take it.
    ///
    /// # Errors
    /// `Stale`: the id has no name inside.
    pub fn map_uid(&self, uid: u32) -> Result<u32> {
        self.map(&self.uids, uid, "user")
    }

    /// The same for a group id.
    ///
    /// # Errors
    /// `Stale`: the id has no name inside.
    pub fn map_gid(&self, gid: u32) -> Result<u32> {
        self.map(&self.gids, gid, "group")
    }

    fn map(&self, map: &IdMap, id: u32, what: &str) -> Result<u32> {
        match self.fd {
            None => Ok(id),
            Some(_) => map.inside(id).ok_or_else(|| {
                Error::stale(
                    ReasonCode::IdentityChanged,
                    format!("{what} {id} has no id in the unit's user namespace"),
                )
            }),
        }
    }
}

const ENTERED: [(&str, CloneFlags); 5] = [
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
];

/// Enters the shim's namespaces, those that differ from ours. The user namespace is only opened: a
/// process in it may no longer choose ids for its children.
///
/// # Errors
/// The shim is gone, or privilege is missing.
pub fn enter(desk: &Desk, unit: &UnitContext) -> Result<UserNamespace> {
    let shim = unit.shim_pid;
    let mut flags = CloneFlags::empty();
    for (name, flag) in ENTERED {
        if differs(desk, shim, name)? {
            flags |= flag;
        }
    }
    let mut user = UserNamespace::default();
    if differs(desk, shim, "user")? {
        let path = format!("{shim}/ns/user");
        let fd = desk.proc.open(&path, OFlag::O_RDONLY).map_err(|e| Error::kernel("opening", path, e))?;
        user.fd = Some(desk.raise(fd)?);
        user.uids = read_map(desk, shim, "uid_map")?;
        user.gids = read_map(desk, shim, "gid_map")?;
    }
    if !flags.is_empty() {
        setns(unit.shim.as_fd(), flags)
            .map_err(|e| Error::kernel("setns", format!("{flags:?} of {shim}"), e))?;
    }
    Ok(user)
}

fn differs(desk: &Desk, shim: Pid, name: &str) -> Result<bool> {
    let link = |pid: &str| {
        let path = format!("{pid}/ns/{name}");
        readlinkat(&desk.proc, path.as_str()).map_err(|e| Error::kernel("reading", path, e))
    };
    Ok(link("self")? != link(&shim.to_string())?)
}

fn read_map(desk: &Desk, shim: Pid, name: &str) -> Result<IdMap> {
    let path = format!("{shim}/{name}");
    let text = desk.proc.read(&path).map_err(|e| Error::kernel("reading", path, e))?;
    Ok(IdMap::parse(&String::from_utf8_lossy(&text)))
}

/// Makes a time namespace for the children of this process when today's clocks are behind the
/// recorded ones, so that they go on from there (time_namespaces(7), since Linux 5.6). A clock that
/// simply went on needs none.
///
/// # Errors
/// `EPERM` without CAP_SYS_TIME: the image cannot be used in this boot.
pub fn continue_clocks(desk: &Desk, recorded: &ClocksV1) -> Result<()> {
    let now = |clock| {
        clock_gettime(clock)
            .map(|t| t.tv_sec() * 1_000_000_000 + t.tv_nsec())
            .map_err(|e| Error::kernel("clock_gettime", clock, e))
    };
    let monotonic = now(ClockId::CLOCK_MONOTONIC)?;
    let boottime = now(ClockId::CLOCK_BOOTTIME)?;
    if monotonic >= recorded.monotonic_ns && boottime >= recorded.boottime_ns {
        return Ok(());
    }
    let failed = |step| {
        move |e| match e {
            Errno::EPERM | Errno::EACCES => Error::stale(
                ReasonCode::HostUnsupported,
                "the clock is behind that of the snapshot, and a time namespace needs CAP_SYS_TIME",
            ),
            e => Error::kernel(step, "time namespace", e),
        }
    };
    let ours = own_offsets(desk);
    unshare(CloneFlags::from_bits_retain(0x80)).map_err(failed("unshare"))?; // CLONE_NEWTIME
    let line = |name, offset: i64| {
        format!("{name} {} {}\n", offset.div_euclid(1_000_000_000), offset.rem_euclid(1_000_000_000))
    };
    let text = line("monotonic", (recorded.monotonic_ns - monotonic).max(0) + ours.0)
        + &line("boottime", (recorded.boottime_ns - boottime).max(0) + ours.1);
    desk.proc.write("self/timens_offsets", &text).map_err(failed("writing offsets"))
}

/// Monotonic and boottime offset of our own time namespace, nanoseconds; zero where there is none.
fn own_offsets(desk: &Desk) -> (i64, i64) {
    let text = desk.proc.read("self/timens_offsets").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let offset = |name: &str| {
        text.lines().find(|l| l.starts_with(name)).map_or(0, |line| {
            let words: Vec<i64> = line.split_whitespace().skip(1).filter_map(|w| w.parse().ok()).collect();
            words.first().unwrap_or(&0) * 1_000_000_000 + words.get(1).unwrap_or(&0)
        })
    };
    (offset("monotonic"), offset("boottime"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_into_the_namespace() {
        let map = IdMap::parse(
            "         0          0          1\n       119        119          1\n 200 1000 10\n",
        );
        assert_eq!(map.inside(0), Some(0));
        assert_eq!(map.inside(119), Some(119));
        assert_eq!(map.inside(1005), Some(205));
        assert_eq!(map.inside(120), None);
    }
}
