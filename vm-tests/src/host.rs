//! The machine that the tests run on: what must be installed, and what it is called in reports.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;

/// Programs that are needed, each with the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/systemd-nspawn", "systemd-container"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/fincore", "util-linux-extra"),
];

/// What building and checking the Debian package needs on top.
const PACKAGING: &[(&str, &str)] =
    &[("/usr/bin/dh", "debhelper"), ("/usr/bin/dpkg-shlibdeps", "dpkg-dev"), ("/usr/bin/lintian", "lintian")];

/// Install whatever Debian packages are missing. Does nothing, quickly, where all are there.
///
/// # Errors
/// Not root; apt-get fails.
pub fn install_missing_packages() -> Result<()> {
    install_missing(PROGRAMS)
}

/// The same for what building and checking the Debian package needs.
///
/// # Errors
/// Not root; apt-get fails.
pub fn install_packages_for_packaging() -> Result<()> {
    install_missing(PACKAGING)
}

/// What virtual machines need. Older QEMUs than this crash newer kernels when they emulate.
const QEMU_MAJOR: u32 = 9;
const EMULATION: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/qemu-img", "qemu-utils"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/sbin/mke2fs", "e2fsprogs"),
];
/// Where Debian 12 has a QEMU that does.
const BACKPORTS: (&str, &str) = (
    "/etc/apt/sources.list.d/fastboot-tests-backports.list",
    "deb http://deb.debian.org/debian bookworm-backports main\n",
);

/// The same for virtual machines. On Debian 12 QEMU comes from backports, which are added to apt's sources.
///
/// # Errors
/// Not root; apt-get fails; there is no QEMU that is new enough.
pub fn install_packages_for_machines() -> Result<()> {
    if qemu_major().is_some_and(|major| major >= QEMU_MAJOR) {
        return install_missing(EMULATION);
    }
    let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    if field(&os_release, "VERSION_CODENAME", '=') == Some("bookworm") {
        eprintln!("installing QEMU from bookworm-backports");
        std::fs::write(BACKPORTS.0, BACKPORTS.1).with_context(|| format!("writing {}", BACKPORTS.0))?;
        apt_get(&["update"])?;
        let packages = EMULATION.iter().map(|&(_, package)| package);
        let arguments =
            ["install", "--yes", "--no-install-recommends", "--target-release=bookworm-backports"];
        apt_get(&arguments.into_iter().chain(packages.take(2)).collect::<Vec<_>>())?;
    }
    install_missing(EMULATION)?;
    let major = qemu_major().context("QEMU does not tell its version")?;
    ensure!(major >= QEMU_MAJOR, "QEMU {major} is too old for new kernels; {QEMU_MAJOR} is needed");
    Ok(())
}

fn qemu_major() -> Option<u32> {
    let output = Command::new("qemu-system-x86_64").arg("--version").stdin(Stdio::null()).output().ok()?;
    parse_qemu_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_qemu_major(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

fn install_missing(programs: &[(&str, &str)]) -> Result<()> {
    ensure!(geteuid().is_root(), "this needs root: it builds root file systems and boots containers");
    let missing: Vec<&str> =
        programs.iter().filter(|(path, _)| !Path::new(path).exists()).map(|&(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(" "));
    apt_get(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(&arguments)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .arg("--quiet")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("running apt-get (this runs on Debian)")?;
    if !output.status.success() {
        bail!("apt-get {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Write out what is dirty and forget all clean pages, so that the next boot reads from the disk.
///
/// # Errors
/// /proc/sys is not writable.
pub fn drop_page_cache() -> Result<()> {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3\n").context("dropping the page cache")
}

/// One line that names CPU, cores, memory, kernel and distribution.
pub fn describe() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = field(&cpuinfo, "model name", ':').unwrap_or("unknown CPU").to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory_gib = field(&read("/proc/meminfo"), "MemTotal", ':')
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / f64::from(1 << 20));
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let os_release = read("/etc/os-release");
    let system =
        field(&os_release, "PRETTY_NAME", '=').unwrap_or("unknown system").trim_matches('"').to_owned();
    format!("{cpu}, {cores} cores, {memory_gib:.0} GiB, Linux {kernel}, {system}")
}

/// The value of the first line `name<separator>value`.
fn field<'a>(text: &'a str, name: &str, separator: char) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
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
    fn a_field_is_the_first_line_with_that_name() {
        let text = "model : 1\nmodel name\t: Some CPU @ 2 GHz\nmodel name : other\n";
        assert_eq!(field(text, "model name", ':'), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "flags", ':'), None);
    }
}
