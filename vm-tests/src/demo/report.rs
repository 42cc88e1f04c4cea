//! What was measured and observed, as a table and as JSON.

use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};
use test_frame::Checks;

use super::boot::BootTimes;
use super::root::SERVICES;
use crate::fastboot::{SnapshotReport, StatusReport};
use crate::stats::{Spread, short};

/// Everything that the demo found out.
#[derive(Debug)]
pub(super) struct Report {
    machine: String,
    /// Cold boots.
    pub(super) cold: Vec<BootTimes>,
    /// Boot until all answer, of the boots with images.
    pub(super) restored_boots: Vec<f64>,
    services: Vec<Observed>,
}

/// A service over all restored boots.
#[derive(Debug, Default)]
struct Observed {
    looks: u32,
    proved: u32,
    silent: bool,
    reason: Option<String>,
    restored_ms: Vec<f64>,
    image_bytes: Option<u64>,
}

impl Observed {
    fn outcome(&self) -> &'static str {
        match self {
            _ if self.silent => "failed",
            _ if self.looks > 0 && self.proved == self.looks => "restored",
            _ => "cold",
        }
    }

    fn why(&self) -> Option<String> {
        let never = || (self.looks == 0).then(|| "no boot with images was made".to_owned());
        self.reason.clone().or_else(never)
    }
}

impl Report {
    pub(super) fn new(machine: String) -> Report {
        let services = SERVICES.iter().map(|_| Observed::default()).collect();
        Report { machine, cold: Vec::new(), restored_boots: Vec::new(), services }
    }

    fn of(&mut self, unit: &str) -> Option<&mut Observed> {
        let index = SERVICES.iter().position(|service| service.unit == unit)?;
        self.services.get_mut(index)
    }

    /// Sizes of the images, and why some were not taken.
    pub(super) fn note_snapshot(&mut self, snapshot: &SnapshotReport) {
        for unit in &snapshot.units {
            if let Some(observed) = self.of(&unit.unit) {
                observed.image_bytes = unit.image_bytes;
                observed.reason = (!unit.reasons.is_empty()).then(|| unit.reasons.join("; "));
            }
        }
    }

    /// One restored boot of one unit. Its time counts only if it is proved to be restored.
    pub(super) fn observe(
        &mut self,
        unit: &str,
        took_ms: Option<f64>,
        proof: &Result<()>,
        status: &StatusReport,
    ) {
        let Some(observed) = self.of(unit) else { return };
        observed.looks += 1;
        observed.silent |= took_ms.is_none();
        match proof {
            Ok(()) => {
                observed.proved += 1;
                observed.restored_ms.extend(took_ms);
            }
            Err(error) => {
                let said = status.unit(unit).and_then(|unit| unit.reason.clone());
                observed.reason = observed.reason.take().or(said).or_else(|| Some(format!("{error:#}")));
            }
        }
    }

    fn cold_ms(&self, index: usize) -> Option<Spread> {
        let times = self.cold.iter().filter_map(|boot| boot.services.get(index)?.as_ref().ok().copied());
        Spread::of(&times.collect::<Vec<f64>>())
    }

    fn cold_boot_ms(&self) -> Option<Spread> {
        Spread::of(&self.cold.iter().filter_map(|boot| boot.all).collect::<Vec<f64>>())
    }

