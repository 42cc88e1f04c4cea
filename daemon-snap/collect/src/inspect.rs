//! Blockers of the tree as a whole: namespaces, what processes share, kinds of task. What is wrong
//! with single objects is found by their collectors.

use crate::blockers::Blockers;
use crate::member::Member;
use crate::options::CollectOptions;
use crate::spaces::Spaces;
use nix::errno::Errno;
use snap_error::obstacle::{ProcessObstacle, SandboxObstacle, SharedResource};
use snap_error::{Error, Part, Result};
use snap_state::{Pid, TargetFd};
use snap_sys::kcmp::{self, Resource};
use snap_sys::proc::{self, Status};
use snap_sys::{netns, pidfd};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Namespaces that a unit may have of its own.
const OF_UNITS: [&str; 6] = ["mnt", "net", "ipc", "uts", "user", "cgroup"];
/// A thread can leave these alone; the last two are those of children that it will have.
const OF_THREADS: [&str; 6] = ["net", "ipc", "uts", "cgroup", "pid_for_children", "time_for_children"];

/// Whether we ourselves may look: a container's seccomp filter may forbid it, and then nothing can
/// be said of any tree.
///
/// # Errors
/// [`Error::Refused`] for each process when not.
pub(crate) fn inspect_sandbox(members: &[Member]) -> Result<()> {
    let own = Pid(std::process::id() as i32);
    if Status::of(own, own)?.seccomp_filters == 0 {
        return Ok(());
    }
    let pidfd = pidfd::open(own).map_err(|e| Error::kernel("pidfd_open", "own process", e))?;
    match pidfd::get_fd(pidfd.as_fd(), TargetFd(pidfd.as_raw_fd())) {
        Err(Errno::EPERM | Errno::ENOSYS) => {
            let mut blockers = Blockers::default();
            let mut refuse =
                |member: &Member| blockers.add(member.pid, Part::Process, SandboxObstacle::FastbootSandboxed);
            members.iter().for_each(&mut refuse);
            Err(Error::Refused(blockers.into_list()))
        }
        // Anything else belongs to the descriptor that it happens with.
        _ => Ok(()),
    }
}

/// Gathers what forbids a dump of the tree as a whole.
pub(crate) fn inspect_tree(
    members: &[Member],
    options: &CollectOptions,
    blockers: &mut Blockers,
) -> Result<Spaces> {
    let Some(main) = members.first() else {
        return Err(Error::Internal { step: "inspect", message: "a tree without processes".into() });
    };
    let spaces = inspect_namespaces(main.pid, members, options, blockers)?;
    inspect_sharing(members, blockers)?;
    for member in members {
        inspect_member(member, blockers);
    }
    if options.unit && options.cgroup.is_none() {
        inspect_cgroups(main.pid, members, blockers)?;
    }
    Ok(spaces)
}

fn inspect_member(member: &Member, blockers: &mut Blockers) {
    let pid = member.pid;
    if member.stat.tty != 0 {
        let (major, minor) = ((member.stat.tty >> 8) & 0xfff, member.stat.tty & 0xff);
        blockers.add(pid, Part::Process, ProcessObstacle::ControllingTerminal { major, minor });
    }
    for (tid, status) in &member.threads {
        let part = Part::of_task(pid, *tid);
        if status.shadow_stack {
            blockers.add(pid, part, ProcessObstacle::ShadowStack);
        }
        if status.seccomp_mode == 1 {
            blockers.add(pid, part, SandboxObstacle::SeccompStrict);
        }
        if status.pid_namespaces > 1 {
            blockers.add(pid, part, SandboxObstacle::OwnPidNamespace);
        }
    }
}

/// The link to a namespace of a thread; empty for a PID namespace whose first process is still to
/// be made, to which the kernel gives no link.
fn namespace_of(pid: Pid, tid: Pid, name: &str) -> Result<Vec<u8>> {
    let unborn = name == "pid_for_children";
    match proc::read_link(pid, &format!("task/{tid}/ns/{name}")) {
        Err(Error::Gone { .. }) if unborn && proc::read_link(pid, &format!("task/{tid}/ns/pid")).is_ok() => {
            Ok(Vec::new())
        }
        found => found,
    }
}

