//! The name on the bus that systemd waits for (`Type=dbus`, `BusName=`).
//!
//! systemd takes the unit for started when somebody has the name, and for ended when nobody has it
//! any more; a start that fails between the two would not become a cold one. So the name is claimed
//! last of all: the processes run, their other names are theirs, hooks have been called. The daemon
//! reads its connection by then. It is not told of an answer that it did not ask for: the bus is
//! asked not to give any, and somebody else asks who has the name now. What the daemon hears is
//! that it has acquired a name that it has.
//!
//! A daemon that is in the middle of writing a message just then, because that did not fit into the
//! socket, cannot be seen from outside; the bus ends its connection.

use image_store::ReasonCode;
use nix::sys::socket::{MsgFlags, send};
use snap_bus::{BusStream, DRIVER, body, driver_call_without_reply};
use snap_error::{Error, Result};
use snap_state::{BusConnectionV1, BusNameV1};
use snap_sys as sys;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Longest until the bus has done what it was asked.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);
/// Of the patience: what the bus is left for its last answer.
const LAST_ANSWER: Duration = Duration::from_millis(100);
/// Any will do for a call that nobody answers.
const SERIAL: u32 = u32::MAX;

/// What the name is claimed with.
#[derive(Debug)]
pub struct Claim {
    /// The daemon's connection.
    pub connection: OwnedFd,
    /// One of our own, on which nobody has spoken yet.
    pub own: OwnedFd,
    pub wanted: Wanted,
}

/// What is claimed, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    /// Of RequestName.
    pub flags: u32,
    /// Unique name of the daemon's connection.
    pub unique_name: String,
}

impl Claim {
    /// `connection`: as it was, and a descriptor of it; made where its address leads to the bus.
    ///
    /// # Errors
    /// `Stale`: there is no bus.
    pub fn prepare(
        connection: OwnedFd,
        recorded: &BusConnectionV1,
        name: &BusNameV1,
        unique_name: String,
    ) -> Result<Self> {
        let own = sys::rebuild::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)
            .map_err(|e| Error::kernel("socket", "bus", e))?;
        sys::rebuild::connect(own.as_fd(), &sys::rebuild::unix_address(&recorded.address)).map_err(|e| {
            let sentence = format!("the system bus cannot be reached ({})", e.desc());
            Error::stale(ReasonCode::BusUnavailable, sentence)
        })?;
        let wanted = Wanted { name: name.name.clone(), flags: name.flags, unique_name };
        Ok(Self { connection, own, wanted })
    }

    /// Claims the name. Nothing that can fail may follow.
    ///
    /// # Errors
    /// `Stale`: the name belongs to somebody else, or the bus does not give it.
    pub fn make(self, deadline: Instant) -> Result<()> {
        let Wanted { name, flags, unique_name } = &self.wanted;
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let mut stream = BusStream::new(self.own, deadline);
        stream.greet()?;
        let stale = |sentence: String| Err(Error::stale(ReasonCode::BusRefused, sentence));
        let call = driver_call_without_reply(SERIAL, DRIVER, "RequestName", &(name, flags))?;
        let how = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        // One write: the message stays whole whatever the daemon itself sends.
        match send(self.connection.as_raw_fd(), &call, how) {
            Ok(sent) if sent == call.len() => {}
            Ok(_) => return stale(format!("{name} could be asked for in part only")),
            Err(e) => return Err(Error::kernel("send", "bus connection", e)),
        }
        loop {
            let serial = stream.call(DRIVER, "GetNameOwner", name)?;
            let (reply, _) = stream.any_reply(serial, "GetNameOwner")?;
            // An error: nobody has it yet.
            match body::<String>(&reply) {
                Ok(owner) if owner == *unique_name => return Ok(()),
                Ok(owner) if owner.starts_with(':') => {
                    return stale(format!("bus name {name} belongs to somebody else"));
                }
                _ if Instant::now() + LAST_ANSWER >= deadline => {
                    return stale(format!("RequestName: the bus does not give {name} to it"));
                }
                _ => std::thread::sleep(PAUSE),
            }
        }
    }
}
