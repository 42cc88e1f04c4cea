//! Answering shims: one thread per start, every wait bounded.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastboot_runtime::status::STATUS_TEXT;
use fastboot_runtime::{Claim, StatusFile, Trials, UnitStatus};
use image_store::evidence::StartKey;
use image_store::{CatalogueEntry, ImageId, ReasonCode, StaleReason, Store, fault};
use snap_policy::{StartBudget, StartTimes};

use crate::admission::Admitted;
use crate::attempt::{Attempt, Means, Outcome, RestoredTree};
use crate::boot::monotonic_us;
use crate::caller::Caller;
use crate::hooks;
use crate::images::{Images, Usable};
use crate::journal::{self, OfUnit};
use crate::lanes::{LIGHT_LEN, Lanes};
use crate::once::OnceImages;
use crate::peer::ShimIdentity;
use crate::probation;
use crate::protocol::{Adopted, Answer, Hello};
use crate::surroundings;
use crate::sys::socket::{Received, receive, receive_from, send};
use crate::systemd::{Question, Systemd};
use crate::timeline::Timeline;
use crate::unit_cgroup::UnitCgroup;
use crate::wire::MAX_MESSAGE_LEN;
use crate::worker::Order;
use crate::zygote::Zygote;

/// How long processes that were killed may take to disappear.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that an answer needs; the same for all.
#[derive(Debug)]
pub struct Server {
    /// The store.
    pub store: Store,
    /// Images of units that the generator has put behind a shim.
    pub images: Images,
    /// Those of them that are used once.
    pub once: OnceImages,
    /// Who goes first.
    pub lanes: Lanes,
    /// Images that a snapshot is trying.
    pub trials: Trials,
    /// Forks the workers.
    pub zygote: Zygote,
    /// What became of each unit.
    pub status: Arc<StatusFile>,
    /// Whom to believe.
    pub shim: ShimIdentity,
    /// Who has started the unit.
    pub systemd: Systemd,
    /// This boot ([`userspace_id`](crate::boot::userspace_id)).
    pub userspace_id: String,
}

/// When a shim was let in.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For what is measured from it.
    pub began: Instant,
    /// The same on `CLOCK_MONOTONIC`, for those who read it elsewhere.
    pub monotonic_us: u64,
}

impl Moment {
    /// This one.
    pub fn now() -> Moment {
        Moment { began: Instant::now(), monotonic_us: monotonic_us() }
    }
}

/// One start, from the shim's question on.
#[derive(Debug)]
struct Start {
    unit: String,
    asked: Moment,
    timeline: Timeline,
    image_id: Option<ImageId>,
    /// Of a snapshot, not of this boot: nothing but the snapshot hears of it.
    is_trial: bool,
}

/// A shim and what it has handed over.
#[derive(Debug)]
struct Shim<'a> {
    caller: &'a Caller,
    claim: Option<Claim>,
    connection: &'a OwnedFd,
    hello: Hello,
    /// Its descriptors 0, 1 and 2, and those of socket activation.
    inherited: Vec<OwnedFd>,
}

/// A restored service in its first seconds.
struct OnProbation {
    entry: CatalogueEntry,
    tree: RestoredTree,
}

impl Server {
    /// One shim, from its question to the end of its unit's probation.
    pub fn answer(&self, admitted: Admitted, asked: Moment) {
        let on_probation = self.answer_shim(admitted, asked);
        // The connection and its place are free by now.
        if let Some(OnProbation { entry, tree }) = on_probation {
            self.watch(&entry, &tree);
        }
    }

    fn answer_shim(&self, admitted: Admitted, asked: Moment) -> Option<OnProbation> {
        let Admitted { caller, claim, connection, slot: _slot } = admitted;
        let (hello, inherited) = match receive_hello(&connection, &caller) {
            Ok(asked) => asked,
            Err(error) => {
                let unit = &caller.unit;
                journal::warning(format_args!("{unit}: its question cannot be used: {error}"));
                return None;
            }
        };
        let (unit, timeline) = (caller.unit.clone(), Timeline::begin());
        let mut start = Start { unit, asked, timeline, image_id: None, is_trial: false };
        let shim = Shim { caller: &caller, claim, connection: &connection, hello, inherited };
        match self.answer_from_image(&mut start, shim) {
            Ok(on_probation) => Some(on_probation).filter(|_| !start.is_trial),
            Err(reason) => {
                self.answer_cold(&connection, start, &reason);
                None
            }
        }
    }

