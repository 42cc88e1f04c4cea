//! Waiting until a unit has done its start: ready per systemd and then quiet.

use super::{Cgroup, UnitProperties};
use nix::time::{ClockId, clock_gettime};
use snap_error::{Result, ServiceFault};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the unit must be quiet at a stretch, and how often in a row.
const WINDOW: Duration = Duration::from_millis(300);
const WINDOWS: u32 = 2;
/// Quiet is less than this share of one core, in percent.
const QUIET_PERCENT: u64 = 2;
const SAMPLE: Duration = Duration::from_millis(20);
/// In the beginning a look is taken more often: many services have started by then.
const FINE_SAMPLE: Duration = Duration::from_millis(4);
const FINE_SAMPLES: usize = 100;
/// The start is over when this share of its CPU time has been used, in percent; the rest is idling.
const STARTED_PERCENT: u64 = 98;

/// Whether somebody wants what goes on to end. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Between two steps.
    ///
    /// # Errors
    /// [`ServiceFault::Interrupted`].
    pub fn check(&self) -> Result<()> {
        match self.is_asked() {
            true => Err(ServiceFault::Interrupted.into()),
            false => Ok(()),
        }
    }
}

/// How long a service is waited for.
#[derive(Clone, Debug)]
pub struct Patience {
    pub longest: Duration,
    pub interrupt: Interrupt,
}

/// How a start went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settled {
    /// Quiet in time. `false`: it still computed when the time was up.
    pub quiet: bool,
    /// CPU time of the unit's control group until then, in milliseconds.
    pub cpu_ms: f64,
    /// From the start of the unit until it was ready, in milliseconds. systemd's own word where it
    /// waits for the service's; for types that count as started at once, the end of the busy part.
    pub ready_ms: f64,
}

/// Waits until the unit is quiet.
///
/// # Errors
/// When its control group cannot be read any more; when somebody wants it to end.
pub fn settle(unit: &UnitProperties, cgroup: &Cgroup, patience: &Patience) -> Result<Settled> {
    let deadline = Instant::now() + patience.longest;
    let mut samples = vec![(now_us(), cgroup.cpu_us()?)];
    let (mut window_start, mut quiet_windows) = (samples[0], 0);
    let quiet = loop {
        std::thread::sleep(if samples.len() < FINE_SAMPLES { FINE_SAMPLE } else { SAMPLE });
        let sample = (now_us(), cgroup.cpu_us()?);
        samples.push(sample);
        let (wall_us, used_us) = (sample.0 - window_start.0, sample.1.saturating_sub(window_start.1));
        if wall_us >= WINDOW.as_micros() as u64 {
            quiet_windows = if used_us * 100 < wall_us * QUIET_PERCENT { quiet_windows + 1 } else { 0 };
            window_start = sample;
        }
        if quiet_windows >= WINDOWS {
            break true;
        }
        patience.interrupt.check()?;
        if Instant::now() >= deadline {
            break false;
        }
    };
    let cpu_us = samples.last().map_or(0, |sample| sample.1);
    Ok(Settled { quiet, cpu_ms: cpu_us as f64 / 1e3, ready_ms: ready_ms(unit, &samples) })
}

fn ready_ms(unit: &UnitProperties, samples: &[(u64, u64)]) -> f64 {
    let start_us = unit.inactive_exit_us;
    let said = unit.active_enter_us.saturating_sub(start_us);
    let used = samples.last().map_or(0, |sample| sample.1);
    let done = samples.iter().find(|sample| sample.1 * 100 >= used * STARTED_PERCENT);
    let busy = done.map_or(0, |sample| sample.0.saturating_sub(start_us));
    let us = if unit.waits_for_word() { said } else { said.max(busy) };
    us as f64 / 1e3
}

/// `CLOCK_MONOTONIC` in microseconds, the clock of systemd's timestamps.
fn now_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |time| time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [(u64, u64); 4] =
        [(1_100_000, 20_000), (1_500_000, 60_000), (1_900_000, 99_000), (2_500_000, 100_000)];

    fn unit(service_type: &str) -> UnitProperties {
        UnitProperties {
            service_type: service_type.to_owned(),
            inactive_exit_us: 1_000_000,
            active_enter_us: 1_043_000,
            ..UnitProperties::default()
        }
    }

    #[test]
    fn a_simple_service_is_ready_when_its_busy_part_is_over() {
        assert_eq!(ready_ms(&unit("simple"), &SAMPLES), 900.0);
    }

    #[test]
    fn a_service_that_speaks_is_ready_when_it_says_so() {
        assert_eq!(ready_ms(&unit("notify"), &SAMPLES), 43.0);
        assert_eq!(ready_ms(&unit("forking"), &SAMPLES), 43.0);
    }
}
