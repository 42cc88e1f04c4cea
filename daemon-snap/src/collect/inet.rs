//! TCP and UDP: listeners and sockets that are not connected.

use super::file::Description;
use super::socket_options::{Defaults, has_filter};
use super::{CollectOptions, Found, failed, refused};
use crate::inspect::Spaces;
use crate::state::{FileKindV1, InetSocketV1, RebindV1};
use crate::sys::fdquery;
use nix::errno::Errno;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;
const IPPROTO_MPTCP: i32 = 262;
const IPPROTO_UDPLITE: i32 = 136;
const TCP_ULP: i32 = 31;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// Names of TCP states by number, for those that we refuse.
const STATES: [&str; 13] = [
    "",
    "established",
    "connecting",
    "half-open",
    "closing",
    "closing",
    "closing",
    "",
    "half-closed",
    "closing",
    "",
    "closing",
    "half-open",
];

/// What all internet sockets of the tree need.
#[derive(Debug)]
pub(super) struct InetSockets<'a> {
    options: &'a CollectOptions,
    defaults: Defaults<'a>,
}

impl<'a> InetSockets<'a> {
    pub fn new(spaces: &'a Spaces, options: &'a CollectOptions) -> Self {
        Self { options, defaults: Defaults::new(spaces) }
    }

    /// One internet socket.
    pub fn collect(&mut self, file: &Description, fd: BorrowedFd<'_>) -> Found<FileKindV1> {
        let fail = |step| failed(step, file.pid, file.fd);
        let ask = |name| fdquery::socket_int(fd, libc::SOL_SOCKET, name).map_err(fail("getsockopt"));
        let (family, socket_type, protocol) = (ask(SO_DOMAIN)?, ask(libc::SO_TYPE)?, ask(SO_PROTOCOL)?);
        let local = fdquery::socket_address(fd, false).map_err(fail("getsockname"))?;
        let given =
            self.options.activation.iter().find(|s| s.address == local && s.socket_type == socket_type);
        let listening = match (socket_type, protocol) {
            (libc::SOCK_STREAM, libc::IPPROTO_TCP | IPPROTO_MPTCP) => tcp_state(file, fd, given.is_some())?,
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP | IPPROTO_UDPLITE) => None,
            (libc::SOCK_RAW, _) => return refused(format!("a raw socket (protocol {protocol})")),
            _ => return refused(format!("an internet socket of type {socket_type}, protocol {protocol}")),
        };
        if let Some(socket) = given {
            let (address, name) = (local, socket.name.clone());
            return Ok(FileKindV1::Rebind(RebindV1::Activation { address, socket_type, name }));
        }
        if has_filter(fd) {
            return refused("an internet socket with a packet filter");
        }
        let udp = socket_type == libc::SOCK_DGRAM;
        if udp && fdquery::poll_now(fd, libc::POLLIN).map_err(fail("poll"))? & libc::POLLIN != 0 {
            return refused("a UDP socket with unread datagrams");
        }
        let remote = match fdquery::socket_address(fd, true) {
            Ok(remote) if udp => Some(remote),
            Ok(_) | Err(Errno::ENOTCONN) => None,
            Err(e) => return Err(fail("getpeername")(e).into()),
        };
        let options = self.defaults.changed((file.pid, file.fd), fd, (family, socket_type, protocol))?;
        Ok(FileKindV1::Inet(InetSocketV1 {
            family,
            socket_type,
            protocol,
            local: is_bound(&local).then_some(local),
            remote,
            listen_backlog: listening,
            options,
        }))
    }
}

/// Backlog of a listener, `None` for a socket that is not connected; everything else is refused.
fn tcp_state(file: &Description, fd: BorrowedFd<'_>, given: bool) -> Found<Option<u32>> {
    // struct tcp_info starts with the state; tcpi_unacked and tcpi_sacked are queue and backlog of a listener.
    const UNACKED: usize = 24;
    const SACKED: usize = 28;
    let info = fdquery::socket_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO)
        .map_err(failed("TCP_INFO", file.pid, file.fd))?;
    let word = |at: usize| {
        let bytes = info.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).unwrap_or_default()
    };
    if let Ok(ulp) = fdquery::socket_option(fd, libc::IPPROTO_TCP, TCP_ULP)
        && !ulp.is_empty()
    {
        let name = String::from_utf8_lossy(&ulp).trim_end_matches('\0').to_owned();
        return refused(format!("a TCP socket with an upper layer protocol ({name})"));
    }
    match info.first().copied().unwrap_or_default() {
        TCP_CLOSE => Ok(None),
        TCP_LISTEN if word(UNACKED) > 0 && !given => refused("a listener with a pending connection"),
        TCP_LISTEN => Ok(Some(word(SACKED))),
        state => {
            let name = STATES.get(usize::from(state)).copied().unwrap_or("connected");
            let peer = fdquery::socket_address(fd, true).ok().and_then(|peer| parse(&peer));
            let to = peer.map_or(String::new(), |peer| format!(" to {peer}"));
            let article = if name.starts_with('e') { "an" } else { "a" };
            refused(format!("{article} {name} TCP connection{to}"))
        }
    }
}

fn is_bound(address: &[u8]) -> bool {
    parse(address).is_some_and(|address| address.port() != 0 || !address.ip().is_unspecified())
}

/// `sockaddr_in` or `sockaddr_in6`.
fn parse(address: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*address.first_chunk()?);
    let port = u16::from_be_bytes(address.get(2..4)?.try_into().ok()?);
    let ip = match i32::from(family) {
        libc::AF_INET => IpAddr::from(<[u8; 4]>::try_from(address.get(4..8)?).ok()?),
        libc::AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(address.get(8..24)?).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_bound_when_port_or_ip_is_set() {
        let v4 = |port: u16, last: u8| {
            let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&port.to_be_bytes());
            bytes.extend_from_slice(&[127, 0, 0, last]);
            bytes.extend_from_slice(&[0; 8]);
            bytes
        };
        assert_eq!(parse(&v4(80, 1)), Some("127.0.0.1:80".parse().unwrap()));
        assert!(is_bound(&v4(80, 1)));
        let mut any = v4(0, 0);
        any[4] = 0;
        assert!(!is_bound(&any));
    }
}
