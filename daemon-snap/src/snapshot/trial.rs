//! The trial: each new image is used once, at once, on the path of a boot, and kept only if that is
//! worth it.
//!
//! The unit is restarted with the shim in front of its command, so that everything takes part that
//! will at a boot: generator, systemd with the unit's sandbox, shim, restore daemon. It also finds
//! evidence that the unit changes itself when it stops. Then the restored instance is asked what
//! the first one was asked (the warm-up commands): a program that ends at its next request, because
//! it does not bear to be restored, is found here and not at a boot. The restored instance stays;
//! where the restore fails, the shim has started the unit cold.

use super::image::AsTaken;
use super::point;
use crate::unit::{self, Cgroup, Patience, Systemd, UnitProperties};
use fastboot_runtime::{GeneratorRecord, Outcome, RunDir, Trials, UnitStatus, soft_reboot};
use image_store::evidence::StartEvidence;
use image_store::{CatalogueEntry, StaleReason};
use snap_collect::dump::StoredDescriptor;
use snap_error::{Error, Result, TrialFault};
use snap_policy::{StartBudget, StartTimes};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const SOCKET: &str = "fastboot-initd.socket";
const SERVICE: &str = "fastboot-initd.service";

/// Longest until systemd has taken what the shim sent it before its last word.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// A restore has to take at most this share of the cold start, in percent, and to save at least so
/// many milliseconds: less than that lies within the accuracy of the measurement.
const WORTH_PERCENT: f64 = 80.0;
const WORTH_MS: f64 = 5.0;

/// Images are on trial as long as this lives.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    systemd: &'a Systemd,
    permits: Trials,
    /// The restore daemon was not there before.
    starts_initd: bool,
}

/// What a trial that went well has shown.
#[derive(Debug)]
pub(super) struct Tried {
    /// From the start of the unit until systemd had taken over the restored service.
    pub restored_ms: f64,
    /// How systemd has started it.
    pub start: StartEvidence,
}

/// Whether a restore is worth the disk.
pub(super) fn is_worth(cold_ms: f64, restored_ms: f64) -> bool {
    restored_ms * 100.0 <= cold_ms * WORTH_PERCENT && cold_ms - restored_ms >= WORTH_MS
}

/// A boot that began without images stays one: whenever the generator runs next in it, it finds
/// that it has decided.
pub(crate) fn record_boot_without_images() -> Result<()> {
    let run_dir = RunDir::default();
    // With another count it would be taken for one of the userspace before a soft reboot.
    let soft_reboots = soft_reboot::count(&run_dir);
    let record = GeneratorRecord { soft_reboots, ..GeneratorRecord::new(Vec::new()) };
    let path = GeneratorRecord::path(&run_dir);
    record.store_if_missing(&run_dir).map_err(|e| Error::io("write", path.display(), &e))
}

/// No permit of an earlier snapshot counts any more. Hold the lock of the store.
pub(super) fn forget_permits() -> Result<()> {
    let permits = Trials::open(&RunDir::default());
    permits.clear().map_err(|e| Error::io("remove", permits.path().display(), &e))
}

impl<'a> Trial<'a> {
    /// Puts the shim in front of the units of these images.
    ///
    /// # Errors
    /// When systemd cannot be asked, or fastboot's own units are not installed.
    pub(super) fn begin(systemd: &'a Systemd, entries: &[&CatalogueEntry]) -> Result<Self> {
        let permits = Trials::open(&RunDir::default());
        let path = permits.path().to_owned();
        let fail = |e: std::io::Error| Error::io("write", path.display(), &e);
        permits.clear().map_err(fail)?;
        let starts_initd = systemd.active_state(SOCKET)? != "active";
        let trial = Self { systemd, permits, starts_initd };
        for entry in entries {
            trial.permits.allow(entry).map_err(fail)?;
        }
        systemd.reload()?;
        systemd.start(SOCKET)?;
        point("snapshot.trial")?;
        Ok(trial)
    }

    /// Restarts a unit from its image, then runs `ask`.
    ///
    /// # Errors
    /// When it was not restored, or did not stay, or `ask` fails. It runs all the same, if it can
    /// be started at all.
    pub(super) fn restore(
        &self,
        entry: &CatalogueEntry,
        as_taken: &AsTaken,
        patience: &Patience,
        ask: impl FnOnce() -> Result<()>,
    ) -> Result<Tried> {
        let id = entry.unit.as_str();
        let tried = self.try_restore(entry, as_taken, patience, ask);
        // Whatever starts the unit from here on is no trial of this image.
        let withdrawn = self.permits.withdraw(id);
        let tried = withdrawn.map_err(|e| Error::io("remove", self.permits.path().display(), &e)).and(tried);
        self.or_started(id, tried)
    }

    /// Passes while the unit is the restored instance.
    ///
    /// # Errors
    /// When it is not, with systemd's word for it. It runs all the same, if it can be started at
    /// all.
    pub(super) fn stays(&self, entry: &CatalogueEntry) -> Result<()> {
        self.or_started(&entry.unit, self.is_restored(entry))
    }

    /// A trial that failed must not leave the unit down.
    fn or_started<T>(&self, id: &str, tried: Result<T>) -> Result<T> {
        let runs = |unit: UnitProperties| unit.active_state == "active";
        if tried.is_err() && !self.systemd.properties(id).is_ok_and(runs) {
            self.systemd.restart(id)?;
        }
        tried
    }

