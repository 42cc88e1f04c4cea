//! The last moment of a machine: freezing, taking and ending its units.

use super::going_down::GoingDown;
use super::{inputs, next_kernel};
use crate::snapshot::image::{self, Parts};
use crate::snapshot::{Candidate, trial};
use crate::unit::{self, Past, Start, StatePlaces, Systemd};
use fastboot_runtime::boot;
use image_store::evidence::{Digests, Scope};
use image_store::{
    BootMark, CatalogueEntry, FileSystemMark, HookChannel, ImageWriter, Once, OnceGeneration, OnceImage,
    StateEvidence, Store, fault,
};
use serde::Serialize;
use snap_bus::BusWatch;
use snap_collect::collect_confinement;
use snap_collect::dump::{self, Frozen, TreeSelector};
use snap_error::{Blocker, CodedReason, Error, Objection, Result, ServiceFault, UnitObstacle};
use snap_hook_calls::{HOOK_TIMEOUT, HookEvent, Hooks};
use snap_policy::Mode;
use snap_state::bands::is_in_a_band;
use snap_state::{RawPath, TreeV1};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a unit is frozen when only something passing stands in the way, and how long it runs in
/// between.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);
/// Longest for systemd to see that a service has ended.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What becomes of one unit.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub unit: String,
    /// It goes on at the next boot; otherwise it stops as ever.
    pub taken: bool,
    /// Why not.
    pub obstacles: Vec<CodedReason>,
    pub image_bytes: Option<u64>,
    /// From its freeze until it was ended.
    pub frozen_ms: Option<f64>,
}

impl Row {
    fn stops(unit: &str, error: &Error) -> Self {
        let obstacles = error.reasons();
        Self { unit: unit.to_owned(), taken: false, obstacles, image_bytes: None, frozen_ms: None }
    }
}

/// A unit that nothing stands against so far. It runs.
#[derive(Debug)]
pub struct Waiting {
    unit: Candidate,
    places: StatePlaces,
    start: Start,
}

impl Waiting {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.unit.properties().id
    }
}

/// Looks at all units in this mode that run, and changes nothing. Those that cannot be taken have
/// their row already.
///
/// # Errors
/// Those of the bus.
pub fn look(systemd: &Systemd, store: &Store) -> Result<(Vec<Waiting>, Vec<Row>)> {
    let (mut waiting, mut rows) = (Vec::new(), Vec::new());
    let running =
        nix::sys::utsname::uname().map_err(|errno| Error::kernel("ask for", "the kernel", errno))?;
    let running = running.release().to_string_lossy();
    let other = next_kernel::other_kernel(Path::new("/"), &running, next_kernel::boot_unix_s());
    for listed in systemd.running_services()? {
        let name = listed.name.as_str();
        let is_in_mode =
            unit::read_text(name, &[]).is_ok_and(|text| text.options().mode == Mode::FastRestart);
        if !is_in_mode {
            continue;
        }
        if let Some(release) = &other {
            let why = UnitObstacle::OtherKernelNext { release: release.clone() };
            rows.push(Row::stops(name, &why.into()));
            continue;
        }
        match look_at(systemd, store, name) {
            Ok(unit) => waiting.push(unit),
            Err(error) => rows.push(Row::stops(name, &error)),
        }
    }
    Ok((waiting, rows))
}

fn look_at(systemd: &Systemd, store: &Store, name: &str) -> Result<Waiting> {
    let (unit, places) = Candidate::look_moving(systemd, name)?;
    let observed = inputs::unchanged(store, &unit, &places)?;
    unit.inspect_lasting()?;
    let threads = unit.cgroup().threads()?;
    if let Some(ordinary) = threads.iter().find(|pid| !is_in_a_band(pid.0)) {
        return Err(UnitObstacle::OrdinaryNumbers { number: ordinary.0 }.into());
    }
    Ok(Waiting { unit, places, start: Start::Inherited(Box::new(observed)) })
}

/// What has been done.
#[derive(Debug)]
pub enum Taken<'a> {
    /// Somebody has interrupted it. Everything runs on.
    Interrupted,
    /// The machine has to go down now.
    Done { rows: Vec<Row>, going_down: GoingDown<'a> },
}

