//! `vm-tests compare-boots`: the same machine, cold and restored in turns, so that both kinds of
//! boot meet the same host.
//!
//! Cold is a boot with `fastboot=0`: nothing of fastboot runs then but its generator, for a moment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::boot::{BootTimes, Provisioned};
use super::root::{SERVICES, recipe};
use super::{heading, provision};
use crate::container::{self, BootOptions};
use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, Scratch, cached};
use crate::service::{install_fastboot, snapshot_while_driving};
use crate::stats::{Spread, short};
use crate::{fastboot, host};

/// What is compared.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// Boots of each kind.
    pub boots: u32,
    /// A machine with images that an earlier run has left.
    pub machine: Option<PathBuf>,
    /// Leave the machine.
    pub keep: bool,
    /// Binaries to install; without, those of this work tree are built.
    pub release: Option<PathBuf>,
    /// Write the figures here.
    pub json: Option<PathBuf>,
}

/// Figures of one service, one per boot, in ms.
#[derive(Debug, Default)]
struct Figures {
    cold: Vec<f64>,
    restored: Vec<f64>,
    /// Of boots with images.
    phases: BTreeMap<String, Vec<f64>>,
    /// Starts that were cold although there was an image.
    reasons: Vec<String>,
}

/// Run it; returns whether every service was restored whenever there was an image.
///
/// # Errors
/// The machine cannot be built or booted, or a service does not answer.
pub fn compare(options: &CompareOptions) -> Result<bool> {
    needs::install(&[Purpose::Roots])?;
    container::end_left_over_machines()?;
    let release = match &options.release {
        Some(release) => release.clone(),
        None => fastboot::build().context("building fastboot")?,
    };
    let logs = PathBuf::from(CACHE_DIR).join("logs/compare-boots");
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    let mut machine = match &options.machine {
        Some(dir) => Provisioned::new(Scratch::kept(dir.clone()), logs),
        None => new_machine(&release, logs)?,
    };
    install_fastboot(&release, &machine.scratch)?;

    heading("Boots");
    let mut figures: Vec<Figures> = SERVICES.iter().map(|_| Figures::default()).collect();
    let (mut cold_boots, mut restored_boots) = (Vec::new(), Vec::new());
    let cold_options = BootOptions { arguments: vec!["fastboot=0".to_owned()], ..BootOptions::default() };
    for number in 1..=options.boots {
        let (running, times) = machine.boot_with(&cold_options)?;
        running.poweroff()?;
        cold_boots.extend(times.all);
        note(&mut figures, times, |figures, ms| figures.cold.push(ms))?;

        let (running, times) = machine.boot()?;
        let status = fastboot::status(&running)?;
        running.poweroff()?;
        restored_boots.extend(times.all);
        note(&mut figures, times, |figures, ms| figures.restored.push(ms))?;
        for (service, figures) in SERVICES.iter().zip(&mut figures) {
            let unit = status.unit(service.unit).context("fastboot status does not name it")?;
            if unit.outcome != "restored" {
                figures.reasons.push(unit.reason.clone().unwrap_or_default());
            }
            for (phase, ms) in &unit.phases_ms {
                figures.phases.entry(phase.clone()).or_default().push(*ms);
            }
        }
        println!("  pair {number} of {}", options.boots);
    }

    heading("Result");
    print(&figures, &cold_boots, &restored_boots);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&as_json(&figures, &cold_boots, &restored_boots))?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    if options.keep {
        println!("machine: {}", machine.scratch.keep()?.display());
    }
    Ok(figures.iter().all(|figures| figures.reasons.is_empty()))
}

/// Provisioned, with an image of each service.
fn new_machine(release: &std::path::Path, logs: PathBuf) -> Result<Provisioned> {
    heading("Machine");
    let scratch = Scratch::copy_of(&cached(&recipe()?)?, "bench-boot")?;
    let mut machine = Provisioned::new(scratch, logs);
    provision(&mut machine)?;
    install_fastboot(release, &machine.scratch)?;
    let (running, _) = machine.boot()?;
    let report = snapshot_while_driving(&machine.scratch, &running, &SERVICES)?;
    for unit in &report.units {
        ensure!(unit.outcome == "stored", "{}: {}: {}", unit.unit, unit.outcome, unit.reasons.join("; "));
    }
    running.poweroff()?;
    println!("  {} images", report.units.len());
    Ok(machine)
}

fn note(figures: &mut [Figures], times: BootTimes, take: impl Fn(&mut Figures, f64)) -> Result<()> {
    for ((service, figures), time) in SERVICES.iter().zip(figures).zip(times.services) {
        take(figures, time.with_context(|| format!("{} does not answer", service.unit))?);
    }
    Ok(())
}

fn text(values: &[f64]) -> String {
    Spread::of(values).map_or_else(|| "–".to_owned(), |spread| spread.text())
}

fn print(figures: &[Figures], cold_boots: &[f64], restored_boots: &[f64]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header([
        "service",
        "cold ms",
        "restored ms",
        "phases (median ms)",
    ]);
    for (service, figures) in SERVICES.iter().zip(figures) {
        let phases = figures
            .phases
            .iter()
            .filter_map(|(phase, values)| Some(format!("{phase} {}", short(Spread::of(values)?.median))));
        let mut last: Vec<String> = phases.collect();
        last.extend(figures.reasons.iter().map(|reason| format!("cold: {reason}")));
        table.add_row([
            service.unit.to_owned(),
            text(&figures.cold),
            text(&figures.restored),
            last.join("\n"),
        ]);
    }
    table.add_row([
        "boot until all answer".to_owned(),
        text(cold_boots),
        text(restored_boots),
        String::new(),
    ]);
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
}

fn as_json(figures: &[Figures], cold_boots: &[f64], restored_boots: &[f64]) -> serde_json::Value {
    let services = SERVICES.iter().zip(figures).map(|(service, figures)| {
        let phases: BTreeMap<&String, Option<Spread>> =
            figures.phases.iter().map(|(phase, values)| (phase, Spread::of(values))).collect();
        json!({
            "name": service.unit,
            "cold_ms": Spread::of(&figures.cold),
            "restored_ms": Spread::of(&figures.restored),
            "phases_ms": phases,
            "reasons": figures.reasons,
        })
    });
    json!({
        "machine": host::describe(),
        "services": services.collect::<Vec<_>>(),
        "boot": { "cold_ms": Spread::of(cold_boots), "restored_ms": Spread::of(restored_boots) },
    })
}
