//! Socket options that differ from those of a new socket of the same kind.

use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use nix::errno::Errno;
use snap_error::obstacle::SocketObstacle;
use snap_state::{Pid, SocketOptionV1, TargetFd};
use snap_sys::{fdquery, netns};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

const SOCKET: i32 = libc::SOL_SOCKET;
const SO_BUF_LOCK: i32 = 72;
const IP: i32 = libc::IPPROTO_IP;
const IPV6: i32 = libc::IPPROTO_IPV6;
const TCP: i32 = libc::IPPROTO_TCP;
const UDP: i32 = libc::IPPROTO_UDP;
const UDPLITE: i32 = libc::IPPROTO_UDPLITE;
const ICMPV6: i32 = libc::IPPROTO_ICMPV6;
const RAW: i32 = 255;
const PACKET: i32 = libc::SOL_PACKET;
const NETLINK: i32 = libc::SOL_NETLINK;
const VSOCK: i32 = libc::AF_VSOCK;

/// Options that can be read and set again, by level; numbers are those of asm-generic/socket.h,
/// linux/in.h, linux/in6.h, linux/tcp.h, linux/udp.h, linux/if_packet.h and linux/netlink.h. The
/// order is that of setting them.
const KNOWN: [(i32, &[i32]); 11] = [
    (
        SOCKET,
        // DEBUG REUSEADDR DONTROUTE BROADCAST SNDBUF RCVBUF KEEPALIVE OOBINLINE NO_CHECK PRIORITY
        // LINGER REUSEPORT PASSCRED RCVLOWAT RCVTIMEO SNDTIMEO BINDTODEVICE TIMESTAMP PASSSEC
        // TIMESTAMPNS MARK TIMESTAMPING RXQ_OVFL WIFI_STATUS NOFCS LOCK_FILTER SELECT_ERR_QUEUE
        // BUSY_POLL MAX_PACING_RATE ZEROCOPY TXTIME PREFER_BUSY_POLL BUF_LOCK RESERVE_MEM TXREHASH
        // RCVMARK PASSPIDFD PASSRIGHTS PEEK_OFF TIMESTAMP_NEW TIMESTAMPNS_NEW TIMESTAMPING_NEW
        // RCVPRIORITY
        &[
            1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 18, 20, 21, 25, 29, 34, 35, 36, 37, 40, 41, 43, 44,
            45, 46, 47, 60, 61, 69, 72, 73, 74, 75, 76, 83, 42, 63, 64, 65, 82,
        ],
    ),
    (
        IP,
        // TOS TTL OPTIONS RECVOPTS RETOPTS PKTINFO MTU_DISCOVER RECVERR RECVTTL RECVTOS FREEBIND
        // PASSSEC TRANSPARENT RECVORIGDSTADDR MINTTL NODEFRAG CHECKSUM BIND_ADDRESS_NO_PORT
        // RECVFRAGSIZE RECVERR_RFC4884 MULTICAST_IF MULTICAST_TTL MULTICAST_LOOP MULTICAST_ALL
        // UNICAST_IF LOCAL_PORT_RANGE; HDRINCL ROUTER_ALERT
        &[
            3, 5, 1, 2, 4, 6, 7, 8, 10, 11, 12, 13, 15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 32, 33, 34, 49,
            50, 51,
        ],
    ),
    (
        IPV6,
        // UNICAST_HOPS MULTICAST_IF MULTICAST_HOPS MULTICAST_LOOP MTU_DISCOVER RECVERR V6ONLY
        // MULTICAST_ALL RECVERR_RFC4884 RECVPKTINFO RECVHOPLIMIT RECVHOPOPTS RECVRTHDR RECVDSTOPTS
        // RECVPATHMTU DONTFRAG RECVTCLASS TCLASS AUTOFLOWLABEL ADDR_PREFERENCES MINHOPCOUNT
        // RECVORIGDSTADDR TRANSPARENT UNICAST_IF RECVFRAGSIZE FREEBIND; 2292PKTINFO 2292HOPOPTS
        // 2292DSTOPTS 2292RTHDR CHECKSUM 2292HOPLIMIT FLOWINFO FLOWINFO_SEND HDRINCL HOPOPTS
        // RTHDRDSTOPTS RTHDR DSTOPTS; ROUTER_ALERT_ISOLATE
        &[
            2, 3, 4, 5, 7, 8, 11, 33, 36, 54, 55, 57, 59, 16, 17, 18, 19, 23, 25, 26, 29, 31, 49, 51, 53, 56,
            58, 60, 62, 66, 67, 70, 72, 73, 74, 75, 76, 77, 78, 30,
        ],
    ),
    (
        TCP,
        // NODELAY MAXSEG CORK KEEPIDLE KEEPINTVL KEEPCNT SYNCNT LINGER2 DEFER_ACCEPT CONGESTION
        // THIN_LINEAR_TIMEOUTS USER_TIMEOUT FASTOPEN NOTSENT_LOWAT SAVE_SYN FASTOPEN_CONNECT
        // FASTOPEN_KEY FASTOPEN_NO_COOKIE INQ TX_DELAY RTO_MAX_MS RTO_MIN_US DELACK_MAX_US;
        // WINDOW_CLAMP
        &[10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 18, 23, 25, 27, 30, 33, 34, 36, 37, 44, 45, 46],
    ),
    (
        UDP,
        // CORK ENCAP NO_CHECK6_TX NO_CHECK6_RX SEGMENT GRO
        &[1, 100, 101, 102, 103, 104],
    ),
    // UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV
    (UDPLITE, &[10, 11]),
    // ICMP_FILTER, ICMPV6_FILTER
    (RAW, &[1]),
    (ICMPV6, &[1]),
    (
        PACKET,
        // VERSION RESERVE TIMESTAMP LOSS AUXDATA ORIGDEV VNET_HDR VNET_HDR_SZ TX_HAS_OFF
        // QDISC_BYPASS IGNORE_OUTGOING COPY_THRESH
        &[10, 12, 17, 14, 8, 9, 15, 24, 19, 20, 23, 7],
    ),
    // PKTINFO BROADCAST_ERROR NO_ENOBUFS LISTEN_ALL_NSID CAP_ACK EXT_ACK GET_STRICT_CHK
    (NETLINK, &[3, 4, 5, 8, 10, 11, 12]),
    // SO_VM_SOCKETS_BUFFER_MIN_SIZE BUFFER_MAX_SIZE BUFFER_SIZE CONNECT_TIMEOUT
    (VSOCK, &[1, 2, 0, 8]),
];

