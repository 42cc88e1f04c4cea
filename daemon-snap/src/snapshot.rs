//! The snapshot path: `inspect → restart in the band → settle → freeze → collect → encode → store → thaw`.
//!
//! One unit after the other; the catalogue is published once, at the end. A unit that is refused or fails is left
//! running; nothing of it is stored.

use crate::dump::{self, CollectOptions, Frozen, TreeSelector};
use crate::encode;
use crate::error::{Blocker, Error, Part, Result};
use crate::state::{TREE_VERSION, TreeV1};
use crate::unit::band::Band;
use crate::unit::extras::Extras;
use crate::unit::{Systemd, UnitInfo, evidence, settle};
use image_store::writer::Durability;
use image_store::{
    CatalogueEntry, EvidenceV1, ImageWriter, PendingGeneration, SectionKind, ServiceRecord, Store, fault,
};
use serde::Serialize;

use std::time::Duration;

/// How often a tree is frozen again when only something passing stood in the way.
const ATTEMPTS: u32 = 5;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Take the running instance as it is.
    pub no_restart: bool,
    /// Longest wait for quiet.
    pub settle: Duration,
    /// Run once after the restart, before the last quiet moment.
    pub warm_up: Option<String>,
}

/// How it ended for one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Stored,
    Refused,
    Failed,
}

/// One row of the result.
#[derive(Clone, Debug, Serialize)]
pub struct UnitReport {
    pub unit: String,
    pub outcome: Outcome,
    pub reasons: Vec<String>,
    /// Things to know that did not stop us.
    pub notes: Vec<String>,
    pub image_bytes: u64,
    pub pages: u64,
    pub processes: usize,
    pub threads: usize,
    pub freeze_ms: f64,
    pub main_pid: i32,
    pub cold_start_ms: Option<f64>,
    pub cold_cpu_ms: Option<f64>,
}

impl UnitReport {
    fn ended(unit: &str, outcome: Outcome, reasons: Vec<String>) -> Self {
        Self {
            unit: unit.to_owned(),
            outcome,
            reasons,
            notes: Vec::new(),
            image_bytes: 0,
            pages: 0,
            processes: 0,
            threads: 0,
            freeze_ms: 0.0,
            main_pid: 0,
            cold_start_ms: None,
            cold_cpu_ms: None,
        }
    }
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `None`: nothing was stored, the catalogue is as it was.
    pub generation: Option<u64>,
    pub units: Vec<UnitReport>,
}

/// Takes snapshots of units. `phase` is told what happens: unit, phase.
///
/// # Errors
/// Only what concerns all units: no bus, no store. What concerns one is in its row.
pub fn snapshot(
    store: &Store,
    units: &[String],
    options: &Options,
    mut phase: impl FnMut(&str, &str),
) -> Result<Report> {
    let systemd = Systemd::connect()?;
    let _lock = store.lock()?;
    let catalogue = store.load()?;
    let pending = store.begin_generation()?;
    let taken = catalogue.newest_images().into_iter().flat_map(|(_, entry)| entry.service.pids.clone());
    let mut band = Band::new(pending.id(), taken)?;
    let mut entries = Vec::new();
    let mut rows = Vec::new();
    for unit in units {
        let mut one = One { systemd: &systemd, pending: &pending, options, phase: &mut phase };
        match one.take(unit, &mut band) {
            Ok((row, entry)) => {
                rows.push(row);
                entries.push(entry);
            }
            Err(Error::Refused(blockers)) => {
                let reasons = blockers.iter().map(ToString::to_string).collect();
                rows.push(UnitReport::ended(unit, Outcome::Refused, reasons));
            }
            Err(Error::NotEligible(reasons)) => rows.push(UnitReport::ended(unit, Outcome::Refused, reasons)),
            Err(error) => rows.push(UnitReport::ended(unit, Outcome::Failed, vec![error.to_string()])),
        }
    }
    if entries.is_empty() {
        return Ok(Report { generation: None, units: rows });
    }
    phase("", "publish");
    fault_point("snapshot.publish")?;
    let generation = pending.commit(entries)?;
    Ok(Report { generation: Some(generation.id), units: rows })
}

