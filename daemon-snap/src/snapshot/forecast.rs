//! What an image of a service would gain, before there is one: from what this machine has measured,
//! and where it has measured nothing, from what can be bounded.

use super::trial;
use image_store::Catalogue;
use serde::Serialize;

/// A restore without memory to read, where no trial has measured one.
const FIXED_MS: f64 = 50.0;
/// Memory that is read back in a millisecond, where no trial has measured it.
const BYTES_PER_MS: f64 = 800e3;

/// How the length of a cold start is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColdBy {
    /// The last snapshot has measured it, alone on the machine.
    Snapshot,
    /// systemd's timestamps of a start after the boot.
    Start,
    /// systemd's timestamps of a start in the boot: others wanted the processors and the disk too,
    /// so that alone it is shorter.
    Boot,
    /// Not at all: systemd does not learn when the service is ready. Its start cannot have computed
    /// for longer than the service has since.
    CpuTime,
}

/// What is known of one service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub cold_ms: Option<f64>,
    pub cold_by: Option<ColdBy>,
    /// CPU time since its start.
    pub cpu_ms: Option<f64>,
    /// By the trial of the last snapshot.
    pub restore_ms: Option<f64>,
    pub dirty_bytes: u64,
}

/// What is to be expected of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Forecast {
    /// `None` where nothing is known of its cold start.
    pub cold_ms: Option<f64>,
    pub restore_ms: f64,
    /// Whether it is worth an image; a cold start of which nothing is known may be.
    pub gains: bool,
}

/// What a restore without memory takes on this machine: the shortest that a trial has measured.
pub(super) fn fixed_ms(catalogue: &Catalogue) -> f64 {
    let images = catalogue.newest_images().into_iter();
    let tried = images.filter_map(|(_, entry)| entry.service.restore_ms);
    tried.min_by(f64::total_cmp).unwrap_or(FIXED_MS)
}

impl Known {
    pub fn forecast(&self, fixed_ms: f64) -> Forecast {
        let estimated_ms = fixed_ms + self.dirty_bytes as f64 / BYTES_PER_MS;
        let restore_ms = self.restore_ms.unwrap_or(estimated_ms);
        let cold_ms = match self.cold_by {
            Some(ColdBy::Boot) => self.cold_ms.into_iter().chain(self.cpu_ms).min_by(f64::total_cmp),
            Some(ColdBy::CpuTime) | None => self.cpu_ms,
            Some(ColdBy::Snapshot | ColdBy::Start) => self.cold_ms,
        };
        let gains = cold_ms.is_none_or(|cold_ms| trial::is_worth(cold_ms, restore_ms));
        Forecast { cold_ms, restore_ms, gains }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contended_start_is_bounded_by_the_time_that_the_service_has_computed() {
        let contended = Known {
            cold_ms: Some(3073.0),
            cold_by: Some(ColdBy::Boot),
            cpu_ms: Some(60.0),
            dirty_bytes: 3_000_000,
            ..Known::default()
        };
        let forecast = contended.forecast(FIXED_MS);
        assert_eq!((forecast.cold_ms, forecast.gains), (Some(60.0), false));
        let measured = Known { cold_by: Some(ColdBy::Snapshot), ..contended };
        assert!(measured.forecast(FIXED_MS).gains);
        let tried = Known { restore_ms: Some(3000.0), ..measured };
        assert!(!tried.forecast(FIXED_MS).gains, "the trial counts and no estimate");
    }

    #[test]
    fn a_start_that_nobody_has_measured_is_bounded_too() {
        let simple = |cpu_ms| Known { cold_by: Some(ColdBy::CpuTime), cpu_ms, ..Known::default() };
        assert!(!simple(Some(5.0)).forecast(FIXED_MS).gains);
        assert!(simple(Some(2000.0)).forecast(FIXED_MS).gains);
        assert!(simple(None).forecast(FIXED_MS).gains, "nothing is known");
        let large = Known { dirty_bytes: 4_000_000_000, ..simple(Some(2000.0)) };
        assert!(!large.forecast(FIXED_MS).gains);
    }
}
