//! From a running unit to its image: freeze, collect, thaw, encode, store.

use super::kernel::KernelClaim;
use super::witness::{Earlier, Witness};
use super::{Candidate, Outcome, UnitReport, point};
use crate::unit::{self, Band, Past, Start, Systemd};
use fastboot_runtime::status::STATUS_TEXT;
use image_store::evidence::{Digests, Scope};
use image_store::writer::Durability;
use image_store::{
    Catalogue, CatalogueEntry, EvidenceV2, HookChannel, ImageWriter, PendingGeneration, SectionKind,
    ServiceRecord, SystemdEvidence,
};
use snap_collect::collect_confinement;
use snap_collect::dump::{self, Collected, Frozen, StoredDescriptor, TreeSelector};
use snap_error::{Blocker, Error, Objection, Result, ServiceFault, UnitObstacle};
use snap_hook_calls::HookEvent;
use snap_state::TreeV1;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a tree is frozen when only something passing stands in the way, and how long it runs
/// in between.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(250);

/// What a new image has to fit to.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub systemd: &'a Systemd,
    pub witness: &'a Witness,
    /// Contents that were read for other units.
    pub digests: &'a Digests,
    /// Where process numbers should lie.
    pub band: Option<&'a Band>,
    /// Whose process numbers must not be used again.
    pub earlier: Earlier<'a>,
    /// A trial restore follows.
    pub is_tried: bool,
    /// Which machines will use it.
    pub scope: Scope,
}

/// An image that is on the disk.
#[derive(Debug)]
pub(super) struct Image {
    pub entry: CatalogueEntry,
    pub row: UnitReport,
    /// What its trial has to find.
    pub as_taken: AsTaken,
    /// What it has made in the kernel outside of its processes; `None` for a unit that may make
    /// nothing, or that nobody has looked at.
    pub kernel: Option<KernelClaim>,
}

/// What a trial has to find as it was when the image was taken.
#[derive(Debug)]
pub(super) struct AsTaken {
    /// What systemd kept for the unit.
    pub stored: Vec<StoredDescriptor>,
    /// By which settings systemd had started it.
    pub start_settings: BTreeMap<String, String>,
}