fn fault_point(name: &'static str) -> Result<()> {
    fault::point(name).map_err(|e| Error::io("fault point", name, &e))
}

struct One<'a> {
    systemd: &'a Systemd,
    pending: &'a PendingGeneration,
    options: &'a Options,
    phase: &'a mut dyn FnMut(&str, &str),
}

/// What was measured while the unit started.
#[derive(Default)]
struct ColdStart {
    start_ms: Option<f64>,
    cpu_ms: Option<f64>,
}

impl One<'_> {
    fn take(&mut self, unit: &str, band: &mut Band) -> Result<(UnitReport, CatalogueEntry)> {
        (self.phase)(unit, "inspect");
        let mut info = self.systemd.unit(unit)?;
        let mut notes = Vec::new();
        let extras = eligible(&info)?;
        let options = collect_options(&info);
        let inspection = dump::inspect(TreeSelector::Cgroup(info.cgroup_dir()?), &options)?;
        let lasting: Vec<Blocker> = inspection.blockers.into_iter().filter(|b| !is_passing(b)).collect();
        if !lasting.is_empty() {
            return Err(Error::Refused(lasting));
        }
        fault_point("snapshot.inspect")?;

        let mut cold = ColdStart::default();
        if !self.options.no_restart {
            (self.phase)(unit, "restart");
            info = band.fork_inside(|| {
                let restarted = self.systemd.restart(unit)?;
                if restarted.active_state != "active" {
                    let message = format!("it is {} after a restart", restarted.active_state);
                    return Err(Error::Internal { step: "restarting the unit", message });
                }
                // Services of Type=simple go on starting after systemd calls them active: stay in the band until quiet.
                self.settle(unit, &restarted, &mut notes)?;
                Ok(restarted)
            })?;
            info = UnitInfo { active_enter_us: info.active_enter_us, ..self.systemd.unit(&info.name)? };
            cold = ColdStart { start_ms: info.start_ms(), cpu_ms: settle::cpu_ms(&info.cgroup_dir()?).ok() };
        } else {
            self.settle(unit, &info, &mut notes)?;
        }
        eligible(&info)?;
        fault_point("snapshot.settle")?;

        let (entry, mut row) = self.freeze_and_store(unit, &info, &extras, &mut notes)?;
        row.cold_start_ms = cold.start_ms;
        row.cold_cpu_ms = cold.cpu_ms;
        row.notes = notes;
        let service =
            ServiceRecord { cold_start_ms: cold.start_ms, cold_cpu_ms: cold.cpu_ms, ..entry.service };
        Ok((row, CatalogueEntry { service, ..entry }))
    }

    fn settle(&mut self, unit: &str, info: &UnitInfo, notes: &mut Vec<String>) -> Result<()> {
        (self.phase)(unit, "settle");
        let cgroup = info.cgroup_dir()?;
        let mut quiet = settle::settle(&cgroup, self.options.settle)?;
        if let Some(command) = &self.options.warm_up {
            (self.phase)(unit, "warm up");
            let status =
                std::process::Command::new("/bin/sh").args(["-c", command]).env("UNIT", unit).status();
            let status = status.map_err(|e| Error::io("running the warm-up command", command, &e))?;
            if !status.success() {
                let message = format!("{command:?} ended with {status}");
                return Err(Error::Internal { step: "warm-up", message });
            }
            quiet = settle::settle(&cgroup, self.options.settle)?;
        }
        if !quiet {
            notes.push(format!("still busy after {} s", self.options.settle.as_secs()));
        }
        Ok(())
    }

    fn freeze_and_store(
        &mut self,
        unit: &str,
        info: &UnitInfo,
        extras: &Extras,
        notes: &mut Vec<String>,
    ) -> Result<(CatalogueEntry, UnitReport)> {
        let options = collect_options(info);
        let path = self.pending.image_path(unit)?;
        (self.phase)(unit, "freeze");
        let mut attempt = 0;
        let (tree, mut writer, freeze_ms) = loop {
            attempt += 1;
            let mut writer = ImageWriter::create(&path)?;
            let mut frozen = dump::freeze(TreeSelector::Cgroup(info.cgroup_dir()?))?;
            (self.phase)(unit, "collect");
            let collected = collect(&mut frozen, &mut writer, &options);
            let freeze_ms = frozen.since().elapsed().as_secs_f64() * 1e3;
            frozen.thaw()?;
            match collected {
                Ok(tree) => break (tree, writer, freeze_ms),
                Err(Error::Refused(found)) if attempt < ATTEMPTS && found.iter().all(is_passing) => {
                    std::thread::sleep(ATTEMPT_PAUSE);
                }
                Err(e) => return Err(e),
            }
        };
        let state_files = evidence::writable_state(&tree);
        if !state_files.is_empty() && !extras.allow_state {
            let reason = |path: &String| {
                format!(
                    "it writes to {path}: old memory would meet newer data ([X-Fastboot] AllowState=yes to insist)"
                )
            };
            return Err(Error::NotEligible(state_files.iter().map(reason).collect()));
        }
        let pids: Vec<i32> = tree.processes.iter().flat_map(|p| p.threads.iter().map(|t| t.tid.0)).collect();
        let strays = Band::strays(&pids);
        if !strays.is_empty() {
            notes.push(format!(
                "{} of {} ids are outside the band: they may be taken at boot",
                strays.len(),
                pids.len()
            ));
        }

        (self.phase)(unit, "store");
        let evidence = evidence::gather(info, extras, &tree)?;
        writer.add_section(SectionKind::STATE, TREE_VERSION, &encode::encode(&tree)?)?;
        writer.add_section(SectionKind::EVIDENCE, EvidenceV1::VERSION, &evidence.encode(&path)?)?;
        let pages = tree.page_count();
        let written = writer.finish(Durability::Sync)?;
        fault_point("snapshot.store")?;
        let row = UnitReport {
            image_bytes: written.len_bytes,
            pages,
            processes: tree.processes.len(),
            threads: pids.len(),
            freeze_ms,
            main_pid: info.main_pid,
            ..UnitReport::ended(unit, Outcome::Stored, Vec::new())
        };
        let service = ServiceRecord {
            service_type: info.service_type.clone(),
            exec_start_raw: info.exec_path.display().to_string(),
            pid_file: info.pid_file.clone(),
            notify_access: info.notify_access.clone(),
            main_pid: info.main_pid,
            pids,
            page_bytes: written.page_bytes,
            cold_start_ms: None,
            cold_cpu_ms: None,
            dump_ms: Some(freeze_ms),
            restore_ms: None,
        };
        let entry = CatalogueEntry {
            unit: unit.to_owned(),
            file: self.pending.relative_path(unit)?,
            len_bytes: written.len_bytes,
            image_id: written.id,
            unit_evidence: evidence.unit,
            machine: evidence.machine,
            service,
        };
        Ok((entry, row))
    }
}

