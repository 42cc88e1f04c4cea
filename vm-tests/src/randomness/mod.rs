//! `vm-tests randomness`: one image, restored in two boots. Are the numbers that are drawn afterwards the same?

mod generator;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::checks::Checks;
use crate::container::{BootOptions, Machine, end_left_over_machines};
use crate::fastboot::{self, RESEED};
use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, Language, Recipe, RootFile, Scratch, cached, compiled, sweep};
use crate::service::install_fastboot;
use generator::{Draws, SERVICES};

const BOUND: Duration = Duration::from_secs(90);

/// What each generator gave, by service and name.
type Drawn = BTreeMap<(&'static str, String), String>;

/// Take one image of each, restore it twice, and compare.
///
/// # Errors
/// The root or fastboot cannot be built, or the machine does not boot.
pub fn run() -> Result<Checks> {
    needs::install(&[Purpose::Roots])?;
    end_left_over_machines()?;
    sweep()?;
    let release = fastboot::build().context("building fastboot")?;
    let logs = PathBuf::from(CACHE_DIR).join("logs/randomness");
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    let scratch = Scratch::copy_of(&cached(&recipe()?)?, "randomness")?;
    install_fastboot(&release, &scratch)?;
    std::fs::copy(fastboot::build_reseed()?, scratch.path(RESEED)).context("installing the library")?;
    for service in SERVICES {
        let unit = service.unit();
        scratch.write(&format!("/etc/systemd/system/{unit}"), &service.text(), 0o644)?;
        let link = scratch.path(&format!("/etc/systemd/system/multi-user.target.wants/{unit}"));
        std::os::unix::fs::symlink(format!("../{unit}"), link).with_context(|| format!("enabling {unit}"))?;
    }
    let boot = |number: u32| -> Result<Machine> {
        let console = logs.join(format!("boot-{number}.log"));
        let machine = Machine::boot(scratch.root(), "randomness", &console, &BootOptions::default())?;
        machine.wait_booted(BOUND)?;
        Ok(machine)
    };
    let mut checks = Checks::default();
    let running = boot(1)?;
    let units = SERVICES.map(|service| service.unit());
    let names: Vec<&str> = units.iter().map(String::as_str).collect();
    let report = fastboot::snapshot(&running, &names, &[])?;
    for unit in &units {
        let row = report.unit(unit).context("it is not in the report")?;
        let stored = || -> Result<()> {
            ensure!(row.outcome == "stored", "{}: {}", row.outcome, row.reasons.join("; "));
            Ok(())
        };
        checks.note(format!("{unit} is stored"), stored());
    }
    running.poweroff()?;
    let mut both = Vec::new();
    for number in [2, 3] {
        let running = boot(number)?;
        both.push(draw(&running)?);
        running.poweroff()?;
    }
    for service in SERVICES {
        for (name, expected) in service.generators {
            let key = (service.name, (*name).to_owned());
            let seen = both.iter().map(|drawn| drawn.get(&key)).collect::<Option<Vec<_>>>();
            let compared = seen.context("it was not drawn").and_then(|seen| {
                let is = if seen[0] == seen[1] { Draws::Repeated } else { Draws::Fresh };
                ensure!(is == *expected, "two restores gave {} and {}", seen[0], seen[1]);
                Ok(())
            });
            let word = if *expected == Draws::Fresh { "fresh" } else { "repeated" };
            checks.note(format!("{}: {name} is {word}", service.name), compared);
        }
    }
    Ok(checks)
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

/// Lets all restored services draw, and reads what they drew. One that was started cold has nothing to say here.
fn draw(machine: &Machine) -> Result<Drawn> {
    let status = fastboot::status(machine)?;
    machine.run(&["touch", "/run/draw"])?.success()?;
    let mut drawn = Drawn::new();
    for service in SERVICES {
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
