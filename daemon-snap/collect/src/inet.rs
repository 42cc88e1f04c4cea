//! TCP, UDP and raw sockets over IPv4 and IPv6: listeners and sockets that are not connected.

use super::description::Description;
use super::interface::Interfaces;
use super::multicast::Groups;
use super::signing::{SigningKeys, inspect_authentication};
use super::socket_options::Defaults;
use super::tcp::{self, TcpConnections, options_of};
use super::untold::{Asked, Untold};
use crate::blockers::{Found, failed, refused};
use crate::options::CollectOptions;
use crate::spaces::Spaces;
use nix::errno::Errno;
use snap_error::obstacle::SocketObstacle;
use snap_state::{
    FileKindV1, InetSocketV1, LostTcpV1, RebindV1, SocketOptionV1, TcpConnectionV1, TcpEndingV1,
};
use snap_sys::sock_diag::TcpSockets;
use snap_sys::{fdquery, proc};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;
const IPPROTO_MPTCP: i32 = 262;
const IPPROTO_UDPLITE: i32 = 136;
const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;
const TCP_ULP: i32 = 31;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// What all internet sockets of the tree need.
#[derive(Debug)]
pub(super) struct InetSockets<'a> {
    options: &'a CollectOptions,
    spaces: &'a Spaces,
    defaults: Defaults<'a>,
    groups: Groups,
    keys: SigningKeys<'a>,
    untold: Untold<'a>,
    pub connections: TcpConnections,
}

impl<'a> InetSockets<'a> {
    pub fn new(spaces: &'a Spaces, options: &'a CollectOptions) -> Self {
        Self {
            options,
            spaces,
            defaults: Defaults::new(spaces),
            groups: Groups::default(),
            keys: SigningKeys::new(spaces),
            untold: Untold::new(spaces),
            connections: TcpConnections::default(),
        }
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
            (libc::SOCK_STREAM, libc::IPPROTO_TCP | IPPROTO_MPTCP) => {
                match tcp_state(file, fd, given.is_some())? {
                    Tcp::Closed => None,
                    Tcp::Listening(backlog) => Some(backlog),
                    Tcp::Connected(info) if protocol == libc::IPPROTO_TCP => {
                        return self.connection(file, fd, family, info);
                    }
                    Tcp::Connected(_) => return refused(SocketObstacle::MptcpConnection),
                }
            }
            (
                libc::SOCK_DGRAM,
                libc::IPPROTO_UDP | IPPROTO_UDPLITE | libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6,
            ) => None,
            (libc::SOCK_RAW, _) => inspect_raw(self.spaces, fd, family, protocol)?,
            _ => return refused(SocketObstacle::InternetKind { socket_type, protocol }),
        };
        if let Some(socket) = given {
            let (address, name) = (local, socket.name.clone());
            return Ok(FileKindV1::Rebind(RebindV1::Activation { address, socket_type, name }));
        }
        let stream = socket_type == libc::SOCK_STREAM;
        if !stream {
            inspect_queue(file, fd, socket_type)?;
            inspect_unfinished(fd)?;
        }
        let remote = match fdquery::socket_address(fd, true) {
            Ok(remote) if !stream => Some(remote),
            Ok(_) | Err(Errno::ENOTCONN) => None,
            Err(e) => return Err(fail("getpeername")(e).into()),
        };
        let mut options = self.defaults.changed((file.pid, file.fd), fd, (family, socket_type, protocol))?;
        let asked = Asked { file, fd, family };
        self.untold.inspect(asked, &options, !stream)?;
        if protocol == libc::IPPROTO_UDP && is_bound(&local) {
            options.extend(self.untold.fragments(asked)?);
        }
        if is_of_one_machine(&local) && !is_free(&options) && self.untold.is_of_nobody(asked, &local)? {
            let freebind = |on: i32| SocketOptionV1 {
                level: libc::IPPROTO_IP,
                name: libc::IP_FREEBIND,
                value: on.to_ne_bytes().to_vec(),
            };
            options.insert(0, freebind(1));
            options.push(freebind(0));
        }
        let mut interfaces = Interfaces::of(file, fd);
        let closed = stream && listening.is_none();
        if closed {
            let used = segment_bytes(file, fd)?.to_ne_bytes();
            options.retain(|o| (o.level, o.name) != (libc::IPPROTO_TCP, libc::TCP_MAXSEG) || o.value != used);
        }
        let unread = closed && poll_error(file, fd)?;
        let segments = if closed { segments_in(file, fd)? } else { 0 };
        // One segment alone was the answer to connect(2), and it was a refusal.
        if unread && segments <= 1 {
            return refused(SocketObstacle::TcpConnectFailed);
        }
        if closed && segments > 0 && is_over(file, fd)? {
            // The daemon has not read everything, or has not looked yet (a JVM closes such sockets
            // at its next select).
            let ending = if unread { TcpEndingV1::Reset } else { TcpEndingV1::Over };
            let receive_queue = tcp::unread(file, fd)?;
            let mut options = options_of(options, fd);
            options.retain(|option| option.level == libc::SOL_SOCKET);
            return Ok(FileKindV1::LostTcp(LostTcpV1 { family, options, receive_queue, ending }));
        }
        if unread {
            return refused(SocketObstacle::UnreadError);
        }
        if stream {
            inspect_authentication(file, fd)?;
        }
        if listening.is_some() {
            options.extend(self.keys.options_of(file, fd, family, TcpSockets::Listening)?);
        }
        let memberships = match stream {
            true => Vec::new(),
            false => self.groups.joined(self.spaces.main, file, fd, family)?,
        };
        memberships.iter().try_for_each(|membership| interfaces.note(membership.interface))?;
        options.iter().try_for_each(|option| interfaces.note(interface_of(option)))?;
        [Some(&local), remote.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|a| interfaces.note(scope_of(a)))?;
        Ok(FileKindV1::Inet(InetSocketV1 {
            family,
            socket_type,
            protocol,
            local: is_bound(&local).then_some(local),
            remote,
            listen_backlog: listening,
            options,
            memberships,
            interfaces: interfaces.into_list(),
        }))
    }
}

