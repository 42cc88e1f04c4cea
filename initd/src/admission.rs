//! Whoever connects is found out, its start is noted, and a shim that may be answered gets a first
//! word. Nothing here waits for anything, so that a shim hears within a moment that somebody is
//! there.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use fastboot_runtime::{Claim, FirstStarts, StatusFile, UnitStatus};
use image_store::{ReasonCode, StaleReason};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{SockFlag, accept4, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use snap_rebuild::tids::let_others_number;

use crate::caller::{Caller, UnitsRoot};
use crate::journal;
use crate::manager::Manager;
use crate::peer::ShimIdentity;
use crate::protocol::{Answer, Greeting};
use crate::server::{Moment, Server};
use crate::slots::{Slot, Slots};
use crate::sys::pulse::Pulse;
use crate::sys::socket::{know_senders, own, send};

/// A shim asks as soon as it has been greeted, and tells systemd within seconds.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest for a store to be found and its catalogue to be read; a shim's own limit is mostly
/// shorter.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to let in.
#[derive(Debug)]
pub struct Admission {
    /// Where units are.
    pub units: UnitsRoot,
    /// Units that the generator has put behind a shim.
    pub armed: BTreeSet<String>,
    /// Who has asked before.
    pub first_starts: FirstStarts,
    /// Whom to believe.
    pub shim: ShimIdentity,
    /// What became of each unit.
    pub status: Arc<StatusFile>,
    /// Starts that are being answered.
    pub slots: Arc<Slots>,
    /// Beats with every connection that is taken.
    pub pulse: Arc<Pulse>,
    /// Who answers.
    pub server: ServerCell,
}

/// A shim that is to be answered.
#[derive(Debug)]
pub struct Admitted {
    /// The shim.
    pub caller: Caller,
    /// What is known of its start; `None`: the unit was not put behind a shim at the boot.
    pub claim: Option<Claim>,
    /// To it.
    pub connection: OwnedFd,
    /// Its place; others wait for it.
    pub slot: Slot,
}

/// The server as soon as it is ready; until then whoever asks waits.
#[derive(Debug)]
pub struct ServerCell {
    server: Mutex<Option<Arc<Server>>>,
    is_set: Condvar,
    /// Readable when somebody has asked.
    asked: EventFd,
}

impl ServerCell {
    /// An empty one.
    ///
    /// # Errors
    /// From `eventfd(2)`.
    pub fn new() -> io::Result<ServerCell> {
        let asked = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(ServerCell { server: Mutex::default(), is_set: Condvar::new(), asked })
    }

    /// Readable as soon as somebody has asked.
    pub fn asked(&self) -> BorrowedFd<'_> {
        self.asked.as_fd()
    }

    /// From now on everybody is answered.
    pub fn set(&self, server: Arc<Server>) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        self.is_set.notify_all();
    }

    fn wait(&self) -> Option<Arc<Server>> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |server: &mut Option<Arc<Server>>| server.is_none();
        let waited = self.is_set.wait_timeout_while(server, PREPARE_TIMEOUT, is_empty);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl Admission {
    /// Take connections for ever.
    ///
    /// # Errors
    /// When the socket itself fails.
    pub fn serve(self: &Arc<Self>, listener: &OwnedFd, mut manager: Manager) -> io::Result<()> {
        manager.say_ready();
        loop {
            let connection = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(fd) => own(fd),
                Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
                Err(Errno::EAGAIN) => {
                    match wait_for(listener, manager.patience())? {
                        true => manager.alive(),
                        false => manager.quiet(&self.status),
                    }
                    continue;
                }
                // Out of descriptors or memory: connections wait in the queue, and their shims not
                // for long.
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            self.pulse.beat();
            manager.busy();
            if let Some(admitted) = self.admit(connection) {
                self.answer(admitted);
            }
        }
    }

    /// Let a shim in, or not.
    fn admit(&self, connection: OwnedFd) -> Option<Admitted> {
        // Who is in no service of the system has no business here: not a word is lost on it, in the
        // journal neither.
        let caller = Caller::identify(&connection, &self.units).ok()?;
        let claim = match self.first_starts.note(&self.armed, &caller.unit, caller.process) {
            Ok(claim) => claim,
            Err(error) => {
                let sentence = format!("its start cannot be noted: {error}");
                let reason = StaleReason::new(ReasonCode::HostUnsupported, sentence);
                self.turn_away(&connection, &caller, None, &reason);
                return None;
            }
        };
        if let Err(error) = self.shim.check(&caller) {
            journal::warning(format_args!("{}: a connection was refused: {error}", caller.unit));
            return None;
        }
        let Some(slot) = self.slots.enter(caller.uid, &caller.unit) else {
            let reason = StaleReason::new(ReasonCode::InitdUnavailable, "too many starts at one time");
            self.turn_away(&connection, &caller, claim, &reason);
            return None;
        };
        if let Err(error) = greet(&connection) {
            journal::warning(format_args!("{}: it cannot be greeted: {error}", caller.unit));
            return None;
        }
        Some(Admitted { caller, claim, connection, slot })
    }

    fn answer(self: &Arc<Self>, admitted: Admitted) {
        // It wakes whoever waits for the store. That it counts up for ever takes longer than any
        // machine runs.
        let _ = self.server.asked.write(1);
        let admission = Arc::clone(self);
        let unit = admitted.caller.unit.clone();
        let asked = Moment::now();
        let_others_number();
        let spawned =
            std::thread::Builder::new().stack_size(1 << 20).spawn(move || match admission.server.wait() {
                Some(server) => server.answer(admitted, asked),
                None => {
                    let reason =
                        StaleReason::new(ReasonCode::InitdUnavailable, "initd was not ready in time");
                    admission.turn_away(&admitted.connection, &admitted.caller, admitted.claim, &reason);
                }
            });
        if let Err(error) = spawned {
            journal::warning(format_args!("{unit}: no thread for it: {error}; it starts cold"));
        }
    }

    /// Tell a shim to start cold, and note why if this is the first start.
    fn turn_away(&self, connection: &OwnedFd, caller: &Caller, claim: Option<Claim>, reason: &StaleReason) {
        let unit = &caller.unit;
        let answer =
            Answer::Cold { code: reason.code.as_str().to_owned(), sentence: reason.sentence.clone() };
        // A queue of packets that is full cannot be: this is the first.
        let _ = send(connection, &answer.encode(), &[]);
        journal::notice(format_args!("{unit}: {reason}; starting it cold"));
        if claim == Some(Claim::First)
            && let Err(error) = self.status.enter([UnitStatus::cold(unit, reason.code, &reason.sentence)])
        {
            journal::warning(format_args!(
                "{unit}: status cannot be written: {error}; `fastboot status` lacks it"
            ));
        }
    }
}

/// Whether somebody has asked within that time.
fn wait_for(listener: &OwnedFd, patience: Option<Duration>) -> io::Result<bool> {
    let timeout = match patience {
        // Not before it has passed: a moment of rounding down would be spent turning round.
        Some(patience) => PollTimeout::try_from(patience.as_millis() + 1).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    match poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

fn greet(connection: &OwnedFd) -> io::Result<()> {
    let timeout = TimeVal::new(PEER_TIMEOUT.as_secs() as i64, 0);
    setsockopt(connection, sockopt::ReceiveTimeout, &timeout)?;
    setsockopt(connection, sockopt::SendTimeout, &timeout)?;
    know_senders(connection)?;
    send(connection, &Greeting.encode(), &[])
}
