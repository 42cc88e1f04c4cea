//! One unit on its way through the snapshot: what is known of it so far.

use super::empty_store::EmptyStores;
use super::kernel::{self, KernelClaim, KernelWatch, Subject};
use super::witness::Witness;
use crate::unit::{self, Band, Cgroup, Patience, Settled, Start, StatePlaces, Systemd, UnitProperties};
use image_store::{Catalogue, HookChannel, StaleReason, UnitEvidence};
use nix::time::{ClockId, clock_gettime};
use snap_bus::{BusAccess, BusWatch};
use snap_collect::dump::{self, CollectOptions, Inspection, TreeSelector};
use snap_error::{Error, Objection, Result, ServiceFault, UnitObstacle};
use snap_hook_calls::{HOOK_TIMEOUT, HookEvent, Hooks};
use snap_kernel_state::Key;
use snap_policy::{LostPeer, Mode, StartBudget, StartTimes, Unit};
use snap_state::Pid;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A unit that nothing in its settings stands against.
#[derive(Debug)]
pub struct Candidate {
    properties: UnitProperties,
    /// Its text, and systemd's word when it was asked last.
    unit: Unit,
    /// Its files when it was looked at first.
    files: Option<UnitEvidence>,
    /// Its store is emptied at each restart.
    is_emptied: bool,
    cgroup: Cgroup,
    notes: Vec<String>,
    /// When it had read what it reads at its start.
    ready_at: SystemTime,
    cold_start_ms: Option<f64>,
    cold_cpu_ms: Option<f64>,
    bus: BusAccess,
    kernel: KernelWatch,
}

impl Candidate {
    /// Asks systemd, and reads the unit's text.
    ///
    /// # Errors
    /// [`Error::NotEligible`] with all reasons; others when something cannot be asked or read.
    pub fn look(systemd: &Systemd, name: &str) -> Result<Self> {
        let candidate = Self::look_at_any(systemd, name)?;
        match candidate.unit.options().mode {
            Mode::Golden => Ok(candidate),
            Mode::FastRestart => Err(UnitObstacle::FastRestartUnit.into()),
        }
    }