/// Takes all of these units, and ends them. `is_interrupted` is asked between steps; no image is
/// begun after `limit`.
///
/// # Errors
/// What concerns all units. They run on then.
pub fn take<'a>(
    systemd: &'a Systemd,
    store: &Store,
    (waiting, limit): (Vec<Waiting>, Duration),
    is_interrupted: &dyn Fn() -> bool,
) -> Result<Taken<'a>> {
    let deadline = Instant::now() + limit;
    let _lock = store.lock()?;
    trial::record_boot_without_images()?;
    let once = store.once();
    let boot = once.note_boot(&boot::current_userspace())?;
    once.begin()?;
    let mut moment = Moment { systemd, once, limit, deadline, rows: Vec::new(), hooked: Vec::new() };
    let held = moment.freeze(waiting);
    let held = moment.each(held, Moment::collect);
    if is_interrupted() {
        return Ok(Taken::Interrupted);
    }
    // From here on their files are what they will find.
    nix::unistd::sync();
    let written = moment.each(held, Moment::write);
    point("restart.written")?;
    if is_interrupted() {
        return Ok(Taken::Interrupted);
    }
    let names: Vec<String> = written.iter().map(|one| one.entry.unit.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut going_down = GoingDown::begin(systemd, &names)?;
    let written = moment.each(written, Moment::still_runs);
    point("restart.before-end")?;
    if is_interrupted() {
        return Ok(Taken::Interrupted);
    }
    going_down.keep()?;
    // Who has not come so far is stopped now; nobody goes on.
    moment.hooked.drain(..).for_each(std::mem::forget);
    let ended = moment.each(written, Moment::end);
    nix::unistd::sync();
    let ended = moment.each(ended, Moment::compare);
    moment.publish(ended, boot);
    Ok(Taken::Done { rows: moment.rows, going_down })
}

fn point(name: &'static str) -> Result<()> {
    fault::point(name).map_err(|_| ServiceFault::Injected { point: name }.into())
}

struct Moment<'a> {
    systemd: &'a Systemd,
    once: Once,
    limit: Duration,
    deadline: Instant,
    rows: Vec<Row>,
    hooked: Vec<Hooked>,
}

/// A unit that has heard that it is going to be taken. Dropped, it hears that it goes on.
struct Hooked {
    unit: String,
    main_pid: i32,
    commands: Vec<String>,
    channels: Vec<HookChannel>,
}

impl Drop for Hooked {
    fn drop(&mut self) {
        let Self { unit, main_pid, commands, channels } = self;
        if commands.is_empty() && channels.is_empty() {
            return;
        }
        let hooks = Hooks { unit, main_pid: *main_pid, commands, channels };
        if let Err(failure) = hooks.call(HookEvent::AfterSnapshot, Instant::now() + HOOK_TIMEOUT) {
            tracing::warn!(%failure, "a service does not hear that it goes on");
        }
    }
}

/// A unit that stands still. Dropped, it runs on.
struct Held {
    waiting: Waiting,
    frozen: Frozen,
    channels: Vec<HookChannel>,
}

/// One whose memory has been read.
struct Collected {
    held: Held,
    tree: TreeV1,
    writer: ImageWriter,
    taken_unix_s: u64,
}

/// One with an image, and its files as they were while it stood still.
struct Written {
    held: Held,
    entry: CatalogueEntry,
    state: StateEvidence,
}

/// One that is dead.
struct Ended {
    places: StatePlaces,
    entry: CatalogueEntry,
    state: StateEvidence,
    frozen_ms: f64,
}

trait Named {
    fn name(&self) -> String;
}

impl Named for Held {
    fn name(&self) -> String {
        self.waiting.name().to_owned()
    }
}

impl Named for Collected {
    fn name(&self) -> String {
        self.held.name()
    }
}

impl Named for Written {
    fn name(&self) -> String {
        self.entry.unit.clone()
    }
}

impl Named for Ended {
    fn name(&self) -> String {
        self.entry.unit.clone()
    }
}