    /// `Err`: the unit has to start cold, and nothing of an attempt is left.
    fn answer_from_image(&self, start: &mut Start, shim: Shim<'_>) -> Result<OnProbation, StaleReason> {
        let trial = self.claim_trial(&start.unit);
        start.is_trial = trial.is_some();
        let no_image =
            || StaleReason::new(ReasonCode::NoImage, "it has no image that can be used in this boot");
        let entry = trial.as_ref().or_else(|| self.images.entry(&start.unit)).ok_or_else(no_image)?;
        start.image_id = Some(entry.image_id);
        self.check_start(start, &shim, entry)?;
        // A boot can keep systemd busy for seconds. While it does not answer, nothing else that it
        // starts gets on either: it may take as long as the restore.
        let deadline = start.asked.began + budget(entry)?.deadline;
        let question = self.systemd.ask(&start.unit, deadline);
        let turn = self.lanes.enter(entry.len_bytes);
        start.timeline.mark("queue");

        let usable = match start.is_trial {
            true => self.images.open_once(entry),
            false => self.images.take(&start.unit),
        }?;
        self.once.check(entry)?;
        start.timeline.mark("evidence");
        let cgroup = UnitCgroup::open(&shim.caller.cgroup, shim.caller.process.pid)
            .map_err(|error| StaleReason::new(ReasonCode::HostUnsupported, format!("cgroup: {error}")))?;
        self.check_main_process(start, &shim, entry, question)?;
        start.timeline.mark("main process");
        self.check_surroundings(start, shim.caller.process.pid, entry)?;
        start.timeline.mark("surroundings");
        turn.begin();
        start.timeline.mark("lane");
        let order = order_for(entry, &usable, &shim, deadline);
        let means = Means {
            image: usable.opened.image.file().as_fd(),
            shim: &shim.caller.pidfd,
            connection: shim.connection,
            inherited: &shim.inherited,
        };
        // On the disk before the first process of it exists.
        self.once.consume(entry)?;
        let began = Instant::now();
        let outcome = Attempt::new(&self.zygote, cgroup).run(&order, &means, deadline);
        let restore_ms = began.elapsed().as_secs_f64() * 1e3;
        let Shim { connection, hello, inherited, .. } = shim;
        // The shim keeps its own; a copy here would keep a unit's sockets open after the unit.
        drop((inherited, usable));
        let mut unconfirmed = match outcome {
            Outcome::Restored(unconfirmed) => unconfirmed,
            Outcome::Failed(reason) => {
                self.note_failure(start, entry, &reason);
                return Err(reason);
            }
            Outcome::Abandoned => {
                return Err(StaleReason::new(ReasonCode::RestoreFailed, "the start was cancelled"));
            }
        };
        // From here on, whatever returns before the tree is kept removes it.
        start.timeline.take(&unconfirmed.tree().steps, "adopt");
        if let Err(failure) = hooks::after_restore(entry, unconfirmed.tree().main_pid, deadline) {
            let reason = StaleReason::new(ReasonCode::RestoreFailed, failure.to_string());
            self.note_failure(start, entry, &reason);
            return Err(reason);
        }
        start.timeline.mark("hooks");
        let untold = |why: String| StaleReason::new(ReasonCode::RestoreFailed, why);
        fault::point("initd.before_answer")
            .map_err(|error| error.to_string())
            .and_then(|()| check_can_be_told(unconfirmed.tree(), hello.has_notify_socket))
            .map_err(untold)?;
        // With this name systemd takes the unit for started, and without it for ended: from here on
        // there is no way back.
        if let Some(Err(error)) = unconfirmed.take_claim().map(|claim| claim.make(deadline)) {
            let reason = error.to_stale_reason();
            self.note_failure(start, entry, &reason);
            return Err(reason);
        }
        start.timeline.mark("bus name");
        self.hand_over(connection, entry, unconfirmed.tree(), hello.has_notify_socket).map_err(untold)?;
        let tree = unconfirmed.keep();
        start.timeline.mark("hand-over");
        drop(turn);
        self.once.has_loaded(entry);
        self.enter_restored(start, &tree, restore_ms);
        Ok(OnProbation { entry: entry.clone(), tree })
    }

    /// The permit of a snapshot that is at work right now.
    fn claim_trial(&self, unit: &str) -> Option<CatalogueEntry> {
        let entry = self.trials.claim(unit)?;
        match self.store.is_locked() {
            Ok(true) => Some(entry),
            // It ended in the middle; nobody wants its images.
            _ => None,
        }
    }