impl InetSockets<'_> {
    /// A connection; which kind of one is found when all are known.
    fn connection(
        &mut self,
        file: &Description,
        fd: BorrowedFd<'_>,
        family: i32,
        info: Vec<u8>,
    ) -> Found<FileKindV1> {
        let fail = |step| failed(step, file.pid, file.fd);
        let kind = (family, libc::SOCK_STREAM, libc::IPPROTO_TCP);
        let options = self.defaults.changed((file.pid, file.fd), fd, kind)?;
        self.untold.inspect(Asked { file, fd, family }, &options, true)?;
        let events = fdquery::poll_now(fd, libc::POLLPRI).map_err(fail("poll"))?;
        if events & libc::POLLPRI != 0 {
            return refused(SocketObstacle::TcpUrgentData);
        }
        let local = fdquery::socket_address(fd, false).map_err(fail("getsockname"))?;
        let remote = fdquery::socket_address(fd, true).unwrap_or_default();
        let mut interfaces = Interfaces::of(file, fd);
        options.iter().try_for_each(|option| interfaces.note(interface_of(option)))?;
        [&local, &remote].into_iter().try_for_each(|address| interfaces.note(scope_of(address)))?;
        let signed = !self.keys.options_of(file, fd, family, TcpSockets::Connected)?.is_empty();
        self.connections.add(file, fd, info, signed)?;
        Ok(FileKindV1::Tcp(TcpConnectionV1 {
            family,
            local,
            remote,
            options: options_of(options, fd),
            interfaces: interfaces.into_list(),
            ..TcpConnectionV1::default()
        }))
    }
}

/// What a raw socket may have beside its options.
fn inspect_raw(spaces: &Spaces, fd: BorrowedFd<'_>, family: i32, protocol: i32) -> Found<Option<u32>> {
    const IPV6_ROUTER_ALERT: i32 = 22;
    let (routes, router) = match family {
        libc::AF_INET => ("net/ip_mr_vif", libc::IPPROTO_IGMP),
        _ => ("net/ip6_mr_vif", libc::IPPROTO_ICMPV6),
    };
    // The first line is a heading.
    let vifs = proc::read(spaces.main, routes).unwrap_or_default().split(|&b| b == b'\n').count() > 2;
    if protocol == router && vifs {
        return refused(SocketObstacle::RawMulticastRouter);
    }
    let alert = fdquery::socket_int(fd, libc::IPPROTO_IPV6, IPV6_ROUTER_ALERT).unwrap_or_default();
    if family == libc::AF_INET6 && alert != 0 {
        return refused(SocketObstacle::RawRouterAlert);
    }
    Ok(None)
}

/// Datagrams of a raw socket are copies of what others get too, and may be lost at any time; those
/// of UDP are not dropped.
fn inspect_queue(file: &Description, fd: BorrowedFd<'_>, socket_type: i32) -> Found<()> {
    let events = fdquery::poll_now(fd, libc::POLLIN).map_err(failed("poll", file.pid, file.fd))?;
    let raw = socket_type == libc::SOCK_RAW;
    match (raw, events & libc::POLLIN != 0, events & libc::POLLERR != 0) {
        (false, true, false) => refused(SocketObstacle::UdpUnread),
        (_, _, true) => refused(SocketObstacle::UnreadError),
        _ => Ok(()),
    }
}

/// The interface that the value of an option names by its index; 0 when it names none.
fn interface_of(option: &SocketOptionV1) -> u32 {
    let value = option.value.first_chunk::<4>().copied().unwrap_or_default();
    match (option.level, option.name) {
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF) => u32::from_ne_bytes(value),
        (libc::IPPROTO_IPV6, IPV6_UNICAST_IF) | (libc::IPPROTO_IP, IP_UNICAST_IF) => {
            u32::from_be_bytes(value)
        }
        _ => 0,
    }
}

