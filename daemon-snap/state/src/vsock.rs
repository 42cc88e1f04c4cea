//! Sockets between virtual machine and host.

use super::SocketOptionV1;
use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// AF_VSOCK: listeners and sockets that are not connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockSocketV1 {
    pub socket_type: i32,
    /// `sockaddr_vm`; `None` when not bound.
    pub local: Option<Vec<u8>>,
    pub listening: bool,
    pub options: Vec<SocketOptionV1>,
}

impl FileState for VsockSocketV1 {
    fn name(&self) -> &'static str {
        "vsock socket"
    }
}