    /// Whether this start may come from an image at all.
    fn check_start(&self, start: &Start, shim: &Shim<'_>, entry: &CatalogueEntry) -> Result<(), StaleReason> {
        let refuse = |code, sentence: &str| Err(StaleReason::new(code, sentence));
        if !start.is_trial {
            match shim.claim {
                Some(Claim::First) => {}
                // Whoever asks again may have others of its unit ended: only the process that the
                // first answer was for.
                Some(Claim::Again) if shim.hello.is_again => return Err(remove_orphans(shim.caller, entry)),
                _ => return refuse(ReasonCode::NotFirstStart, "it was started in this boot before"),
            }
            entry.check_age(image_store::now_unix_s())?;
        }
        let failed = |error: io::Error| StaleReason::new(ReasonCode::RestoreFailed, error.to_string());
        fault::point("initd.request").map_err(failed)?;
        if !shim.hello.has_notify_socket && entry.service.service_type != "forking" {
            return refuse(
                ReasonCode::HostUnsupported,
                "NotifyAccess= keeps the shim from naming a main process",
            );
        }
        Ok(())
    }

    /// Whether the shim is the process that systemd has made for the unit, still in the namespaces
    /// that were made for it, and whether that is the first in this boot.
    fn check_main_process(
        &self,
        start: &Start,
        shim: &Shim<'_>,
        entry: &CatalogueEntry,
        question: io::Result<Question>,
    ) -> Result<(), StaleReason> {
        let unknown = |error: io::Error| {
            let sentence = format!("systemd does not say what it has started: {error}");
            StaleReason::new(ReasonCode::HostUnsupported, sentence)
        };
        let word = question.and_then(Question::answer).map_err(unknown)?;
        if !word.names(shim.caller.process.pid, &entry.service.service_type) {
            let sentence = "systemd names another process than the one that asks";
            return Err(StaleReason::new(ReasonCode::HostUnsupported, sentence));
        }
        if !start.is_trial && word.has_started_before() {
            let sentence = "systemd had started it in this boot before";
            return Err(StaleReason::new(ReasonCode::NotFirstStart, sentence));
        }
        let changed = |error: io::Error| StaleReason::new(ReasonCode::HostUnsupported, error.to_string());
        self.shim.check(shim.caller).map_err(changed)
    }

    /// Whether systemd has started the shim as it had started the service then. In a trial that is
    /// written down: it is a start like any other.
    fn check_surroundings(&self, start: &Start, pid: i32, entry: &CatalogueEntry) -> Result<(), StaleReason> {
        let unknown = |error: io::Error| {
            let sentence = format!("how it was started cannot be told: {error}");
            StaleReason::new(ReasonCode::HostUnsupported, sentence)
        };
        let now = surroundings::collect(pid, &StartKey::of(entry.image_id)).map_err(unknown)?;
        if start.is_trial {
            self.trials.record_start(&start.unit, &now).map_err(unknown)?;
        }
        entry.start.as_ref().map_or(Ok(()), |was| was.check(&now))?;
        now.check_held(&entry.held_groups)
    }

    /// Let the shim tell systemd.
    fn hand_over(
        &self,
        connection: &OwnedFd,
        entry: &CatalogueEntry,
        tree: &RestoredTree,
        has_notify_socket: bool,
    ) -> Result<(), String> {
        let service_type = entry.service.service_type.as_str();
        let answer = Answer::Restored {
            main_pid: tree.main_pid,
            send_main_pid: service_type != "forking",
            send_ready: matches!(service_type, "notify" | "notify-reload"),
            status: if has_notify_socket { status_text(entry) } else { String::new() },
            stored: tree.stored.iter().map(|(name, _)| name.clone()).collect(),
        };
        let fds: Vec<BorrowedFd<'_>> = tree.stored.iter().map(|(_, fd)| fd.as_fd()).collect();
        send(connection, &answer.encode(), &fds)
            .map_err(|error| format!("the shim cannot be told: {error}"))?;
        let adopted = receive(connection, MAX_MESSAGE_LEN).and_then(|(packet, _)| {
            if packet.is_empty() {
                return Err(io::Error::other("it has gone"));
            }
            Adopted::decode(&packet).map_err(io::Error::other)
        });
        match adopted {
            Ok(Adopted::Done) => Ok(()),
            Ok(Adopted::Failed(errno)) => {
                let error = io::Error::from_raw_os_error(errno);
                Err(format!("systemd cannot be told about the restored process: {error}"))
            }
            Err(error) => Err(format!("the shim did not hand over: {error}")),
        }
    }

