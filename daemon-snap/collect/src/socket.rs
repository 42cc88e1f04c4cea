//! Sockets, by their family.

use super::description::{Description, Open};
use super::inet::InetSockets;
use super::netlink::NetlinkSockets;
use super::packet::PacketSockets;
use super::unix::UnixSockets;
use super::vsock;
use crate::blockers::{Found, Trouble, failed, refused};
use crate::inode::Inodes;
use crate::spaces::Spaces;
use nix::errno::Errno;
use nix::sys::stat::{fstat, stat};
use snap_error::Result;
use snap_error::obstacle::{SocketKind, SocketObstacle};
use snap_state::FileKindV1;
use snap_sys::{fdquery, netns};
use std::os::fd::BorrowedFd;

/// What the sockets of each family have in common.
pub(super) struct Sockets<'a> {
    pub spaces: &'a Spaces,
    pub unix: UnixSockets<'a>,
    pub inet: InetSockets<'a>,
    pub netlink: NetlinkSockets<'a>,
    pub packet: PacketSockets<'a>,
}

impl Sockets<'_> {
    /// One socket.
    pub fn collect(&mut self, open: Open<'_>, inodes: &mut Inodes<'_>) -> Found<FileKindV1> {
        const SO_DOMAIN: i32 = 39;
        let Open { file, fd, .. } = open;
        let domain = fdquery::socket_int(fd, libc::SOL_SOCKET, SO_DOMAIN)
            .map_err(|e| Trouble::Failed(failed("SO_DOMAIN", file.pid, file.fd)(e)))?;
        if domain != libc::AF_UNIX && !self.is_of_the_tree(file, fd)? {
            return refused(SocketObstacle::OtherNamespace { kind: SocketKind::Any });
        }
        match domain {
            libc::AF_UNIX => self.unix.collect(file, fd, inodes),
            libc::AF_INET | libc::AF_INET6 => self.inet.collect(file, fd),
            libc::AF_NETLINK => self.netlink.collect(file, fd),
            libc::AF_PACKET => self.packet.collect(file, fd),
            libc::AF_VSOCK => vsock::collect(file, fd, self.spaces),
            libc::AF_ALG => refused(SocketObstacle::KernelCrypto),
            libc::AF_BLUETOOTH => refused(SocketObstacle::Bluetooth),
            family => refused(SocketObstacle::Family { family }),
        }
    }

    /// Whether a socket belongs to the network namespace of the tree.
    fn is_of_the_tree(&self, file: &Description, fd: BorrowedFd<'_>) -> Result<bool> {
        let fail = |step| failed(step, file.pid, file.fd);
        let own = stat(format!("/proc/{}/ns/net", self.spaces.main).as_str()).map_err(fail("stat"))?;
        match netns::of_socket(fd) {
            Ok(namespace) => Ok(fstat(&namespace).map_err(fail("stat"))?.st_ino == own.st_ino),
            // Without privilege over a namespace nobody is in another one.
            Err(Errno::EPERM) => Ok(true),
            Err(e) => Err(fail("SIOCGSKNS")(e)),
        }
    }
}