    /// The same for a unit whose state moves with its memory, and where that state is.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub(crate) fn look_moving(systemd: &Systemd, name: &str) -> Result<(Self, StatePlaces)> {
        let mut candidate = Self::look_at_any(systemd, name)?;
        if candidate.unit.options().mode != Mode::FastRestart {
            return Err(UnitObstacle::NotFastRestart.into());
        }
        let places = candidate.state_places()?;
        candidate.unit = candidate.unit.with_state_that_moves(places.patterns());
        Ok((candidate, places))
    }

    /// Where it keeps its state, as its processes are now.
    ///
    /// # Errors
    /// [`Error::NotEligible`] for state that could not be compared.
    pub(crate) fn state_places(&self) -> Result<StatePlaces> {
        StatePlaces::of(&self.properties, &self.cgroup)
    }

    fn look_at_any(systemd: &Systemd, name: &str) -> Result<Self> {
        let properties = systemd.properties(name)?;
        let unit = unit::read_unit(&properties)?;
        unit::judge_unit(&unit)?;
        wait_for_program(properties.main_pid);
        let cgroup = Cgroup::open(&properties.control_group)?;
        if cgroup.processes()?.contains(&Pid(std::process::id() as i32)) {
            return Err(UnitObstacle::InsideItself.into());
        }
        // Its own word, in the clock of file times.
        let age_us = now_us().saturating_sub(properties.active_enter_us);
        let ready_at = SystemTime::now() - Duration::from_micros(age_us);
        Ok(Self {
            files: read_files(&properties)?,
            is_emptied: false,
            properties,
            unit,
            cgroup,
            notes: Vec::new(),
            ready_at,
            cold_start_ms: None,
            cold_cpu_ms: None,
            bus: BusAccess::Looked,
            kernel: KernelWatch::default(),
        })
    }

    /// Looks at the processes, which stand still for a moment.
    ///
    /// # Errors
    /// As [`dump::inspect`]. Blockers are not errors here.
    pub fn inspect(&self) -> Result<Inspection> {
        dump::inspect(TreeSelector::Cgroup(self.cgroup.path().to_owned()), &self.collect_options()?)
    }

    /// State that it has open for writing: a reason per file.
    ///
    /// # Errors
    /// When its control group cannot be read.
    pub fn inspect_open_state(&self) -> Result<Vec<UnitObstacle>> {
        let mut found = unit::inspect_open_state(&self.properties, self.unit.options(), &self.cgroup)?;
        found.extend(unit::inspect_random(self.unit.options(), &self.cgroup)?);
        Ok(found)
    }

    /// Both, and refuses. What comes and goes does not count yet: the freeze is tried several
    /// times.
    ///
    /// # Errors
    /// [`Error::NotEligible`] with everything that will still be there.
    pub fn inspect_lasting(&self) -> Result<()> {
        let blockers = self.inspect()?.blockers;
        let lasting = blockers.into_iter().filter(|blocker| !blocker.passes()).map(Objection::from);
        let around = self.inspect_open_state()?.into_iter().map(Objection::from);
        let reasons: Vec<Objection> = lasting.chain(around).collect();
        if reasons.is_empty() { Ok(()) } else { Err(Error::NotEligible(reasons)) }
    }

    /// Measurements of an earlier snapshot, for a run that is not measured itself.
    pub fn note_earlier(&mut self, catalogue: &Catalogue) {
        if let Some((_, entry)) = catalogue.newest(&self.properties.id) {
            self.cold_start_ms = entry.service.cold_start_ms;
            self.cold_cpu_ms = entry.service.cold_cpu_ms;
        }
    }

    /// Restarts the unit in the band and waits until it is quiet; that cold start is measured, and
    /// recorded where that can be done.
    ///
    /// # Errors
    /// When it does not come back.
    pub(super) fn restart(
        &mut self,
        systemd: &Systemd,
        band: &Band,
        witness: &Witness,
        patience: &Patience,
    ) -> Result<()> {
        const ATTEMPTS: u32 = 2;
        if let Some(note) = self.note_on_store() {
            self.note(note);
        }
        // The restart of another unit may have restarted or ended this one since it was looked at.
        let now = systemd.properties(&self.properties.id)?;
        let subject = Subject { properties: &now, unit: &self.unit, cgroup: &self.cgroup };
        self.kernel.before_restart(subject);
        for attempt in 1..=ATTEMPTS {
            witness.begin(&self.properties.control_group)?;
            self.properties = systemd.restart(&self.properties.id)?;
            if !self.properties.empties_store() {
                return Err(ServiceFault::UnitsReadAgain.into());
            }
            self.is_emptied = self.properties.store_preserved == "no";
            self.cgroup = Cgroup::open(&self.properties.control_group)?;
            let settled = self.settle(systemd, patience)?;
            self.ready_at = SystemTime::now();
            self.cold_start_ms = Some(settled.ready_ms);
            self.cold_cpu_ms = Some(settled.cpu_ms);
            // Numbers left in the band by another writer of ns_last_pid.
            let strays = self.cgroup.threads()?.into_iter().filter(|pid| !band.contains(pid.0)).count();
            if strays == 0 {
                break;
            }
            tracing::debug!(unit = self.properties.id, strays, attempt, "numbered outside the band");
        }
        let subject = Subject { properties: &self.properties, unit: &self.unit, cgroup: &self.cgroup };
        self.kernel.has_started(subject)
    }

    /// What its start has made in the kernel.
    pub(super) fn made_by_start(&self) -> &BTreeSet<Key> {
        self.kernel.of_start()
    }

    /// All units of the snapshot have been restarted; their starts have made this.
    ///
    /// # Errors
    /// When the kernel does not tell what there is.
    pub(super) fn all_have_started(&mut self, of_all: &BTreeSet<Key>) -> Result<()> {
        let subject = Subject { properties: &self.properties, unit: &self.unit, cgroup: &self.cgroup };
        self.kernel.all_have_started(subject, of_all)
    }

    /// What it has made in the kernel outside of its processes.
    ///
    /// # Errors
    /// [`Error::NotEligible`] where nobody would make it again.
    pub(super) fn kernel_claim(&self, is_tried: bool, start: &Start) -> Result<Option<KernelClaim>> {
        let subject = Subject { properties: &self.properties, unit: &self.unit, cgroup: &self.cgroup };
        let is_answered_for =
            matches!(start, Start::Inherited(_)) || !self.unit.options().depends_on.is_empty();
        self.kernel.claim(subject, is_tried, is_answered_for)
    }

    /// Waits until it is quiet.
    ///
    /// # Errors
    /// When it ends meanwhile, with systemd's word for it.
    pub fn settle(&self, systemd: &Systemd, patience: &Patience) -> Result<Settled> {
        unit::settle(&self.properties, &self.cgroup, patience).map_err(|error| {
            match systemd.properties(&self.properties.id) {
                Ok(now) if now.active_state != "active" => {
                    ServiceFault::EndedMeanwhile { state: now.active_state, result: now.result }.into()
                }
                _ => error,
            }
        })
    }

    /// Asks systemd again: the restart of another unit may have restarted this one too.
    ///
    /// # Errors
    /// When it does not run any more, or is not what was looked at.
    pub fn refresh(&mut self, systemd: &Systemd) -> Result<()> {
        let mut now = systemd.properties(&self.properties.id)?;
        now.drop_ins.retain(|path| !EmptyStores::is_read(path));
        // Our own drop-in has gone from the disk; nothing else may have changed.
        if self.is_emptied && now.needs_reload && self.files == read_files(&now)? {
            now.needs_reload = false;
        }
        self.unit = self.unit.clone().with_manager(unit::view_of(&now));
        unit::judge_unit(&self.unit)?;
        if (now.main_pid, now.inactive_exit_us)
            != (self.properties.main_pid, self.properties.inactive_exit_us)
        {
            if now.stored_fds > 0 && !now.empties_store() {
                let names = now.stored_names();
                return Err(UnitObstacle::RestartedByOthers { names }.into());
            }
            self.cgroup = Cgroup::open(&now.control_group)?;
            self.ready_at = SystemTime::now();
        }
        self.properties = now;
        Ok(())
    }

    /// Asks systemd once more what it keeps for the unit. Returns whether that is something else
    /// than before.
    ///
    /// # Errors
    /// Those of the bus; when systemd does not tell.
    pub fn look_at_store(&mut self, systemd: &Systemd) -> Result<bool> {
        if !self.properties.may_store() {
            return Ok(false);
        }
        let UnitProperties { stored, stored_fds, .. } = systemd.properties(&self.properties.id)?;
        if stored.len() != stored_fds as usize {
            return Err(UnitObstacle::StoreUntold { count: stored_fds }.into());
        }
        let has_changed = stored != self.properties.stored;
        (self.properties.stored, self.properties.stored_fds) = (stored, stored_fds);
        Ok(has_changed)
    }

    /// Nothing that it has made in the kernel would be missing at the next boot.
    ///
    /// # Errors
    /// [`Error::NotEligible`] where something would.
    pub(crate) fn require_nothing_in_kernel(&self, start: &Start) -> Result<()> {
        self.kernel_claim(false, start).map(drop)
    }

    /// What its owner should know about what systemd keeps for it.
    pub fn note_on_store(&self) -> Option<String> {
        let count = self.properties.stored_fds;
        let names = self.properties.stored_names();
        (count > 0).then(|| {
            format!(
                "a snapshot restarts it without the descriptors that systemd keeps for it ({count}: {names}), which `systemctl restart` \
                 would hand over"
            )
        })
    }

    /// What its owner should know about what it may have made in the kernel.
    ///
    /// # Errors
    /// When its control group cannot be read.
    pub(super) fn note_on_kernel(&self) -> Result<Option<String>> {
        kernel::note(Subject { properties: &self.properties, unit: &self.unit, cgroup: &self.cgroup })
    }

    /// What the engine has to know.
    ///
    /// # Errors
    /// When the unit's descriptors cannot be read.
    pub fn collect_options(&self) -> Result<CollectOptions> {
        let lost_peer = match self.unit.options().lost_peer {
            LostPeer::Refuse => snap_collect::dump::LostPeer::Refuse,
            LostPeer::Close => snap_collect::dump::LostPeer::Close,
        };
        unit::collect_options(&self.properties, &self.cgroup, self.bus.clone(), lost_peer)
    }

    /// From now on bus connections are recorded, by the listener that has heard them being made.
    /// Without one (no bus, or one that does not let us listen) a unit with a connection is
    /// refused; others need none.
    pub fn record_bus(&mut self, watch: &std::result::Result<Arc<BusWatch>, StaleReason>) {
        self.bus = match watch {
            Ok(watch) => BusAccess::Watched(Arc::clone(watch)),
            Err(why) => BusAccess::Unheard(why.clone()),
        };
    }

    /// Hooks of the unit as it runs now.
    ///
    /// # Errors
    /// When its control group cannot be read.
    pub fn hook_channels(&self) -> Result<Vec<HookChannel>> {
        Ok(snap_hook_calls::find_channels(&self.cgroup.processes()?))
    }

    /// Calls what is to be called before the image is taken, or after.
    ///
    /// # Errors
    /// [`Error::NotEligible`] naming the hook that failed.
    pub fn call_hooks(&self, event: HookEvent, channels: &[HookChannel]) -> Result<()> {
        let commands = match event {
            HookEvent::BeforeSnapshot => &self.unit.options().before_snapshot,
            HookEvent::AfterSnapshot | HookEvent::AfterRestore => &self.unit.options().after_restore,
        };
        let (unit, main_pid) = (self.properties.id.as_str(), self.properties.main_pid);
        let hooks = Hooks { unit, main_pid, commands, channels };
        hooks
            .call(event, Instant::now() + HOOK_TIMEOUT)
            .map_err(|failure| UnitObstacle::HookFailed { failure }.into())
    }

    pub fn properties(&self) -> &UnitProperties {
        &self.properties
    }

    /// Its text.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// There is time for a restore that fails and a cold start after it. Asked when that start has
    /// been measured: the generator asks the same of the catalogue.
    ///
    /// # Errors
    /// [`Error::Unit`] when there is not.
    pub fn require_time(&self) -> Result<()> {
        let times = StartTimes { timeout_ms: self.properties.timeout_start_ms, cold_ms: self.cold_start_ms };
        // Whatever the length of the image: a long one only gets more time, as far as there is
        // some.
        StartBudget::of(times, 0).map(drop).map_err(|reason| Error::Unit(vec![reason]))
    }

    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// When its start began, in the clock of file times.
    pub(crate) fn started_at(&self) -> SystemTime {
        let age_us = now_us().saturating_sub(self.properties.inactive_exit_us);
        SystemTime::now() - Duration::from_micros(age_us)
    }

    /// When it had read what it reads at its start.
    pub fn ready_at(&self) -> SystemTime {
        self.ready_at
    }

    /// Its files when it was looked at first.
    pub(super) fn files(&self) -> Option<&UnitEvidence> {
        self.files.as_ref()
    }

    /// Time and CPU time of a cold start in milliseconds, as far as known.
    pub fn cold(&self) -> (Option<f64>, Option<f64>) {
        (self.cold_start_ms, self.cold_cpu_ms)
    }

    /// Something that its owner should know.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub fn into_notes(self) -> Vec<String> {
        self.notes
    }
}

/// What the unit's files say, but for ours.
fn read_files(unit: &UnitProperties) -> Result<Option<UnitEvidence>> {
    let fragment = unit.fragment.as_deref();
    let read = |fragment| UnitEvidence::collect(Path::new("/"), fragment, &unit.drop_ins);
    Ok(fragment.map(read).transpose()?)
}

/// A service of `Type=simple` counts as active while its main process is still systemd's own
/// helper.
fn wait_for_program(main_pid: i32) {
    const LONGEST: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + LONGEST;
    let is_helper = || {
        let program = std::fs::read_link(format!("/proc/{main_pid}/exe"));
        program.is_ok_and(|path| {
            path.starts_with("/usr/lib/systemd") && path.file_name().is_some_and(is_helper_name)
        })
    };
    while is_helper() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_helper_name(name: &std::ffi::OsStr) -> bool {
    name == "systemd" || name == "systemd-executor"
}

/// `CLOCK_MONOTONIC` in microseconds, the clock of systemd's timestamps.
fn now_us() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |time| time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000)
}
