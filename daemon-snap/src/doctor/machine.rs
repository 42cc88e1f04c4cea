//! What we may do here, and what kind of machine this is.

use super::finding::{Finding, Seen};
use super::kernel::tried;
use crate::unit::Systemd;
use caps::Capability;
use snap_state::Pid;
use snap_sys::proc::Status;
use snap_sys::{own, probe};
use std::path::Path;

/// Tried on no older one.
const OLDEST_SYSTEMD: u32 = 252;

/// Without these no service comes back as it was.
const NECESSARY: [Capability; 9] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
];
/// Without one of these some services do not; each with what it is for.
const USEFUL: [(Capability, &str); 7] = [
    (Capability::CAP_DAC_READ_SEARCH, "inotify watches cannot be traced back to their files"),
    (Capability::CAP_NET_ADMIN, "socket options beyond the limits of the system cannot be put back"),
    (Capability::CAP_NET_BIND_SERVICE, "ports below 1024 cannot be bound again"),
    (Capability::CAP_IPC_LOCK, "locked memory beyond the limit cannot be put back"),
    (Capability::CAP_SYS_NICE, "real-time scheduling cannot be put back"),
    (Capability::CAP_SYS_RESOURCE, "limits and OOM scores cannot be raised to what they were"),
    (Capability::CAP_SYS_TIME, "clocks cannot go on from where they were"),
];

pub(super) fn examine() -> Vec<Finding> {
    let systemd = Systemd::connect();
    let says = |property: &'static str| match &systemd {
        Ok(systemd) => systemd.manager_text(property).map_err(|e| e.to_string()),
        Err(_) => Err("does not answer on the system bus".to_owned()),
    };
    let effective = own::capabilities().map_or(0, |(effective, _)| effective);
    let place = says("Virtualization");
    let is_container = place.as_deref().is_ok_and(is_container);
    let mut findings = vec![
        Finding::necessary(
            "systemd",
            says("Version").and_then(|version| supported(&version)),
            "services cannot be taken; `fastboot dump` and `fastboot restore` work without systemd",
        ),
        Finding::useful(
            "virtualization",
            place.map(|place| described(&place)),
            "nobody knows what this runs in",
        )
        .but(match is_container {
            true => "the kernel is the host's: an image is stale after the host's next kernel",
            false => "",
        }),
        Finding::necessary(
            "capabilities",
            held(effective),
            "services cannot be put back as they were; run this as root, outside of a restricted container",
        ),
    ];
    for (capability, otherwise) in USEFUL {
        // All of them are there on an ordinary machine; only what is missing is worth a line.
        if effective & capability.bitmask() == 0 {
            findings.push(Finding::useful("capability", Err(format!("{capability} is missing")), otherwise));
        }
    }
    // A container's clocks are the host's, which go on while it reboots.
    let time = Finding::of(
        "time-namespace",
        !is_container,
        tried(probe::time_namespace()),
        "monotonic clocks cannot go on from the snapshot: images are usable only while the clock is ahead of theirs",
    );
    findings.extend([time, filter()]);
    findings
}

fn supported(version: &str) -> Seen {
    let number: String = version.chars().take_while(char::is_ascii_digit).collect();
    match number.parse::<u32>() {
        Ok(number) if number >= OLDEST_SYSTEMD => Ok(format!("version {version}")),
        _ => Err(format!("version {version}; {OLDEST_SYSTEMD} is the oldest that this was tried on")),
    }
}

/// The names that systemd-detect-virt(1) lists as containers.
fn is_container(place: &str) -> bool {
    const CONTAINERS: [&str; 10] = [
        "openvz",
        "lxc",
        "lxc-libvirt",
        "systemd-nspawn",
        "docker",
        "podman",
        "rkt",
        "wsl",
        "proot",
        "pouch",
    ];
    CONTAINERS.contains(&place) || place == "container-other"
}

fn described(place: &str) -> String {
    match place {
        "" | "none" => "none: a machine of its own".to_owned(),
        place if is_container(place) => format!("{place}, a container"),
        place => format!("{place}, a virtual machine"),
    }
}

fn held(effective: u64) -> Seen {
    let missing = NECESSARY.iter().filter(|capability| effective & capability.bitmask() == 0);
    let missing: Vec<String> = missing.map(ToString::to_string).collect();
    match missing.is_empty() {
        true => Ok("all that are necessary".to_owned()),
        false => Err(format!("missing: {}", missing.join(" "))),
    }
}

/// Whether we live under a filter, as in most containers.
fn filter() -> Finding {
    let own = Pid(std::process::id() as i32);
    let seen = match Status::of(own, own) {
        Ok(status) if status.seccomp_filters == 0 => Ok("none around us".to_owned()),
        Ok(status) => Err(format!("{} around us, a container's for example", status.seccomp_filters)),
        Err(error) => Err(error.to_string()),
    };
    Finding::useful(
        "seccomp",
        seen,
        "filters of services cannot be read: those that have one cannot be taken here",
    )
}

/// Whether a path is on the same file system as the root.
pub(super) fn is_on(root: &Path, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata(root)?.dev() == std::fs::metadata(path)?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_systemd_is_its_leading_number() {
        assert!(supported("257.8-1~deb13u1").is_ok());
        assert!(supported("252").is_ok());
        assert!(supported("247.3-7+deb11u6").is_err());
        assert!(supported("").is_err());
    }

    #[test]
    fn containers_are_told_from_machines() {
        assert!(is_container("systemd-nspawn") && is_container("lxc"));
        assert!(!is_container("kvm") && !is_container("") && !is_container("none"));
    }

    #[test]
    fn a_capability_that_is_missing_is_named() {
        assert_eq!(held(u64::MAX), Ok("all that are necessary".to_owned()));
        let without = held(!Capability::CAP_SYS_PTRACE.bitmask());
        assert_eq!(without, Err("missing: CAP_SYS_PTRACE".to_owned()));
    }
}
