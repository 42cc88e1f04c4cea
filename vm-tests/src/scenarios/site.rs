//! A provisioned machine for one scenario: a copy of a light root with three services and fastboot.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::client::first_answer;
use crate::container::{BootOptions, Machine};
use crate::fastboot::{self, SnapshotReport, StatusReport};
use crate::roots::{CACHE_DIR, Language, Recipe, RootFile, Scratch, cached, compiled};
use crate::service::{
    Kind, Service, Taken, install_fastboot, require_cold, require_restored, snapshot_while_driving,
};

pub(super) const NGINX: Service = Service { unit: "nginx.service", comes_back: false, kind: Kind::Nginx };
pub(super) const REDIS: Service =
    Service { unit: "redis-server.service", comes_back: true, kind: Kind::Redis };
pub(super) const COUNTER: Service = Service {
    unit: "counter.service",
    comes_back: true,
    kind: Kind::Counter { port: 8082, show: "/state", bump: "/bump?", to: 4242 },
};
pub(super) const SERVICES: [Service; 3] = [NGINX, REDIS, COUNTER];

/// Longest for a service to answer, or for systemd to be done, after a boot.
const BOOT_BOUND: Duration = Duration::from_secs(60);

/// What all scenarios share: a root to copy, and the binaries.
#[derive(Debug)]
pub(super) struct Lab {
    root: PathBuf,
    release: PathBuf,
    logs: PathBuf,
}

impl Lab {
    pub(super) fn prepare() -> Result<Lab> {
        let release = fastboot::build_with_faults().context("building fastboot")?;
        let logs = PathBuf::from(CACHE_DIR).join("logs/scenarios");
        std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        Ok(Lab { root: cached(&recipe()?)?, release, logs })
    }

    /// A machine with fastboot installed that has not been booted yet.
    pub(super) fn site(&self, name: &str) -> Result<Site> {
        let scratch = Scratch::copy_of(&self.root, name)?;
        install_fastboot(&self.release, &scratch)?;
        Ok(Site { scratch, name: name.to_owned(), logs: self.logs.clone(), boots: 0 })
    }

    /// A machine whose services all have an image. It is switched off.
    pub(super) fn site_with_images(&self, name: &str) -> Result<(Site, Vec<Taken>)> {
        let mut site = self.site(name)?;
        let running = site.boot()?;
        let (_, taken) = site.snapshot(&running)?;
        running.poweroff()?;
        Ok((site, taken))
    }
}

fn recipe() -> Result<Recipe> {
    let counter = compiled(Language::C, include_str!("../../roots/scenario/counter.c"))?;
    Ok(Recipe {
        name: "scenario",
        suite: "trixie",
        packages: vec![
            "systemd",
            "systemd-sysv",
            "dbus",
            "procps",
            "iproute2",
            "nginx",
            "redis-server",
            "gunicorn",
        ],
        from_sid: Vec::new(),
        files: vec![
            RootFile::program("/usr/local/bin/counter", counter),
            RootFile::text(
                "/etc/systemd/system/counter.service",
                include_str!("../../roots/scenario/counter.service"),
            ),
            RootFile::text(
                "/etc/nginx/conf.d/status.conf",
                include_str!("../../roots/common/nginx-status.conf"),
            ),
            RootFile::text("/srv/prefork/shop.py", include_str!("../../roots/scenario/shop.py")),
            RootFile::text("/srv/prefork/ask-shop.py", include_str!("../../roots/scenario/ask-shop.py")),
            RootFile::text(
                "/etc/systemd/system/prefork.service",
                include_str!("../../roots/scenario/prefork.service"),
            ),
            RootFile::text("/var/www/html/index.html", include_str!("../../roots/common/index.html")),
        ],
        setup: include_str!("../../roots/scenario/setup.sh"),
    })
}

/// One machine: it keeps what happens to it from boot to boot.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) scratch: Scratch,
    name: String,
    logs: PathBuf,
    boots: u32,
}

impl Site {
    /// Boot, and wait until every service answers.
    pub(super) fn boot(&mut self) -> Result<Machine> {
        self.boot_with(&BootOptions::default())
    }

    /// The same with options.
    pub(super) fn boot_with(&mut self, options: &BootOptions) -> Result<Machine> {
        let running = self.start(options)?;
        all_answer(&running, BOOT_BOUND).with_context(|| format!("boot {}", self.boots))?;
        running.wait_booted(BOOT_BOUND)?;
        Ok(running)
    }

    /// Boot and wait for nothing.
    pub(super) fn start(&mut self, options: &BootOptions) -> Result<Machine> {
        self.boots += 1;
        let console = self.logs.join(format!("{}-boot-{}.log", self.name, self.boots));
        Machine::boot(self.scratch.root(), &self.name, &console, options)
    }

    /// Snapshot of all services, all of which must be stored, and what they then know.
    pub(super) fn snapshot(&self, running: &Machine) -> Result<(SnapshotReport, Vec<Taken>)> {
        let report = snapshot_while_driving(&self.scratch, running, &SERVICES)?;
        for service in SERVICES {
            let unit = report.unit(service.unit).with_context(|| format!("no report of {}", service.unit))?;
            ensure!(unit.outcome == "stored", "{}: {}: {}", unit.unit, unit.outcome, unit.reasons.join("; "));
        }
        let taken =
            SERVICES.iter().map(|&service| Taken::observe(running, service)).collect::<Result<_>>()?;
        Ok((report, taken))
    }

    /// A drop-in for a unit.
    pub(super) fn drop_in(&self, unit: &str, text: &str) -> Result<()> {
        self.scratch.write(&format!("/etc/systemd/system/{unit}.d/50-scenario.conf"), text, 0o644)
    }
}

/// Every service answers, each within `bound`.
pub(super) fn all_answer(running: &Machine, bound: Duration) -> Result<()> {
    for service in SERVICES {
        running
            .in_network(|| first_answer(bound, || service.ask()))
            .with_context(|| running.journal(service.unit, 20))
            .with_context(|| format!("{} does not answer", service.unit))?;
    }
    Ok(())
}

/// What is expected of a service after a boot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    Restored,
    /// Cold, for one of these reasons (by their stable codes). None at all: whatever `fastboot status` says of it,
    /// it must not say "restored".
    Cold(&'static [&'static str]),
}

/// Every service is as `expected` says, and answers.
pub(super) fn require(
    running: &Machine,
    taken: &[Taken],
    expected: impl Fn(&Service) -> Expected,
) -> Result<()> {
    let status = fastboot::status(running)?;
    for taken in taken {
        let unit = taken.service.unit;
        match expected(&taken.service) {
            Expected::Restored => require_restored(running, &status, taken),
            Expected::Cold(codes) => {
                require_reason(&status, unit, codes).and_then(|()| require_cold(running, taken))
            }
        }
        .with_context(|| unit.to_owned())?;
    }
    Ok(())
}

fn require_reason(status: &StatusReport, unit: &str, codes: &[&str]) -> Result<()> {
    let said = status.unit(unit);
    ensure!(
        said.is_none_or(|said| said.outcome == "cold"),
        "fastboot status says that it is not cold: {said:?}"
    );
    if codes.is_empty() {
        return Ok(());
    }
    let code = said.and_then(|said| said.reason_code.as_deref()).unwrap_or("none");
    ensure!(codes.contains(&code), "the reason is {code} and not {}: {said:?}", codes.join(" or "));
    Ok(())
}