    /// The table that people read.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header([
            "service",
            "outcome",
            "cold ms (min–max)",
            "restored ms (min–max)",
            "ratio",
            "image MB",
        ]);
        for (index, (service, observed)) in SERVICES.iter().zip(&self.services).enumerate() {
            let (cold, restored) = (self.cold_ms(index), Spread::of(&observed.restored_ms));
            let image = observed.image_bytes.map_or_else(dash, |bytes| short(bytes_to_mb(bytes)));
            let name = service.unit.trim_end_matches(".service");
            table.add_row([
                name.to_owned(),
                if observed.looks > 0 { observed.outcome().to_owned() } else { dash() },
                text(cold),
                text(restored),
                ratio(cold, restored),
                image,
            ]);
        }
        let (cold, restored) = (self.cold_boot_ms(), Spread::of(&self.restored_boots));
        table.add_row([
            "boot → all answer".to_owned(),
            dash(),
            text(cold),
            text(restored),
            ratio(cold, restored),
            dash(),
        ]);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n{table}\n", self.machine)
    }

    /// Count the checks and repeat those that failed; returns how many.
    pub(super) fn print_checks(&self, checks: &Checks) -> usize {
        let failed = checks.failures().count();
        println!("\n{} checks passed, {failed} failed", checks.all().len() - failed);
        for check in checks.failures() {
            println!("  FAIL  {}: {}", check.name, check.failure.as_deref().unwrap_or_default());
        }
        failed
    }

    /// Write the figures for machines.
    pub(super) fn write_json(&self, path: &Path, checks: &Checks) -> Result<()> {
        let services: Vec<Value> = SERVICES
            .iter()
            .zip(&self.services)
            .enumerate()
            .map(|(index, (service, observed))| {
                let mut entry = Map::new();
                entry.insert("name".to_owned(), json!(service.unit));
                entry.insert("outcome".to_owned(), json!(observed.outcome()));
                entry.insert("reason".to_owned(), json!(observed.why()));
                insert_spread(&mut entry, "cold_ms", self.cold_ms(index));
                insert_spread(&mut entry, "restored_ms", Spread::of(&observed.restored_ms));
                entry.insert("image_bytes".to_owned(), json!(observed.image_bytes));
                Value::Object(entry)
            })
            .collect();
        let mut boot = Map::new();
        insert_spread(&mut boot, "cold_ms", self.cold_boot_ms());
        insert_spread(&mut boot, "restored_ms", Spread::of(&self.restored_boots));
        let checks: Vec<Value> =
            checks.all().iter().map(|check| json!({"name": check.name, "failure": check.failure})).collect();
        let whole = json!({"machine": self.machine, "services": services, "boot": boot, "checks": checks});
        let text = serde_json::to_string_pretty(&whole).context("encoding the figures")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }
}

/// `name` is the median; least and greatest stand beside it.
fn insert_spread(into: &mut Map<String, Value>, name: &str, spread: Option<Spread>) {
    into.insert(name.to_owned(), json!(spread.map(|spread| spread.median)));
    into.insert(format!("{name}_min"), json!(spread.map(|spread| spread.min)));
    into.insert(format!("{name}_max"), json!(spread.map(|spread| spread.max)));
}

fn ratio(cold: Option<Spread>, restored: Option<Spread>) -> String {
    match (cold, restored) {
        (Some(cold), Some(restored)) if restored.median > 0.0 => {
            format!("{}×", short(cold.median / restored.median))
        }
        _ => dash(),
    }
}

fn text(spread: Option<Spread>) -> String {
    spread.map_or_else(dash, |spread| spread.text())
}

fn dash() -> String {
    "–".to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "images are far below 2^52 bytes")]
fn bytes_to_mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> StatusReport {
        serde_json::from_str(
            r#"{"units":[{"unit":"go-demo.service","outcome":"cold","reason":"/x changed"}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_service_counts_as_restored_only_if_every_boot_proved_it() {
        let mut report = Report::new(String::new());
        report.observe("go-demo.service", Some(2.0), &Ok(()), &status());
        assert_eq!(report.services[4].outcome(), "restored");
        report.observe("go-demo.service", Some(9.0), &Err(anyhow::anyhow!("cold")), &status());
        assert_eq!(report.services[4].outcome(), "cold");
        assert_eq!(report.services[4].reason.as_deref(), Some("/x changed"));
        assert_eq!(report.services[4].restored_ms, [2.0]);
        report.observe("go-demo.service", None, &Err(anyhow::anyhow!("silent")), &status());
        assert_eq!(report.services[4].outcome(), "failed");
    }

    #[test]
    fn figures_are_medians_with_least_and_greatest_beside_them() {
        let mut entry = Map::new();
        insert_spread(&mut entry, "cold_ms", Spread::of(&[3.0, 1.0, 2.0]));
        insert_spread(&mut entry, "restored_ms", None);
        let expected = json!({"cold_ms": 2.0, "cold_ms_min": 1.0, "cold_ms_max": 3.0,
            "restored_ms": null, "restored_ms_min": null, "restored_ms_max": null});
        assert_eq!(Value::Object(entry), expected);
    }
}
