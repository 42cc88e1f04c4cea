//! The table: program, Debian package, what for.

/// A part of what this crate does, by what it needs of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `cargo test --workspace`: unit tests and the engine's subjects.
    Tests,
    /// Root file systems and containers: scenarios, units, dbus, randomness, daemons, the demo,
    /// `bench-boot`, `bench-engine`.
    Roots,
    /// Building and checking the Debian package; also for what installs it in a guest.
    Package,
    /// Virtual machines: lives, `bench-boot --machine`.
    Machines,
}

use Purpose::{Machines, Package, Roots, Tests};

/// One program or file of the host.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Name of a program, or the absolute path of a file that something reads.
    pub name: &'static str,
    /// Debian package that has it, on Debian 12 and 13.
    pub package: &'static str,
    /// What needs it.
    pub purposes: &'static [Purpose],
}

const fn need(name: &'static str, package: &'static str, purposes: &'static [Purpose]) -> Need {
    Need { name, package, purposes }
}

/// Everything. Cargo with rustfmt and clippy, and apt-get, are given.
pub const TABLE: &[Need] = &[
    // Compilers of the subjects and of the static programs.
    need("cc", "gcc", &[Tests, Package]),
    need("/usr/include/stdio.h", "libc6-dev", &[Tests, Package]),
    need("musl-gcc", "musl-tools", &[Tests]),
    need("go", "golang-go", &[Tests]),
    // For the library, which a subject opens.
    need("openssl", "openssl", &[Tests]),
    // What tests execute directly or in a script.
    need("bash", "bash", &[Tests, Roots]),
    need("sh", "dash", &[Tests, Roots]),
    need("cat", "coreutils", &[Tests]),
    need("env", "coreutils", &[Tests]),
    need("readlink", "coreutils", &[Tests]),
    need("sleep", "coreutils", &[Tests, Roots]),
    need("tr", "coreutils", &[Tests]),
    need("true", "coreutils", &[Tests]),
    need("grep", "grep", &[Tests]),
    need("sed", "sed", &[Tests]),
    need("findmnt", "util-linux", &[Tests]),
    need("setpriv", "util-linux", &[Tests, Machines]),
    need("setsid", "util-linux", &[Tests]),
    need("perl", "perl-base", &[Tests]),
    need("mount", "mount", &[Tests]),
    need("systemctl", "systemd", &[Tests]),
    need("dbus-daemon", "dbus-daemon", &[Tests]),
    // Roots and containers.
    need("mmdebstrap", "mmdebstrap", &[Roots]),
    need("apt-get", "apt", &[Roots]),
    need("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring", &[Roots]),
    need("systemd-nspawn", "systemd-container", &[Roots]),
    need("chroot", "coreutils", &[Roots]),
    need("cp", "coreutils", &[Roots]),
    need("date", "coreutils", &[Roots]),
    need("rmdir", "coreutils", &[Roots]),
    need("timeout", "coreutils", &[Tests, Roots]),
    need("find", "findutils", &[Roots]),
    need("xargs", "findutils", &[Roots]),
    need("awk", "mawk", &[Roots]),
    need("fincore", "util-linux-extra", &[Roots]),
    need("nsenter", "util-linux", &[Roots]),
    need("unshare", "util-linux", &[Tests, Roots]),
    // The Debian package.
    need("dh", "debhelper", &[Package]),
    need("dpkg-deb", "dpkg", &[Package]),
    need("dpkg-shlibdeps", "dpkg-dev", &[Package]),
    need("make", "make", &[Package]),
    need("lintian", "lintian", &[Package]),
    // Virtual machines.
    need("qemu-system-x86_64", "qemu-system-x86", &[Machines]),
    need("qemu-img", "qemu-utils", &[Machines]),
    need("mke2fs", "e2fsprogs", &[Machines]),
];
