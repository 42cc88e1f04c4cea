//! Whether AppArmor would confine a cold start as it did when the image was taken. The profiles
//! themselves are taken by each thread, last.

use image_store::ReasonCode;
use snap_error::{Error, Result};
use snap_state::ConfinementV1;
use snap_sys::label;

/// Compares; in our own mount namespace.
///
/// # Errors
/// `Stale`.
pub fn check_confinement(recorded: Option<&ConfinementV1>) -> Result<()> {
    let is_on = label::is_apparmor_on();
    let stale = |sentence: String| Err(Error::stale(ReasonCode::ConfinementChanged, sentence));
    match recorded {
        None if is_on => stale("AppArmor is on, and was off at the snapshot".to_owned()),
        None => Ok(()),
        Some(_) if !is_on => stale("AppArmor is off, and was on at the snapshot".to_owned()),
        Some(ConfinementV1 { program, label }) => match label::of_executed(program.as_path()) {
            Ok(now) if now == *label => Ok(()),
            Ok(now) => stale(format!("AppArmor gives {program} the label {now}, at the snapshot {label}")),
            Err(errno) => stale(format!("what AppArmor gives {program} cannot be found out: {errno}")),
        },
    }
}
