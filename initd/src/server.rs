//! Answering shims: one thread per connection, every wait bounded.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use image_store::{CatalogueEntry, Image, ReasonCode, StaleReason, Store, fault};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::armed::UnitDecision;
use crate::attempt::{Attempt, Means, Outcome, RestoredTree};
use crate::boot::monotonic_us;
use crate::first_start::FirstStarts;
use crate::journal;
use crate::peer::{Peer, ShimIdentity};
use crate::probation;
use crate::protocol::{Adopted, Answer, Hello};
use crate::status::{self, StatusFile, UnitStatus};
use crate::sys::socket::{receive, send};
use crate::unit_cgroup::UnitCgroup;
use crate::validate::{Verdicts, validate};
use crate::wire::MAX_MESSAGE_LEN;
use crate::worker::Order;
use crate::zygote::Zygote;

/// From the question to the running tree.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// A shim asks as soon as it has connected, and tells systemd within seconds.
const PEER_TIMEOUT: Duration = Duration::from_secs(8);
/// More at one time are told to start cold.
const MAX_CONNECTIONS: usize = 512;

/// Everything that a connection needs; the same for all.
#[derive(Debug)]
pub struct Server {
    /// The images.
    pub store: Store,
    /// Units that the generator has put behind a shim, with their images.
    pub units: HashMap<String, (UnitDecision, CatalogueEntry)>,
    /// Which of the images may be used.
    pub verdicts: Verdicts,
    /// Forks the workers.
    pub zygote: Zygote,
    /// Who has asked before.
    pub first_starts: FirstStarts,
    /// What became of each unit.
    pub status: StatusFile,
    /// Whom to believe.
    pub shim: ShimIdentity,
    /// This boot.
    pub boot_id: String,
    /// `/`.
    pub root: PathBuf,
    /// Connections under way.
    pub connections: AtomicUsize,
}

