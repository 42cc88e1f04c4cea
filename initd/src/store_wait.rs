//! A store on a file system of its own may not be mounted yet when initd starts, or never be.
//!
//! initd is not ordered behind the mount: systemd waits for a disk that is missing for a minute and a half, and so would
//! every service whose shim asks. It waits here, for as long as nobody asks; then a boot has no more than a moment, which counts from
//! when udev has nothing more to do: until then a disk that is there may not have been seen.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use image_store::Store;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// From the first question on, or from when all devices are known. Longer than a mount takes that is under way, shorter than what
/// would be noticed.
const PATIENCE: Duration = Duration::from_millis(800);
/// Longest for devices to become known.
const DEVICES_BOUND: Duration = Duration::from_secs(10);
/// How often it is looked whether they are.
const LOOK_AROUND: Duration = Duration::from_millis(50);
/// There as long as udev has events to work off (udev(7)); containers have no udev.
const UDEV_QUEUE: &str = "/run/udev/queue";

/// Whether the store has a catalogue, at the latest when somebody has been waiting for [`PATIENCE`] on `listener`.
///
/// # Errors
/// /proc is not there; poll(2) fails.
pub fn wait_for_catalogue(store: &Store, listener: impl AsFd) -> io::Result<bool> {
    wait(store, listener, || Path::new(UDEV_QUEUE).exists())
}

fn wait(store: &Store, listener: impl AsFd, is_busy: impl Fn() -> bool) -> io::Result<bool> {
    let is_there = || store.catalogue_path().exists();
    if is_there() {
        return Ok(true);
    }
    // It is ready for "priority" events whenever something was mounted since it was opened or last asked.
    let mounts = File::open("/proc/self/mountinfo")?;
    let mut asked: Option<Asked> = None;
    while !is_there() {
        let timeout = match &mut asked {
            None => PollTimeout::NONE,
            Some(asked) => {
                if is_busy() && asked.first.elapsed() < DEVICES_BOUND {
                    asked.quiet_since = Instant::now();
                }
                let left = PATIENCE.saturating_sub(asked.quiet_since.elapsed());
                if left.is_zero() {
                    return Ok(false);
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
            asked = Some(Asked { first: Instant::now(), quiet_since: Instant::now() });
        }
    }
    Ok(true)
}

/// Since when somebody has been waiting.
struct Asked {
    first: Instant,
    /// All devices have been known since then.
    quiet_since: Instant,
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
        assert!(!wait_for_catalogue(&Store::open(dir.path().join("store")), &listener).unwrap());
        assert!((PATIENCE..PATIENCE + Duration::from_secs(1)).contains(&began.elapsed()));
    }

    #[test]
    fn as_long_as_devices_are_being_found_the_disk_may_still_come() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let began = Instant::now();
        let busy_for = Duration::from_millis(600);
        let store = Store::open(dir.path().join("store"));
        assert!(!wait(&store, &listener, || began.elapsed() < busy_for).unwrap());
        assert!(began.elapsed() >= busy_for + PATIENCE - LOOK_AROUND);
    }

    #[test]
    fn a_store_that_is_there_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        std::fs::write(dir.path().join("catalogue.json"), "").unwrap();
        assert!(wait_for_catalogue(&Store::open(dir.path()), &listener).unwrap());
    }
}
