//! One image, restored in two boots. Are the numbers that are drawn afterwards the same?

mod generator;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use test_frame::{Body, Need, Report, Test, Together};

use crate::container::Container;
use crate::fastboot::{self, RESEED};
use crate::roots::{Language, Recipe, RootFile, compiled};
use crate::site::Lab;
use generator::{Draws, SERVICES, Service};

const BOUND: Duration = Duration::from_secs(90);

/// What each generator gave, by service and name.
type Drawn = BTreeMap<(&'static str, String), String>;

/// One test for each service.
pub fn tests() -> Vec<Test> {
    let machine: Rc<dyn Together> = Rc::new(OneMachine);
    let test = |service: Service| {
        let run = Body::Together(Rc::clone(&machine));
        Test::new(service.test(), &[Need::Root, Need::Container], run)
    };
    SERVICES.map(test).into()
}

/// All of them run on one machine.
struct OneMachine;

impl Together for OneMachine {
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let is_chosen = |service: &Service| names.contains(&service.test().as_str());
        let chosen: Vec<Service> = SERVICES.into_iter().filter(is_chosen).collect();
        live(&chosen, report)
    }
}

/// Take one image of each, restore it twice, and compare.
fn live(services: &[Service], report: &mut Report) -> Result<()> {
    let mut site = Lab::prepare("randomness", recipe)?.site("randomness")?;
    let scratch = &site.scratch;
    std::fs::copy(fastboot::build_reseed()?, scratch.path(RESEED)).context("installing the library")?;
    for service in services {
        let unit = service.unit();
        scratch.write(&format!("/etc/systemd/system/{unit}"), &service.text(), 0o644)?;
        let link = scratch.path(&format!("/etc/systemd/system/multi-user.target.wants/{unit}"));
        std::os::unix::fs::symlink(format!("../{unit}"), link).with_context(|| format!("enabling {unit}"))?;
    }
    let running = site.boot(BOUND)?;
    let units: Vec<String> = services.iter().map(|service| service.unit()).collect();
    let names: Vec<&str> = units.iter().map(String::as_str).collect();
    let taken = fastboot::snapshot(&running, &names, &[])?;
    for (service, unit) in services.iter().zip(&units) {
        let row = taken.unit(unit).context("it is not in the report")?;
        let stored = || -> Result<()> {
            ensure!(row.outcome == "stored", "{}: {}", row.outcome, row.reasons.join("; "));
            Ok(())
        };
        report.checks(&service.test()).note(format!("{unit} is stored"), stored());
    }
    running.poweroff()?;
    let mut both = Vec::new();
    for _ in 0..2 {
        let running = site.boot(BOUND)?;
        both.push(draw(&running, services)?);
        running.poweroff()?;
    }
    for service in services {
        for (name, expected) in service.generators {
            let key = (service.name, (*name).to_owned());
            let seen = both.iter().map(|drawn| drawn.get(&key)).collect::<Option<Vec<_>>>();
            let compared = seen.context("it was not drawn").and_then(|seen| {
                let is = if seen[0] == seen[1] { Draws::Repeated } else { Draws::Fresh };
                ensure!(is == *expected, "two restores gave {} and {}", seen[0], seen[1]);
                Ok(())
            });
            let word = if *expected == Draws::Fresh { "fresh" } else { "repeated" };
            let sentence = format!("{}: {name} is {word}", service.name);
            report.checks(&service.test()).note(sentence, compared);
        }
    }
    Ok(())
}

fn recipe() -> Result<Recipe> {
    let go = compiled(Language::Go, include_str!("../../roots/randomness/draw.go"))?;
    Ok(Recipe {
        name: "randomness",
        suite: "trixie",
        packages: vec![
            "systemd",
            "systemd-sysv",
            "dbus",
            "python3",
            "libgnutls30t64",
            "libgcrypt20",
            "android-libboringssl",
            "nodejs",
            "default-jdk-headless",
        ],
        from_sid: Vec::new(),
        files: vec![
            RootFile::program("/usr/local/bin/draw-go", go),
            RootFile::text("/usr/local/lib/draw/draw.py", include_str!("../../roots/randomness/draw.py")),
            RootFile::text("/usr/local/lib/draw/draw.js", include_str!("../../roots/randomness/draw.js")),
            RootFile::text("/usr/local/lib/draw/Draw.java", include_str!("../../roots/randomness/Draw.java")),
        ],
        setup: include_str!("../../roots/randomness/setup.sh"),
    })
}

/// Lets all restored services draw, and reads what they drew. One that was started cold has nothing
/// to say here.
fn draw(machine: &Container, services: &[Service]) -> Result<Drawn> {
    let status = fastboot::status(machine)?;
    machine.run(&["touch", "/run/draw"])?.success()?;
    let mut drawn = Drawn::new();
    for service in services {
        let is_restored = status.unit(&service.unit()).is_some_and(|unit| unit.outcome == "restored");
        if !is_restored {
            continue;
        }
        let deadline = Instant::now() + BOUND;
        let text = loop {
            let seen = machine.run(&["cat", &service.out()])?;
            match seen.success() {
                Ok(text) => break text,
                Err(error) if Instant::now() >= deadline => return Err(error.context(service.name)),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        drawn.extend(lines.map(|(name, value)| ((service.name, name.to_owned()), value.to_owned())));
    }
    Ok(drawn)
}