fn collect(frozen: &mut Frozen, writer: &mut ImageWriter, options: &CollectOptions) -> Result<TreeV1> {
    fault_point("snapshot.freeze")?;
    let tree = frozen.collect(writer, options)?;
    fault_point("snapshot.collect")?;
    Ok(tree)
}

/// Nothing in the unit's own settings stands against it.
fn eligible(info: &UnitInfo) -> Result<Extras> {
    let mut reasons = info.reasons_against();
    if info.name.starts_with("fastboot") {
        reasons.push("it is part of fastboot".into());
    }
    if !reasons.is_empty() {
        return Err(Error::NotEligible(reasons));
    }
    let files = std::iter::once(info.fragment.as_path())
        .chain(info.drop_ins.iter().map(|p| p.as_path()))
        .filter(|path| !image_store::evidence::is_own_drop_in(path));
    Extras::read(files.filter(|path| !path.as_os_str().is_empty()))
}

/// What the engine has to know of the unit.
pub fn collect_options(info: &UnitInfo) -> CollectOptions {
    CollectOptions { unit: true, volatile_roots: info.volatile_roots(), activation: Vec::new() }
}

/// Whether a blocker may be gone a moment later.
fn is_passing(blocker: &Blocker) -> bool {
    let passing = ["pending connection", "unread", "established TCP", "has ended and not been waited for"];
    !matches!(blocker.part, Part::Mapping(_)) && passing.iter().any(|word| blocker.kind.contains(word))
}

