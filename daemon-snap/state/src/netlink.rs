//! Netlink sockets.

use super::SocketOptionV1;
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// AF_NETLINK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetlinkSocketV1 {
    /// SOCK_RAW 3, SOCK_DGRAM 2.
    pub socket_type: i32,
    /// NETLINK_ROUTE 0 …
    pub protocol: i32,
    /// 0: not bound.
    pub port: u32,
    /// Numbers of multicast groups, ascending.
    pub groups: Vec<u32>,
    /// `sockaddr_nl` of connect(2), when that is not the kernel.
    pub remote: Option<Vec<u8>>,
    pub options: Vec<SocketOptionV1>,
}

impl FileState for NetlinkSocketV1 {
    fn name(&self) -> &'static str {
        "netlink socket"
    }
}