fn inspect_namespaces(
    main: Pid,
    members: &[Member],
    options: &CollectOptions,
    blockers: &mut Blockers,
) -> Result<Spaces> {
    let own = Pid(std::process::id() as i32);
    let link = |pid: Pid, name: &str| proc::read_link(pid, &format!("ns/{name}"));
    for name in
        ["mnt", "net", "ipc", "uts", "user", "cgroup", "pid", "pid_for_children", "time", "time_for_children"]
    {
        let reference = match name {
            _ if options.unit && OF_UNITS.contains(&name) => link(main, name)?,
            // A tree in a time namespace is recorded with its own clocks; its processes must agree.
            "time" | "time_for_children" => link(main, "time")?,
            "pid_for_children" => link(own, "pid")?,
            _ => link(own, name)?,
        };
        for member in members {
            let own = || SandboxObstacle::OwnNamespace { name: name.trim_end_matches("_for_children") };
            if namespace_of(member.pid, member.pid, name)? != reference {
                blockers.add(member.pid, Part::Process, own());
                continue;
            }
            for (tid, _) in member.threads.iter().skip(1).filter(|_| OF_THREADS.contains(&name)) {
                if namespace_of(member.pid, *tid, name)? != reference {
                    blockers.add(member.pid, Part::Thread(*tid), own());
                }
            }
        }
    }
    if link(main, "user")? != link(own, "user")? && !maps_ids_to_themselves(main)? {
        blockers.add(main, Part::Process, SandboxObstacle::IdsRenumbered);
    }
    let open = |name: &str| {
        let path = format!("/proc/{main}/ns/{name}");
        File::open(&path).map_err(|e| Error::io("open", path, &e))
    };
    let root = if link(main, "mnt")? == link(own, "mnt")? {
        File::open("/").map(OwnedFd::from).map_err(|e| Error::io("open", "/", &e))?
    } else {
        netns::mount_root(open("mnt")?.as_fd())
            .map_err(|e| Error::kernel("enter", format!("mount namespace of pid {main}"), e))?
    };
    let net = if link(main, "net")? == link(own, "net")? { None } else { Some(open("net")?) };
    let ipc = if link(main, "ipc")? == link(own, "ipc")? { None } else { Some(open("ipc")?) };
    Ok(Spaces { root, net, ipc, main })
}

/// Ids inside and outside are the same numbers, as with `PrivateUsers=`.
fn maps_ids_to_themselves(pid: Pid) -> Result<bool> {
    for name in ["uid_map", "gid_map"] {
        let text = proc::read(pid, name)?;
        let text = String::from_utf8_lossy(&text);
        let renumbers = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            words.next() != words.next()
        };
        if text.lines().any(renumbers) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Processes may not share what fork(2) copies; the threads of one process must.
fn inspect_sharing(members: &[Member], blockers: &mut Blockers) -> Result<()> {
    let compare = |a: Pid, b: Pid, what| {
        kcmp::compare(a, b, what).map_err(|e| Error::kernel("kcmp", format!("{a} with {b}"), e))
    };
    let kinds = [
        (Resource::Vm, SharedResource::AddressSpace),
        (Resource::Files, SharedResource::Descriptors),
        (Resource::Fs, SharedResource::Directories),
        (Resource::SigHand, SharedResource::SignalHandlers),
    ];
    for (resource, shared) in kinds {
        let mut sorted: Vec<Pid> = members.iter().map(|m| m.pid).collect();
        let mut trouble = None;
        sorted.sort_by(|&a, &b| {
            compare(a, b, resource).unwrap_or_else(|e| {
                trouble = Some(e);
                std::cmp::Ordering::Equal
            })
        });
        if let Some(e) = trouble {
            return Err(e);
        }
        for pair in sorted.windows(2) {
            if compare(pair[0], pair[1], resource)?.is_eq() {
                let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                let obstacle = ProcessObstacle::SharedResource { resource: shared, with: low };
                blockers.add(high, Part::Process, obstacle);
            }
        }
        if matches!(resource, Resource::Vm | Resource::SigHand) {
            continue;
        }
        for member in members {
            for (tid, _) in member.threads.iter().skip(1) {
                if compare(member.pid, *tid, resource)?.is_ne() {
                    let obstacle = ProcessObstacle::UnsharedResource { resource: shared };
                    blockers.add(member.pid, Part::Thread(*tid), obstacle);
                }
            }
        }
    }
    Ok(())
}

/// Without a known group of the unit there is only one to restore into.
fn inspect_cgroups(main: Pid, members: &[Member], blockers: &mut Blockers) -> Result<()> {
    let unified = |pid: Pid| -> Result<Option<String>> {
        let text = proc::read(pid, "cgroup")?;
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned))
    };
    let expected = unified(main)?;
    for member in members {
        let found = unified(member.pid)?;
        if found != expected {
            let group = found.unwrap_or_default();
            blockers.add(member.pid, Part::Process, SandboxObstacle::OwnCgroup { group });
        }
    }
    Ok(())
}
