//! A store on a file system of its own may not be mounted yet when initd starts, or never be.
//!
//! initd is not ordered behind the mount: systemd waits for a disk that is missing for a minute and
//! a half, and so would every service whose shim asks. It waits here, for as long as nobody asks;
//! then a boot has no more than a moment. Where the disk is there and only its mount is still to
//! come, that moment counts from when udev has nothing more to do.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use image_store::Store;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::store_device::{self, Device};

/// From the first question on, or from when udev is done. Longer than a mount takes that is under
/// way, shorter than what would be noticed.
const PATIENCE: Duration = Duration::from_millis(800);
/// Longest for udev to be done with a disk that is there.
const DEVICES_BOUND: Duration = Duration::from_secs(10);
/// How often it is looked whether they are.
const LOOK_AROUND: Duration = Duration::from_millis(50);
/// There as long as udev has events to work off (udev(7)); containers have no udev.
const UDEV_QUEUE: &str = "/run/udev/queue";

/// What became of the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catalogue {
    /// It can be read.
    Found,
    /// It is not there, and services have waited for so long.
    Missing {
        /// From the first question on.
        waited: Duration,
    },
}

/// Wait until the store has a catalogue, and for no longer than a moment once somebody is waiting
/// on `listener`.
///
/// # Errors
/// /proc is not there; poll(2) fails.
pub fn wait_for_catalogue(store: &Store, listener: impl AsFd) -> io::Result<Catalogue> {
    let device = || store_device::look(store.root());
    wait(store, listener, || Path::new(UDEV_QUEUE).exists(), device)
}

fn wait(
    store: &Store,
    listener: impl AsFd,
    is_busy: impl Fn() -> bool,
    device: impl Fn() -> Device,
) -> io::Result<Catalogue> {
    // There may be nothing in it but what was taken at the last shutdown.
    let is_there = || store.catalogue_path().exists() || store.once().is_there();
    if is_there() {
        return Ok(Catalogue::Found);
    }
    // It is ready for "priority" events whenever something was mounted since it was opened or last
    // asked.
    let mounts = File::open("/proc/self/mountinfo")?;
    let mut asked: Option<Asked> = None;
    while !is_there() {
        let timeout = match &mut asked {
            None => PollTimeout::NONE,
            Some(asked) => {
                let waited = asked.first.elapsed();
                // Asked before anything is given up: on a busy machine it may be long since the
                // last time.
                if is_busy() && waited < DEVICES_BOUND {
                    asked.quiet_since = Instant::now();
                }
                let left = PATIENCE.saturating_sub(asked.quiet_since.elapsed());
                if left.is_zero() || waited >= PATIENCE && !asked.may_come(&device) {
                    // Measured before, it may be shorter than what was waited for.
                    return Ok(Catalogue::Missing { waited: asked.first.elapsed() });
                }
                PollTimeout::try_from(left.min(LOOK_AROUND)).unwrap_or(PollTimeout::ZERO)
            }
        };
        let mut ready = vec![PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)];
        if asked.is_none() {
            ready.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut ready, timeout) {
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        if ready.get(1).is_some_and(|listener| listener.any().unwrap_or(false)) {
            let now = Instant::now();
            asked = Some(Asked { first: now, quiet_since: now, may_come: None });
        }
    }
    Ok(Catalogue::Found)
}

/// Since when somebody has been waiting.
struct Asked {
    first: Instant,
    /// udev has had nothing to do since then.
    quiet_since: Instant,
    /// Whether the device was not missing when it was looked for.
    may_come: Option<bool>,
}

impl Asked {
    /// Looked at once, when a moment has passed: it takes a program that reads all disks.
    fn may_come(&mut self, device: impl Fn() -> Device) -> bool {
        *self.may_come.get_or_insert_with(|| device() != Device::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn who_asks_waits_for_a_moment_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let began = Instant::now();
        let store = Store::open(dir.path().join("store"));
        let waited = match wait(&store, &listener, || false, || Device::NotNamed).unwrap() {
            Catalogue::Missing { waited } => waited,
            Catalogue::Found => panic!("there is none"),
        };
        assert!(waited >= PATIENCE && waited <= began.elapsed());
    }

    #[test]
    fn a_disk_that_is_there_is_waited_for_while_devices_are_being_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let began = Instant::now();
        let busy_for = Duration::from_millis(600);
        let store = Store::open(dir.path().join("store"));
        let last = std::cell::Cell::new(began);
        let is_busy = || {
            let is_busy = began.elapsed() < busy_for;
            if is_busy {
                last.set(Instant::now());
            }
            is_busy
        };
        let found = wait(&store, &listener, is_busy, || Device::Known).unwrap();
        assert_ne!(found, Catalogue::Found);
        assert!(last.get() > began && last.get().elapsed() >= PATIENCE);
    }

    #[test]
    fn a_disk_that_is_missing_is_not_waited_for_while_devices_are_being_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let store = Store::open(dir.path().join("store"));
        let looks = std::cell::Cell::new(0);
        let device = || {
            looks.set(looks.get() + 1);
            Device::Missing
        };
        assert_ne!(wait(&store, &listener, || true, device).unwrap(), Catalogue::Found);
        assert_eq!(looks.get(), 1);
    }

    #[test]
    fn a_store_that_is_there_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        std::fs::write(dir.path().join("catalogue.json"), "").unwrap();
        assert_eq!(wait_for_catalogue(&Store::open(dir.path()), &listener).unwrap(), Catalogue::Found);
    }
}
