//! A provisioned machine for one scenario: a copy of a light root with three services and fastboot.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::numbers::Numbers;
use crate::client::first_answer;
use crate::container::{BootOptions, Container};
use crate::fastboot::{self, SnapshotReport, StatusReport};
use crate::roots::{Language, Recipe, RootFile, compiled};
use crate::service::{Kind, Service, Taken, require_cold, require_restored, snapshot_while_driving};
use crate::site::{Lab, Site};

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

/// What all scenarios share: machines, and what is known of numbers that are lost.
#[derive(Debug)]
pub(super) struct ScenarioLab {
    machines: Lab,
    pub(super) numbers: Rc<Numbers>,
}

impl ScenarioLab {
    pub(super) fn prepare() -> Result<ScenarioLab> {
        Ok(ScenarioLab { machines: Lab::prepare_with_faults("scenarios", recipe)?, numbers: Rc::default() })
    }

    /// A machine with fastboot installed that has not been booted yet.
    pub(super) fn site(&self, name: &str) -> Result<ServiceSite> {
        Ok(ServiceSite { machine: self.machines.site(name)?, numbers: Rc::clone(&self.numbers) })
    }

    /// A machine whose services all have an image. It is switched off.
    pub(super) fn site_with_images(&self, name: &str) -> Result<(ServiceSite, Vec<Taken>)> {
        let mut site = self.site(name)?;
        let running = site.boot()?;
        let (_, taken) = site.snapshot(&running)?;
        running.poweroff()?;
        Ok((site, taken))
    }
}

pub(crate) fn recipe() -> Result<Recipe> {
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

/// One machine with the three services.
#[derive(Debug)]
pub(super) struct ServiceSite {
    pub(super) machine: Site,
    numbers: Rc<Numbers>,
}

impl ServiceSite {
    /// Boot, and wait until every service answers.
    pub(super) fn boot(&mut self) -> Result<Container> {
        self.boot_with(&BootOptions::default())
    }

    /// The same with options.
    pub(super) fn boot_with(&mut self, options: &BootOptions) -> Result<Container> {
        let running = self.start(options)?;
        all_answer(&running, BOOT_BOUND).with_context(|| format!("boot {}", self.machine.boots()))?;
        running.wait_booted(BOOT_BOUND)?;
        Ok(running)
    }

    /// Boot and wait for nothing.
    pub(super) fn start(&mut self, options: &BootOptions) -> Result<Container> {
        self.machine.start(options)
    }

    /// Snapshot of all services, all of which must be stored, and what they then know.
    pub(super) fn snapshot(&self, running: &Container) -> Result<(SnapshotReport, Vec<Taken>)> {
        let report = snapshot_while_driving(&self.machine.scratch, running, &SERVICES)?;
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
        self.machine.scratch.write(&format!("/etc/systemd/system/{unit}.d/50-scenario.conf"), text, 0o644)
    }

    /// Every service is as `expected` says, and answers. Who may lose a number may be cold for
    /// that.
    pub(super) fn require(
        &self,
        running: &Container,
        taken: &[Taken],
        expected: impl Fn(&Service) -> Expected,
    ) -> Result<()> {
        let status = fastboot::status(running)?;
        for taken in taken {
            let unit = taken.service.unit;
            let lost = status.unit(unit).filter(|said| self.numbers.excuse(said));
            match (lost, expected(&taken.service)) {
                (Some(said), _) => {
                    self.numbers.note(said, self.machine.boots());
                    require_cold(running, taken)
                }
                (None, Expected::Restored) => require_restored(running, &status, taken),
                (None, Expected::Cold(codes)) => {
                    require_reason(&status, unit, codes).and_then(|()| require_cold(running, taken))
                }
            }
            .with_context(|| unit.to_owned())?;
        }
        Ok(())
    }

    /// Whether a service has lost a number in this boot, and may have.
    pub(super) fn has_lost_number(&self, running: &Container, service: Service) -> bool {
        let status = fastboot::status(running);
        status.is_ok_and(|status| status.unit(service.unit).is_some_and(|said| self.numbers.excuse(said)))
    }
}

/// Every service answers, each within `bound`.
pub(super) fn all_answer(running: &Container, bound: Duration) -> Result<()> {
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
    /// Cold, for one of these reasons (by their stable codes). None at all: whatever `fastboot
    /// status` says of it, it must not say "restored".
    Cold(&'static [&'static str]),
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
