//! TCP and UDP sockets over IPv4 and IPv6: listeners and unconnected or datagram sockets.

use crate::error::{Error, Result};
use crate::state::{FileId, InetSocketV1};
use crate::sys;
use image_store::ReasonCode;
use nix::errno::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Same options, address, backlog.
///
/// # Errors
/// `Stale`: the address is not there or taken.
pub fn rebuild_inet(id: FileId, socket: &InetSocketV1) -> Result<OwnedFd> {
    let fd = sys::rebuild::socket(socket.family, socket.socket_type, socket.protocol)
        .map_err(|e| Error::kernel("socket", id, e))?;
    for option in &socket.options {
        sys::rebuild::restore_option(fd.as_fd(), option.level, option.name, &option.value).map_err(|e| {
            Error::kernel(
                "setsockopt",
                format!("open file {id} level {} name {}", option.level, option.name),
                e,
            )
        })?;
    }
    if let Some(local) = &socket.local {
        bind(id, socket, &fd, local)?;
    }
    if let Some(remote) = &socket.remote {
        sys::rebuild::connect(fd.as_fd(), remote)
            .map_err(|e| Error::kernel("connect", format!("open file {id} {}", show(remote)), e))?;
    }
    if let Some(backlog) = socket.listen_backlog {
        sys::rebuild::listen(fd.as_fd(), backlog).map_err(|e| Error::kernel("listen", id, e))?;
    }
    Ok(fd)
}

/// Old connections in TIME_WAIT must not keep a listener from its port, so the address is reused even where the daemon
/// did not ask for it; its own setting comes back after the bind.
fn bind(id: FileId, socket: &InetSocketV1, fd: &OwnedFd, local: &[u8]) -> Result<()> {
    let listener = socket.listen_backlog.is_some();
    let reuse = |on: i32| {
        sys::rebuild::set_socket_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &on.to_ne_bytes())
            .map_err(|e| Error::kernel("SO_REUSEADDR", id, e))
    };
    let recorded = socket
        .options
        .iter()
        .find(|o| o.level == libc::SOL_SOCKET && o.name == libc::SO_REUSEADDR)
        .is_some_and(|o| o.value.first() == Some(&1));
    if listener && !recorded {
        reuse(1)?;
    }
    sys::rebuild::bind(fd.as_fd(), local).map_err(|e| match e {
        Errno::EADDRINUSE => {
            Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", show(local)))
        }
        Errno::EADDRNOTAVAIL => {
            Error::stale(ReasonCode::AddressMissing, format!("address {} does not exist yet", show(local)))
        }
        e => Error::kernel("bind", show(local), e),
    })?;
    if listener && !recorded {
        reuse(0)?;
    }
    Ok(())
}

/// An address for messages.
pub fn show(address: &[u8]) -> String {
    let port = address.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    match (address.first(), address.len()) {
        (Some(2), 8..) => {
            let ip = <[u8; 4]>::try_from(&address[4..8]).unwrap_or_default();
            format!("{}:{port}", std::net::Ipv4Addr::from(ip))
        }
        (Some(10), 24..) => {
            let ip = <[u8; 16]>::try_from(&address[8..24]).unwrap_or_default();
            format!("[{}]:{port}", std::net::Ipv6Addr::from(ip))
        }
        _ => "of unknown family".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_people_write_them() {
        assert_eq!(show(&[2, 0, 0, 80, 127, 0, 0, 1]), "127.0.0.1:80");
        let mut six = vec![10, 0, 0x1f, 0x90, 0, 0, 0, 0];
        six.extend_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
        assert_eq!(show(&six), "[::1]:8080");
    }
}
