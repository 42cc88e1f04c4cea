//! Inhibitors of logind: asked for again by the process that had them, over a connection to the bus
//! that ends with the question. logind wants to know a living process, so it cannot be done
//! beforehand. When the process ends, the inhibitor does.

use super::kind::{Birth, Context, Kind};
use super::stand_in::as_user;
use image_store::ReasonCode;
use snap_bus::{BusStream, SYSTEM_BUS};
use snap_error::{Error, Result};
use snap_state::{FileV1, InhibitorV1, Inodes, ProcessV1};
use snap_sys as sys;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Longest that bus and logind may take.
const PATIENCE: Duration = Duration::from_secs(3);

impl Kind for InhibitorV1 {
    /// logind wants a living process.
    fn birth(&self, _: Inodes<'_>) -> Birth {
        Birth::Process
    }

    /// Called while the process still may become any user.
    fn make(&self, _: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        let process = cx.processes.iter().find(|process| process.pid == self.pid);
        let process = process.ok_or_else(|| Error::Internal {
            step: "rebuild",
            message: format!("an inhibitor of process {}, which is not there", self.pid),
        })?;
        take(self, process, cx.today.deadline).map(Some)
    }
}

fn take(wanted: &InhibitorV1, process: &ProcessV1, deadline: Instant) -> Result<OwnedFd> {
    let creds = &process.leader().creds;
    let socket = sys::rebuild::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)
        .map_err(|e| Error::kernel("socket", "inhibitor", e))?;
    let address = sys::rebuild::unix_address(SYSTEM_BUS);
    as_user(wanted.uid, creds.gids[1], &creds.groups, || sys::rebuild::connect(socket.as_fd(), &address))
        .map_err(|e| {
            let sentence = format!("the system bus cannot be reached ({})", e.desc());
            Error::stale(ReasonCode::BusUnavailable, sentence)
        })?;
    let mut stream = BusStream::new(socket.as_fd(), deadline.min(Instant::now() + PATIENCE));
    stream.greet()?;
    let InhibitorV1 { what, who, why, mode, .. } = wanted;
    stream.ask_for_descriptor(
        ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"],
        "Inhibit",
        &(what, who, why, mode),
    )
}
