//! The root of the machines: Debian with its cloud kernel, light services, and the runner's agent.

use anyhow::{Context as _, Result};

use crate::roots::{Language, Recipe, RootFile, compiled};

macro_rules! source {
    ($name:literal) => {
        include_str!(concat!("../../roots/", $name))
    };
}

/// The same for each suite.
///
/// # Errors
/// A program of ours does not compile.
pub(super) fn recipe(suite: &'static str) -> Result<Recipe> {
    let program = |path: &'static str, source: &str| -> Result<RootFile> {
        let binary = compiled(Language::StaticC, source).with_context(|| format!("compiling {path}"))?;
        Ok(RootFile::program(path, binary))
    };
    Ok(Recipe {
        name: match suite {
            "bookworm" => "machine-12",
            "trixie" => "machine-13",
            _ => "machine-sid",
        },
        suite,
        packages: vec![
            "systemd",
            "systemd-sysv",
            "dbus",
            "procps",
            "iproute2",
            "kmod",
            "udev",
            "e2fsprogs",
            "ndctl",
            "linux-image-cloud-amd64",
            "apparmor",
            "nginx",
            "redis-server",
        ],
        from_sid: Vec::new(),
        files: vec![
            program("/usr/local/bin/fastboot-tests-agent", source!("machine/agent.c"))?,
            RootFile::text(
                "/etc/systemd/system/fastboot-tests-agent.service",
                source!("machine/fastboot-tests-agent.service"),
            ),
            program("/usr/local/bin/clockwork", source!("machine/clockwork.c"))?,
            RootFile::text("/etc/systemd/system/clockwork.service", source!("machine/clockwork.service")),
            program("/usr/local/bin/counter", source!("scenario/counter.c"))?,
            RootFile::text("/etc/systemd/system/counter.service", source!("scenario/counter.service")),
            RootFile::text("/usr/local/share/counter.apparmor", source!("machine/counter.apparmor")),
            RootFile::text("/etc/nginx/conf.d/status.conf", source!("common/nginx-status.conf")),
            RootFile::text("/var/www/html/index.html", source!("common/index.html")),
            RootFile::program("/usr/local/bin/fastboot-tests-warm-up", source!("common/warm-up").as_bytes()),
            RootFile::text(
                "/var/lib/fastboot-tests/README",
                "Here the warm-up command and the runner meet.\n",
            ),
        ],
        setup: source!("machine/setup.sh"),
    })
}