/// The options of a level that are read.
#[cfg(test)]
pub(crate) fn known_names(level: i32) -> &'static [i32] {
    KNOWN.iter().find(|(known, _)| *known == level).map_or(&[], |(_, names)| names)
}

/// Family, type and protocol.
pub(super) type SocketKind = (i32, i32, i32);

/// Options of new sockets, asked once per kind.
#[derive(Debug)]
pub(super) struct Defaults<'a> {
    spaces: &'a Spaces,
    known: HashMap<SocketKind, Vec<SocketOptionV1>>,
}

impl<'a> Defaults<'a> {
    pub fn new(spaces: &'a Spaces) -> Self {
        Self { spaces, known: HashMap::new() }
    }

    /// Options in which `fd` differs from a new socket of its kind, with its packet filter before
    /// all others: it may be locked by one of them.
    pub fn changed(
        &mut self,
        (pid, fd_number): (Pid, TargetFd),
        fd: BorrowedFd<'_>,
        kind: SocketKind,
    ) -> Found<Vec<SocketOptionV1>> {
        let fail = |step| failed(step, pid, fd_number);
        if !self.known.contains_key(&kind) {
            let (family, socket_type, protocol) = kind;
            let fresh = netns::socket(self.spaces.net(), family, socket_type, protocol)
                .map_err(fail("make a socket"))?;
            self.known.insert(kind, read_all(fresh.as_fd(), kind).map_err(fail("read socket options"))?);
        }
        let defaults = &self.known[&kind];
        let mut options = read_all(fd, kind).map_err(fail("read socket options"))?;
        let lock =
            options.iter().find(|option| (option.level, option.name) == (SOCKET, SO_BUF_LOCK)).cloned();
        options.retain(|option| !defaults.contains(option) && !is_computed(option));
        let is_size = |option: &SocketOptionV1| {
            option.level == SOCKET && matches!(option.name, libc::SO_SNDBUF | libc::SO_RCVBUF)
        };
        // Setting a size keeps it from growing by itself; nobody need have set this one.
        if let Some(lock) = lock.filter(|_| options.iter().any(is_size)) {
            options.retain(|option| *option != lock);
            options.push(lock);
        }
        let filter = match fdquery::socket_filter(fd) {
            Ok(program) => program,
            Err(Errno::EACCES) => return refused(SocketObstacle::EbpfFilter),
            // Kinds of sockets without filters.
            Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => Vec::new(),
            Err(e) => return Err(fail("SO_GET_FILTER")(e).into()),
        };
        if !filter.is_empty() {
            options.insert(0, SocketOptionV1 { level: SOCKET, name: libc::SO_ATTACH_FILTER, value: filter });
        }
        Ok(options)
    }
}

