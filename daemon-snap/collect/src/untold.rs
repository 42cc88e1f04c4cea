//! What an internet socket has and no option of it tells: found by other means, or refused.

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use nix::errno::Errno;
use snap_error::obstacle::SocketObstacle;
use snap_error::{Error, Result};
use snap_state::SocketOptionV1;
use snap_sys::proc::{self, Status};
use snap_sys::{fdquery, netlink, netns, untold};
use std::os::fd::{AsFd, BorrowedFd};

const IPV6_MTU: i32 = 24;
/// IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR, IPV6_DSTOPTS: headers in each packet.
const EXTENSION_HEADERS: [i32; 4] = [54, 55, 57, 59];
const IPV6_RECVPATHMTU: i32 = 60;
const SO_TIMESTAMPING: i32 = 37;
const SO_TIMESTAMPING_NEW: i32 = 65;
const SO_ZEROCOPY: i32 = 60;

/// A socket, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub file: &'a Description,
    pub fd: BorrowedFd<'a>,
    pub family: i32,
}

/// What all sockets of the tree's network namespace are compared with, asked for when it is needed.
#[derive(Debug)]
pub(super) struct Untold<'a> {
    spaces: &'a Spaces,
    flow_labels: Option<Vec<u32>>,
    policies: Option<bool>,
    /// Above which size a new socket divides what it sends to this machine.
    undivided: Option<Option<u32>>,
}

impl<'a> Untold<'a> {
    pub fn new(spaces: &'a Spaces) -> Self {
        Self { spaces, flow_labels: None, policies: None, undivided: None }
    }

    /// What cannot be carried. `options` are those that a new socket does not have; `sends`: it is
    /// connected, or needs no connection.
    pub fn inspect(&mut self, asked: Asked<'_>, options: &[SocketOptionV1], sends: bool) -> Found<()> {
        if sends {
            inspect_counters(options)?;
        }
        if asked.family == libc::AF_INET6 {
            let spaces = self.spaces;
            let labels = self.flow_labels.get_or_insert_with(|| flow_labels(spaces));
            if let Some(&label) = labels.iter().find(|label| untold::has_flow_label(asked.fd, **label)) {
                return refused(SocketObstacle::FlowLabel { label });
            }
        }
        if self.has_policies()? && may_set_policies(asked.file)? {
            return refused(SocketObstacle::IpsecPolicy);
        }
        Ok(())
    }

    /// IPV6_MTU of a bound UDP socket. One that is to hear of the size of a path would hear of this.
    pub fn fragments(&mut self, asked: Asked<'_>) -> Found<Option<SocketOptionV1>> {
        let fail = |step| failed(step, asked.file.pid, asked.file.fd);
        let heard = fdquery::socket_int(asked.fd, libc::IPPROTO_IPV6, IPV6_RECVPATHMTU).unwrap_or_default();
        if asked.family != libc::AF_INET6 || heard != 0 {
            return Ok(None);
        }
        let extra = EXTENSION_HEADERS.iter().map(|name| {
            fdquery::socket_option(asked.fd, libc::IPPROTO_IPV6, *name).map_or(0, |header| header.len())
        });
        let found = untold::fragment_size(asked.fd, extra.sum::<usize>() as u32).map_err(fail("sendmsg"))?;
        let undivided = match self.undivided {
            Some(undivided) => undivided,
            None => {
                let fresh = netns::socket(self.spaces.net(), libc::AF_INET6, libc::SOCK_DGRAM, 0)
                    .map_err(fail("make a socket"))?;
                let undivided = untold::fragment_size(fresh.as_fd(), 0).map_err(fail("sendmsg"))?;
                *self.undivided.insert(undivided)
            }
        };
        let set = found.filter(|_| found != undivided);
        Ok(set.map(|bytes| SocketOptionV1 {
            level: libc::IPPROTO_IPV6,
            name: IPV6_MTU,
            value: (bytes as i32).to_ne_bytes().to_vec(),
        }))
    }