impl Server {
    /// Check the image of a unit, unless that has been done or begun.
    pub fn validate(&self, unit: &str) {
        if let Some((_, entry)) = self.units.get(unit) {
            self.verdicts.run(unit, || validate(&self.root, &self.store, entry));
        }
    }

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
        let requested_us = monotonic_us();
        let deadline = Instant::now() + DEADLINE;
        let (peer, hello, inherited) = match self.receive_hello(connection) {
            Ok(asked) => asked,
            Err(error) => return journal::warning(format_args!("a connection was refused: {error}")),
        };
        let unit = peer.unit.clone();
        let (entry, image) = match self.find_image(&hello, &unit, deadline) {
            Ok(found) => found,
            Err(reason) => {
                let id = self.units.get(&unit).map(|(_, entry)| entry.image_id.to_string());
                return self.answer_cold(connection, &unit, requested_us, id, &reason);
            }
        };
        let id = Some(entry.image_id.to_string());
        let cgroup = match UnitCgroup::open(&peer.cgroup, peer.pid) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                let reason = StaleReason::new(ReasonCode::HostUnsupported, format!("cgroup: {error}"));
                return self.answer_cold(connection, &unit, requested_us, id, &reason);
            }
        };
        let order = order_for(entry, &image, &peer, &hello, deadline);
        let means =
            Means { image: image.file().as_fd(), shim: &peer.pidfd, connection, inherited: &inherited };
        let began = Instant::now();
        let mut attempt = Attempt::new(&self.zygote, cgroup);
        let outcome = attempt.run(&order, &means, deadline);
        let restore_ms = began.elapsed().as_secs_f64() * 1e3;
        // The shim keeps its own; a copy here would keep a unit's sockets open after the unit.
        drop(inherited);
        match outcome {
            Outcome::Restored(tree) => {
                let adopted = self.hand_over(connection, entry, &tree);
                if let Err(why) = adopted {
                    attempt.remove();
                    attempt.finish();
                    let reason = StaleReason::new(ReasonCode::RestoreFailed, why);
                    return self.answer_cold(connection, &unit, requested_us, id, &reason);
                }
                attempt.finish();
                self.enter_restored(entry, &tree, requested_us, restore_ms);
                self.watch(entry, &tree);
            }
            Outcome::Failed(reason) => {
                attempt.finish();
                self.note_failure(entry, &reason);
                self.answer_cold(connection, &unit, requested_us, id, &reason);
            }
            Outcome::Abandoned => {
                attempt.finish();
                let reason = StaleReason::new(ReasonCode::RestoreFailed, "the start was cancelled");
                self.answer_cold(connection, &unit, requested_us, id, &reason);
            }
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

    /// The image that this start may use.
    fn find_image(
        &self,
        hello: &Hello,
        unit: &str,
        deadline: Instant,
    ) -> Result<(&CatalogueEntry, Arc<Image>), StaleReason> {
        let refuse = |code, sentence: &str| Err(StaleReason::new(code, sentence));
        let Some((decision, entry)) = self.units.get(unit) else {
            return refuse(ReasonCode::NoImage, "it has no image that can be used in this boot");
        };
        match self.first_starts.claim(unit) {
            Ok(true) => {}
            Ok(false) => return refuse(ReasonCode::NotFirstStart, "it was started in this boot before"),
            Err(error) => {
                return refuse(ReasonCode::HostUnsupported, &format!("its start cannot be noted: {error}"));
            }
        }
        let fail = |error: io::Error| StaleReason::new(ReasonCode::RestoreFailed, error.to_string());
        fault::point("initd.request").map_err(fail)?;
        let is_forking = decision.service_type.as_deref() == Some("forking");
        if !hello.has_notify_socket && !is_forking {
            return refuse(
                ReasonCode::HostUnsupported,
                "NotifyAccess= keeps the shim from naming a main process",
            );
        }
        // The threads that check everything may be busy with something large; who asks is served first.
        if self.verdicts.is_queued(unit) {
            self.validate(unit);
        }
        Ok((entry, self.verdicts.take(unit, deadline)?))
    }

    /// Let the shim tell systemd.
    fn hand_over(
        &self,
        connection: &OwnedFd,
        entry: &CatalogueEntry,
        tree: &RestoredTree,
    ) -> Result<(), String> {
        let service_type = entry.service.service_type.as_str();
        let answer = Answer::Restored {
            main_pid: tree.main_pid,
            send_main_pid: service_type != "forking",
            send_ready: matches!(service_type, "notify" | "notify-reload"),
        };
        send(connection, &answer.encode(), &[])
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

    fn answer_cold(
        &self,
        connection: &OwnedFd,
        unit: &str,
        requested_us: u64,
        image_id: Option<String>,
        reason: &StaleReason,
    ) {
        let answer =
            Answer::Cold { code: reason.code.as_str().to_owned(), sentence: reason.sentence.clone() };
        let sent = send(connection, &answer.encode(), &[]);
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
        let status = UnitStatus {
            image_id,
            requested_monotonic_us: Some(requested_us),
            done_monotonic_us: Some(monotonic_us()),
            ..UnitStatus::cold(unit, reason.code, &reason.sentence)
        };
        self.enter(status);
    }

    fn enter_restored(
        &self,
        entry: &CatalogueEntry,
        tree: &RestoredTree,
        requested_us: u64,
        restore_ms: f64,
    ) {
        journal::info(format_args!(
            "{}: restored as pid {} in {restore_ms:.1} ms",
            entry.unit, tree.main_pid
        ));
        self.enter(UnitStatus {
            unit: entry.unit.clone(),
            outcome: status::Outcome::Restored,
            reason_code: None,
            reason: None,
            restore_ms: Some((restore_ms * 1e3).round() / 1e3),
            main_pid: Some(tree.main_pid),
            image_id: Some(entry.image_id.to_string()),
            requested_monotonic_us: Some(requested_us),
            done_monotonic_us: Some(monotonic_us()),
        });
    }

    fn enter(&self, status: UnitStatus) {
        let unit = status.unit.clone();
        if let Err(error) = self.status.enter([status]) {
            journal::warning(format_args!(
                "{unit}: status cannot be written: {error}; `fastboot status` lacks it"
            ));
        }
    }

    /// A restore that failed because of the image or of us, not because of today's machine.
    fn note_failure(&self, entry: &CatalogueEntry, reason: &StaleReason) {
        if !matches!(reason.code, ReasonCode::RestoreFailed | ReasonCode::Deadline) {
            return;
        }
        if let Err(error) = self.store.record_failure(entry.image_id, &self.boot_id, reason) {
            journal::warning(format_args!("{}: {error}; the failure is not counted", entry.unit));
        }
    }

    fn watch(&self, entry: &CatalogueEntry, tree: &RestoredTree) {
        let verdict = probation::watch(&entry.unit, tree.main_pid, &tree.main_pidfd);
        let is_final = probation::record(&self.store, entry.image_id, &self.boot_id, &verdict);
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

fn order_for(entry: &CatalogueEntry, image: &Image, peer: &Peer, hello: &Hello, deadline: Instant) -> Order {
    let left = deadline.saturating_duration_since(Instant::now());
    let is_forking = entry.service.service_type == "forking";
    Order {
        unit: entry.unit.clone(),
        image_path: image.path().display().to_string(),
        deadline_us: monotonic_us() + left.as_micros() as u64,
        shim_pid: peer.pid,
        owner: (peer.uid, peer.gid),
        main_pid: entry.service.main_pid,
        pid_file: entry.service.pid_file.clone().filter(|_| is_forking).unwrap_or_default(),
        listen_names: hello.listen_names.clone(),
    }
}

/// What a reason is about, for the journal.
fn about(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::FileChanged | ReasonCode::FileMissing | ReasonCode::IdentityChanged => "image stale: ",
        ReasonCode::UnitChanged
        | ReasonCode::KernelChanged
        | ReasonCode::MachineChanged
        | ReasonCode::CpuChanged => "image stale: ",
        ReasonCode::RestoreFailed => "restore failed: ",
        _ => "",
    }
}
