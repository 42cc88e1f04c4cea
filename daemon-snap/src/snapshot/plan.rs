//! What a snapshot would do, without doing it: each unit stands still for a moment, nothing else
//! happens to it.

use super::Candidate;
use super::forecast::{self, ColdBy, Known};
use crate::boot::{Chains, chain};
use crate::unit::Systemd;
use image_store::Catalogue;
use serde::Serialize;
use snap_error::{CodedReason, Error, Objection, Result};
use snap_policy::{Standing, StartBudget, StartTimes};
use snap_state::PAGE_BYTES;
use std::collections::BTreeMap;

/// What a snapshot would do, and what a boot would gain by it.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// From the start of userspace until the last service is there, in milliseconds, with cold
    /// starts; `None` where this boot is not over.
    pub boot_ms: Option<f64>,
    /// The same with what a snapshot without names takes. The longest chain counts, not the sum.
    pub expected_boot_ms: Option<f64>,
    /// In the order in which they were named, or by name.
    pub units: Vec<PlanRow>,
}

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
    /// `None`: it was not looked at.
    pub processes: Option<usize>,
    pub threads: Option<usize>,
    pub dirty_bytes: Option<u64>,
    /// Measured at the last snapshot, else from systemd's timestamps of this run where they say
    /// something.
    pub cold_start_ms: Option<f64>,
    /// How that is known.
    pub cold_by: Option<ColdBy>,
    /// CPU time of that start, or of all since this one.
    pub cold_cpu_ms: Option<f64>,
    /// What a restore takes and what it gains: by the trial where there was one, else estimated
    /// from the memory that there is.
    pub expected_restore_ms: Option<f64>,
    pub expected_gain_ms: Option<f64>,
    /// Whether that is worth an image.
    pub gains: bool,
    /// Measured by the trial of the last snapshot, and what it gains over the cold start.
    pub restore_ms: Option<f64>,
    pub gain_ms: Option<f64>,
    /// How long it stood still for the look; `None`: it was not looked at.
    pub freeze_ms: Option<f64>,
}

/// The plan for some services, or for all that run.
///
/// # Errors
/// Without a bus. What concerns one unit is in its row.
pub fn plan(names: &[String], catalogue: &Catalogue) -> Result<Plan> {
    let systemd = Systemd::connect()?;
    let running;
    let names = match names.is_empty() {
        true => {
            running = systemd.running_services()?.into_iter().map(|unit| unit.name).collect::<Vec<_>>();
            &running
        }
        false => names,
    };
    let times = Chains::read(&systemd)?;
    let machine = Machine {
        systemd: &systemd,
        catalogue,
        fixed_ms: forecast::fixed_ms(catalogue),
        booted_us: times.as_ref().map_or(u64::MAX, |times| times.finished_us),
    };
    let units: Vec<PlanRow> = names.iter().map(|name| row(&machine, name)).collect();
    let (boot_ms, expected_boot_ms) = times.map(|times| boots(&times, &units)).unzip();
    Ok(Plan { boot_ms, expected_boot_ms, units })
}

/// What rows are made of.
struct Machine<'a> {
    systemd: &'a Systemd,
    catalogue: &'a Catalogue,
    /// What a restore without memory takes.
    fixed_ms: f64,
    /// Starts before this were starts among others.
    booted_us: u64,
}

/// A boot with cold starts, and one with restores of what is taken by default.
fn boots(times: &Chains, units: &[PlanRow]) -> (f64, f64) {
    let us = |ms: f64| (ms * 1e3) as u64;
    let taken = || units.iter().filter(|row| row.by_default);
    // How long a start in the boot took is in systemd's times already.
    let measured = |row: &&PlanRow| row.cold_by != Some(ColdBy::Boot);
    let cold: BTreeMap<String, u64> = taken()
        .filter(measured)
        .filter_map(|row| Some((row.unit.clone(), us(row.cold_start_ms.or(row.cold_cpu_ms)?))))
        .collect();
    let restored: BTreeMap<String, u64> =
        taken().filter_map(|row| Some((row.unit.clone(), us(row.expected_restore_ms?)))).collect();
    let ms = |end_us: u64| end_us.saturating_sub(times.userspace_us) as f64 / 1e3;
    let [cold, restored] = [cold, restored].map(|takes_us| ms(chain::end_us(&times.links, &takes_us)));
    (cold, restored.min(cold))
}

fn row(machine: &Machine<'_>, name: &str) -> PlanRow {
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
        processes: None,
        threads: None,
        dirty_bytes: None,
        cold_start_ms: None,
        cold_by: None,
        cold_cpu_ms: None,
        expected_restore_ms: None,
        expected_gain_ms: None,
        gains: false,
        restore_ms: None,
        gain_ms: None,
        freeze_ms: None,
    };
    match fill(machine, name, &mut row) {
        Ok(()) => {}
        Err(error) => {
            row.exists = !matches!(error, Error::NoUnit(_));
            row.obstacles = error.reasons();
            row.reasons = row.obstacles.iter().map(|obstacle| obstacle.reason.clone()).collect();
        }
    }
    row.eligible = row.reasons.is_empty();
    row.by_default = row.eligible && row.risk.is_none() && row.gains;
    row
}

fn fill(machine: &Machine<'_>, name: &str, row: &mut PlanRow) -> Result<()> {
    let mut unit = Candidate::look(machine.systemd, name)?;
    unit.note_earlier(machine.catalogue);
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
    row.cold_by = Some(match (measured_ms, said_us) {
        (Some(_), _) => ColdBy::Snapshot,
        (None, None) => ColdBy::CpuTime,
        (None, Some(_)) if properties.inactive_exit_us < machine.booted_us => ColdBy::Boot,
        (None, Some(_)) => ColdBy::Start,
    });
    row.cold_cpu_ms = measured_cpu_ms.or(unit.cgroup().cpu_us().ok().map(|us| us as f64 / 1e3));
    if let Some((_, entry)) = machine.catalogue.newest(&unit.properties().id) {
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
    (row.processes, row.threads) = (Some(seen.processes), Some(seen.threads));
    let dirty_bytes = seen.dirty_pages * PAGE_BYTES;
    row.dirty_bytes = Some(dirty_bytes);
    row.freeze_ms = Some(seen.frozen_for.as_secs_f64() * 1e3);
    let known = Known {
        cold_ms: row.cold_start_ms,
        cold_by: row.cold_by,
        cpu_ms: row.cold_cpu_ms,
        restore_ms: row.restore_ms,
        dirty_bytes,
    };
    let forecast = known.forecast(machine.fixed_ms);
    row.expected_restore_ms = Some(forecast.restore_ms);
    row.expected_gain_ms = forecast.cold_ms.map(|cold_ms| cold_ms - forecast.restore_ms);
    row.gains = forecast.gains;
    Ok(())
}
