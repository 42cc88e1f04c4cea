//! Medians and spread of all boots, as tables and as JSON.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::profile::Profile;
use super::sample::{Kind, Sample};
use crate::host;
use crate::needs;
use crate::stats::{Spread, short};

/// All that was measured in one run of the command.
#[derive(Debug)]
pub(super) struct Report {
    machine: String,
    date: String,
    command: String,
    runs: u32,
    /// Runnable tasks on average over a minute, before and after.
    load: [String; 2],
    series: Vec<Series>,
}

/// All boots of one place with one profile.
#[derive(Debug)]
pub(super) struct Series {
    title: String,
    profile: Profile,
    kinds: Vec<Kind>,
    notes: Vec<String>,
    samples: BTreeMap<Kind, Vec<Sample>>,
}

impl Series {
    pub(super) fn new(title: String, profile: Profile, kinds: &[Kind], notes: Vec<String>) -> Series {
        Series { title, profile, kinds: kinds.to_vec(), notes, samples: BTreeMap::new() }
    }

    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.kinds.clone()
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(super) fn take(&mut self, kind: Kind, sample: Sample) {
        self.samples.entry(kind).or_default().push(sample);
    }

    fn spread(&self, kind: Kind, value: impl Fn(&Sample) -> Option<f64>) -> Option<Spread> {
        let values: Vec<f64> = self.samples.get(&kind)?.iter().filter_map(value).collect();
        Spread::of(&values)
    }

    /// Every service answered, and each was restored whenever there was an image.
    fn is_whole(&self) -> bool {
        let answered = self.samples.values().flatten().all(|sample| sample.all_ms.is_some());
        let restored = self.samples.get(&Kind::Restored).into_iter().flatten();
        answered && restored.flat_map(|sample| &sample.outcomes).all(|outcome| !outcome.starts_with("cold"))
    }

    fn boots_table(&self) -> Table {
        let mut table = table(&[
            "start",
            "multi-user ms",
            "all answer ms",
            "× cold",
            "QEMU's start → all answer ms",
            "CPU s",
            "read MB",
            "peak memory MB",
        ]);
        for &kind in self.kinds.iter().filter(|kind| self.samples.contains_key(kind)) {
            table.add_row([
                kind.name().to_owned(),
                text(self.spread(kind, |sample| sample.multi_user_ms)),
                // A loaded machine's own clock tells nothing.
                text(self.spread(kind, |sample| sample.all_ms.filter(|_| kind != Kind::Loaded))),
                if kind == Kind::Loaded {
                    ratio(
                        self.spread(Kind::Cold, |s| s.switched_on_ms),
                        self.spread(kind, |s| s.switched_on_ms),
                    )
                } else {
                    ratio(self.spread(Kind::Cold, |s| s.all_ms), self.spread(kind, |s| s.all_ms))
                },
                text(self.spread(kind, |sample| sample.switched_on_ms)),
                text(self.spread(kind, |sample| sample.cpu_s)),
                text(self.spread(kind, |sample| sample.read_mb)),
                text(self.spread(kind, |sample| sample.peak_mb)),
            ]);
        }
        table
    }