/// Takes the image of a unit. It runs on as soon as its memory has been read: hashing files and
/// writing sections do not need it to stand still.
///
/// # Errors
/// [`Error::Refused`] or [`Error::NotEligible`] when it cannot be carried, others when something
/// fails. Nothing of it is stored then, and it runs on.
pub(super) fn take(context: Context<'_>, pending: &PendingGeneration, mut unit: Candidate) -> Result<Image> {
    let systemd = context.systemd;
    let id = unit.properties().id.clone();
    unit.require_time()?;
    let path = pending.image_path(&id)?;
    let channels = unit.hook_channels()?;
    if context.scope == Scope::EqualMachines && !unit::renews(unit.unit().options(), !channels.is_empty()) {
        return Err(UnitObstacle::IdentityNotRenewed.into());
    }
    let hooked = unit.call_hooks(HookEvent::BeforeSnapshot, &channels);
    let collected = hooked.and_then(|()| freeze_and_collect(systemd, &mut unit, &path));
    // It runs on, and has to get back what it dropped, whatever came of the image.
    let regained = unit.call_hooks(HookEvent::AfterSnapshot, &channels);
    let (Collected { mut tree, lost }, writer, freeze_ms) = collected?;
    let taken_unix_s = image_store::now_unix_s();
    if let Some(program) = &unit.properties().program {
        tree.confinement = collect_confinement(program)?;
    }
    lost.iter().for_each(|lost| unit.note(lost.to_string()));
    regained?;

    let now = systemd.properties(&id)?;
    let start_settings = systemd.start_settings(&id)?;
    let main_pid = unit.properties().main_pid;
    if now.main_pid != main_pid || !tree.processes.iter().any(|process| process.pid.0 == main_pid) {
        return Err(ServiceFault::MainProcessChanged { was: main_pid, is: now.main_pid }.into());
    }
    let numbers = numbers(&tree);
    check_numbers(&numbers, &id, context.earlier.catalogue)?;
    note_strays(&numbers, context.band, &mut unit);

    let options = unit.collect_options()?;
    let start = context.witness.start_of(unit.properties(), &context.earlier)?;
    let kernel = unit.kernel_claim(context.is_tried, &start);
    let past = Past {
        volatile_roots: &options.volatile_roots,
        ready_at: context.earlier.memory_since(unit.properties()).map_or(unit.ready_at(), |then| {
            // The memory of a restored service is older than its restore.
            then.min(unit.ready_at())
        }),
        start: &start,
        text: context.band.and(unit.files()),
        digests: context.digests,
        scope: context.scope,
    };
    let gathered = unit::gather_evidence(unit.properties(), unit.unit(), &tree, &past)?;
    let around = gathered.reasons.into_iter().map(Objection::from);
    let (kernel, reasons) = match kernel {
        Ok(kernel) => (kernel, around.collect::<Vec<_>>()),
        Err(Error::NotEligible(made)) => (None, made.into_iter().chain(around).collect()),
        Err(error) => return Err(error),
    };
    if !reasons.is_empty() {
        return Err(Error::NotEligible(reasons));
    }
    gathered.notes.into_iter().for_each(|note| unit.note(note));
    let file = pending.relative_path(&id)?;
    let status_text = now.status_text;
    let evidence = gathered.evidence;
    let parts =
        Parts { tree: &tree, evidence, unit: &unit, status_text, channels, freeze_ms, taken_unix_s, file };
    let mut entry = write(parts, writer, &path)?;
    if matches!(start, Start::Inherited(_)) {
        entry.start = context.earlier.start_record(unit.properties());
    }
    let (cold_start_ms, cold_cpu_ms) = unit.cold();
    let stored = unit.properties().stored.clone();
    let report = UnitReport {
        unit: id,
        outcome: Outcome::Stored,
        reasons: Vec::new(),
        obstacles: Vec::new(),
        notes: unit.into_notes(),
        image_bytes: Some(entry.len_bytes),
        pages: Some(tree.page_count()),
        processes: Some(tree.processes.len()),
        threads: Some(tree.processes.iter().map(|process| process.threads.len()).sum()),
        freeze_ms: Some(freeze_ms),
        main_pid: Some(main_pid),
        cold_start_ms,
        cold_cpu_ms,
        restore_ms: None,
        gain_ms: None,
    };
    let as_taken = AsTaken { stored, start_settings };
    Ok(Image { entry, row: report, as_taken, kernel })
}

/// What an image is made of, beside the pages that have been written.
pub(crate) struct Parts<'a> {
    pub tree: &'a TreeV1,
    pub evidence: EvidenceV2,
    pub unit: &'a Candidate,
    /// What the service says of itself.
    pub status_text: String,
    pub channels: Vec<HookChannel>,
    pub freeze_ms: f64,
    pub taken_unix_s: u64,
    /// Where the image lies, relative to the store.
    pub file: String,
}

/// Ends an image, durably.
///
/// # Errors
/// When it cannot be encoded or written.
pub(crate) fn write(
    parts: Parts<'_>,
    mut writer: ImageWriter,
    path: &std::path::Path,
) -> Result<CatalogueEntry> {
    let Parts { tree, evidence, unit, status_text, channels, freeze_ms, taken_unix_s, file } = parts;
    snap_image::write_tree(&mut writer, tree)?;
    writer.add_section(SectionKind::EVIDENCE, EvidenceV2::VERSION, &evidence.encode(path)?)?;
    point("snapshot.encode")?;

    let written = writer.finish(Durability::Sync)?;
    point("snapshot.store")?;

    let (cold_start_ms, cold_cpu_ms) = unit.cold();
    let properties = unit.properties();
    let service = ServiceRecord {
        service_type: properties.service_type.clone(),
        // One line, as the inspection made sure.
        exec_start_raw: unit.unit().settings().exec_start().unwrap_or_default().to_owned(),
        pid_file: properties.pid_file.clone(),
        bus_name: properties.bus_name.clone().filter(|_| properties.service_type == "dbus"),
        notify_access: properties.notify_access.clone(),
        main_pid: properties.main_pid,
        pids: numbers(tree).into_iter().collect(),
        page_bytes: written.page_bytes,
        timeout_start_ms: properties.timeout_start_ms,
        cold_start_ms,
        cold_cpu_ms,
        dump_ms: Some(freeze_ms),
        restore_ms: None,
        max_age_s: unit.unit().options().max_age.map(|age| age.as_secs()),
        status_text: Some(status_text).filter(|text| text != STATUS_TEXT).unwrap_or_default(),
        after_restore: unit.unit().options().after_restore.clone(),
        hook_channels: channels,
    };
    Ok(CatalogueEntry {
        unit: properties.id.clone(),
        file,
        len_bytes: written.len_bytes,
        image_id: written.id,
        unit_evidence: evidence.unit,
        machine: evidence.machine,
        systemd: SystemdEvidence::collect(std::path::Path::new("/")),
        start: None,
        held_groups: held_groups(tree).into_iter().collect(),
        taken_unix_s: Some(taken_unix_s),
        service,
    })
}

