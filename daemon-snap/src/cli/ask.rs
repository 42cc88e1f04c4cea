//! What an operator hears before services are restarted, and the question whether to go on.

use super::common::short;
use super::page::Page;
use daemon_snap::boot::{Span, counted};
use daemon_snap::snapshot::{Before, Options, TrialPolicy};
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Says on standard error which services will be away, and for how long.
pub fn tell_before(before: &[Before], options: &Options) {
    let mut page = Page::for_errors();
    let is_tried = options.trial != TrialPolicy::None;
    let services = counted(before.len(), "service");
    page.say(match (options.restart, is_tried) {
        (false, _) => format!("{services} will stand still for a moment each:"),
        (true, false) => format!("{services} will be restarted, with what is bound to them:"),
        (true, true) => format!(
            "{services} will be restarted twice each, with what is bound to them: to be taken, and from the new image:"
        ),
    });
    for Before { unit, absence } in before {
        let span = |ms: Option<f64>| ms.map_or_else(|| "not measured".to_owned(), |ms| Span(ms).to_string());
        let away = match (options.restart, is_tried) {
            (false, _) => String::new(),
            (true, false) => format!(" (its start: {})", span(absence.cold_ms)),
            (true, true) => {
                format!(" (its start: {}, its restore: {})", span(absence.cold_ms), span(absence.restore_ms))
            }
        };
        page.item("  ", "    ", format_args!("{}{away}", short(unit)));
    }
    page.tell();
}

/// Asks on a terminal. Where there is none the command itself is the consent: it stands in a script
/// that somebody has written.
///
/// # Errors
/// When the answer cannot be read.
pub fn confirm() -> std::io::Result<bool> {
    let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Ok(true);
    }
    eprint!("Go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}