    /// Whether the address that a socket is bound to is none of this machine's: it was bound with
    /// IP_FREEBIND, which was turned off later, or the address has gone since.
    pub fn is_of_nobody(&self, asked: Asked<'_>, local: &[u8]) -> Found<bool> {
        const PORT: std::ops::Range<usize> = 2..4;
        let fail = |step| failed(step, asked.file.pid, asked.file.fd);
        let mut address = local.to_vec();
        let Some(port) = address.get_mut(PORT) else { return Ok(false) };
        port.fill(0);
        let fresh = netns::socket(self.spaces.net(), asked.family, libc::SOCK_DGRAM, 0)
            .map_err(fail("make a socket"))?;
        match snap_sys::rebuild::bind(fresh.as_fd(), &address) {
            Err(Errno::EADDRNOTAVAIL) => Ok(true),
            // An address that is local to a link cannot be bound without its interface, and is not
            // asked for.
            _ => Ok(false),
        }
    }

    /// Whether some socket of the namespace has an IPsec policy of its own (IP_XFRM_POLICY,
    /// IPV6_XFRM_POLICY). They are listed among all others, without their socket.
    fn has_policies(&mut self) -> Result<bool> {
        if let Some(known) = self.policies {
            return Ok(known);
        }
        let known = match socket_policies(self.spaces) {
            Ok(known) => known,
            // A kernel without IPsec, or a namespace that we may not ask.
            Err(
                Errno::EPROTONOSUPPORT
                | Errno::EINVAL
                | Errno::EOPNOTSUPP
                | Errno::EPERM
                | Errno::ECONNREFUSED,
            ) => false,
            Err(e) => return Err(Error::kernel("list", "IPsec policies", e)),
        };
        Ok(*self.policies.insert(known))
    }
}

/// What is sent is counted, so that notices about it can say what they are about, and the count
/// begins with the option.
fn inspect_counters(options: &[SocketOptionV1]) -> Found<()> {
    const OPT_ID: u32 = 1 << 7;
    for option in options.iter().filter(|option| option.level == libc::SOL_SOCKET) {
        let value = option.value.first_chunk::<4>().map_or(0, |value| u32::from_ne_bytes(*value));
        match option.name {
            SO_ZEROCOPY if value != 0 => {
                return refused(SocketObstacle::CountsNotices { option: "SO_ZEROCOPY" });
            }
            SO_TIMESTAMPING | SO_TIMESTAMPING_NEW if value & OPT_ID != 0 => {
                return refused(SocketObstacle::CountsNotices { option: "SO_TIMESTAMPING with OPT_ID" });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Flow labels that somebody in the namespace has leased.
fn flow_labels(spaces: &Spaces) -> Vec<u32> {
    let table = proc::read(spaces.main, "net/ip6_flowlabel").unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let label = |line: &str| u32::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok();
    table.lines().skip(1).filter_map(label).collect()
}

fn socket_policies(spaces: &Spaces) -> std::result::Result<bool, Errno> {
    const XFRM_MSG_GETPOLICY: u16 = 0x15;
    /// struct xfrm_userpolicy_id.
    const REQUEST_BYTES: usize = 64;
    /// Of `dir` in struct xfrm_userpolicy_info.
    const DIRECTION_AT: usize = 160;
    /// Of policies that everybody shares; those of sockets come behind.
    const DIRECTIONS: u8 = 3;
    let socket = netns::socket(spaces.net(), libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_XFRM)?;
    let policies = netlink::list(socket.as_fd(), XFRM_MSG_GETPOLICY, &[0; REQUEST_BYTES])?;
    Ok(policies.iter().any(|policy| policy.body.get(DIRECTION_AT).is_some_and(|at| *at >= DIRECTIONS)))
}

/// Whether the socket's process may have set such a policy.
fn may_set_policies(file: &Description) -> Result<bool> {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    Ok(Status::of(file.pid, file.pid)?.cap_permitted & CAP_NET_ADMIN != 0)
}
