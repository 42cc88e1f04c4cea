//! What a snapshot would do, without doing it: each unit stands still for a moment, nothing else
//! happens to it.

use super::Candidate;
use crate::unit::Systemd;
use image_store::Catalogue;
use serde::Serialize;
use snap_error::{CodedReason, Error, Objection, Result};
use snap_policy::{Standing, StartBudget, StartTimes};
use snap_state::PAGE_BYTES;

/// One service in the plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanRow {
    pub unit: String,
    /// systemd knows it.
    pub exists: bool,
    /// Nothing stands against it.
    pub eligible: bool,
    /// A snapshot without names takes it.
    pub by_default: bool,
    /// Everything that stands against it.
    pub reasons: Vec<String>,
    /// The same, and behind them what passes, with codes (`docs/reasons.md`).
    pub obstacles: Vec<CodedReason>,
    /// What stands against it now but comes and goes.
    pub passing: Vec<String>,
    /// What its owner should know all the same.
    pub notes: Vec<String>,
    /// Why it is only taken when it is named.
    pub risk: Option<String>,
    pub processes: usize,
    pub threads: usize,
    pub dirty_bytes: u64,
    /// Measured at the last snapshot, else from systemd's timestamps of this run where they say
    /// something.
    pub cold_start_ms: Option<f64>,
    pub cold_cpu_ms: Option<f64>,
    /// Measured by the trial of the last snapshot, and what it gains over the cold start.
    pub restore_ms: Option<f64>,
    pub gain_ms: Option<f64>,
    /// How long it stood still for the look.
    pub freeze_ms: f64,
}

/// The plan for some services, or for all that run.
///
/// # Errors
/// Without a bus. What concerns one unit is in its row.
pub fn plan(names: &[String], catalogue: &Catalogue) -> Result<Vec<PlanRow>> {
    let systemd = Systemd::connect()?;
    let running;
    let names = match names.is_empty() {
        true => {
            running = systemd.running_services()?.into_iter().map(|unit| unit.name).collect::<Vec<_>>();
            &running
        }
        false => names,
    };
    Ok(names.iter().map(|name| row(&systemd, name, catalogue)).collect())
}

fn row(systemd: &Systemd, name: &str, catalogue: &Catalogue) -> PlanRow {
    let standing = Standing::of(name);
    let mut row = PlanRow {
        unit: name.to_owned(),
        exists: true,
        eligible: false,
        by_default: false,
        reasons: Vec::new(),
        obstacles: Vec::new(),
        passing: Vec::new(),
        notes: Vec::new(),
        risk: match standing {
            Standing::OnlyNamed(why) => Some(why.to_owned()),
            _ => None,
        },
        processes: 0,
        threads: 0,
        dirty_bytes: 0,
        cold_start_ms: None,
        cold_cpu_ms: None,
        restore_ms: None,
        gain_ms: None,
        freeze_ms: 0.0,
    };
    match fill(systemd, name, catalogue, &mut row) {
        Ok(()) => {}
        Err(error) => {
            row.exists = !matches!(error, Error::NoUnit(_));
            row.obstacles = error.reasons();
            row.reasons = row.obstacles.iter().map(|obstacle| obstacle.reason.clone()).collect();
        }
    }
    row.eligible = row.reasons.is_empty();
    row.by_default = row.eligible && row.risk.is_none();
    row
}

fn fill(systemd: &Systemd, name: &str, catalogue: &Catalogue, row: &mut PlanRow) -> Result<()> {
    let mut unit = Candidate::look(systemd, name)?;
    unit.note_earlier(catalogue);
    row.notes.extend(unit.note_on_store());
    row.notes.extend(unit.note_on_kernel()?);
    let properties = unit.properties();
    if properties.is_started_by_bus_alone() && row.risk.is_none() {
        row.risk = Some("the bus starts it when somebody asks for it, and it may end by itself".to_owned());
    }
    let took_us = properties.active_enter_us.checked_sub(properties.inactive_exit_us);
    let said_us = took_us.filter(|_| properties.waits_for_word());
    let (measured_ms, measured_cpu_ms) = unit.cold();
    // A start that was not measured yet may turn out to be as short as one likes.
    let times = StartTimes { timeout_ms: properties.timeout_start_ms, cold_ms: measured_ms.or(Some(0.0)) };
    StartBudget::of(times, 0).map_err(|reason| Error::Unit(vec![reason]))?;
    row.cold_start_ms = measured_ms.or(said_us.map(|us| us as f64 / 1e3));
    row.cold_cpu_ms = measured_cpu_ms.or(unit.cgroup().cpu_us().ok().map(|us| us as f64 / 1e3));
    if let Some((_, entry)) = catalogue.newest(&unit.properties().id) {
        (row.restore_ms, row.gain_ms) = (entry.service.restore_ms, entry.service.gain_ms());
    }
    let seen = unit.inspect()?;
    let around = unit.inspect_open_state()?.into_iter().map(Objection::from);
    let all = seen.blockers.into_iter().map(Objection::from).chain(around);
    let (passing, lasting): (Vec<CodedReason>, Vec<CodedReason>) =
        all.map(|objection| CodedReason::from(&objection)).partition(|obstacle| obstacle.passes);
    let sentences = |all: &[CodedReason]| all.iter().map(|one| one.reason.clone()).collect();
    (row.passing, row.reasons) = (sentences(&passing), sentences(&lasting));
    row.obstacles = lasting.into_iter().chain(passing).collect();
    (row.processes, row.threads) = (seen.processes, seen.threads);
    row.dirty_bytes = seen.dirty_pages * PAGE_BYTES;
    row.freeze_ms = seen.frozen_for.as_secs_f64() * 1e3;
    Ok(())
}
