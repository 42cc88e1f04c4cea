//! Who goes first when everybody asks at once.
//!
//! On a machine with few processors a large image keeps disk and processors busy for a time in which
//! ten small ones could have come and gone. So small ones are served at once, large ones wait for a
//! moment until no small one is under way, and what nobody has asked for waits until nobody waits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Images up to this length, in bytes, are small: read and checked in a few milliseconds.
pub const LIGHT_LEN: u64 = 16 << 20;
/// How long a large one lets small ones pass before it begins.
const HEAVY_PATIENCE: Duration = Duration::from_millis(250);

/// Starts under way.
#[derive(Debug, Default)]
pub struct Lanes {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    light: usize,
    heavy: usize,
}

/// One start, as long as it lives.
#[derive(Debug)]
pub struct Turn<'a> {
    lanes: &'a Lanes,
    is_light: bool,
}

impl Lanes {
    /// Begin a start from an image of this length.
    pub fn enter(&self, len_bytes: u64) -> Turn<'_> {
        let is_light = len_bytes <= LIGHT_LEN;
        let mut counts = self.lock();
        match is_light {
            true => counts.light += 1,
            false => counts.heavy += 1,
        }
        Turn { lanes: self, is_light }
    }

    fn let_pass(&self, patience: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), patience, |counts| counts.light > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Return when nobody waits for a start.
    pub fn wait_idle(&self) {
        let waited = self.changed.wait_while(self.lock(), |counts| counts.light + counts.heavy > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Begin: a large one lets small ones pass first.
    pub fn begin(&self) {
        if !self.is_light {
            self.lanes.let_pass(HEAVY_PATIENCE);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut counts = self.lanes.lock();
        match self.is_light {
            true => counts.light -= 1,
            false => counts.heavy -= 1,
        }
        drop(counts);
        self.lanes.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[test]
    fn a_large_one_lets_small_ones_pass_but_not_for_ever() {
        let lanes = Lanes::default();
        let heavy = lanes.enter(LIGHT_LEN + 1);
        // Returns although a large one, itself, is under way.
        heavy.begin();
        let light = lanes.enter(LIGHT_LEN);
        let began = Instant::now();
        lanes.let_pass(Duration::from_millis(60));
        assert!(began.elapsed() >= Duration::from_millis(60));
        drop(light);
        heavy.begin();
    }

    #[test]
    fn small_ones_wait_for_nobody_and_idle_work_for_all() {
        let lanes = Lanes::default();
        let heavy = lanes.enter(LIGHT_LEN + 1);
        let light = lanes.enter(1);
        let is_idle = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lanes.wait_idle();
                is_idle.store(true, Ordering::SeqCst);
            });
            drop(light);
            std::thread::sleep(Duration::from_millis(30));
            assert!(!is_idle.load(Ordering::SeqCst));
            drop(heavy);
        });
        assert!(is_idle.load(Ordering::SeqCst));
    }
}