/// One row of `fastboot plan`.
#[derive(Clone, Debug, Serialize)]
pub struct PlanRow {
    pub unit: String,
    pub eligible: bool,
    pub reasons: Vec<String>,
    pub processes: usize,
    pub threads: usize,
    pub dirty_bytes: u64,
    /// From systemd's own timestamps of the current run.
    pub start_ms: Option<f64>,
    /// CPU time of the unit since it started.
    pub cpu_ms: Option<f64>,
    pub freeze_ms: f64,
}

/// What would happen, without doing it: each unit stands still for a moment.
///
/// # Errors
/// No bus. What concerns one unit is in its row.
pub fn plan(units: &[String]) -> Result<Vec<PlanRow>> {
    let systemd = Systemd::connect()?;
    units.iter().map(|unit| plan_one(&systemd, unit)).collect()
}

fn plan_one(systemd: &Systemd, unit: &str) -> Result<PlanRow> {
    let info = systemd.unit(unit)?;
    let mut row = PlanRow {
        unit: unit.to_owned(),
        eligible: false,
        reasons: Vec::new(),
        processes: 0,
        threads: 0,
        dirty_bytes: 0,
        start_ms: info.start_ms(),
        cpu_ms: None,
        freeze_ms: 0.0,
    };
    let looked = eligible(&info).and_then(|_| {
        let cgroup = info.cgroup_dir()?;
        row.cpu_ms = settle::cpu_ms(&cgroup).ok();
        dump::inspect(TreeSelector::Cgroup(cgroup), &collect_options(&info))
    });
    match looked {
        Ok(seen) => {
            row.reasons = seen.blockers.iter().map(ToString::to_string).collect();
            row.eligible = row.reasons.is_empty();
            (row.processes, row.threads) = (seen.processes, seen.threads);
            row.dirty_bytes = seen.dirty_pages * crate::state::PAGE_BYTES;
            row.freeze_ms = seen.frozen_for.as_secs_f64() * 1e3;
        }
        Err(Error::NotEligible(reasons)) => row.reasons = reasons,
        Err(error) => row.reasons = vec![error.to_string()],
    }
    Ok(row)
}

/// Services that are never taken unless they are named: everyone's connections end at the first ones, the others own
/// state of the kernel or data on disk that a golden image would contradict, or cost less to start than to restore.
const NOT_BY_DEFAULT: &[&str] = &[
    "dbus",
    "dbus-broker",
    "systemd-",
    "getty@",
    "serial-getty@",
    "console-getty",
    "user@",
    "polkit",
    "fastboot",
    "NetworkManager",
    "firewalld",
    "docker",
    "containerd",
    "frr",
    "keepalived",
    "libvirtd",
    "mariadb",
    "mysql",
    "postgresql",
    "etcd",
    "rabbitmq-server",
    "slapd",
    "smbd",
    "nmbd",
    "sssd",
    "cron",
    "ssh",
    "sshd",
    "rsyslog",
];

/// The services that `snapshot` takes when none is named.
///
/// # Errors
/// No bus.
pub fn default_units() -> Result<Vec<String>> {
    let mut units = Systemd::connect()?.running_services()?;
    units.retain(|unit| !NOT_BY_DEFAULT.iter().any(|name| unit.starts_with(name)));
    units.sort();
    Ok(units)
}