/// TCP_MAXSEG that nobody has set: with options for IP (IP_OPTIONS) the kernel computes anew what
/// little fits, and that is less than anybody may set.
fn is_computed(option: &SocketOptionV1) -> bool {
    const LEAST_THAT_IS_TAKEN: i32 = 88;
    let value = option.value.first_chunk::<4>().map_or(0, |value| i32::from_ne_bytes(*value));
    (option.level, option.name) == (TCP, libc::TCP_MAXSEG) && value < LEAST_THAT_IS_TAKEN
}

/// Readable on stream sockets, but without meaning there, and the kernel lets nobody set them.
const MULTICAST: [(i32, i32); 8] =
    [(IP, 32), (IP, 33), (IP, 34), (IP, 49), (IPV6, 17), (IPV6, 18), (IPV6, 19), (IPV6, 29)];

fn levels(kind: SocketKind) -> impl Iterator<Item = (i32, &'static [i32])> {
    const MPTCP: i32 = 262;
    let (family, socket_type, protocol) = kind;
    let internet = matches!(family, libc::AF_INET | libc::AF_INET6);
    KNOWN.into_iter().filter(move |(level, _)| match *level {
        SOCKET => true,
        IP => internet,
        IPV6 => family == libc::AF_INET6,
        TCP => matches!(protocol, TCP | MPTCP) && internet,
        UDP => matches!(protocol, UDP | UDPLITE) && internet,
        UDPLITE => protocol == UDPLITE && internet,
        RAW => family == libc::AF_INET && socket_type == libc::SOCK_RAW,
        ICMPV6 => family == libc::AF_INET6 && socket_type == libc::SOCK_RAW,
        PACKET => family == libc::AF_PACKET,
        NETLINK => family == libc::AF_NETLINK,
        _ => family == VSOCK,
    })
}

fn read_all(fd: BorrowedFd<'_>, kind: SocketKind) -> std::result::Result<Vec<SocketOptionV1>, Errno> {
    let mut options = Vec::new();
    let stream = kind.1 == libc::SOCK_STREAM;
    for (level, names) in levels(kind) {
        for &name in names {
            if stream && MULTICAST.contains(&(level, name)) {
                continue;
            }
            match fdquery::socket_option(fd, level, name) {
                Ok(value) => options.push(SocketOptionV1 { level, name, value }),
                // Each kernel and each kind of socket lacks some of them.
                Err(
                    Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOTCONN | Errno::EPERM,
                ) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(options)
}
