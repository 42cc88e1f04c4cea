//! A service with a key that must not be in an image. SIGUSR1 adds one to a count that exists in
//! memory only; the count and the PID go to the file that COUNT_FILE names, what it heard to
//! `$COUNT_FILE.events`, and the key of today to `$COUNT_FILE.key`.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use fastboot_hooks::{Event, Hooks};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// 16 bytes of the kernel's.
fn fresh_key() -> Result<String> {
    let mut bytes = [0u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn main() -> Result<()> {
    let file = std::env::var("COUNT_FILE")?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let hooks = Hooks::open()?;
    let mut key = Some(fresh_key()?);
    let mut count = 0u32;
    fs::write(format!("{file}.key"), key.as_deref().unwrap_or_default())?;
    loop {
        let mut polled =
            [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(hooks.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::NONE)?;
        while signals.read_signal()?.is_some() {
            count += 1;
            fs::write(&file, format!("{count} {}\n", std::process::id()))?;
            eprintln!("counted {count}");
        }
        if let Some(event) = hooks.next_event()? {
            key = match event {
                Event::BeforeSnapshot => None,
                Event::AfterSnapshot | Event::AfterRestore => Some(fresh_key()?),
            };
            fs::write(format!("{file}.key"), key.as_deref().unwrap_or("dropped"))?;
            // Not kept open: what a service has open for writing when it has answered stands
            // against an image.
            let mut events = OpenOptions::new().append(true).create(true).open(format!("{file}.events"))?;
            writeln!(events, "{event:?}")?;
            drop(events);
            hooks.done(Ok(()))?;
        }
    }
}
