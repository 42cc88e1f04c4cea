//! What came of one service, from what was seen.

use serde::Serialize;

use super::daemon::{Daemon, Expected};
use crate::stats::Spread;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// Every boot with images gave it back.
    Restored,
    /// No image was taken.
    Refused,
    /// There is an image, and a boot started it cold all the same.
    Cold,
    /// It is not as a cold boot would have it, or it never worked.
    Wrong,
}

/// Everything that was seen of a service.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Times of cold starts, in ms.
    pub(super) cold_ms: Vec<f64>,
    /// Times of restored starts, in ms.
    pub(super) restored_ms: Vec<f64>,
    /// Length of the image.
    pub(super) image_bytes: Option<u64>,
    /// Why no image was taken.
    pub(super) refusals: Vec<String>,
    /// Why a boot with images started it cold.
    pub(super) cold_reasons: Vec<String>,
    /// What is not as it should be.
    pub(super) problems: Vec<String>,
    /// Whether what only its memory held came back.
    pub(super) memory_kept: bool,
}

/// Result of one service.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Verdict {
    pub(super) name: &'static str,
    pub(super) family: &'static str,
    pub(super) unit: &'static str,
    pub(super) group: &'static str,
    pub(super) outcome: Outcome,
    /// Why not restored; all reasons.
    pub(super) why: Vec<String>,
    /// The outcome is what the list expects, or better.
    pub(super) as_expected: bool,
    pub(super) cold_ms: Option<Spread>,
    pub(super) restored_ms: Option<Spread>,
    pub(super) image_bytes: Option<u64>,
    /// A value that only the service's memory held was there after the restore.
    pub(super) memory_proved: bool,
}

impl Verdict {
    pub(super) fn of(daemon: &Daemon, group: &'static str, seen: Seen) -> Verdict {
        let (outcome, why) = if !seen.problems.is_empty() {
            let mut why = seen.problems;
            why.extend(seen.refusals.iter().map(|reason| format!("(refused: {reason})")));
            (Outcome::Wrong, why)
        } else if !seen.refusals.is_empty() {
            (Outcome::Refused, seen.refusals)
        } else if !seen.cold_reasons.is_empty() {
            (Outcome::Cold, seen.cold_reasons)
        } else if seen.restored_ms.is_empty() {
            (Outcome::Wrong, vec!["no boot with images was made".to_owned()])
        } else {
            (Outcome::Restored, Vec::new())
        };
        let as_expected = match daemon.expected {
            _ if outcome == Outcome::Restored => true,
            Expected::Restored => false,
            Expected::Refused(words) => {
                outcome == Outcome::Refused && why.iter().any(|reason| reason.contains(words))
            }
        };
        Verdict {
            name: daemon.name,
            family: daemon.family,
            unit: daemon.unit,
            group,
            outcome,
            why,
            as_expected,
            cold_ms: Spread::of(&seen.cold_ms),
            restored_ms: Spread::of(&seen.restored_ms),
            image_bytes: seen.image_bytes,
            memory_proved: outcome == Outcome::Restored && seen.memory_kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTORED: Daemon = Daemon { name: "a", ..Daemon::DEFAULT };
    const REFUSED: Daemon = Daemon { expected: Expected::Refused("a ring"), ..RESTORED };

    fn of(daemon: &Daemon, seen: Seen) -> (Outcome, bool) {
        let verdict = Verdict::of(daemon, "g", seen);
        (verdict.outcome, verdict.as_expected)
    }

    #[test]
    fn a_problem_counts_more_than_a_restore() {
        let seen = Seen { restored_ms: vec![1.0], ..Seen::default() };
        assert_eq!(of(&RESTORED, seen.clone()), (Outcome::Restored, true));
        let seen = Seen { problems: vec!["died".into()], ..seen };
        assert_eq!(of(&RESTORED, seen), (Outcome::Wrong, false));
    }

    #[test]
    fn a_service_that_was_never_booted_with_images_is_wrong() {
        assert_eq!(of(&RESTORED, Seen::default()), (Outcome::Wrong, false));
    }

    #[test]
    fn a_refusal_is_expected_only_for_its_own_reason() {
        let seen = |reason: &str| Seen { refusals: vec![reason.into()], ..Seen::default() };
        assert_eq!(of(&REFUSED, seen("pid 1 fd 2 is a ring")), (Outcome::Refused, true));
        assert_eq!(of(&REFUSED, seen("something else")), (Outcome::Refused, false));
        assert_eq!(of(&RESTORED, seen("pid 1 fd 2 is a ring")), (Outcome::Refused, false));
        let cold = Seen { cold_reasons: vec!["a ring".into()], ..Seen::default() };
        assert_eq!(of(&REFUSED, cold), (Outcome::Cold, false));
        assert_eq!(
            of(&REFUSED, Seen { restored_ms: vec![1.0], ..Seen::default() }),
            (Outcome::Restored, true)
        );
    }
}
