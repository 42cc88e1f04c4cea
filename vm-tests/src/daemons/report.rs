//! The table, the reasons, the JSON.

use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::json;

use super::Tally;
use super::group::Outcomes;
use super::list::Group;
use super::verdict::{Outcome, Verdict};
use crate::stats::{Spread, short};

/// All results.
#[derive(Debug)]
pub(super) struct Report {
    machine: String,
    verdicts: Vec<Verdict>,
    /// Machines that could not be run, each with why and the number of its services.
    broken: Vec<(String, usize)>,
    /// What went wrong with a machine as a whole.
    problems: Vec<String>,
}

impl Report {
    pub(super) fn new(machine: String) -> Report {
        Report { machine, verdicts: Vec::new(), broken: Vec::new(), problems: Vec::new() }
    }

    pub(super) fn add(&mut self, group: &Group, outcomes: Result<Outcomes>) {
        match outcomes {
            Ok(Outcomes { verdicts, problems }) => {
                for verdict in &verdicts {
                    println!("  {:<8} {}", format!("{:?}", verdict.outcome).to_lowercase(), verdict.name);
                }
                self.verdicts.extend(verdicts);
                self.problems.extend(problems);
            }
            Err(error) => {
                println!("  FAIL  {error:#}");
                self.broken.push((format!("{error:#}"), group.daemons.len()));
            }
        }
    }

    /// What people read: one row per service.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_header(["family", "service", "outcome", "cold ms", "restored ms", "ratio", "image MB"]);
        for verdict in &self.verdicts {
            let outcome = format!("{:?}", verdict.outcome).to_lowercase();
            table.add_row([
                verdict.family.to_owned(),
                verdict.name.to_owned(),
                if verdict.memory_proved { format!("{outcome} ✓") } else { outcome },
                text(verdict.cold_ms),
                text(verdict.restored_ms),
                ratio(verdict),
                verdict.image_bytes.map_or_else(dash, |bytes| short(megabytes(bytes))),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }

    /// Why services are not restored, one line per reason.
    pub(super) fn reasons(&self) -> String {
        let mut lines = String::new();
        for verdict in self.verdicts.iter().filter(|verdict| verdict.outcome != Outcome::Restored) {
            let outcome = format!("{:?}", verdict.outcome).to_lowercase();
            let unexpected = if verdict.as_expected { "" } else { " (not expected)" };
            lines.push_str(&format!("\n{} {outcome}{unexpected}:\n", verdict.name));
            for why in &verdict.why {
                lines.push_str(&format!("  - {}\n", why.trim_end().replace('\n', "\n    ")));
            }
        }
        for (why, services) in &self.broken {
            lines.push_str(&format!("\n{services} services were not looked at: {why}\n"));
        }
        for problem in &self.problems {
            lines.push_str(&format!("\nwrong: {problem}\n"));
        }
        lines
    }

    /// One line.
    pub(super) fn summary(&self) -> String {
        let count = |outcome| self.verdicts.iter().filter(|verdict| verdict.outcome == outcome).count();
        let unseen: usize = self.broken.iter().map(|(_, services)| services).sum();
        format!(
            "\n{} services: {} restored, {} refused, {} cold, {} wrong, {unseen} not looked at \
             (✓: a value that only its memory held was there)\n{}",
            self.verdicts.len() + unseen,
            count(Outcome::Restored),
            count(Outcome::Refused),
            count(Outcome::Cold),
            count(Outcome::Wrong),
            self.machine,
        )
    }

    pub(super) fn tally(&self) -> Tally {
        let passed = self.verdicts.iter().filter(|verdict| verdict.as_expected).count();
        let unseen: usize = self.broken.iter().map(|(_, services)| services).sum();
        Tally { passed, failed: self.verdicts.len() - passed + unseen + self.problems.len() }
    }

    pub(super) fn write_json(&self, path: &Path) -> Result<()> {
        let broken: Vec<&String> = self.broken.iter().map(|(why, _)| why).collect();
        let whole = json!({"machine": self.machine, "services": self.verdicts, "broken": broken, "problems": self.problems});
        let text = serde_json::to_string_pretty(&whole).context("encoding the results")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }
}

fn ratio(verdict: &Verdict) -> String {
    match (verdict.cold_ms, verdict.restored_ms) {
        (Some(cold), Some(restored)) if restored.median > 0.0 => {
            format!("{}×", short(cold.median / restored.median))
        }
        _ => dash(),
    }
}

fn text(spread: Option<Spread>) -> String {
    match spread {
        None => dash(),
        Some(spread) if spread.min.total_cmp(&spread.max).is_eq() => short(spread.median),
        Some(spread) => spread.text(),
    }
}

fn dash() -> String {
    "–".to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "images are far below 2^52 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
