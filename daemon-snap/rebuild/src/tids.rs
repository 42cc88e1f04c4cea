//! Thread ids by counter: where a process may not choose them for its threads (user namespaces),
//! the number that the kernel gives out next in this PID namespace is set just before each thread
//! is made.
//!
//! Whoever else forks in that moment gets the number. The moment is kept short: worker and process
//! are real-time tasks for as long as it lasts, so that neither waits for a processor between the
//! two steps.

use std::fs::File;
use std::time::{Duration, Instant};

use fastboot_runtime::{RunDir, ids_lock};
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::tape::{Record, Step};
use snap_error::{Error, Result};
use snap_state::Pid;
use snap_sys::procfs_own::{LAST_PID, OwnProc};
use snap_sys::sched::{set_ordinary, set_realtime};

/// A process that got the number in our place mostly ends soon.
const LONGEST_PAUSE_MS: u64 = 64;

/// The counter, and what has been asked of it.
#[derive(Debug)]
pub struct Tids {
    lock: Option<File>,
    deadline: Instant,
    turn: Option<Flock<File>>,
    /// Where ids were given out before they were taken from the band.
    before: Option<i64>,
    /// The id that was asked for last, and how often before.
    asked: (i64, u32),
}

impl Tids {
    /// Opens the lock: this has to be done before the mount namespace is changed. Its turn is
    /// waited for until `deadline`.
    pub fn open(deadline: Instant) -> Self {
        let lock = ids_lock::open(&RunDir::default()).ok();
        Self { lock, deadline, turn: None, before: None, asked: (0, 0) }
    }

    /// Makes `tid` the next number to be given out, for a thread of `process`, which waits for our
    /// word.
    ///
    /// # Errors
    /// `Stale`: others number their threads for too long. The counter can be read or written no
    /// more.
    pub fn make_next(&mut self, proc: &OwnProc, process: Pid, tid: i64) -> Result<()> {
        if let Some(file) = self.lock.take() {
            self.turn = Some(lock_until(file, self.deadline)?);
        }
        if self.before.is_none() {
            let before = proc.last_pid().map_err(|e| Error::kernel("reading", LAST_PID, e))?;
            self.before = Some(before.into());
        }
        self.give_way(proc, tid)?;
        // Without the right to it (containers) it is an ordinary race.
        let _ = set_realtime(process).and_then(|()| set_realtime(Pid(0)));
        set_counter(proc, tid - 1)
    }

    /// The thread exists: everybody else is numbered as before. The process makes itself ordinary
    /// again.
    ///
    /// # Errors
    /// The counter cannot be written.
    pub fn taken(&mut self, proc: &OwnProc) -> Result<()> {
        let result = self.before.take().map_or(Ok(()), |before| set_counter(proc, before));
        set_ordinary(Pid(0)).map_err(|e| Error::kernel("sched_setscheduler", "worker", e))?;
        result
    }

    /// No further thread will be asked for.
    pub fn done(&mut self) {
        self.turn = None;
    }

    /// When `record` says that all attempts came to nothing: who has the id that was wanted.
    pub fn holder(&self, proc: &OwnProc, record: &Record) -> Option<String> {
        let (wanted, _) = self.asked;
        if record.label != Step::CloneThread as u64 || record.result < 0 || wanted == 0 {
            return None;
        }
        let name = proc.read(&format!("{wanted}/comm")).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).trim_end().to_owned();
        let by = if name.is_empty() { "a process that has ended since" } else { &name };
        Some(format!("id {wanted} of a thread of process {} is taken by {by}", record.pid))
    }

    /// Asked for the same id once more, somebody else got it. Until that one has ended nobody else
    /// shall be numbered from the band.
    fn give_way(&mut self, proc: &OwnProc, wanted: i64) -> Result<()> {
        let times = if self.asked.0 == wanted { self.asked.1 + 1 } else { 0 };
        self.asked = (wanted, times);
        if let (1.., Some(before)) = (times, self.before) {
            set_counter(proc, before)?;
            std::thread::sleep(Duration::from_millis((1 << times.min(16)).min(LONGEST_PAUSE_MS)));
        }
        Ok(())
    }
}

/// Waits, for a moment, until no worker has moved the counter: what is made meanwhile may get the
/// number that a thread is to have, and keep it. For those who make processes or threads beside the
/// workers.
pub fn let_others_number() {
    const LONGEST: Duration = Duration::from_millis(50);
    const PAUSE: Duration = Duration::from_micros(200);
    let began = Instant::now();
    // Without the file nobody has moved it so far. The lock is not kept: a fork would inherit it.
    let run_dir = RunDir::default();
    while let Some(file) = ids_lock::open_if_made(&run_dir) {
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, Errno::EWOULDBLOCK)) if began.elapsed() < LONGEST => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}

fn lock_until(mut file: File, deadline: Instant) -> Result<Flock<File>> {
    const PAUSE: Duration = Duration::from_micros(500);
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(turn) => return Ok(turn),
            Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
            Err((_, errno)) => return Err(Error::kernel("flock", "the lock of thread ids", errno)),
        };
        if Instant::now() >= deadline {
            let sentence = "other restores number their threads, and it was not its turn in time".to_owned();
            return Err(Error::stale(ReasonCode::Deadline, sentence));
        }
        std::thread::sleep(PAUSE);
    }
}

fn set_counter(proc: &OwnProc, last: i64) -> Result<()> {
    proc.set_last_pid(last).map_err(|e| Error::kernel("writing", LAST_PID, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_the_lock_keeps_others_waiting_until_their_deadline_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let again = || file.reopen().unwrap();
        let held = Flock::lock(again(), FlockArg::LockExclusive).unwrap();
        let began = Instant::now();
        let error = lock_until(again(), began + Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, Error::Stale(_)), "{error:?}");
        assert!(began.elapsed() >= Duration::from_millis(50));
        drop(held);
        assert!(lock_until(again(), began).is_ok());
    }
}
