//! Numbers of processes and threads: which are free.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::kill;
use nix::unistd::{Pid as RawPid, pipe2};
use snap_error::{Error, Result};
use snap_state::outside_bands;
use snap_state::{ProcessV1, ZombieV1};
use snap_sys::rebuild::is_number_in_use;
use std::cell::LazyCell;
use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Longest for numbers that nobody has any more to become free. The kernel takes microseconds,
/// unless it is interrupted.
const PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_micros(200);

/// What the kernel is asked about numbers with.
#[derive(Debug)]
pub struct Numbers {
    probe: OwnedFd,
}

impl Numbers {
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> Result<Self> {
        let (probe, _) = pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::kernel("pipe2", "numbers", e))?;
        Ok(Self { probe })
    }

    /// Waits, for a moment, for numbers of the tree whose owners have ended: who has been waited
    /// for is gone from /proc before its number can be given to another, and a service that is
    /// restarted from its image has ended just now.
    pub fn await_freed(&self, processes: &[ProcessV1], zombies: &[ZombieV1], deadline: Instant) {
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let threads = processes.iter().flat_map(|process| &process.threads).map(|thread| thread.tid);
        for id in threads.chain(zombies.iter().map(|zombie| zombie.pid)) {
            // A number that a group or a session goes by stays; then creating the process says so.
            while self.is_in_use(id.0) && is_nobody(id.0) && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// An id for a helper thread of each process. Outside of the bands where the process is in one
    /// or above, elsewhere such that neither the tree nor anybody else uses it.
    pub fn of_helpers(&self, processes: &[ProcessV1], zombies: &[ZombieV1]) -> Vec<i32> {
        let free = LazyCell::new(|| self.free_ids(processes, zombies));
        let beside = |index: usize| if *free == 0 { 0 } else { *free + index as i32 };
        let id = |(index, process): (usize, &ProcessV1)| {
            outside_bands(process.pid.0).filter(|id| !self.is_in_use(*id)).unwrap_or_else(|| beside(index))
        };
        processes.iter().enumerate().map(id).collect()
    }

    /// First of a run of ids that neither the tree nor anybody else uses, one for each process.
    fn free_ids(&self, processes: &[ProcessV1], zombies: &[ZombieV1]) -> i32 {
        let mut taken: HashSet<i32> = HashSet::new();
        for process in processes {
            taken.extend([process.pid.0, process.sid.0, process.pgid.0]);
            taken.extend(process.threads.iter().map(|t| t.tid.0));
        }
        taken.extend(zombies.iter().flat_map(|zombie| [zombie.pid.0, zombie.sid.0, zombie.pgid.0]));
        let count = processes.len() as i32;
        let highest = taken.iter().max().copied().unwrap_or(1);
        let fits =
            |first: &i32| (*first..*first + count).all(|id| !taken.contains(&id) && !self.is_in_use(id));
        // Upwards from the tree, else (pid_max reached) downwards below it.
        let below = taken.iter().min().copied().unwrap_or(1000) - count;
        (highest + 1..highest + 1000).find(fits).or_else(|| (2..below).rev().find(fits)).unwrap_or(0)
    }

    /// Whether the number cannot be given out: that of a process, a thread, a group or a session,
    /// or of one that is just going.
    fn is_in_use(&self, id: i32) -> bool {
        is_number_in_use(self.probe.as_fd(), id)
    }
}

fn is_nobody(id: i32) -> bool {
    matches!(kill(RawPid::from_raw(id), None), Err(Errno::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_processes_and_threads_are_in_use() {
        let numbers = Numbers::new().unwrap();
        let own = std::process::id() as i32;
        let thread = std::thread::spawn(|| nix::unistd::gettid().as_raw()).join();
        assert!(numbers.is_in_use(own) && !is_nobody(own));
        let thread = thread.unwrap();
        let began = Instant::now();
        while numbers.is_in_use(thread) && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(PAUSE);
        }
        assert!(!numbers.is_in_use(thread) && is_nobody(thread));
    }

    #[test]
    fn number_of_a_session_whose_leader_has_gone_is_in_use() {
        let mut leader = std::process::Command::new("setsid");
        let output = leader.args(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $$ $!"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let ids: Vec<i32> = text.split_whitespace().map(|id| id.parse().unwrap()).collect();
        let numbers = Numbers::new().unwrap();
        assert!(numbers.is_in_use(ids[0]) && is_nobody(ids[0]), "{ids:?}");
        kill(RawPid::from_raw(ids[1]), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}
