//! D-Bus messages from bytes that came over a socket.

use zbus::Message;
use zbus::zvariant::serialized::{Context, Data};
use zbus::zvariant::{BE, Endian, LE};

/// Reads one whole message, as it came over the socket.
///
/// # Errors
/// It is not a message.
pub fn message_from(bytes: Vec<u8>) -> zbus::Result<Message> {
    let endian: Endian = if bytes.first() == Some(&b'B') { BE } else { LE };
    let data = Data::new(bytes, Context::new_dbus(endian, 0));
    // SAFETY: zbus asks for a valid encoding because it does not check strings again; these bytes
    // come from the message bus, which has checked every message that it passes on (D-Bus
    // specification, "Invalid Protocol and Spec Extensions").
    unsafe { Message::from_bytes(data) }
}