    fn is_restored(&self, entry: &CatalogueEntry) -> Result<()> {
        let now = self.systemd.properties(&entry.unit)?;
        if now.active_state == "active" && now.main_pid == entry.service.main_pid {
            return Ok(());
        }
        let UnitProperties { active_state: state, main_pid, result, .. } = now;
        Err(TrialFault::DidNotStay { state, main_pid, result }.into())
    }

    fn try_restore(
        &self,
        entry: &CatalogueEntry,
        as_taken: &AsTaken,
        patience: &Patience,
        ask: impl FnOnce() -> Result<()>,
    ) -> Result<Tried> {
        let id = entry.unit.as_str();
        // systemd has read its own configuration again for the trial: what was started before it
        // did is no image of such a start.
        check_settings(&as_taken.start_settings, &self.systemd.start_settings(id)?)?;
        let started = match self.permits.outcome(id) {
            // Another unit's trial has restarted this one along with it.
            Ok(Some(_)) => self.systemd.properties(id)?,
            // It may end of it before systemd has done with the start.
            _ => self.systemd.restart(id).map_err(|error| match error {
                Error::Service(fault) => TrialFault::NotRestarted { fault: Box::new(fault) }.into(),
                other => other,
            })?,
        };
        let times =
            StartTimes { timeout_ms: entry.service.timeout_start_ms, cold_ms: entry.service.cold_start_ms };
        let longest = StartBudget::of(times, entry.len_bytes).map_or(Duration::ZERO, |b| b.limit);
        let outcome = self.wait_for_outcome(id, Instant::now() + longest + Duration::from_secs(2))?;
        if outcome.outcome != Outcome::Restored {
            let code = outcome.reason_code.ok_or(TrialFault::NoAnswer)?;
            let reason = StaleReason::new(code, outcome.reason.unwrap_or_default());
            return Err(TrialFault::StartedCold { reason }.into());
        }
        let cgroup = Cgroup::open(&started.control_group)?;
        self.has_store(id, &as_taken.stored)?;
        let asked = ask();
        let settled = unit::settle(&started, &cgroup, patience);
        // That it has ended says more than that nobody answered.
        self.is_restored(entry)?;
        asked?;
        settled?;
        let took_us = outcome.done_monotonic_us.and_then(|done| done.checked_sub(started.inactive_exit_us));
        let restored_ms = took_us.map(|us| us as f64 / 1e3).ok_or(TrialFault::TimesUntold)?;
        let start = self.permits.start(id);
        let start = start.map_err(|e| Error::io("read", self.permits.path().display(), &e))?;
        Ok(Tried { restored_ms, start: start.ok_or(TrialFault::StartUntold)? })
    }

    /// systemd has got back what it kept. It does not say when it refuses something.
    fn has_store(&self, id: &str, wanted: &[StoredDescriptor]) -> Result<()> {
        // Inodes of what was made again are others, and they stand in the links of sockets and
        // pipes.
        let shown = |stored: &[StoredDescriptor]| -> Vec<(String, u32, i32)> {
            stored.iter().map(|one| (one.name.clone(), one.mode, one.flags)).collect()
        };
        let deadline = Instant::now() + STORE_TIMEOUT;
        loop {
            let now = shown(&self.systemd.properties(id)?.stored);
            if now == shown(wanted) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let names = now.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
                return Err(TrialFault::StoreDiffers { names }.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn wait_for_outcome(&self, id: &str, deadline: Instant) -> Result<UnitStatus> {
        loop {
            let outcome = self.permits.outcome(id);
            let outcome = outcome.map_err(|e| Error::io("read", self.permits.path().display(), &e))?;
            match outcome {
                Some(outcome) => return Ok(outcome),
                None if Instant::now() >= deadline => {
                    return Err(TrialFault::NoAnswer.into());
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn end(&self) -> Result<()> {
        self.permits.clear().map_err(|e| Error::io("remove", self.permits.path().display(), &e))?;
        self.systemd.reload()?;
        if self.starts_initd {
            self.systemd.stop(SOCKET)?;
            self.systemd.stop(SERVICE)?;
        }
        Ok(())
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::debug!(%error, "the shim stays in front of the units until the next boot");
        }
    }
}

fn check_settings(was: &BTreeMap<String, String>, is: &BTreeMap<String, String>) -> Result<()> {
    let names: BTreeSet<&str> = was.keys().chain(is.keys()).map(String::as_str).collect();
    let changed: Vec<&str> = names.into_iter().filter(|name| was.get(*name) != is.get(*name)).collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(TrialFault::StartChanged { names: changed.join(", ") }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_changed_before_the_trial_are_named() {
        let settings = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let was = settings(&[("LimitNOFILE", "1024"), ("UMask", "18")]);
        check_settings(&was, &was).unwrap();
        let is = settings(&[("LimitNOFILE", "512"), ("Nice", "5"), ("UMask", "18")]);
        let said = check_settings(&was, &is).unwrap_err().to_string();
        assert!(said.contains("(LimitNOFILE, Nice)"), "{said}");
    }

    #[test]
    fn an_image_is_worth_it_by_a_margin_only() {
        assert!(is_worth(4000.0, 150.0));
        assert!(is_worth(40.0, 20.0));
        assert!(!is_worth(40.0, 36.0));
        assert!(!is_worth(12.0, 8.0));
        assert!(!is_worth(10.0, 30.0));
    }
}
