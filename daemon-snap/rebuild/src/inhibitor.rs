//! Inhibitors of logind: asked for again by the process that had them, over a connection to the bus
//! that ends with the question. logind wants to know a living process, so it cannot be done
//! beforehand. When the process ends, the inhibitor does.

use super::desk::Desk;
use super::stand_in::as_user;
use image_store::ReasonCode;
use snap_bus::{BusStream, SYSTEM_BUS};
use snap_error::{Error, Result};
use snap_state::{FileKindV1, FileV1, InhibitorV1, ProcessV1, TreeV1};
use snap_sys as sys;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Longest that bus and logind may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The inhibitor that a description is.
pub fn inhibitor(file: Option<&FileV1>) -> Option<(&FileV1, &InhibitorV1)> {
    match file.map(|file| (file, &file.kind)) {
        Some((file, FileKindV1::Inhibitor(inhibitor))) => Some((file, inhibitor)),
        _ => None,
    }
}

/// Takes what this process had, and puts it under its numbers. Called in it, while it still may
/// become any user.
///
/// # Errors
/// `Stale`: the bus or logind does not answer, or logind refuses.
pub fn place_inhibitors(desk: &Desk, tree: &TreeV1, process: &ProcessV1, deadline: Instant) -> Result<()> {
    let mut taken: Vec<(snap_state::FileId, OwnedFd)> = Vec::new();
    for fd in &process.fds {
        let Some((file, wanted)) = inhibitor(tree.files.get(fd.file.0 as usize)) else { continue };
        if !taken.iter().any(|(id, _)| *id == file.id) {
            let made = desk.raise(take(wanted, process, deadline)?)?;
            super::status_flags::set_status_flags(&made, file)?;
            taken.push((file.id, made));
        }
        if let Some((_, made)) = taken.iter().find(|(id, _)| *id == file.id) {
            sys::rebuild::place(made.as_fd(), fd.fd.0, fd.cloexec)
                .map_err(|e| Error::kernel("dup3", fd.fd, e))?;
        }
    }
    Ok(())
}

fn take(wanted: &InhibitorV1, process: &ProcessV1, deadline: Instant) -> Result<OwnedFd> {
    let creds = process.threads.first().map(|thread| &thread.creds);
    let creds = creds.ok_or_else(|| Error::Corrupt(format!("process {} has no threads", process.pid)))?;
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
