//! An initd that is there and says nothing: its zygote answers in its place, so that one unit waits
//! for a moment, and no other does. Everybody starts cold then, and the starts are noted as ever.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastboot_runtime::{FirstStarts, GeneratorRecord, RunDir};
use image_store::ReasonCode;
use nix::sys::socket::{SockFlag, accept4};

use crate::caller::{Caller, UnitsRoot};
use crate::journal;
use crate::protocol::{Answer, FIRST_WORD_TIMEOUT};
use crate::sys::process::wait_readable;
use crate::sys::pulse::Pulse;
use crate::sys::socket::{own, send};

/// A connection that has waited for so long will not be taken. Shorter than a shim waits, so that
/// already the first one hears something.
const SILENCE: Duration = FIRST_WORD_TIMEOUT.saturating_sub(Duration::from_millis(60));

/// Looks whether connections are taken.
#[derive(Debug)]
pub struct Standby {
    listener: OwnedFd,
    pulse: Arc<Pulse>,
    state: State,
}

#[derive(Debug)]
enum State {
    Quiet,
    /// There was a connection, and so many had been taken before.
    Waiting {
        since: Instant,
        beats: u64,
    },
    TakenOver(Option<Rules>),
}

/// What is needed to note a start.
#[derive(Debug)]
struct Rules {
    units: UnitsRoot,
    first_starts: FirstStarts,
    /// `None`: it is not known, so all are noted.
    armed: Option<BTreeSet<String>>,
}

impl Standby {
    /// Watch over whoever takes connections from `listener` and beats with each.
    pub fn new(listener: OwnedFd, pulse: Arc<Pulse>) -> Standby {
        Standby { listener, pulse, state: State::Quiet }
    }

    /// What to wait for besides everything else, and for how long, until [`look`](Standby::look) is
    /// called.
    pub fn interest(&self) -> (Option<BorrowedFd<'_>>, Option<Duration>) {
        match &self.state {
            // It stays readable until the connection is taken.
            State::Waiting { since, .. } => (None, Some(SILENCE.saturating_sub(since.elapsed()))),
            State::Quiet | State::TakenOver(_) => (Some(self.listener.as_fd()), None),
        }
    }

    /// Look after it.
    pub fn look(&mut self, run_dir: &RunDir) {
        let is_waiting = wait_readable([self.listener.as_fd()], Duration::ZERO).is_ok_and(|[ready]| ready);
        let beats = self.pulse.beats();
        match &self.state {
            State::TakenOver(rules) => {
                if is_waiting {
                    self.answer_all(rules.as_ref());
                }
            }
            State::Waiting { since, beats: before } => {
                if is_waiting && beats == *before && since.elapsed() < SILENCE {
                    return;
                }
                if is_waiting && beats == *before {
                    journal::warning("initd does not answer; services start cold");
                    let rules = Rules::load(run_dir);
                    if let Err(error) = &rules {
                        journal::warning(format_args!("starts cannot be noted: {error}"));
                    }
                    let rules = rules.ok();
                    self.answer_all(rules.as_ref());
                    self.state = State::TakenOver(rules);
                } else {
                    self.state = State::Quiet;
                }
            }
            State::Quiet if is_waiting => self.state = State::Waiting { since: Instant::now(), beats },
            State::Quiet => {}
        }
    }

    fn answer_all(&self, rules: Option<&Rules>) {
        while let Ok(fd) = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            let connection = own(fd);
            let noted = rules.map_or(Ok(None), |rules| rules.note(&connection));
            match noted {
                Ok(Some(unit)) => {
                    journal::notice(format_args!("{unit}: initd does not answer; starting it cold"))
                }
                Ok(None) => {}
                Err(error) => journal::warning(format_args!("a start cannot be noted: {error}")),
            }
            let code = ReasonCode::InitdUnavailable.as_str().to_owned();
            let answer = Answer::Cold { code, sentence: "initd does not answer".to_owned() };
            // Closing it is answer enough.
            let _ = send(&connection, &answer.encode(), &[]);
        }
    }
}

impl Rules {
    fn load(run_dir: &RunDir) -> io::Result<Rules> {
        let armed = GeneratorRecord::load(run_dir).ok().flatten().map(|decisions| decisions.armed());
        Ok(Rules { units: UnitsRoot::collect()?, first_starts: FirstStarts::open(run_dir)?, armed })
    }

    /// The unit that a connection is of, if it is of one whose starts are noted.
    fn note(&self, connection: &OwnedFd) -> io::Result<Option<String>> {
        let Ok(caller) = Caller::identify(connection, &self.units) else { return Ok(None) };
        let only_this = || BTreeSet::from([caller.unit.clone()]);
        let armed = self.armed.as_ref().map_or_else(only_this, BTreeSet::clone);
        Ok(self.first_starts.note(&armed, &caller.unit, caller.process)?.map(|_| caller.unit))
    }
}
