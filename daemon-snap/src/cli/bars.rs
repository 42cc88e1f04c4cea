//! Progress of a snapshot: bars on a terminal, lines where there is none.

use super::common::mb;
use daemon_snap::snapshot::{Phase, Step};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

/// One progress bar per phase, under each other.
#[derive(Debug)]
pub struct Bars {
    way: Way,
    current: Option<(Phase, ProgressBar)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Bars,
    Lines,
    Nothing,
}

impl Bars {
    /// None beside JSON, which is for programs.
    pub fn new(json: bool) -> Self {
        let way = match (json, std::io::stderr().is_terminal()) {
            (true, _) => Way::Nothing,
            (false, true) => Way::Bars,
            (false, false) => Way::Lines,
        };
        Self { way, current: None }
    }

    pub fn show(&mut self, step: Step<'_>) {
        let is_new = self.current.as_ref().is_none_or(|(phase, _)| *phase != step.phase);
        if is_new {
            self.finish();
            let bar = ProgressBar::new(step.of as u64);
            bar.set_draw_target(match self.way {
                Way::Bars => ProgressDrawTarget::stderr(),
                Way::Lines | Way::Nothing => ProgressDrawTarget::hidden(),
            });
            if let Ok(style) = ProgressStyle::with_template(
                "{prefix:8} {bar:24} {pos}/{len} {elapsed:>4}, {eta:>3} left {wide_msg}",
            ) {
                bar.set_style(style);
            }
            bar.set_prefix(name(step.phase));
            bar.enable_steady_tick(Duration::from_millis(100));
            self.current = Some((step.phase, bar));
        }
        // Of the others it is enough to know that they have begun.
        let is_restart = matches!(step.phase, Phase::Restart | Phase::Trial);
        if self.way == Way::Lines && (is_new || is_restart) {
            eprintln!("fastboot: {} {}/{}: {}", name(step.phase), step.index + 1, step.of, step.what);
        }
        if let Some((_, bar)) = &self.current {
            bar.set_position(step.index as u64);
            bar.set_message(match step.bytes {
                0 => step.what.to_owned(),
                bytes => {
                    let rate = bytes as f64 / bar.elapsed().as_secs_f64().max(1e-3);
                    format!("{} ({} MB, {} MB/s)", step.what, mb(bytes), mb(rate as u64))
                }
            });
        }
    }

    pub fn finish(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.set_position(bar.length().unwrap_or_default());
            bar.finish_with_message("");
        }
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Inspect => "inspect",
        Phase::Restart => "restart",
        Phase::WarmUp => "warm up",
        Phase::Settle => "settle",
        Phase::Image => "image",
        Phase::Trial => "trial",
        Phase::Publish => "publish",
    }
}
