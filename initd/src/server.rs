//! Answering shims: one thread per connection, every wait bounded.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastboot_runtime::{FirstStarts, StatusFile, Trials, UnitStatus};
use image_store::{CatalogueEntry, ImageId, ReasonCode, StaleReason, Store, fault};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use snap_policy::{StartBudget, StartTimes};
use snap_rebuild::tids::let_others_number;

use crate::attempt::{Attempt, Means, Outcome, RestoredTree};
use crate::boot::monotonic_us;
use crate::hooks;
use crate::images::{Images, Usable};
use crate::journal;
use crate::lanes::{LIGHT_LEN, Lanes};
use crate::peer::{Peer, ShimIdentity};
use crate::probation;
use crate::protocol::{Adopted, Answer, Hello};
use crate::sys::socket::{receive, send};
use crate::timeline::Timeline;
use crate::unit_cgroup::UnitCgroup;
use crate::wire::MAX_MESSAGE_LEN;
use crate::worker::Order;
use crate::zygote::Zygote;

/// A shim asks as soon as it has connected, and tells systemd within seconds.
const PEER_TIMEOUT: Duration = Duration::from_secs(8);
/// More at one time are told to start cold.
const MAX_CONNECTIONS: usize = 512;
/// How long processes that were killed may take to disappear.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that a connection needs; the same for all.
#[derive(Debug)]
pub struct Server {
    /// The store.
    pub store: Store,
    /// Images of units that the generator has put behind a shim.
    pub images: Images,
    /// Who goes first.
    pub lanes: Lanes,
    /// Images that a snapshot is trying.
    pub trials: Trials,
    /// Forks the workers.
    pub zygote: Zygote,
    /// Who has asked before.
    pub first_starts: FirstStarts,
    /// What became of each unit.
    pub status: StatusFile,
    /// Whom to believe.
    pub shim: ShimIdentity,
    /// This boot ([`userspace_id`](crate::boot::userspace_id)).
    pub userspace_id: String,
    /// Connections under way.
    pub connections: AtomicUsize,
}

/// One start, from the shim's question on.
#[derive(Debug)]
struct Start {
    unit: String,
    requested_us: u64,
    began: Instant,
    timeline: Timeline,
    image_id: Option<ImageId>,
    /// Of a snapshot, not of this boot: nothing but the snapshot hears of it.
    is_trial: bool,
}

/// As the generator has computed it for the shim.
fn budget(entry: &CatalogueEntry) -> Result<StartBudget, StaleReason> {
    let times =
        StartTimes { timeout_ms: entry.service.timeout_start_ms, cold_ms: entry.service.cold_start_ms };
    StartBudget::of(times, entry.len_bytes)
        .map_err(|reason| StaleReason::new(ReasonCode::Deadline, reason.to_string()))
}

