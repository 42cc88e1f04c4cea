//! What systemd hears of initd itself: that it takes connections (`READY=1`), that it still does
//! (`WATCHDOG=1`), and what became of the boot (`STATUS=`).
//!
//! Said by the thread that takes connections, because it is the one that others wait for. A word
//! that systemd does not hear changes nothing for the units that start.

use std::time::{Duration, Instant};

use fastboot_runtime::{Outcome, StatusFile};
use sd_notify::{NotifyState, watchdog_enabled};

use crate::journal;
use crate::notify::Datagrams;

/// With a status systemd waits until nobody has asked for so long: while units start it has better
/// things to do.
const QUIET: Duration = Duration::from_secs(1);

/// What systemd has been told.
#[derive(Debug)]
pub struct Manager {
    /// `None`: nobody wants to hear anything.
    datagrams: Option<Datagrams>,
    /// Whether it has heard `READY=1`.
    is_ready: bool,
    /// Between two signs of life; `None`: systemd does not look.
    every: Option<Duration>,
    beat: Instant,
    status: String,
    /// The last status that was said may be another one by now.
    is_news: bool,
}

impl Manager {
    /// As systemd's environment says what it wants to hear.
    pub fn of_environment() -> Manager {
        // Late once is not late yet.
        let every = watchdog_enabled().map(|limit| limit / 3);
        let mut manager = Manager::silent(every);
        match Datagrams::of_environment() {
            Ok(datagrams) => manager.datagrams = Some(datagrams),
            Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {}
            Err(error) => unheard(&error),
        }
        manager
    }

    fn silent(every: Option<Duration>) -> Manager {
        let beat = Instant::now();
        Manager { datagrams: None, is_ready: false, every, beat, status: String::new(), is_news: true }
    }

    /// Connections are taken from now on.
    pub fn say_ready(&mut self) {
        self.is_ready = self.say(&[NotifyState::Ready]);
    }

    /// How long to wait for a connection before [`quiet`](Manager::quiet); `None`: for ever.
    pub fn patience(&self) -> Option<Duration> {
        match self.is_news {
            true => Some(QUIET),
            false => Some(self.every?.saturating_sub(self.beat.elapsed())),
        }
    }

    /// Connections are being taken.
    pub fn alive(&mut self) {
        if self.every.is_some_and(|every| self.beat.elapsed() >= every) {
            self.beat = Instant::now();
            self.say(&[NotifyState::Watchdog]);
        }
    }

    /// Somebody has asked, so that something will become of it.
    pub fn busy(&mut self) {
        self.is_news = true;
        self.alive();
    }

    /// Nobody has asked for a while.
    pub fn quiet(&mut self, status: &StatusFile) {
        self.is_news = false;
        if !self.is_ready {
            self.say_ready();
        }
        let text = sentence(status.count(Outcome::Restored), status.count(Outcome::Cold));
        if text != self.status {
            self.say(&[NotifyState::Status(&text)]);
            self.status = text;
        }
        self.alive();
    }

    /// Whether it was heard, or nobody listens.
    fn say(&self, words: &[NotifyState<'_>]) -> bool {
        let Some(datagrams) = &self.datagrams else { return true };
        let said = datagrams.say(words, &[]);
        said.inspect_err(unheard).is_ok()
    }
}

fn sentence(restored: usize, cold: usize) -> String {
    format!("{restored} units restored in this boot, {cold} started cold")
}

fn unheard(error: &std::io::Error) {
    journal::warning(format_args!("systemd cannot be told how initd is: {error}; units start as ever"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastboot_runtime::{RunDir, UnitStatus};
    use image_store::ReasonCode;

    #[test]
    fn status_is_said_when_nobody_asks_and_life_in_between() {
        let dir = tempfile::tempdir().unwrap();
        let status = StatusFile::open(&RunDir::at(dir.path()), "boot");
        status.enter([UnitStatus::cold("a.service", ReasonCode::FileChanged, "")]).unwrap();
        let every = Duration::from_secs(20);
        let mut manager = Manager::silent(Some(every));
        assert_eq!(manager.patience(), Some(QUIET));
        manager.quiet(&status);
        assert_eq!(manager.status, "0 units restored in this boot, 1 started cold");
        let patience = manager.patience().unwrap();
        assert!(patience > QUIET && patience <= every, "{patience:?}");
        manager.busy();
        assert_eq!(manager.patience(), Some(QUIET));

        let mut unwatched = Manager { every: None, ..manager };
        unwatched.quiet(&status);
        assert_eq!(unwatched.patience(), None);
    }
}
