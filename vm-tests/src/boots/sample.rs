//! What one boot took.

use crate::fastboot::StatusReport;

/// How services come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Debian as it is, without fastboot.
    Cold,
    /// fastboot is installed and armed, and all image files are gone.
    Unusable,
    /// From images.
    Restored,
    /// By units that run `criu restore`.
    Criu,
    /// QEMU's own state of the whole machine.
    Loaded,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Cold => "cold",
            Kind::Unusable => "fastboot, nothing usable",
            Kind::Restored => "restored",
            Kind::Criu => "criu restore in units",
            Kind::Loaded => "QEMU loadvm",
        }
    }
}

/// One boot. Times begin with the kernel, in containers with PID 1, but for a loaded machine with
/// QEMU.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// When multi-user.target was reached.
    pub(super) multi_user_ms: Option<f64>,
    /// First right answer of each service, in the order of the profile.
    pub(super) answers_ms: Vec<Option<f64>>,
    /// When all had answered.
    pub(super) all_ms: Option<f64>,
    /// From QEMU's start until all had answered, by the host's clock.
    pub(super) switched_on_ms: Option<f64>,
    /// Processor time until all had answered and systemd was done.
    pub(super) cpu_s: Option<f64>,
    /// Read from the disk until then.
    pub(super) read_mb: Option<f64>,
    /// Most memory until then.
    pub(super) peak_mb: Option<f64>,
    /// Of each service: how it came up, where that is not plain.
    pub(super) outcomes: Vec<String>,
}

/// The latest, if there is one for each.
pub(super) fn latest(answers_ms: &[Option<f64>]) -> Option<f64> {
    answers_ms.iter().try_fold(0.0_f64, |latest, answer| Some(latest.max((*answer)?)))
}

/// What fastboot says of each unit.
pub(super) fn outcomes(status: &StatusReport, units: &[&str]) -> Vec<String> {
    let of = |unit: &&str| match status.unit(unit) {
        None => "no image".to_owned(),
        Some(said) if said.outcome == "restored" => said.outcome.clone(),
        Some(said) => format!("{}: {}", said.outcome, said.reason.as_deref().unwrap_or("no reason given")),
    };
    units.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_answers_leaves_no_time_for_all() {
        assert_eq!(latest(&[Some(1.0), Some(3.0), Some(2.0)]), Some(3.0));
        assert_eq!(latest(&[Some(1.0), None]), None);
    }

    #[test]
    fn a_unit_without_an_image_is_said_to_have_none() {
        let status: StatusReport = serde_json::from_str(
            r#"{"units":[{"unit":"a","outcome":"restored"},{"unit":"b","outcome":"cold","reason":"x"}]}"#,
        )
        .unwrap();
        assert_eq!(outcomes(&status, &["a", "b", "c"]), ["restored", "cold: x", "no image"]);
    }
}