    fn answer_cold(&self, connection: &OwnedFd, mut start: Start, reason: &StaleReason) {
        let answer =
            Answer::Cold { code: reason.code.as_str().to_owned(), sentence: reason.sentence.clone() };
        let sent = send(connection, &answer.encode(), &[]);
        start.timeline.mark("until cold");
        let unit = &start.unit;
        // A later start in the same boot changes nothing about the first.
        let line = OfUnit { unit, code: Some(reason.code), is_trial: start.is_trial };
        if reason.code == ReasonCode::NotFirstStart {
            return line.info(format_args!("{reason}; starting it cold"));
        }
        line.notice(format_args!("{}{reason}; starting it cold", about(reason.code)));
        if let Err(error) = sent {
            journal::warning(format_args!(
                "{unit}: its shim cannot be told ({error}) and starts it cold by itself"
            ));
        }
        let status = UnitStatus::cold(unit, reason.code, &reason.sentence);
        self.enter(&start, status);
    }

    fn enter_restored(&self, start: &Start, tree: &RestoredTree, restore_ms: f64) {
        let (unit, pid) = (&start.unit, tree.main_pid);
        let line = OfUnit { unit, code: None, is_trial: start.is_trial };
        line.info(format_args!("restored as pid {pid} in {restore_ms:.1} ms"));
        let status = UnitStatus {
            outcome: fastboot_runtime::Outcome::Restored,
            reason_code: None,
            reason: None,
            restore_ms: Some((restore_ms * 1e3).round() / 1e3),
            main_pid: Some(tree.main_pid),
            ..UnitStatus::cold(unit, ReasonCode::NoImage, "")
        };
        self.enter(start, status);
    }

    fn enter(&self, start: &Start, status: UnitStatus) {
        let status = UnitStatus {
            image_id: start.image_id,
            phases_ms: start.timeline.phases(),
            requested_monotonic_us: Some(start.asked.monotonic_us),
            done_monotonic_us: Some(monotonic_us()),
            ..status
        };
        let entered = match start.is_trial {
            true => self.trials.report(&status),
            false => self.status.enter([status]),
        };
        if let Err(error) = entered {
            journal::warning(format_args!(
                "{}: status cannot be written: {error}; `fastboot status` lacks it",
                start.unit
            ));
        }
    }

    /// A restore that failed because of the image or of us, not because of today's machine.
    fn note_failure(&self, start: &Start, entry: &CatalogueEntry, reason: &StaleReason) {
        if start.is_trial || !matches!(reason.code, ReasonCode::RestoreFailed | ReasonCode::Deadline) {
            return;
        }
        if let Err(error) = self.store.record_failure(entry.image_id, &self.userspace_id, reason) {
            journal::warning(format_args!("{}: {error}; the failure is not counted", entry.unit));
        }
    }

    fn watch(&self, entry: &CatalogueEntry, tree: &RestoredTree) {
        let verdict = probation::watch(&entry.unit, tree.main_pid, &tree.main_pidfd);
        let is_final = probation::record(&self.store, entry.image_id, &self.userspace_id, &verdict);
        if let Some(reason) = verdict.reason() {
            let (unit, sentence) = (&entry.unit, &reason.sentence);
            let consequence = match &is_final {
                Ok(true) => "its image is not tried again",
                _ => "its image gets one more try at the next boot",
            };
            let line = OfUnit { unit, code: Some(reason.code), is_trial: false };
            line.warning(format_args!("{sentence}; {consequence}"));
            if let Err(error) = self.status.note(unit, reason.code, sentence) {
                journal::warning(format_args!("{unit}: {error}; `fastboot status` lacks that it ended"));
            }
        }
        if let Err(error) = is_final {
            journal::warning(format_args!("{}: {error}; its probation is not recorded", entry.unit));
        }
    }
}

/// What `systemctl status` shows: the service's own word, or else ours.
fn status_text(entry: &CatalogueEntry) -> String {
    match entry.service.status_text.as_str() {
        "" => STATUS_TEXT.to_owned(),
        own => own.to_owned(),
    }
}