/// `sin6_scope_id`: an interface, for addresses that are local to a link.
fn scope_of(address: &[u8]) -> u32 {
    let v6 = address.starts_with(&(libc::AF_INET6 as u16).to_ne_bytes());
    let scope = address.get(24..28).filter(|_| v6).and_then(|scope| scope.try_into().ok());
    scope.map_or(0, u32::from_ne_bytes)
}

/// Whether it may be bound to an address that this machine does not have.
fn is_free(options: &[SocketOptionV1]) -> bool {
    const FREE: [(i32, i32); 4] = [
        (libc::IPPROTO_IP, libc::IP_FREEBIND),
        (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
        (libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
        (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
    ];
    options.iter().any(|option| FREE.contains(&(option.level, option.name)))
}

/// Whether an error waits for whoever asks next.
fn poll_error(file: &Description, fd: BorrowedFd<'_>) -> Found<bool> {
    let events = fdquery::poll_now(fd, libc::POLLIN).map_err(failed("poll", file.pid, file.fd))?;
    Ok(events & libc::POLLERR != 0)
}

/// How many segments a TCP socket has heard from a peer.
fn segments_in(file: &Description, fd: BorrowedFd<'_>) -> Found<u32> {
    const SEGMENTS_IN: usize = 140;
    let info = fdquery::socket_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO)
        .map_err(failed("TCP_INFO", file.pid, file.fd))?;
    let bytes = info.get(SEGMENTS_IN..SEGMENTS_IN + 4).and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map(u32::from_ne_bytes).unwrap_or_default())
}

/// How much a segment of a TCP socket holds. TCP_MAXSEG tells the same where nobody has set it, and a
/// socket that was connected before still tells what its connection had.
fn segment_bytes(file: &Description, fd: BorrowedFd<'_>) -> Found<u32> {
    const SND_MSS: usize = 16;
    let info = fdquery::socket_option(fd, libc::IPPROTO_TCP, libc::TCP_INFO)
        .map_err(failed("TCP_INFO", file.pid, file.fd))?;
    let bytes = info.get(SND_MSS..SND_MSS + 4).and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map(u32::from_ne_bytes).unwrap_or_default())
}

/// Whether a closed socket is at the end of a connection. One that has been taken back by
/// connect(2) (AF_UNSPEC), or by the kernel after an attempt that failed, can connect again.
fn is_over(file: &Description, fd: BorrowedFd<'_>) -> Found<bool> {
    let events = fdquery::poll_now(fd, libc::POLLRDHUP).map_err(failed("poll", file.pid, file.fd))?;
    Ok(events & libc::POLLRDHUP != 0)
}

/// A datagram that is written in pieces (UDP_CORK, MSG_MORE) lies in the socket, and nothing gives
/// it back. What has been sent leaves at once.
fn inspect_unfinished(fd: BorrowedFd<'_>) -> Found<()> {
    const PATIENCE: Duration = Duration::from_millis(50);
    let deadline = Instant::now() + PATIENCE;
    // Kinds of sockets without the question have no such datagrams.
    while fdquery::unsent_bytes(fd).unwrap_or_default() > 0 {
        if Instant::now() > deadline {
            return refused(SocketObstacle::UnfinishedDatagram);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Where a TCP socket is in its life.
enum Tcp {
    Closed,
    /// Its backlog.
    Listening(u32),
    /// `struct tcp_info`.
    Connected(Vec<u8>),
}

fn tcp_state(file: &Description, fd: BorrowedFd<'_>, given: bool) -> Found<Tcp> {
    // struct tcp_info starts with the state; tcpi_unacked and tcpi_sacked are queue and backlog of
    // a listener.
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
        let protocol = String::from_utf8_lossy(&ulp).trim_end_matches('\0').to_owned();
        if protocol != "mptcp" {
            return refused(SocketObstacle::TcpUpperLayer { protocol });
        }
    }
    match info.first().copied().unwrap_or_default() {
        TCP_CLOSE => Ok(Tcp::Closed),
        TCP_LISTEN if word(UNACKED) > 0 && !given => refused(SocketObstacle::ListenerPending),
        TCP_LISTEN => Ok(Tcp::Listening(word(SACKED))),
        _ => Ok(Tcp::Connected(info)),
    }
}

/// Whether an address is one that some machines have and others do not.
fn is_of_one_machine(address: &[u8]) -> bool {
    parse(address).is_some_and(|address| !address.ip().is_unspecified() && !address.ip().is_loopback())
}

fn is_bound(address: &[u8]) -> bool {
    parse(address).is_some_and(|address| address.port() != 0 || !address.ip().is_unspecified())
}

/// `sockaddr_in` or `sockaddr_in6`.
pub(super) fn parse(address: &[u8]) -> Option<SocketAddr> {
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
