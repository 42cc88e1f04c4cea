//! Installing what is missing, with apt-get.

use std::process::Stdio;
use std::sync::Mutex;

use nix::unistd::geteuid;

use super::{Need, NeedError, Purpose, TABLE, command};
use crate::{host, roots};

/// Older QEMUs than this crash newer kernels when they emulate.
const QEMU_MAJOR: u32 = 9;
/// Where they are added to apt's sources.
const BACKPORTS: &str = "/etc/apt/sources.list.d/fastboot-tests-backports.sources";
/// Lines of a failed apt-get that are shown.
const TAIL: usize = 8;

/// Install the Debian packages that are missing for these purposes. Does nothing, quickly, where
/// all are there; asks the mirrors for their lists once in a run, and only when something is
/// missing.
///
/// # Errors
/// Something is missing and this is not root, or apt-get fails.
pub fn install(purposes: &[Purpose]) -> Result<(), NeedError> {
    if !geteuid().is_root() && purposes.iter().any(|&purpose| purpose != Purpose::Tests) {
        return Err(NeedError::NotRoot { what: "it builds root file systems and boots them".to_owned() });
    }
    let missing = missing(TABLE, purposes);
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(&missing, &[])
}

/// [`install`] for everything.
///
/// # Errors
/// As [`install_for_machines`].
pub fn install_all() -> Result<(), NeedError> {
    install(&[Purpose::Tests, Purpose::Roots, Purpose::Package])?;
    install_for_machines()
}

/// [`install`] for [`Purpose::Machines`], where QEMU may be there and too old: Debian 12 has a
/// newer one in its backports, which are added to apt's sources for it.
///
/// # Errors
/// As [`install`]; there is no QEMU that is new enough.
pub fn install_for_machines() -> Result<(), NeedError> {
    let purposes = [Purpose::Roots, Purpose::Machines];
    if qemu_major().is_none_or(|major| major < QEMU_MAJOR) && host::codename().as_deref() == Some("bookworm")
    {
        let qemu: Vec<Need> = TABLE.iter().filter(|need| need.name.starts_with("qemu-")).copied().collect();
        add_backports()?;
        install_packages(&qemu, &["--target-release=bookworm-backports"])?;
    }
    install(&purposes)?;
    match qemu_major() {
        Some(found) if found < QEMU_MAJOR => Err(NeedError::OldQemu { found, needed: QEMU_MAJOR }),
        _ => Ok(()),
    }
}

/// Have apt ask the mirrors what they have.
///
/// # Errors
/// Not root, or apt-get fails.
pub fn update_lists() -> Result<(), NeedError> {
    if !geteuid().is_root() {
        return Err(NeedError::NotRoot { what: "apt has no lists of packages".to_owned() });
    }
    apt_get(&["update"], &[])
}

fn add_backports() -> Result<(), NeedError> {
    let failed = |error: anyhow::Error| NeedError::Backports { why: format!("{error:#}") };
    let sources = roots::backports().map_err(failed)?;
    // Of earlier runs; two entries for one suite must not differ in their keys.
    let _ = std::fs::remove_file("/etc/apt/sources.list.d/fastboot-tests-backports.list");
    std::fs::write(BACKPORTS, sources).map_err(|error| failed(error.into()))
}

fn missing(table: &[Need], purposes: &[Purpose]) -> Vec<Need> {
    let wanted = table.iter().filter(|need| need.purposes.iter().any(|one| purposes.contains(one)));
    wanted.filter(|need| need.find().is_none()).copied().collect()
}

fn install_packages(needs: &[Need], options: &[&str]) -> Result<(), NeedError> {
    let mut packages: Vec<&str> = needs.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    if !geteuid().is_root() {
        return Err(NeedError::NotRoot { what: format!("it installs {}", packages.join(" ")) });
    }
    eprintln!("installing {}", packages.join(" "));
    // Two runs of this process's threads would otherwise meet at dpkg's lock.
    static LISTS_ARE_NEW: Mutex<bool> = Mutex::new(false);
    let mut lists_are_new = LISTS_ARE_NEW.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*lists_are_new || !options.is_empty() {
        apt_get(&["update"], needs)?;
        *lists_are_new = true;
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(options);
    arguments.extend(packages);
    apt_get(&arguments, needs)?;
    match needs.iter().find(|need| need.find().is_none()) {
        Some(need) => Err(NeedError::Missing { name: need.name, package: need.package }),
        None => Ok(()),
    }
}

fn apt_get(arguments: &[&str], needs: &[Need]) -> Result<(), NeedError> {
    let failed = |said: String| {
        let names = needs.iter().map(|need| format!(" for {} (package {})", need.name, need.package));
        NeedError::AptGet { names: names.collect::<Vec<_>>().join(","), arguments: arguments.join(" "), said }
    };
    let output = command("apt-get")?
        // Another apt-get on this machine, as after its boot, ends some time.
        .args(["--quiet", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    Err(failed(lines[lines.len().saturating_sub(TAIL)..].join("\n")))
}

fn qemu_major() -> Option<u32> {
    let output = command("qemu-system-x86_64").ok()?.arg("--version").stdin(Stdio::null()).output().ok()?;
    parse_qemu_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_qemu_major(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_qemu_is_read() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(parse_qemu_major(text), Some(10));
        assert_eq!(parse_qemu_major(""), None);
    }

    #[test]
    fn only_what_is_missing_for_a_purpose_is_installed() {
        let table = [
            Need { name: "sh", package: "dash", purposes: &[Purpose::Tests] },
            Need { name: "no-such-program", package: "a", purposes: &[Purpose::Tests] },
            Need { name: "/no/such/file", package: "b", purposes: &[Purpose::Roots, Purpose::Tests] },
        ];
        let packages =
            |purpose| missing(&table, &[purpose]).into_iter().map(|need| need.package).collect::<Vec<_>>();
        assert_eq!(packages(Purpose::Tests), ["a", "b"]);
        assert_eq!(packages(Purpose::Roots), ["b"]);
        assert!(packages(Purpose::Machines).is_empty());
    }
}
