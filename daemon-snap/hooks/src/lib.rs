//! How a service hears that fastboot takes its image, and that it was restored from one, so that it
//! can drop before what cannot be carried or must not be repeated (connections, keys, caches) and
//! get it back after.
//!
//! The protocol is described in `fastboot-hooks.h`. Without fastboot nothing ever arrives.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// What is about to happen, or has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The image is taken as soon as this is answered: drop what cannot be carried.
    BeforeSnapshot,
    /// The image has been taken, or not: get it back.
    AfterSnapshot,
    /// This is another boot: get it back.
    AfterRestore,
}

/// The service's end. While it lives, fastboot finds this process.
#[derive(Debug)]
pub struct Hooks {
    ours: UnixDatagram,
    /// fastboot duplicates it from outside.
    _theirs: UnixDatagram,
    /// Says which one it is.
    _name: File,
}

impl Hooks {
    /// Ask to be told; before the service says that it is ready.
    ///
    /// # Errors
    /// No descriptors or no memory.
    pub fn open() -> io::Result<Hooks> {
        let (ours, theirs) = UnixDatagram::pair()?;
        ours.set_nonblocking(true)?;
        let mut name = File::from(memfd_create("fastboot-hooks", MFdFlags::MFD_CLOEXEC)?);
        writeln!(name, "{}", theirs.as_raw_fd())?;
        Ok(Hooks { ours, _theirs: theirs, _name: name })
    }

    /// The next event, `None` when there is none. Each has to be [answered](Hooks::done) within ten
    /// seconds.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn next_event(&self) -> io::Result<Option<Event>> {
        let mut text = [0; 32];
        let len = match self.ours.recv(&mut text) {
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(match &text[..len] {
            b"before-snapshot" => Some(Event::BeforeSnapshot),
            b"after-snapshot" => Some(Event::AfterSnapshot),
            b"after-restore" => Some(Event::AfterRestore),
            _ => None,
        })
    }

    /// Answer. After `Err` no image is taken, or the service is started cold instead.
    ///
    /// # Errors
    /// Those of `send(2)`.
    pub fn done(&self, result: Result<(), &str>) -> io::Result<()> {
        let answer = result.err().unwrap_or("ok");
        self.ours.send(answer.as_bytes()).map(drop)
    }
}

/// For poll(2): readable when there is an event.
impl AsFd for Hooks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}
