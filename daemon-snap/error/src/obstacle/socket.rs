//! Sockets but for the system bus: internet, netlink, packet, vsock, unix.

use snap_state::{Pid, RawPath};
use std::fmt;
use std::net::SocketAddr;

coded! {
    /// A socket that cannot be made again as it is.
    SocketObstacle {
        "socket-other-namespace" stays OtherNamespace { kind: SocketKind }:
            "a {kind} of another network namespace";
        "socket-kernel-crypto" stays KernelCrypto: "a kernel crypto socket (AF_ALG)";
        "socket-bluetooth" stays Bluetooth: "a bluetooth socket";
        "socket-family" stays Family { family: i32 }: "a socket of address family {family}";
        "socket-ebpf-filter" stays EbpfFilter: "a socket with an eBPF program for a filter";
        "socket-interface-gone" stays InterfaceGone { interface: u32 }:
            "a socket that refers to network interface {interface}, which is gone";
        "tcp-connection" passes TcpConnection { state: TcpState, remote: Option<SocketAddr> }:
            "{state} TCP connection{}", towards(remote);
        "tcp-urgent-data" passes TcpUrgentData: "a TCP connection with urgent data";
        "tcp-connect-failed" stays TcpConnectFailed:
            "a TCP socket without a connection, with an error that has not been asked for yet";
        "tcp-authentication" stays TcpAuthentication: "a TCP socket with authentication keys (TCP-AO)";
        "tcp-keys" stays TcpKeys:
            "a TCP socket with several keys for one address (TCP_MD5SIG), of which the kernel does not tell all";
        "tcp-connection-signed" passes TcpSigned: "a TCP connection with a key (TCP_MD5SIG)";
        "datagram-unfinished" passes UnfinishedDatagram:
            "a socket with a datagram that has not been sent (UDP_CORK or MSG_MORE)";
        "socket-counts-notices" stays CountsNotices { option: &'static str }:
            "a socket that numbers notices about what it sends ({option})";
        "socket-flow-label" stays FlowLabel { label: u32 }:
            "a socket with a leased flow label ({label:#07x}, IPV6_FLOWLABEL_MGR)";
        "socket-ipsec-policy" stays IpsecPolicy:
            "a socket that may have an IPsec policy of its own (IP_XFRM_POLICY); the kernel does not tell whose those are";
        "tcp-upper-layer" stays TcpUpperLayer { protocol: String }:
            "a TCP socket with an upper layer protocol ({protocol})";
        "mptcp-connection" passes MptcpConnection: "an established MPTCP connection";
        "listener-pending" passes ListenerPending: "a listener with a pending connection";
        "udp-unread" passes UdpUnread: "a UDP socket with unread datagrams";
        "socket-unread-error" passes UnreadError: "an internet socket with an unread error";
        "internet-socket-kind" stays InternetKind { socket_type: i32, protocol: i32 }:
            "an internet socket of type {socket_type}, protocol {protocol}";
        "raw-multicast-router" stays RawMulticastRouter: "a raw socket that may route multicast (MRT_INIT)";
        "raw-router-alert" stays RawRouterAlert: "a raw socket with IPV6_ROUTER_ALERT";
        "netlink-unread" passes NetlinkUnread { protocol: &'static str }:
            "a netlink socket with unread messages ({protocol})";
        "netlink-connector" stays NetlinkConnector:
            "a netlink socket that listens to the connector (process events)";
        "netlink-netfilter" stays NetlinkNetfilter { source: &'static str }:
            "a netlink socket that takes packets from a netfilter {source}";
        "netlink-audit" stays NetlinkAudit: "a netlink socket of the audit daemon";
        "packet-obsolete" stays PacketObsolete: "a packet socket of the obsolete kind (SOCK_PACKET)";
        "packet-untold" stays PacketUntold:
            "a packet socket, of which this kernel does not tell enough (CONFIG_PACKET_DIAG)";
        "packet-ring" stays PacketRing: "a packet socket with a ring (PACKET_RX_RING, PACKET_TX_RING)";
        "packet-fanout-program" stays PacketFanoutProgram:
            "a packet socket whose fanout is decided by a program";
        "vsock-connection" stays VsockConnection: "a vsock connection";
        "vsock-pending" passes VsockPending: "a vsock listener with a pending connection";
        "unix-peer-outside" stays UnixPeerOutside { name: Vec<u8>, pid: Option<Pid> }:
            "a unix socket connected to {} outside the tree{}", shown(name), in_brackets(pid);
        "unix-made-outside" stays UnixMadeOutside { by: Pid }:
            "a unix socket whose other end was made by process {by} outside the tree";
        "unix-relative-directory" stays UnixRelativeDirectory { path: RawPath }:
            "a unix socket bound to a relative path ({path}) that leads to it from no working directory of the tree";
        "unix-moved" stays UnixMoved { path: RawPath, today: RawPath }:
            "a unix socket bound to {path}, which is found in another directory now ({today})";
        "unix-name-taken" stays UnixNameTaken { path: RawPath }:
            "a unix socket that was renamed, and something else has its old name ({path})";
        "unix-name-shared" stays UnixNameShared { path: RawPath }:
            "a datagram socket connected to one of several that were bound to {path}";
        "unix-relative-peer" stays UnixRelativePeer { path: RawPath }:
            "a datagram socket connected to a relative path ({path})";
        "unix-one-way" stays UnixOneWay: "a datagram socket connected one way to an unnamed socket";
        "unix-pending-outside" passes UnixPendingOutside:
            "a listener with a pending connection from outside the tree";
        "unix-pending-sent" passes UnixPendingSent: "a pending connection that has sent something already";
        "unix-unread-sender" passes UnixUnreadSender { from: Pid }:
            "a unix socket with an unread message of process {from} outside the tree";
        "unix-unread-out-of-band" passes UnixUnreadOutOfBand: "a unix socket with unread out-of-band data";
        "unix-unread-error" passes UnixUnreadError: "a unix socket with an unread error";
        "unix-connected-elsewhere" stays UnixConnectedElsewhere:
            "a datagram socket connected to one that has formed a pair with another since";
        "unix-unread-empty" passes UnixUnreadEmpty: "a unix socket with an unread empty message";
        "unix-unread-long" passes UnixUnreadLong: "a unix socket with an unread message that is too long";
        "unix-unread-pidfd" passes UnixUnreadPidfd: "a unix socket with an unread message that carries a pidfd";
        "unix-unread-anonymous" passes UnixUnreadAnonymous:
            "a unix socket with an unread message whose sender is not told (SO_PASSCRED)";
        "unix-unread-lost" passes UnixUnreadLost: "a unix socket with an unread descriptor that was lost";
    }
}

/// Sockets of which the kernel tells by network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    Any,
    Packet,
    Unix,
}

impl fmt::Display for SocketKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "socket",
            Self::Packet => "packet socket",
            Self::Unix => "unix socket",
        })
    }
}

/// Where a TCP connection is in its life, as people say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    Established,
    Connecting,
    HalfOpen,
    HalfClosed,
    Closing,
    /// One that this program does not know.
    Other,
}

/// With its article.
impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Established => "an established",
            Self::Connecting => "a connecting",
            Self::HalfOpen => "a half-open",
            Self::HalfClosed => "a half-closed",
            Self::Closing => "a closing",
            Self::Other => "a connected",
        })
    }
}

fn towards(remote: &Option<SocketAddr>) -> String {
    remote.map_or_else(String::new, |remote| format!(" to {remote}"))
}

fn in_brackets(pid: &Option<Pid>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// A name in the abstract namespace begins with a zero.
fn shown(name: &[u8]) -> String {
    match name {
        [] => "an unnamed socket".to_owned(),
        [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)),
        name => String::from_utf8_lossy(name).into_owned(),
    }
}
