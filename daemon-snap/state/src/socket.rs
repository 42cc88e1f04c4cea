//! What sockets of every family have.

use serde::{Deserialize, Serialize};

/// A socket option as getsockopt(2) gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketOptionV1 {
    pub level: i32,
    pub name: i32,
    pub value: Vec<u8>,
}