impl Server {
    /// Take connections for ever.
    ///
    /// # Errors
    /// When the socket itself fails.
    pub fn serve(self: &Arc<Self>, listener: &OwnedFd) -> io::Result<()> {
        use nix::errno::Errno;
        use nix::sys::socket::{SockFlag, accept4};
        use std::os::fd::AsRawFd as _;
        loop {
            let connection = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => crate::sys::socket::own(fd),
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                // Out of descriptors or memory: connections wait in the queue, and their shims not for long.
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                // Closing it is answer enough.
                self.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let server = Arc::clone(self);
            let_others_number();
            let spawned = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
                server.answer(&connection);
                server.connections.fetch_sub(1, Ordering::Relaxed);
            });
            if let Err(error) = spawned {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                journal::warning(format_args!("no thread for a connection: {error}; its unit starts cold"));
            }
        }
    }

    /// One shim, from its question to the end of its unit's probation.
    fn answer(&self, connection: &OwnedFd) {
        let (began, timeline) = (Instant::now(), Timeline::begin());
        let requested_us = monotonic_us();
        let (peer, hello, inherited) = match self.receive_hello(connection) {
            Ok(asked) => asked,
            Err(error) => return journal::warning(format_args!("a connection was refused: {error}")),
        };
        let unit = peer.unit.clone();
        let mut start = Start { unit, requested_us, began, timeline, image_id: None, is_trial: false };
        if let Err(reason) = self.answer_from_image(connection, &mut start, &peer, &hello, inherited) {
            self.answer_cold(connection, start, &reason);
        }
    }

    /// `Err`: the unit has to start cold, and nothing of an attempt is left.
    fn answer_from_image(
        &self,
        connection: &OwnedFd,
        start: &mut Start,
        peer: &Peer,
        hello: &Hello,
        inherited: Vec<OwnedFd>,
    ) -> Result<(), StaleReason> {
        let trial = self.claim_trial(&start.unit);
        start.is_trial = trial.is_some();
        let no_image =
            || StaleReason::new(ReasonCode::NoImage, "it has no image that can be used in this boot");
        let entry = trial.as_ref().or_else(|| self.images.entry(&start.unit)).ok_or_else(no_image)?;
        start.image_id = Some(entry.image_id);
        self.check_start(start, peer, hello, entry)?;
        let turn = self.lanes.enter(entry.len_bytes);
        start.timeline.mark("queue");

        let mut usable = match start.is_trial {
            true => self.images.open_once(entry),
            false => self.images.take(&start.unit),
        }?;
        start.timeline.mark("evidence");
        let deadline = start.began + budget(entry)?.deadline;
        self.images.read_pages(&mut usable, &self.lanes, deadline)?;
        start.timeline.mark("read");
        let cgroup = UnitCgroup::open(&peer.cgroup, peer.pid)
            .map_err(|error| StaleReason::new(ReasonCode::HostUnsupported, format!("cgroup: {error}")))?;
        let order = order_for(entry, &usable, peer, hello, deadline);
        let means = Means {
            image: usable.opened.image.file().as_fd(),
            shim: &peer.pidfd,
            connection,
            inherited: &inherited,
        };
        let began = Instant::now();
        let mut attempt = Attempt::new(&self.zygote, cgroup);
        let outcome = attempt.run(&order, &means, deadline);
        let restore_ms = began.elapsed().as_secs_f64() * 1e3;
        // The shim keeps its own; a copy here would keep a unit's sockets open after the unit.
        drop((inherited, usable));
        let tree = match outcome {
            Outcome::Restored(tree) => tree,
            Outcome::Failed(reason) => {
                attempt.finish();
                self.note_failure(start, entry, &reason);
                return Err(reason);
            }
            Outcome::Abandoned => {
                attempt.finish();
                return Err(StaleReason::new(ReasonCode::RestoreFailed, "the start was cancelled"));
            }
        };
        start.timeline.take(&tree.steps, "adopt");
        if let Err(why) = hooks::after_restore(entry, tree.main_pid, deadline) {
            attempt.remove();
            attempt.finish();
            let reason = StaleReason::new(ReasonCode::RestoreFailed, why);
            self.note_failure(start, entry, &reason);
            return Err(reason);
        }
        start.timeline.mark("hooks");
        let adopted = fault::point("initd.before_answer")
            .map_err(|error| error.to_string())
            .and_then(|()| self.hand_over(connection, entry, &tree, hello.has_notify_socket));
        if let Err(why) = adopted {
            attempt.remove();
            attempt.finish();
            return Err(StaleReason::new(ReasonCode::RestoreFailed, why));
        }
        attempt.finish();
        start.timeline.mark("hand-over");
        drop(turn);
        self.enter_restored(start, &tree, restore_ms);
        if !start.is_trial {
            self.watch(entry, &tree);
        }
        Ok(())
    }

    /// The leave of a snapshot that is at work right now.
    fn claim_trial(&self, unit: &str) -> Option<CatalogueEntry> {
        let entry = self.trials.claim(unit)?;
        match self.store.is_locked() {
            Ok(true) => Some(entry),
            // It ended in the middle; nobody wants its images.
            _ => None,
        }
    }

    fn receive_hello(&self, connection: &OwnedFd) -> io::Result<(Peer, Hello, Vec<OwnedFd>)> {
        let timeout = TimeVal::new(PEER_TIMEOUT.as_secs() as i64, 0);
        setsockopt(connection, sockopt::ReceiveTimeout, &timeout)?;
        setsockopt(connection, sockopt::SendTimeout, &timeout)?;
        let (packet, fds) = receive(connection, MAX_MESSAGE_LEN)?;
        let peer = Peer::identify(connection, &self.shim)?;
        let hello = Hello::decode(&packet).map_err(io::Error::other)?;
        if hello.unit != peer.unit {
            return Err(io::Error::other(format!("{} asks for {}", peer.unit, hello.unit)));
        }
        if fds.len() != 3 + hello.listen_names.len() {
            return Err(io::Error::other(format!("{} sent {} descriptors", peer.unit, fds.len())));
        }
        Ok((peer, hello, fds))
    }

    /// Whether this start may come from an image at all.
    fn check_start(
        &self,
        start: &Start,
        peer: &Peer,
        hello: &Hello,
        entry: &CatalogueEntry,
    ) -> Result<(), StaleReason> {
        let refuse = |code, sentence: &str| Err(StaleReason::new(code, sentence));
        if hello.is_again {
            return Err(remove_orphans(peer, entry));
        }
        if !start.is_trial {
            match self.first_starts.claim(&start.unit) {
                Ok(true) => {}
                Ok(false) => return refuse(ReasonCode::NotFirstStart, "it was started in this boot before"),
                Err(error) => {
                    let sentence = format!("its start cannot be noted: {error}");
                    return refuse(ReasonCode::HostUnsupported, &sentence);
                }
            }
        }
        let failed = |error: io::Error| StaleReason::new(ReasonCode::RestoreFailed, error.to_string());
        fault::point("initd.request").map_err(failed)?;
        if !hello.has_notify_socket && entry.service.service_type != "forking" {
            return refuse(
                ReasonCode::HostUnsupported,
                "NotifyAccess= keeps the shim from naming a main process",
            );
        }
        Ok(())
    }

    /// Let the shim tell systemd.
    fn hand_over(
        &self,
        connection: &OwnedFd,
        entry: &CatalogueEntry,
        tree: &RestoredTree,
        has_notify_socket: bool,
    ) -> Result<(), String> {
        if !has_notify_socket && !tree.stored.is_empty() {
            return Err("NotifyAccess= keeps the shim from giving systemd back what it kept".to_owned());
        }
        let service_type = entry.service.service_type.as_str();
        let answer = Answer::Restored {
            main_pid: tree.main_pid,
            send_main_pid: service_type != "forking",
            send_ready: matches!(service_type, "notify" | "notify-reload"),
            status: if has_notify_socket { entry.service.status_text.clone() } else { String::new() },
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
        if reason.code == ReasonCode::NotFirstStart {
            return journal::info(format_args!("{unit}: {reason}; starting it cold"));
        }
        journal::notice(format_args!("{unit}: {}{reason}; starting it cold", about(reason.code)));
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
        journal::info(format_args!("{unit}: restored as pid {pid} in {restore_ms:.1} ms"));
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
            requested_monotonic_us: Some(start.requested_us),
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
        if let probation::Verdict::Failed(why) = &verdict {
            let consequence = match &is_final {
                Ok(true) => "its image is not tried again",
                _ => "its image gets one more try at the next boot",
            };
            journal::warning(format_args!("{}: restored service failed ({why}); {consequence}", entry.unit));
        }
        if let Err(error) = is_final {
            journal::warning(format_args!("{}: {error}; its probation is not recorded", entry.unit));
        }
    }
}

