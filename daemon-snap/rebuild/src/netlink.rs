//! Netlink sockets with their port ids and groups.

use super::kind::{Context, Kind};
use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{FileId, FileV1, NetlinkSocketV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

const ADD_MEMBERSHIP: i32 = 1;

impl Kind for NetlinkSocketV1 {
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        rebuild_netlink(file.id, self).map(Some)
    }
}

/// In this order: what is told about messages first, then who hears them.
fn rebuild_netlink(id: FileId, socket: &NetlinkSocketV1) -> Result<OwnedFd> {
    let failed = |step| move |e| Error::kernel(step, format!("open file {id} (netlink)"), e);
    let fd =
        sys::rebuild::socket(libc::AF_NETLINK, socket.socket_type, socket.protocol).map_err(|e| match e {
            Errno::EPROTONOSUPPORT => Error::stale(
                ReasonCode::HostUnsupported,
                format!("this kernel has no netlink protocol {}", socket.protocol),
            ),
            e => failed("socket")(e),
        })?;
    super::socket_options::set_options(id, &fd, &socket.options)?;
    if socket.port != 0 {
        // struct sockaddr_nl: family, pad, port, groups.
        let mut address = (libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
        address.extend_from_slice(&[0; 2]);
        address.extend_from_slice(&socket.port.to_ne_bytes());
        address.extend_from_slice(&[0; 4]);
        sys::rebuild::bind(fd.as_fd(), &address).map_err(|e| match e {
            Errno::EADDRINUSE => {
                Error::stale(ReasonCode::AddressTaken, format!("netlink port {} is in use", socket.port))
            }
            e => failed("bind")(e),
        })?;
    }
    for group in &socket.groups {
        sys::rebuild::set_socket_option(fd.as_fd(), libc::SOL_NETLINK, ADD_MEMBERSHIP, &group.to_ne_bytes())
            .map_err(failed("NETLINK_ADD_MEMBERSHIP"))?;
    }
    if let Some(remote) = &socket.remote {
        sys::rebuild::connect(fd.as_fd(), remote).map_err(failed("connect"))?;
    }
    Ok(fd)
}
