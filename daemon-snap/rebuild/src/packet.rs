//! Packet sockets with their memberships.

use super::interface::Indices;
use super::kind::{Context, Kind};
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{FileId, FileV1, PacketSocketV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

const PACKET_ADD_MEMBERSHIP: i32 = 1;
const PACKET_FANOUT: i32 = 18;
/// `mr_address` of `struct packet_mreq`.
const ADDRESS_BYTES: usize = 8;

impl Kind for PacketSocketV1 {
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        rebuild_packet(file.id, self).map(Some)
    }
}

/// It hears nothing until it is bound, and then only what its filter lets through.
fn rebuild_packet(id: FileId, socket: &PacketSocketV1) -> Result<OwnedFd> {
    let failed = |step| move |e| Error::kernel(step, format!("open file {id} (packet)"), e);
    let fd = sys::rebuild::socket(libc::AF_PACKET, socket.socket_type, 0).map_err(failed("socket"))?;
    let indices = Indices::of(fd.as_fd(), &socket.interfaces)?;
    super::socket_options::set_options(id, &fd, &socket.options)?;
    // struct sockaddr_ll: family, protocol, interface, hardware type, packet type, length and bytes
    // of an address.
    let mut address = (libc::AF_PACKET as u16).to_ne_bytes().to_vec();
    address.extend_from_slice(&socket.protocol.to_be_bytes());
    address.extend_from_slice(&indices.today(socket.interface)?.to_ne_bytes());
    address.extend_from_slice(&[0; 12]);
    match sys::rebuild::bind(fd.as_fd(), &address) {
        // An interface that is down: it is bound all the same, and hears of it when it goes up.
        Ok(()) | Err(Errno::ENETDOWN) => {}
        Err(e) => return Err(failed("bind")(e)),
    }
    for membership in &socket.memberships {
        let mut request = indices.today(membership.interface)?.to_ne_bytes().to_vec();
        request.extend_from_slice(&membership.kind.to_ne_bytes());
        request.extend_from_slice(&(membership.address.len() as u16).to_ne_bytes());
        request.extend_from_slice(&membership.address);
        request.resize(8 + ADDRESS_BYTES, 0);
        for _ in 0..membership.count {
            sys::rebuild::set_socket_option(fd.as_fd(), libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request)
                .map_err(failed("PACKET_ADD_MEMBERSHIP"))?;
        }
    }
    if let Some(fanout) = socket.fanout {
        sys::rebuild::set_socket_option(fd.as_fd(), libc::SOL_PACKET, PACKET_FANOUT, &fanout.to_ne_bytes())
            .map_err(failed("PACKET_FANOUT"))?;
    }
    Ok(fd)
}