/// The tree, its pages in a writer that is not finished, and how long the unit stood still in
/// milliseconds.
fn freeze_and_collect(
    systemd: &Systemd,
    unit: &mut Candidate,
    path: &std::path::Path,
) -> Result<(Collected, ImageWriter, f64)> {
    let mut attempt = 1;
    loop {
        // Whatever can be done while the unit runs is done before.
        unit.look_at_store(systemd)?;
        let options = unit.collect_options()?;
        let mut writer = ImageWriter::create(path)?;
        let mut frozen = dump::freeze(TreeSelector::Cgroup(unit.cgroup().path().to_owned()))?;
        let mut collect = |frozen: &mut Frozen| {
            point("snapshot.freeze")?;
            let collected = frozen.collect(&mut writer, &options)?;
            point("snapshot.collect")?;
            Ok(collected)
        };
        let collected = collect(&mut frozen);
        let freeze_ms = frozen.since().elapsed().as_secs_f64() * 1e3;
        frozen.thaw()?;
        point("snapshot.thaw")?;
        match collected {
            // What was on its way to systemd has arrived by now.
            Ok(_) if unit.look_at_store(systemd)? => {
                if attempt >= ATTEMPTS {
                    return Err(UnitObstacle::StoreRestless.into());
                }
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            Ok(collected) => return Ok((collected, writer, freeze_ms)),
            Err(Error::Refused(found)) if attempt < ATTEMPTS && found.iter().all(Blocker::passes) => {
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Supplementary groups of processes that are not root's, with the user of each.
fn held_groups(tree: &TreeV1) -> BTreeSet<(u32, u32)> {
    let threads = tree.processes.iter().flat_map(|process| &process.threads);
    let of_user = threads.map(|thread| &thread.creds).filter(|creds| creds.uids[0] != 0);
    of_user.flat_map(|creds| creds.groups.iter().map(|group| (creds.uids[0], *group))).collect()
}

/// Every number that has to be free for a restore: processes, threads, groups and sessions whose
/// leader is gone.
pub(crate) fn numbers(tree: &TreeV1) -> BTreeSet<i32> {
    let of_process = |process: &snap_state::ProcessV1| {
        let threads = process.threads.iter().map(|thread| thread.tid.0);
        threads.chain([process.pgid.0, process.sid.0]).collect::<Vec<_>>()
    };
    tree.processes.iter().flat_map(of_process).filter(|number| *number > 1).collect()
}

/// Two images that want the same number cannot both be used.
fn check_numbers(numbers: &BTreeSet<i32>, id: &str, catalogue: &Catalogue) -> Result<()> {
    let others =
        catalogue.newest_images().into_iter().map(|(_, entry)| entry).filter(|entry| entry.unit != id);
    for other in others {
        if let Some(number) = other.service.pids.iter().find(|pid| numbers.contains(pid)) {
            let (number, unit) = (*number, other.unit.clone());
            return Err(UnitObstacle::PidOfOtherImage { number, unit }.into());
        }
    }
    Ok(())
}

fn note_strays(numbers: &BTreeSet<i32>, band: Option<&Band>, unit: &mut Candidate) {
    let is_stray = |number: &&i32| match band {
        Some(band) => !band.contains(**number),
        None => !snap_state::bands::is_in_a_band(**number),
    };
    let strays: Vec<String> = numbers.iter().filter(is_stray).map(ToString::to_string).collect();
    if !strays.is_empty() {
        let shown = strays.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
        let (count, all) = (strays.len(), numbers.len());
        unit.note(format!(
            "{count} of {all} process ids are not in the reserved band and may be taken at boot ({shown})"
        ));
    }
}
