//! Packet sockets: options and address by asking the socket, memberships and rings by sock_diag.

use super::description::Description;
use super::interface::Interfaces;
use super::socket_options::Defaults;
use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use nix::errno::Errno;
use snap_error::obstacle::{SocketKind, SocketObstacle};
use snap_error::{Error, Result};
use snap_state::{FileKindV1, PacketSocketV1};
use snap_sys::sock_diag::{self, PacketDiag};
use snap_sys::{fdquery, netns};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

const PACKET_FANOUT: i32 = 18;
/// PACKET_FANOUT_CBPF and PACKET_FANOUT_EBPF: their program cannot be read.
const FANOUT_BY_PROGRAM: [u32; 2] = [6, 7];

/// What all packet sockets of the tree need.
#[derive(Debug)]
pub(super) struct PacketSockets<'a> {
    spaces: &'a Spaces,
    defaults: Defaults<'a>,
    /// Asked once; `None` when the kernel does not tell.
    table: Option<Option<HashMap<u32, PacketDiag>>>,
}

impl<'a> PacketSockets<'a> {
    pub fn new(spaces: &'a Spaces) -> Self {
        Self { spaces, defaults: Defaults::new(spaces), table: None }
    }

    /// One packet socket. Frames that nobody has read yet are dropped: they are of the network of
    /// then.
    pub fn collect(&mut self, file: &Description, fd: BorrowedFd<'_>) -> Found<FileKindV1> {
        let fail = |step| failed(step, file.pid, file.fd);
        let socket_type =
            fdquery::socket_int(fd, libc::SOL_SOCKET, libc::SO_TYPE).map_err(fail("SO_TYPE"))?;
        if !matches!(socket_type, libc::SOCK_RAW | libc::SOCK_DGRAM) {
            return refused(SocketObstacle::PacketObsolete);
        }
        let Some(table) = self.table()? else {
            return refused(SocketObstacle::PacketUntold);
        };
        let Some(diag) = table.get(&(file.ino as u32)).cloned() else {
            return refused(SocketObstacle::OtherNamespace { kind: SocketKind::Packet });
        };
        if diag.ring {
            return refused(SocketObstacle::PacketRing);
        }
        let fanout =
            fdquery::socket_int(fd, libc::SOL_PACKET, PACKET_FANOUT).map_err(fail("PACKET_FANOUT"))?;
        let fanout = Some(fanout as u32).filter(|fanout| *fanout != 0);
        if fanout.is_some_and(|fanout| FANOUT_BY_PROGRAM.contains(&(fanout >> 16 & 0xff))) {
            return refused(SocketObstacle::PacketFanoutProgram);
        }
        // struct sockaddr_ll: family, protocol, interface.
        let address = fdquery::socket_address(fd, false).map_err(fail("getsockname"))?;
        let Some(&[_, _, high, low, a, b, c, d]) = address.first_chunk::<8>() else {
            return Err(fail("getsockname")(Errno::EINVAL).into());
        };
        let (protocol, interface) = (u16::from_be_bytes([high, low]), u32::from_ne_bytes([a, b, c, d]));
        let mut interfaces = Interfaces::of(file, fd);
        interfaces.note(interface)?;
        diag.memberships.iter().try_for_each(|membership| interfaces.note(membership.interface))?;
        let options = self.defaults.changed((file.pid, file.fd), fd, (libc::AF_PACKET, socket_type, 0))?;
        Ok(FileKindV1::Packet(PacketSocketV1 {
            socket_type,
            protocol,
            interface,
            memberships: diag.memberships,
            fanout,
            options,
            interfaces: interfaces.into_list(),
        }))
    }

    fn table(&mut self) -> Result<Option<&HashMap<u32, PacketDiag>>> {
        if self.table.is_none() {
            let fail = |e| Error::kernel("ask for packet sockets", "sock_diag", e);
            let (kind, protocol) = (libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG);
            let netlink = netns::socket(self.spaces.net(), libc::AF_NETLINK, kind, protocol).map_err(fail)?;
            self.table = Some(match sock_diag::packet_sockets(netlink.as_fd()) {
                Ok(table) => Some(table),
                Err(Errno::ENOENT) => None,
                Err(e) => return Err(fail(e)),
            });
        }
        Ok(self.table.iter().flatten().next())
    }
}