fn order_for(
    entry: &CatalogueEntry,
    usable: &Usable,
    peer: &Peer,
    hello: &Hello,
    deadline: Instant,
) -> Order {
    let left = deadline.saturating_duration_since(Instant::now());
    let is_forking = entry.service.service_type == "forking";
    let sent_us = monotonic_us();
    Order {
        unit: entry.unit.clone(),
        image_path: usable.opened.image.path().display().to_string(),
        sent_us,
        deadline_us: sent_us + left.as_micros() as u64,
        checked_chunks: usable.checked_chunks,
        is_light: entry.len_bytes <= LIGHT_LEN,
        shim_pid: peer.pid,
        owner: (peer.uid, peer.gid),
        main_pid: entry.service.main_pid,
        pid_file: entry.service.pid_file.clone().filter(|_| is_forking).unwrap_or_default(),
        listen_names: hello.listen_names.clone(),
    }
}

/// An initd and its zygote died together after the go: what they had restored runs, and nobody has told systemd. The
/// shim sees it in its cgroup and must not start the daemon a second time beside it.
fn remove_orphans(peer: &Peer, entry: &CatalogueEntry) -> StaleReason {
    let removed = UnitCgroup::open(&peer.cgroup, peer.pid).and_then(|cgroup| {
        // Only where the tree of this image is there: other processes may have been left by the administrator's leave.
        let is_ours = cgroup.processes()?.iter().any(|pid| entry.service.pids.contains(pid));
        if is_ours { cgroup.remove_all_but(peer.pid, CLEAN_TIMEOUT) } else { Ok(true) }
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
