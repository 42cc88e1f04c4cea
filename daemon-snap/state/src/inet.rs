//! Sockets over IPv4 and IPv6: listeners, unconnected, datagram and raw sockets.

use super::SocketOptionV1;
use super::check::{Around, Result, check};
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// `struct sockaddr_storage`.
const ADDRESS_BYTES: usize = 128;

/// AF_INET and AF_INET6: listeners, datagram and raw sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InetSocketV1 {
    /// AF_INET 2, AF_INET6 10.
    pub family: i32,
    /// SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_RAW 3.
    pub socket_type: i32,
    pub protocol: i32,
    /// `sockaddr_in` or `sockaddr_in6` bytes; `None` when not bound.
    pub local: Option<Vec<u8>>,
    /// Of a connected datagram or raw socket.
    pub remote: Option<Vec<u8>>,
    /// `listen(2)` backlog.
    pub listen_backlog: Option<u32>,
    /// Applied in order, before bind; what stands there a second time is applied after it. A packet
    /// filter is among them (SO_ATTACH_FILTER, the value is its instructions).
    pub options: Vec<SocketOptionV1>,
    pub memberships: Vec<MembershipV1>,
    /// Every interface whose index stands in an address, an option or a membership.
    pub interfaces: Vec<InterfaceV1>,
}

/// A network interface: its index may be another one in the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceV1 {
    pub index: u32,
    pub name: Vec<u8>,
}

/// A multicast group that a socket has joined (MCAST_JOIN_GROUP, MCAST_JOIN_SOURCE_GROUP).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipV1 {
    /// IPPROTO_IP or IPPROTO_IPV6.
    pub level: i32,
    /// Index of the interface.
    pub interface: u32,
    /// `sockaddr_in` or `sockaddr_in6`.
    pub group: Vec<u8>,
    /// `sources` are those that are not heard (MCAST_EXCLUDE), otherwise the only ones that are.
    pub exclude: bool,
    pub sources: Vec<Vec<u8>>,
}

impl FileState for InetSocketV1 {
    fn name(&self) -> &'static str {
        "internet socket"
    }

    fn check(&self, _: i32, _: &Around<'_>) -> Result<()> {
        let fits = |address: &Vec<u8>| (16..=ADDRESS_BYTES).contains(&address.len());
        let whole = self.memberships.iter().all(|m| fits(&m.group) && m.sources.iter().all(fits));
        check(whole, "a multicast group of odd length")
    }
}
