//! Progress of a snapshot on a terminal.

use daemon_snap::snapshot::{Phase, Step};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

/// One progress bar per phase, under each other.
#[derive(Debug)]
pub struct Bars {
    hidden: bool,
    current: Option<(Phase, ProgressBar)>,
}

impl Bars {
    /// None where nobody looks.
    pub fn new(json: bool) -> Self {
        Self { hidden: json || !std::io::stderr().is_terminal(), current: None }
    }

    pub fn show(&mut self, step: Step<'_>) {
        let is_new = self.current.as_ref().is_none_or(|(phase, _)| *phase != step.phase);
        if is_new {
            self.finish();
            let bar = ProgressBar::new(step.of as u64);
            bar.set_draw_target(if self.hidden {
                ProgressDrawTarget::hidden()
            } else {
                ProgressDrawTarget::stderr()
            });
            if let Ok(style) =
                ProgressStyle::with_template("{prefix:8} {bar:30} {pos}/{len} {elapsed:>4} {msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name(step.phase));
            bar.enable_steady_tick(Duration::from_millis(100));
            self.current = Some((step.phase, bar));
        }
        if let Some((_, bar)) = &self.current {
            bar.set_position(step.index as u64);
            bar.set_message(step.what.to_owned());
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
