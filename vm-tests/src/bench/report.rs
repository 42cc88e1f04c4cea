//! The figures as a table and as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::figures::{Figures, SubjectFigures, ToolFigures};
use super::tool::Tool;
use crate::stats::{Spread, short};

/// Most of CRIU's wall time that a restore may take, by subject: what the project wants of itself.
const TARGETS: [(&str, f64); 4] = [("tiny", 0.2), ("redis", 0.25), ("JVM", 0.25), ("1 GiB", 0.2)];
/// The same for the dump, which is how long a service is away at a snapshot.
const DUMP_TARGET: f64 = 0.33;

/// What people read: conditions, table, failures, targets.
pub(super) fn text(figures: &Figures) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    line(format!("\n{}", figures.machine));
    for tool in &figures.tools {
        line(format!("{}: `{}`, `{}`", tool.version, tool.dump, tool.restore));
    }
    line(format!("{}, in one chroot with a tmpfs on /run", figures.conditions.join("; ")));
    let cache = if figures.cold_cache {
        "written out and dropped from the page cache before each restore"
    } else {
        "written out before each restore, still in the page cache"
    };
    line(format!("images: {cache}; a dump ends the process"));
    line(format!(
        "wall time of the whole command in ms: median (min–max) of {} rounds after one warm-up, alternating order",
        figures.rounds
    ));
    if let Some(empty) = Spread::of(&figures.empty_command_ms) {
        line(format!("an empty command (true) takes {} ms, as part of every figure", empty.text()));
    }
    let busy: Vec<String> = figures.busy_percent.iter().map(|percent| format!("{percent:.0} %")).collect();
    line(format!(
        "processors busy with other things before and after: {}; load {}",
        busy.join(", "),
        figures.load.join(" → ")
    ));
    for row in &figures.subjects {
        line(format!("{}: {}", row.name, row.description));
    }
    line(format!("\n{}", table(figures)));
    for failure in figures.failures() {
        line(format!("FAILED  {failure}"));
    }
    let empty_ms = Spread::of(&figures.empty_command_ms).map_or(0.0, |empty| empty.median);
    for row in &figures.subjects {
        for (name, bound) in TARGETS.iter().filter(|(name, _)| row.name.contains(name)) {
            line(target(&format!("restore of {name}"), ratio(row, empty_ms, |of| &of.restore_ms), *bound));
            line(target(&format!("dump of {name}"), ratio(row, empty_ms, |of| &of.dump_ms), DUMP_TARGET));
        }
    }
    text
}

