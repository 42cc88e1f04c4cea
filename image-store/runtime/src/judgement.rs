//! How the judge's reasons against a unit are written down, beside the reasons against images.

use image_store::{ReasonCode, StaleReason};
use serde::{Deserialize, Serialize};
use snap_policy::Reason;

/// One reason against a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedReason {
    /// [`Reason::code`].
    pub code: String,
    /// The same for people.
    pub reason: String,
}

impl From<&Reason> for NamedReason {
    fn from(reason: &Reason) -> NamedReason {
        NamedReason { code: reason.code().to_owned(), reason: reason.to_string() }
    }
}

/// All reasons against a unit as one against its image: the code is that of the first, the sentence
/// has all of them. `None` where there are none.
pub fn stale_reason(reasons: &[Reason]) -> Option<StaleReason> {
    let code = match reasons.first()? {
        Reason::SwitchedOff { .. } | Reason::LaterDropIn { .. } => ReasonCode::Disabled,
        Reason::ProgramMissing { .. } => ReasonCode::FileMissing,
        Reason::StartTimeout => ReasonCode::Deadline,
        Reason::OtherFiles { .. } | Reason::NoUnitFile => ReasonCode::UnitChanged,
        _ => ReasonCode::HostUnsupported,
    };
    let sentences: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    Some(StaleReason::new(code, sentences.join("; ")))
}
