//! Connections to the system bus.

use super::bus_framing::are_whole_messages;
use super::check::{Around, Result, check, is_path};
use super::kind::FileState;
use super::{Pid, SocketOptionV1};
use serde::{Deserialize, Serialize};

/// A client's connection to the system bus. The connection ends with the boot; what makes it the
/// daemon's own is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusConnectionV1 {
    /// Path of the bus's socket, as getpeername(2) gives it.
    pub address: Vec<u8>,
    /// Own address, as in [`super::UnixSocketV1::address`]: sd-bus binds its end to a name that
    /// tells who it is.
    pub own_address: Vec<u8>,
    /// `:1.42`; the bus gives another one next time.
    pub unique_name: String,
    /// The process that the bus shall see on the other end.
    pub connector: Pid,
    /// User that the bus knows the connection by, in the namespace of the bus.
    pub uid: u32,
    /// Match rules in the order in which they were added; one that was added twice is here twice.
    pub rules: Vec<String>,
    /// Well-known names in the order in which they were asked for.
    pub names: Vec<BusNameV1>,
    /// Every name on the bus at the snapshot and the unique name of its owner, those of this
    /// connection left out.
    pub others: Vec<(String, String)>,
    pub options: Vec<SocketOptionV1>,
    /// Whole messages that the client has not read: what the bus says to it, answers, signals. No
    /// calls.
    pub unread: Vec<u8>,
}

/// A well-known name that the connection owns or waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusNameV1 {
    pub name: String,
    /// DBUS_NAME_FLAG_ALLOW_REPLACEMENT 1, REPLACE_EXISTING 2, DO_NOT_QUEUE 4.
    pub flags: u32,
    /// `false`: it stands in the queue behind the owner.
    pub owner: bool,
}

impl FileState for BusConnectionV1 {
    fn name(&self) -> &'static str {
        "bus connection"
    }

    fn check(&self, _: i32, around: &Around<'_>) -> Result<()> {
        check(around.has_process(self.connector), "a bus connection of nobody")?;
        check(is_path(&self.address), "a bus at what is not a path")?;
        check(are_whole_messages(&self.unread), "unread bytes that are no bus messages")
    }
}
