//! Netlink sockets: port id, groups, options. What the kernel keeps elsewhere under a port id is
//! refused where it can be seen.

use super::description::Description;
use super::socket_options::Defaults;
use crate::blockers::{Found, failed, refused};
use crate::options::CollectOptions;
use crate::spaces::Spaces;
use nix::errno::Errno;
use snap_error::obstacle::SocketObstacle;
use snap_state::{FileKindV1, NetlinkSocketV1, Pid, RebindV1};
use snap_sys::{audit, fdquery, netns, proc};
use std::os::fd::{AsFd, BorrowedFd};

const SO_PROTOCOL: i32 = 38;
const LIST_MEMBERSHIPS: i32 = 9;
const NETLINK_CONNECTOR: i32 = 11;
/// By number; a gap is one that no kernel of today has.
const NAMES: [&str; 23] = [
    "ROUTE",
    "1",
    "USERSOCK",
    "FIREWALL",
    "SOCK_DIAG",
    "NFLOG",
    "XFRM",
    "SELINUX",
    "ISCSI",
    "AUDIT",
    "FIB_LOOKUP",
    "CONNECTOR",
    "NETFILTER",
    "IP6_FW",
    "DNRTMSG",
    "KOBJECT_UEVENT",
    "GENERIC",
    "17",
    "SCSITRANSPORT",
    "ECRYPTFS",
    "RDMA",
    "CRYPTO",
    "SMC",
];

/// What all netlink sockets of the tree need.
#[derive(Debug)]
pub(super) struct NetlinkSockets<'a> {
    options: &'a CollectOptions,
    spaces: &'a Spaces,
    defaults: Defaults<'a>,
}

impl<'a> NetlinkSockets<'a> {
    pub fn new(spaces: &'a Spaces, options: &'a CollectOptions) -> Self {
        Self { options, spaces, defaults: Defaults::new(spaces) }
    }

    /// One netlink socket.
    pub fn collect(&mut self, file: &Description, fd: BorrowedFd<'_>) -> Found<FileKindV1> {
        let fail = |step| failed(step, file.pid, file.fd);
        let ask = |name| fdquery::socket_int(fd, libc::SOL_SOCKET, name).map_err(fail("getsockopt"));
        let (socket_type, protocol) = (ask(libc::SO_TYPE)?, ask(SO_PROTOCOL)?);
        let address = fdquery::socket_address(fd, false).map_err(fail("getsockname"))?;
        let events = fdquery::poll_now(fd, libc::POLLIN).map_err(fail("poll"))?;
        if events & (libc::POLLIN | libc::POLLERR) != 0 {
            let protocol = NAMES.get(protocol as usize).copied().unwrap_or("unknown");
            return refused(SocketObstacle::NetlinkUnread { protocol });
        }
        let given =
            self.options.activation.iter().find(|s| s.address == address && s.socket_type == socket_type);
        if let Some(given) = given {
            let name = given.name.clone();
            return Ok(FileKindV1::Rebind(RebindV1::Activation { address, socket_type, name }));
        }
        let port = port_of(&address);
        let groups = groups(file, fd)?;
        self.inspect_registrations(file.pid, protocol, port, &groups)?;
        let remote = fdquery::socket_address(fd, true).map_err(fail("getpeername"))?;
        let remote = Some(remote).filter(|remote| remote.get(4..12).is_some_and(|peer| peer != [0; 8]));
        let kind = (libc::AF_NETLINK, socket_type, protocol);
        let options = self.defaults.changed((file.pid, file.fd), fd, kind)?;
        Ok(FileKindV1::Netlink(NetlinkSocketV1 { socket_type, protocol, port, groups, remote, options }))
    }

    /// What parts of the kernel remember of this socket and forget with it.
    fn inspect_registrations(&self, pid: Pid, protocol: i32, port: u32, groups: &[u32]) -> Found<()> {
        match protocol {
            NETLINK_CONNECTOR if !groups.is_empty() => refused(SocketObstacle::NetlinkConnector),
            libc::NETLINK_NETFILTER => {
                for (list, source) in [("nfnetlink_queue", "queue"), ("nfnetlink_log", "log")] {
                    let text = proc::read(self.spaces.main, &format!("net/netfilter/{list}"));
                    if registered(&String::from_utf8_lossy(&text.unwrap_or_default()), port) {
                        return refused(SocketObstacle::NetlinkNetfilter { source });
                    }
                }
                Ok(())
            }
            libc::NETLINK_AUDIT => {
                // Only in the first user namespace anybody can be the audit daemon, and only there
                // we can ask.
                let socket = netns::socket(self.spaces.net(), libc::AF_NETLINK, libc::SOCK_RAW, protocol);
                let daemon = socket.and_then(|socket| audit::daemon(socket.as_fd()));
                match daemon {
                    Ok(daemon) if daemon == pid => refused(SocketObstacle::NetlinkAudit),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// `nl_pid` of a `sockaddr_nl`.
fn port_of(address: &[u8]) -> u32 {
    address.get(4..8).and_then(|port| port.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A bitmap, group 1 in the lowest bit.
fn groups(file: &Description, fd: BorrowedFd<'_>) -> Found<Vec<u32>> {
    let bits = match fdquery::socket_option(fd, libc::SOL_NETLINK, LIST_MEMBERSHIPS) {
        Ok(bits) => bits,
        Err(e) => return Err(failed("NETLINK_LIST_MEMBERSHIPS", file.pid, file.fd)(e).into()),
    };
    if bits.len() > fdquery::OPTION_BYTES {
        return Err(failed("NETLINK_LIST_MEMBERSHIPS", file.pid, file.fd)(Errno::E2BIG).into());
    }
    let is_set = |bit: &u32| bits[*bit as usize / 8] & 1 << (bit % 8) != 0;
    Ok((0..bits.len() as u32 * 8).filter(is_set).map(|bit| bit + 1).collect())
}

/// The second word of a line is the port id of who takes the packets.
fn registered(list: &str, port: u32) -> bool {
    let taker = |line: &str| line.split_whitespace().nth(1)?.parse::<u32>().ok();
    port != 0 && list.lines().any(|line| taker(line) == Some(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taker_of_a_queue_is_found_by_port() {
        let list = "    3  77120     0 2 65531     0     0        0  1\n";
        assert!(registered(list, 77120));
        assert!(!registered(list, 3));
        assert!(!registered(list, 0));
    }
}
