//! Descriptors of objects of today: what systemd gave to this start takes the place of what it gave
//! to the recorded one.

use super::context::UnitContext;
use super::kind::{Context, Kind};
use image_store::ReasonCode;
use nix::sys::stat::fstat;
use snap_error::{Error, Result};
use snap_state::FIFO;
use snap_state::{FileV1, Pid, RebindV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

impl Kind for RebindV1 {
    fn sets_flags(&self) -> bool {
        matches!(self, Self::Init)
    }

    fn make(&self, file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        rebind(self, file, cx.today.unit).map(Some)
    }
}

fn rebind(what: &RebindV1, file: &FileV1, unit: Option<&UnitContext>) -> Result<OwnedFd> {
    let Some(unit) = unit else {
        return Err(Error::stale(
            ReasonCode::HostUnsupported,
            "the image belongs to a systemd unit and can only be restored by it",
        ));
    };
    match what {
        RebindV1::JournalStream { stdio } => {
            unit.stdio[*stdio as usize].try_clone().map_err(|e| Error::io("dup", "standard output", &e))
        }
        RebindV1::Init => sys::pidfd::open_with(Pid(1), file.flags & sys::pidfd::OPEN_FLAGS)
            .map_err(|e| Error::kernel("pidfd_open", "PID 1", e)),
        RebindV1::Activation { address, socket_type, name } => {
            let own = |fd: &OwnedFd| sys::rebuild::own_address(fd.as_fd()).unwrap_or_default();
            let family = family_of(address);
            let wanted = match i32::from(family) {
                libc::AF_UNIX => sys::rebuild::unix_address(address),
                _ => address.clone(),
            };
            let by_address = unit.listen_fds.iter().find(|(_, fd)| own(fd) == wanted);
            // A port that the kernel chose, of netlink too, is another one in each boot.
            let is_fifo =
                |fd: &OwnedFd| fstat(fd).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFIFO);
            let alike = |fd: &OwnedFd| {
                if *socket_type == FIFO {
                    return is_fifo(fd);
                }
                let kind = sys::fdquery::socket_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE);
                own(fd).starts_with(&family.to_ne_bytes()) && kind == Ok(*socket_type)
            };
            let by_name = |(n, fd): &&(String, OwnedFd)| Some(n) == name.as_ref() && alike(fd);
            let found = by_address.or_else(|| unit.listen_fds.iter().find(by_name));
            let (_, fd) = found.ok_or_else(|| {
                Error::stale(
                    ReasonCode::AddressMissing,
                    format!("no activation socket for {}", name.as_deref().unwrap_or("an address")),
                )
            })?;
            fd.try_clone().map_err(|e| Error::io("dup", "activation socket", &e))
        }
    }
}

/// The family of an address as it was recorded: a name of a unix socket, or `sockaddr` bytes.
fn family_of(address: &[u8]) -> u16 {
    let known = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_VSOCK].map(|family| family as u16);
    let family = address.first_chunk::<2>().map(|family| u16::from_ne_bytes(*family));
    family.filter(|family| known.contains(family)).unwrap_or(libc::AF_UNIX as u16)
}
