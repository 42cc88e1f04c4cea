//! The result, as a document.

use std::fmt::Write as _;

use super::place::Ended;

/// Longest piece of an output that stands in a row.
const QUOTED: usize = 160;

/// One command in one root.
#[derive(Debug)]
pub(super) struct Row {
    suite: String,
    command: String,
    minutes: Option<f64>,
    pub(super) passed: bool,
    pub(super) outcome: String,
}

impl Row {
    pub(super) fn of(suite: &str, command: &str, ended: &Ended) -> Row {
        let last = ended.tail.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        let said: String = last.chars().take(QUOTED).collect();
        let passed = ended.status.success();
        let outcome = if passed { said } else { format!("{}: {said}", ended.status) };
        let minutes = Some(ended.took.as_secs_f64() / 60.0);
        Row { suite: suite.to_owned(), command: command.to_owned(), minutes, passed, outcome }
    }

    pub(super) fn failed(suite: &str, command: &str, error: &anyhow::Error) -> Row {
        let outcome = format!("not run: {error:#}");
        Row { suite: suite.to_owned(), command: command.to_owned(), minutes: None, passed: false, outcome }
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Report {
    machine: String,
    pub(super) rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(machine: String) -> Report {
        Report { machine, rows: Vec::new() }
    }

    /// A table in Markdown.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}\n\n| root | command | passed | min | last line |\n|---|---|---|---|---|\n",
            self.machine
        );
        for row in &self.rows {
            let passed = if row.passed { "yes" } else { "no" };
            let minutes = row.minutes.map_or_else(|| "–".to_owned(), |minutes| format!("{minutes:.1}"));
            let outcome = row.outcome.replace('|', "\\|").replace('\n', " ");
            let _ =
                writeln!(text, "| {} | `{}` | {passed} | {minutes} | {outcome} |", row.suite, row.command);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_row_says_how_a_command_ended_and_what_it_said_last() {
        let ended = |code: i32, tail: &str| Ended {
            status: ExitStatus::from_raw(code << 8),
            took: Duration::from_secs(90),
            tail: tail.to_owned(),
        };
        let mut report = Report::new("a machine".to_owned());
        report.rows.push(Row::of(
            "trixie",
            "cargo verify",
            &ended(0, "a\n9 passed, 0 failed, 1 skipped\n\n"),
        ));
        report.rows.push(Row::of("trixie", "cargo demo", &ended(1, "it | broke")));
        let text = report.text();
        assert!(
            text.contains("| trixie | `cargo verify` | yes | 1.5 | 9 passed, 0 failed, 1 skipped |"),
            "{text}"
        );
        assert!(text.contains("| no | 1.5 | exit status: 1: it \\| broke |"), "{text}");
    }
}
