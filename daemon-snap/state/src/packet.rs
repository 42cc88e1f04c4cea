//! Packet sockets.

use super::check::{Around, Result, check};
use super::kind::FileState;
use super::{InterfaceV1, SocketOptionV1};
use serde::{Deserialize, Serialize};

/// `mr_address` of `struct packet_mreq`. The kernel takes as many bytes as it is given, but nobody
/// records more.
const ADDRESS_BYTES: usize = 8;

/// AF_PACKET.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketSocketV1 {
    /// SOCK_RAW 3, SOCK_DGRAM 2.
    pub socket_type: i32,
    /// ETH_P_*, host order; 0: it receives nothing.
    pub protocol: u16,
    /// 0: all interfaces.
    pub interface: u32,
    pub memberships: Vec<PacketMembershipV1>,
    /// PACKET_FANOUT.
    pub fanout: Option<u32>,
    pub options: Vec<SocketOptionV1>,
    pub interfaces: Vec<InterfaceV1>,
}

/// PACKET_ADD_MEMBERSHIP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketMembershipV1 {
    pub interface: u32,
    /// PACKET_MR_MULTICAST 0, PACKET_MR_PROMISC 1, PACKET_MR_ALLMULTI 2, PACKET_MR_UNICAST 3.
    pub kind: u16,
    pub address: Vec<u8>,
    /// How often it was added.
    pub count: u32,
}

impl FileState for PacketSocketV1 {
    fn name(&self) -> &'static str {
        "packet socket"
    }

    fn check(&self, _: i32, _: &Around<'_>) -> Result<()> {
        let fits = |membership: &PacketMembershipV1| membership.address.len() <= ADDRESS_BYTES;
        check(self.memberships.iter().all(fits), "a membership with a long address")
    }
}
