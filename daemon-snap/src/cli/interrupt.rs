//! Signals that would end us: what has been begun is undone first.

use anyhow::Context as _;
use daemon_snap::unit::Interrupt;
use nix::sys::signal::{SigSet, Signal, raise};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// The exit status of what a signal ends, as shells have it: that plus its number.
const ENDED_BY_SIGNAL: i32 = 128;

/// What a second signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It ends us at once, as signals do.
    Ends,
    /// It changes nothing: what goes on may not be left half done.
    Waits,
}

/// SIGINT, SIGTERM and SIGHUP are held back from now on.
#[derive(Debug)]
pub struct Signals {
    begun: Arc<AtomicBool>,
    interrupt: Interrupt,
}

impl Signals {
    /// Has a thread wait for them. Call it while there is no other one, which would be ended by
    /// them all the same. Programs that are started are ended as ever.
    ///
    /// # Errors
    /// When they cannot be held back.
    pub fn hold(again: Again) -> anyhow::Result<Self> {
        let mut signals = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
        signals.thread_block().context("holding back signals")?;
        let held = Self { begun: Arc::default(), interrupt: Interrupt::default() };
        let (begun, interrupt) = (Arc::clone(&held.begun), held.interrupt.clone());
        let wait = move || {
            while let Ok(signal) = signals.wait() {
                let is_second = interrupt.is_asked() && again == Again::Ends;
                if is_second || !begun.load(Ordering::Relaxed) {
                    // As if it had never been held back.
                    let _ = signals.thread_unblock().and_then(|()| raise(signal));
                    std::process::exit(ENDED_BY_SIGNAL + signal as i32);
                }
                interrupt.ask();
                if again == Again::Ends {
                    eprintln!("fastboot: {signal}: undoing what has been begun; once more ends at once");
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(wait).context("waiting for signals")?;
        Ok(held)
    }

    /// From here on there is something to undo. Until here a signal ends us.
    pub fn begin(&self) -> Interrupt {
        self.begun.store(true, Ordering::Relaxed);
        self.interrupt.clone()
    }
}
