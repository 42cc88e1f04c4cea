//! `fastboot history`: how the last boots went.

use super::common::{StoreArgs, ms};
use super::page::{Column, Page};
use comfy_table::Cell;
use daemon_snap::boot::history::{self, PastBoot};
use daemon_snap::boot::{Span, counted};
use serde::Serialize;

/// Say how the last boots went: what was restored, what that gained, what started cold and why
#[derive(Debug, clap::Args)]
pub struct Args {
    /// So many boots; 0: all that are kept
    #[arg(short = 'n', long, value_name = "BOOTS", default_value_t = 20)]
    lines: usize,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Serialize)]
struct History<'a> {
    boots: &'a [PastBoot],
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let boots = history::load(args.store.path())?;
    let surplus = match args.lines {
        0 => 0,
        lines => boots.len().saturating_sub(lines),
    };
    let boots = &boots[surplus..];
    match args.store.json {
        true => say!("{}", serde_json::to_string(&History { boots })?),
        false => print(boots),
    }
    Ok(0)
}

fn print(boots: &[PastBoot]) {
    let mut page = Page::new();
    page.say(summary(boots));
    if !boots.is_empty() {
        page.gap();
        let now = image_store::now_unix_s();
        let columns = [
            Column::Figure("AGO"),
            Column::Figure("RESTORED"),
            Column::Figure("COLD"),
            Column::Figure("BOOT MS"),
            Column::Figure("GAIN MS"),
            Column::Rest("COLD STARTS"),
        ];
        page.table(&columns, boots.iter().rev().map(|boot| cells(boot, now)));
    }
    page.show();
}

fn cells(boot: &PastBoot, now_s: u64) -> Vec<Cell> {
    let cold = boot.cold.iter().map(|cold| format!("{}: {}", super::common::short(&cold.unit), cold.reason));
    let not_tried = boot
        .quarantined
        .iter()
        .map(|unit| format!("{}: its image is not tried any more", super::common::short(unit)));
    let row = [
        super::list::age(now_s.saturating_sub(boot.unix_s)),
        boot.restored.to_string(),
        boot.cold.len().to_string(),
        ms(boot.boot_ms),
        ms(boot.gain_ms),
        cold.chain(not_tried).collect::<Vec<_>>().join("\n"),
    ];
    row.map(Cell::new).to_vec()
}

/// With the trend: what the last boot gained beside the median of those before.
fn summary(boots: &[PastBoot]) -> String {
    let Some((last, before)) = boots.split_last() else {
        return "No boot has been reported yet; the next one with images will be.".to_owned();
    };
    let mut gains: Vec<f64> = before.iter().filter_map(|boot| boot.gain_ms).collect();
    gains.sort_by(f64::total_cmp);
    let said = |ms: f64| match ms < 0.0 {
        true => format!("{} lost", Span(-ms)),
        false => format!("{} gained", Span(ms)),
    };
    let last_gain = last.gain_ms.map_or_else(|| "a gain that is not known".to_owned(), said);
    let trend = match gains.get(gains.len() / 2) {
        Some(median) => format!(", {} before (median)", said(*median)),
        None => String::new(),
    };
    format!("{}; the last: {last_gain}{trend}.", counted(boots.len(), "boot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_boot_stands_beside_those_before() {
        let boot = |gain_ms| PastBoot {
            boot_id: "b".to_owned(),
            unix_s: 0,
            summary: String::new(),
            restored: 1,
            cold: Vec::new(),
            boot_ms: None,
            cold_boot_ms: None,
            gain_ms,
            quarantined: Vec::new(),
        };
        assert!(summary(&[]).starts_with("No boot"));
        assert_eq!(summary(&[boot(Some(2100.0))]), "1 boot; the last: 2.1 s gained.");
        let all = [boot(Some(900.0)), boot(None), boot(Some(1200.0)), boot(Some(1000.0)), boot(Some(-40.0))];
        assert_eq!(summary(&all), "5 boots; the last: 40 ms lost, 1.0 s gained before (median).");
    }
}
