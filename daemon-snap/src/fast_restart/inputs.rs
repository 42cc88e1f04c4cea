//! What a unit has read at its start: whoever edits it, or upgrades a library, and restarts the
//! machine wants the new one.

use crate::snapshot::Candidate;
use crate::unit::StatePlaces;
use fastboot_runtime::{BootStatus, Outcome, RunDir, boot};
use image_store::evidence::Digests;
use image_store::{CheckDepth, EvidenceV2, FileKind, Store};
use snap_error::{Error, Objection, Result, UnitObstacle};
use snap_state::RawPath;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Most files that are named.
const MOST: usize = 5;

/// What was observed of the unit's start, without its own state, if all of it is as it was then, and
/// since its own start.
///
/// # Errors
/// [`Error::NotEligible`] naming what has changed, or that nobody has looked on.
pub(super) fn unchanged(store: &Store, unit: &Candidate, places: &StatePlaces) -> Result<EvidenceV2> {
    let properties = unit.properties();
    let observed = store.once().observed(&properties.id)?;
    let mut observed = observed.ok_or_else(|| Error::from(UnitObstacle::NeverObserved))?;
    observed.files.retain(|item| !places.hold(&item.file.path));
    let mut reasons = Vec::new();
    let fragment = properties.fragment.clone().unwrap_or_default();
    let text = observed.unit.check(Path::new("/"), &fragment, &properties.drop_ins);
    reasons.extend(text.err().map(|reason| UnitObstacle::InputsChanged { reason }));
    let depth = CheckDepth::ContentIfStatDiffers;
    let _ = observed.check_each(Path::new("/"), depth, &Digests::default(), &mut |reason| {
        reasons.push(UnitObstacle::InputsChanged { reason });
        if reasons.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    // It may have been started with what somebody has put back since. A unit that was restored has
    // been started before this boot, and was asked then.
    if reasons.is_empty() && !is_restored(&properties.id, properties.main_pid) {
        let started = unit.started_at().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
        let is_later = |file: &&image_store::FileEvidence| {
            let now = image_store::FileEvidence::collect(Path::new("/"), &file.path, false);
            now.is_ok_and(|now| now.kind == FileKind::File && now.mtime_ns.max(now.ctime_ns) > started)
        };
        let later = observed.all_files().filter(is_later).take(MOST);
        let named =
            later.map(|file| UnitObstacle::InputChangedSinceStart { path: RawPath::from_path(&file.path) });
        reasons.extend(named);
    }
    match reasons.is_empty() {
        true => Ok(observed),
        false => Err(Error::NotEligible(reasons.into_iter().map(Objection::from).collect())),
    }
}

fn is_restored(unit: &str, main_pid: i32) -> bool {
    let status = BootStatus::load(&RunDir::default(), &boot::boot_id());
    status.is_ok_and(|status| {
        let is_it = |one: &fastboot_runtime::UnitStatus| {
            one.unit == unit && one.outcome == Outcome::Restored && one.main_pid == Some(main_pid)
        };
        status.units.iter().any(is_it)
    })
}