impl Moment<'_> {
    /// One step over all units; who does not come through it gets a row, and runs on if it has not
    /// been ended.
    fn each<T: Named, U>(&mut self, units: Vec<T>, step: impl Fn(&Self, T) -> Result<U>) -> Vec<U> {
        let mut through = Vec::with_capacity(units.len());
        for unit in units {
            let name = unit.name();
            match step(self, unit) {
                Ok(unit) => through.push(unit),
                Err(error) => self.rows.push(Row::stops(&name, &error)),
            }
        }
        through
    }

    /// All of them, one right behind the other.
    fn freeze(&mut self, waiting: Vec<Waiting>) -> Vec<Held> {
        // Whatever can be done while they run is done before.
        let watch = BusWatch::start().map(Arc::new).map_err(|error| error.to_stale_reason());
        let mut ready = Vec::new();
        for mut one in waiting {
            let name = one.name().to_owned();
            one.unit.record_bus(&watch);
            let channels = one.unit.hook_channels().and_then(|channels| {
                one.unit.look_at_store(self.systemd)?;
                self.hooked.push(Hooked {
                    unit: name.clone(),
                    main_pid: one.unit.properties().main_pid,
                    commands: one.unit.unit().options().after_restore.clone(),
                    channels: channels.clone(),
                });
                one.unit.call_hooks(HookEvent::BeforeSnapshot, &channels)?;
                Ok(channels)
            });
            match channels {
                Ok(channels) => ready.push((one, channels)),
                Err(error) => self.rows.push(Row::stops(&name, &error)),
            }
        }
        let mut held = Vec::new();
        for (waiting, channels) in ready {
            match dump::freeze(selector(&waiting.unit)) {
                Ok(frozen) => held.push(Held { waiting, frozen, channels }),
                Err(error) => self.rows.push(Row::stops(waiting.name(), &error)),
            }
        }
        held
    }

    fn collect(&self, held: Held) -> Result<Collected> {
        let Held { waiting, mut frozen, channels } = held;
        let unit = &waiting.unit;
        let (path, _) = self.once.image_path(waiting.name())?;
        let mut attempt = 1;
        let (collected, writer) = loop {
            if Instant::now() >= self.deadline {
                return Err(UnitObstacle::NotInTime { limit_s: self.limit.as_secs() }.into());
            }
            let options = unit.collect_options()?;
            let mut writer = ImageWriter::create(&path)?;
            match frozen.collect(&mut writer, &options) {
                Ok(collected) => break (collected, writer),
                Err(Error::Refused(found)) if attempt < ATTEMPTS && found.iter().all(Blocker::passes) => {
                    frozen.thaw()?;
                    attempt += 1;
                    std::thread::sleep(PAUSE);
                    frozen = dump::freeze(selector(unit))?;
                }
                Err(error) => return Err(error),
            }
        };
        let mut tree = collected.tree;
        if let Some(program) = &unit.properties().program {
            tree.confinement = collect_confinement(program)?;
        }
        let taken_unix_s = image_store::now_unix_s();
        let held = Held { waiting, frozen, channels };
        Ok(Collected { held, tree, writer, taken_unix_s })
    }

    fn write(&self, collected: Collected) -> Result<Written> {
        let Collected { mut held, tree, writer, taken_unix_s } = collected;
        let unit = &held.waiting.unit;
        let properties = unit.properties();
        let main_pid = properties.main_pid;
        if !tree.processes.iter().any(|process| process.pid.0 == main_pid) {
            return Err(ServiceFault::MainProcessChanged { was: main_pid, is: 0 }.into());
        }
        if let Some(number) = image::numbers(&tree).into_iter().find(|number| !is_in_a_band(*number)) {
            return Err(UnitObstacle::OrdinaryNumbers { number }.into());
        }
        // It may have opened more since it was looked at.
        held.waiting.places = unit.state_places()?;
        let options = unit.collect_options()?;
        let past = Past {
            volatile_roots: &options.volatile_roots,
            ready_at: unit.ready_at(),
            start: &held.waiting.start,
            text: None,
            digests: &Digests::default(),
            scope: Scope::ThisMachine,
        };
        unit.require_nothing_in_kernel(&held.waiting.start)?;
        let gathered = unit::gather_evidence(properties, unit.unit(), &tree, &past)?;
        if !gathered.reasons.is_empty() {
            return Err(Error::NotEligible(gathered.reasons.into_iter().map(Objection::from).collect()));
        }
        let (path, file) = self.once.image_path(&properties.id)?;
        let parts = Parts {
            tree: &tree,
            evidence: gathered.evidence,
            unit,
            status_text: properties.status_text.clone(),
            channels: held.channels.clone(),
            freeze_ms: held.frozen.since().elapsed().as_secs_f64() * 1e3,
            taken_unix_s,
            file,
        };
        let entry = image::write(parts, writer, &path)?;
        let state = held.waiting.places.look()?;
        Ok(Written { held, entry, state })
    }

    fn still_runs(&self, written: Written) -> Result<Written> {
        let now = self.systemd.properties(&written.entry.unit)?;
        if now.active_state != "active" || now.main_pid != written.entry.service.main_pid {
            return Err(UnitObstacle::ChangedWhileFrozen { state: now.active_state }.into());
        }
        Ok(written)
    }

    fn end(&self, written: Written) -> Result<Ended> {
        let Written { held, entry, state } = written;
        let frozen_ms = held.frozen.since().elapsed().as_secs_f64() * 1e3;
        held.frozen.kill()?;
        Ok(Ended { places: held.waiting.places, entry, state, frozen_ms })
    }

    /// systemd clears up after a service that has ended; its PID file may lie among its state.
    fn compare(&self, ended: Ended) -> Result<Ended> {
        let unit = &ended.entry.unit;
        let deadline = Instant::now() + END_TIMEOUT;
        while !matches!(self.systemd.active_state(unit)?.as_str(), "inactive" | "failed") {
            if Instant::now() >= deadline {
                let state = self.systemd.active_state(unit)?;
                return Err(UnitObstacle::ChangedWhileFrozen { state }.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let state = ended.places.look()?;
        let pid_file = ended.entry.service.pid_file.as_deref().map(Path::new);
        let is_cleared = |path: &Path| {
            pid_file.is_some_and(|file| file == path || file.parent().is_some_and(|dir| dir == path))
        };
        if let Some(path) = state.differences(&ended.state).into_iter().find(|path| !is_cleared(path)) {
            return Err(UnitObstacle::StateNotStill { path: RawPath::from_path(path) }.into());
        }
        Ok(Ended { state, ..ended })
    }

    /// Puts their images in force, all at once or none. Without that they start cold, as after a
    /// crash.
    fn publish(&mut self, ended: Vec<Ended>, boot: BootMark) {
        if ended.is_empty() {
            return;
        }
        let published = self.publish_all(&ended, boot);
        for one in &ended {
            self.rows.push(match &published {
                Ok(()) => Row {
                    unit: one.entry.unit.clone(),
                    taken: true,
                    obstacles: Vec::new(),
                    image_bytes: Some(one.entry.len_bytes),
                    frozen_ms: Some(one.frozen_ms),
                },
                Err(error) => Row::stops(&one.entry.unit, error),
            });
        }
    }

    fn publish_all(&self, ended: &[Ended], boot: BootMark) -> Result<()> {
        let mut images = Vec::with_capacity(ended.len());
        let mut paths: Vec<PathBuf> = vec![self.once.dir().to_owned()];
        for one in ended {
            let state = self.once.write_state(&one.entry.unit, &one.state)?;
            paths.extend(one.places.paths().cloned());
            images.push(OnceImage { entry: one.entry.clone(), state });
        }
        let mut file_systems: Vec<FileSystemMark> = Vec::new();
        for mark in paths.iter().filter_map(|path| FileSystemMark::of(path)) {
            if !file_systems.iter().any(|known| known.uuid == mark.uuid) {
                file_systems.push(mark);
            }
        }
        let taken_unix_s = image_store::now_unix_s();
        point("restart.publish")?;
        Ok(self.once.publish(&OnceGeneration::new(taken_unix_s, boot, file_systems, images))?)
    }
}

fn selector(unit: &Candidate) -> TreeSelector {
    TreeSelector::Cgroup(unit.cgroup().path().to_owned())
}