/// Whether the shim may tell systemd all that it has to.
fn check_can_be_told(tree: &RestoredTree, has_notify_socket: bool) -> Result<(), String> {
    if !has_notify_socket && !tree.stored.is_empty() {
        return Err("NotifyAccess= keeps the shim from giving systemd back what it kept".to_owned());
    }
    Ok(())
}

/// As the generator has computed it for the shim.
fn budget(entry: &CatalogueEntry) -> Result<StartBudget, StaleReason> {
    let times =
        StartTimes { timeout_ms: entry.service.timeout_start_ms, cold_ms: entry.service.cold_start_ms };
    StartBudget::of(times, entry.len_bytes)
        .map_err(|reason| StaleReason::new(ReasonCode::Deadline, reason.to_string()))
}

/// The question and the descriptors of a shim, from nobody else than the process that has been let
/// in.
fn receive_hello(connection: &OwnedFd, caller: &Caller) -> io::Result<(Hello, Vec<OwnedFd>)> {
    let Received { packet, fds, sender } = receive_from(connection, MAX_MESSAGE_LEN)?;
    if sender != Some(caller.process.pid) {
        return Err(io::Error::other("it comes from another process than has connected"));
    }
    let hello = Hello::decode(&packet).map_err(io::Error::other)?;
    if hello.unit != caller.unit {
        return Err(io::Error::other(format!("it is about {}", hello.unit)));
    }
    if fds.len() != 3 + hello.listen_names.len() {
        return Err(io::Error::other(format!("it comes with {} descriptors", fds.len())));
    }
    Ok((hello, fds))
}

fn order_for(entry: &CatalogueEntry, usable: &Usable, shim: &Shim<'_>, deadline: Instant) -> Order {
    let left = deadline.saturating_duration_since(Instant::now());
    let is_forking = entry.service.service_type == "forking";
    let sent_us = monotonic_us();
    Order {
        unit: entry.unit.clone(),
        image_path: usable.opened.image.path().display().to_string(),
        sent_us,
        deadline_us: sent_us + left.as_micros() as u64,
        checked_chunks: usable.checked_chunks,
        stamp: usable.opened.image.stamp(),
        is_light: entry.len_bytes <= LIGHT_LEN,
        shim_pid: shim.caller.process.pid,
        owner: (shim.caller.uid, shim.caller.gid),
        main_pid: entry.service.main_pid,
        pid_file: entry.service.pid_file.clone().filter(|_| is_forking).unwrap_or_default(),
        bus_name: entry.service.bus_name.clone().unwrap_or_default(),
        listen_names: shim.hello.listen_names.clone(),
    }
}

/// An initd and its zygote died together after the go: what they had restored runs, and nobody has
/// told systemd. The shim sees it in its cgroup and must not start the daemon a second time beside
/// it.
fn remove_orphans(caller: &Caller, entry: &CatalogueEntry) -> StaleReason {
    let pid = caller.process.pid;
    let removed = UnitCgroup::open(&caller.cgroup, pid).and_then(|cgroup| {
        // Only where the tree of this image is there: the administrator may have wanted other
        // processes to be left.
        let is_ours = cgroup.processes()?.iter().any(|pid| entry.service.pids.contains(pid));
        if is_ours { cgroup.remove_all_but(pid, CLEAN_TIMEOUT) } else { Ok(true) }
    });
    let end = match removed {
        Ok(true) => "what it had restored was ended".to_owned(),
        Ok(false) => "not all that it had restored could be ended".to_owned(),
        Err(error) => format!("what it had restored cannot be looked at: {error}"),
    };
    StaleReason::new(ReasonCode::InitdUnavailable, format!("initd ended during the restore; {end}"))
}

/// What a reason is about, for the journal.
fn about(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::FileChanged
        | ReasonCode::FileMissing
        | ReasonCode::ValueChanged
        | ReasonCode::GroupsChanged
        | ReasonCode::PrivilegesChanged
        | ReasonCode::LimitsChanged
        | ReasonCode::CredentialsChanged
        | ReasonCode::EnvironmentChanged
        | ReasonCode::SchedulingChanged
        | ReasonCode::HostnameChanged
        | ReasonCode::ImageTooOld
        | ReasonCode::IdentityChanged
        | ReasonCode::ConfinementChanged => "image stale: ",
        ReasonCode::UnitChanged
        | ReasonCode::KernelChanged
        | ReasonCode::SystemdChanged
        | ReasonCode::MachineChanged
        | ReasonCode::CpuChanged => "image stale: ",
        ReasonCode::RestoreFailed => "restore failed: ",
        _ => "",
    }
}