fn table(figures: &Figures) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header([
        "subject",
        "dump fastboot",
        "dump CRIU",
        "ratio",
        "restore fastboot",
        "restore CRIU",
        "ratio",
        "image MB fastboot",
        "CRIU",
    ]);
    for row in &figures.subjects {
        let (ours, theirs) = (row.by(Tool::Fastboot), row.by(Tool::Criu));
        table.add_row([
            format!("{} ({} MB resident)", row.name, short(kib_to_mb(row.memory_kib))),
            cell(ours, &ours.dump_ms),
            cell(theirs, &theirs.dump_ms),
            ratio_text(ratio(row, 0.0, |figures| &figures.dump_ms)),
            cell(ours, &ours.restore_ms),
            cell(theirs, &theirs.restore_ms),
            ratio_text(ratio(row, 0.0, |figures| &figures.restore_ms)),
            megabytes(ours),
            megabytes(theirs),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Figures of rounds before a failure are not shown: the row does not hold.
fn cell(figures: &ToolFigures, values: &[f64]) -> String {
    match Spread::of(values) {
        Some(spread) if figures.failure.is_none() => spread.text(),
        _ => "FAILED".to_owned(),
    }
}

fn megabytes(figures: &ToolFigures) -> String {
    #[expect(clippy::cast_precision_loss, reason = "images are far below 2^52 bytes")]
    let text = |bytes| short(bytes as f64 / 1e6);
    figures.image_bytes.map_or_else(|| "–".to_owned(), text)
}

#[expect(clippy::cast_precision_loss, reason = "memory is far below 2^52 KiB")]
fn kib_to_mb(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

/// Our median as a part of CRIU's, of both without what an empty command takes; below one is faster.
fn ratio(row: &SubjectFigures, empty_ms: f64, of: impl Fn(&ToolFigures) -> &Vec<f64>) -> Option<f64> {
    let median = |tool| {
        let figures = row.by(tool);
        Spread::of(of(figures)).filter(|_| figures.failure.is_none()).map(|spread| spread.median)
    };
    let (ours, theirs) = (median(Tool::Fastboot)?, median(Tool::Criu)?);
    (theirs > empty_ms).then(|| (ours - empty_ms) / (theirs - empty_ms))
}

fn ratio_text(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn target(what: &str, ratio: Option<f64>, bound: f64) -> String {
    let outcome = match ratio {
        Some(ratio) if ratio <= bound => format!("met ({ratio:.2})"),
        Some(ratio) => format!("MISSED ({ratio:.2})"),
        None => "not comparable".to_owned(),
    };
    format!("target: {what}, both without an empty command, in at most {bound:.2} of CRIU's time: {outcome}")
}

/// Write the figures for machines.
pub(super) fn write_json(figures: &Figures, path: &Path) -> Result<()> {
    let subjects: Vec<Value> = figures
        .subjects
        .iter()
        .map(|row| {
            json!({
                "name": row.name,
                "description": row.description,
                "memory_kib": row.memory_kib,
                "fastboot": tool(row.by(Tool::Fastboot)),
                "criu": tool(row.by(Tool::Criu)),
                "dump_ratio": ratio(row, 0.0, |figures| &figures.dump_ms),
                "restore_ratio": ratio(row, 0.0, |figures| &figures.restore_ms),
            })
        })
        .collect();
    let mut whole = serde_json::to_value(figures).context("encoding the figures")?;
    whole["subjects"] = json!(subjects);
    whole["empty_command_ms"] = json!(Spread::of(&figures.empty_command_ms));
    let text = serde_json::to_string_pretty(&whole).context("encoding the figures")?;
    std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

fn tool(figures: &ToolFigures) -> Value {
    json!({
        "dump_ms": Spread::of(&figures.dump_ms),
        "restore_ms": Spread::of(&figures.restore_ms),
        "dump_ms_all": figures.dump_ms,
        "restore_ms_all": figures.restore_ms,
        "image_bytes": figures.image_bytes,
        "failure": figures.failure,
    })
}

#[cfg(test)]
mod tests {
    use super::super::figures::Sample;
    use super::super::subject::Subject;
    use super::*;

    fn row() -> SubjectFigures {
        let mut row = SubjectFigures::new(Subject::Tiny);
        for (tool, restore_ms) in [(Tool::Fastboot, 2.0), (Tool::Criu, 8.0)] {
            row.of(tool).note(1, Ok(Sample { dump_ms: 1.0, restore_ms, image_bytes: 10 }));
        }
        row
    }

    #[test]
    fn the_ratio_is_ours_by_theirs() {
        assert_eq!(ratio(&row(), 0.0, |figures| &figures.restore_ms), Some(0.25));
        let net = ratio(&row(), 1.0, |figures| &figures.restore_ms);
        assert_eq!(net, Some(1.0 / 7.0));
        assert!(target("tiny", net, 0.15).ends_with("met (0.14)"));
        assert!(target("tiny", net, 0.14).ends_with("MISSED (0.14)"));
    }

    #[test]
    fn a_row_with_a_failure_shows_no_figures() {
        let mut row = row();
        row.of(Tool::Fastboot).note(2, Err(anyhow::anyhow!("no")));
        assert_eq!(ratio(&row, 0.0, |figures| &figures.restore_ms), None);
        let ours = row.by(Tool::Fastboot);
        assert_eq!(cell(ours, &ours.restore_ms), "FAILED");
        let theirs = row.by(Tool::Criu);
        assert_eq!(cell(theirs, &theirs.restore_ms), "8.00 (8.00–8.00)");
    }
}