    fn services_table(&self) -> Table {
        let kinds: Vec<Kind> = self
            .kinds
            .iter()
            .copied()
            .filter(|kind| *kind != Kind::Loaded && self.samples.contains_key(kind))
            .collect();
        let mut head = vec!["first right answer, ms".to_owned()];
        head.extend(kinds.iter().map(|kind| kind.name().to_owned()));
        head.push("restored × cold".to_owned());
        head.push("with fastboot it was".to_owned());
        let mut table = table(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for (at, served) in self.profile.served().iter().enumerate() {
            let answer = |sample: &Sample| *sample.answers_ms.get(at)?;
            let mut row = vec![served.unit.trim_end_matches(".service").to_owned()];
            row.extend(kinds.iter().map(|&kind| {
                let shown = text(self.spread(kind, answer));
                let by_criu =
                    kind == Kind::Criu && self.outcomes(kind, at).iter().any(|outcome| outcome == "cold");
                if by_criu { format!("{shown} (cold)") } else { shown }
            }));
            row.push(ratio(self.spread(Kind::Cold, answer), self.spread(Kind::Restored, answer)));
            row.push(self.outcomes(Kind::Restored, at).join("; "));
            table.add_row(row);
        }
        table
    }

    /// Each outcome once.
    fn outcomes(&self, kind: Kind, at: usize) -> Vec<String> {
        let mut all: Vec<String> = self
            .samples
            .get(&kind)
            .into_iter()
            .flatten()
            .filter_map(|sample| sample.outcomes.get(at).cloned())
            .collect();
        all.sort();
        all.dedup();
        all
    }

    fn as_json(&self) -> Value {
        let kinds = self.samples.iter().map(|(&kind, samples)| {
            let services = self.profile.served().iter().enumerate().map(|(at, served)| {
                json!({
                    "unit": served.unit,
                    "first_answer_ms": self.spread(kind, |sample| *sample.answers_ms.get(at)?),
                    "outcomes": self.outcomes(kind, at),
                })
            });
            json!({
                "start": kind.name(),
                "boots": samples.len(),
                "multi_user_ms": self.spread(kind, |sample| sample.multi_user_ms),
                "all_answer_ms": self.spread(kind, |sample| sample.all_ms),
                "switched_on_to_all_answer_ms": self.spread(kind, |sample| sample.switched_on_ms),
                "cpu_s": self.spread(kind, |sample| sample.cpu_s),
                "read_mb": self.spread(kind, |sample| sample.read_mb),
                "peak_memory_mb": self.spread(kind, |sample| sample.peak_mb),
                "services": services.collect::<Vec<_>>(),
            })
        });
        json!({
            "place": self.title,
            "profile": self.profile.name(),
            "starts": kinds.collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

impl Report {
    pub(super) fn begin(runs: u32) -> Result<Report> {
        let date = needs::command("date")?.args(["-u", "+%F %H:%M UTC"]).output().context("running date")?;
        let words: Vec<String> = std::env::args().skip(1).collect();
        Ok(Report {
            machine: host::describe(),
            date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
            command: format!("cargo {}", words.join(" ")),
            runs,
            load: [load()?, String::new()],
            series: Vec::new(),
        })
    }

    pub(super) fn end(&mut self) -> Result<()> {
        self.load[1] = load()?;
        Ok(())
    }

    pub(super) fn add(&mut self, series: Series) {
        // Shown at once: the next place takes its time, and may fail.
        println!("\n{}\n{}", series.boots_table(), series.services_table());
        self.series.push(series);
    }

    pub(super) fn is_whole(&self) -> bool {
        self.series.iter().all(Series::is_whole)
    }

    /// Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}. {}. Load of the host before and after: {} and {}. `{}`. {} boots of each kind, median (least–greatest).\n",
            self.date, self.machine, self.load[0], self.load[1], self.command, self.runs
        );
        for series in &self.series {
            text += &format!(
                "\n### {}, {} profile\n\n{}\n\n{}\n",
                series.title,
                series.profile.name(),
                series.boots_table(),
                series.services_table()
            );
            for note in &series.notes {
                text += &format!("\n- {note}");
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "machine": self.machine,
            "date": self.date,
            "command": self.command,
            "runs": self.runs,
            "load": self.load,
            "series": self.series.iter().map(Series::as_json).collect::<Vec<_>>(),
        })
    }
}

/// Over the last minute.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("reading /proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(head);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn text(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| spread.text())
}

/// How many times as fast as cold.
fn ratio(cold: Option<Spread>, other: Option<Spread>) -> String {
    match (cold, other) {
        (Some(cold), Some(other)) if other.median > 0.0 => format!("{}×", short(cold.median / other.median)),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(answer_ms: Option<f64>, outcome: &str) -> Sample {
        Sample {
            answers_ms: vec![answer_ms; 4],
            all_ms: answer_ms,
            outcomes: vec![outcome.to_owned(); 4],
            ..Sample::default()
        }
    }

    fn series(restored: Sample) -> Series {
        let mut series =
            Series::new("here".to_owned(), Profile::Light, &[Kind::Cold, Kind::Restored], Vec::new());
        series.take(Kind::Cold, sample(Some(200.0), "cold"));
        series.take(Kind::Restored, restored);
        series
    }

    #[test]
    fn a_boot_that_is_twice_as_fast_says_so() {
        let series = series(sample(Some(100.0), "restored"));
        assert!(series.is_whole());
        assert!(series.boots_table().to_string().contains("2.00×"));
    }

    #[test]
    fn an_image_that_was_not_used_or_a_service_that_is_silent_is_a_failure() {
        assert!(!series(sample(Some(100.0), "cold: changed")).is_whole());
        assert!(!series(sample(None, "restored")).is_whole());
        assert!(series(sample(Some(100.0), "no image")).is_whole());
    }
}
