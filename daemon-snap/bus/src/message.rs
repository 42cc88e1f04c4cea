//! The few messages that we write and the parts of others that we read. Encoding is zbus's.

use snap_error::{Error, Result};
use snap_state::bus_framing;
use std::num::NonZeroU32;
use zbus::Message;
use zbus::message::Type;
use zbus::zvariant::DynamicType;

/// Well-known name and interface of the bus itself.
pub const DRIVER: &str = "org.freedesktop.DBus";
const DRIVER_PATH: &str = "/org/freedesktop/DBus";

/// A call to the bus itself.
///
/// # Errors
/// It cannot be encoded.
pub fn driver_call<B>(serial: u32, interface: &str, member: &str, body: &B) -> Result<Vec<u8>>
where
    B: serde::Serialize + DynamicType,
{
    method_call(serial, [DRIVER, DRIVER_PATH, interface], member, body)
}

/// A call to anybody: destination, path, interface.
///
/// # Errors
/// It cannot be encoded.
pub fn method_call<B>(serial: u32, whom: [&str; 3], member: &str, body: &B) -> Result<Vec<u8>>
where
    B: serde::Serialize + DynamicType,
{
    let [destination, path, interface] = whom;
    let build = || {
        Message::method_call(path, member)?
            .destination(destination)?
            .interface(interface)?
            .serial(NonZeroU32::new(serial).unwrap_or(NonZeroU32::MIN))
            .build(body)
    };
    build().map(|message| message.data().to_vec()).map_err(|e| encoding(&e))
}

/// What the bus says when a name changes hands. An empty owner is none.
///
/// # Errors
/// It cannot be encoded.
pub fn name_owner_changed(name: &str, old: &str, new: &str) -> Result<Message> {
    let build =
        || Message::signal(DRIVER_PATH, DRIVER, "NameOwnerChanged")?.sender(DRIVER)?.build(&(name, old, new));
    build().map_err(|e| encoding(&e))
}

fn encoding(error: &zbus::Error) -> Error {
    Error::Internal { step: "encoding a bus message", message: error.to_string() }
}

/// Length of the message at the beginning of `bytes`; `None` while its fixed part is not there yet.
///
/// # Errors
/// What is there is no D-Bus message, or a longer one than the protocol allows (128 MiB).
pub fn message_len(bytes: &[u8]) -> Result<Option<usize>> {
    bus_framing::message_len(bytes).map_err(|_| unreadable(&"not a D-Bus message"))
}

/// The messages that `bytes` consist of.
///
/// # Errors
/// They are not whole messages.
pub fn split(bytes: &[u8]) -> Result<Vec<Message>> {
    let frames = bus_framing::frames(bytes).map_err(|_| unreadable(&"not whole D-Bus messages"))?;
    let message = |frame: &[u8]| snap_sys::dbus::message_from(frame.to_vec()).map_err(|e| unreadable(&e));
    frames.into_iter().map(message).collect()
}

/// Whose call this answers, and whether well. `None` for calls and signals.
pub fn answers(message: &Message) -> Option<(u32, bool)> {
    let serial = message.header().reply_serial()?.get();
    match message.message_type() {
        Type::MethodReturn => Some((serial, true)),
        Type::Error => Some((serial, false)),
        _ => None,
    }
}

/// What a message says.
///
/// # Errors
/// It says something else.
pub fn body<T>(message: &Message) -> Result<T>
where
    T: serde::de::DeserializeOwned + zbus::zvariant::Type,
{
    message.body().deserialize().map_err(|e| unreadable(&e))
}

/// What came from the bus cannot be understood.
pub fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::Bus { step: "reading from the bus", message: error.to_string() }
}

/// Name and text of an error message.
pub fn error_text(message: &Message) -> String {
    let name = message.header().error_name().map(ToString::to_string).unwrap_or_default();
    match message.body().deserialize::<String>() {
        Ok(text) => format!("{name}: {text}"),
        Err(_) => name,
    }
}

/// Whether it is a signal of the bus itself, and which.
pub fn driver_signal(message: &Message) -> Option<String> {
    let header = message.header();
    let from_driver = header.sender().is_some_and(|sender| sender.as_str() == DRIVER);
    let is_signal = message.message_type() == Type::Signal;
    (from_driver && is_signal).then(|| header.member().map(ToString::to_string)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_message_is_known_from_its_first_bytes() {
        let bytes = driver_call(7, DRIVER, "AddMatch", &"type='signal'").unwrap();
        assert_eq!(message_len(&bytes).unwrap(), Some(bytes.len()));
        assert_eq!(message_len(&bytes[..15]).unwrap(), None);
        assert!(message_len(b"HTTP/1.1 200 OK\r\n").is_err());
        let mut huge = bytes;
        huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(message_len(&huge).is_err());
    }

    #[test]
    fn whole_messages_are_taken_apart_and_cut_ones_refused() {
        let messages =
            [name_owner_changed("a.b", ":1.1", "").unwrap(), name_owner_changed("c", "", "").unwrap()];
        let bytes: Vec<u8> = messages.iter().flat_map(|message| message.data().to_vec()).collect();
        let apart = split(&bytes).unwrap();
        let data: Vec<&[u8]> = apart.iter().map(|message| &message.data()[..]).collect();
        assert_eq!(data, messages.iter().map(|message| &message.data()[..]).collect::<Vec<_>>());
        assert!(split(&bytes[..bytes.len() - 1]).is_err() && split(&bytes[1..]).is_err());
        assert!(split(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_message_reads_back() {
        let message = name_owner_changed("a.b", ":1.1", "").unwrap();
        let back = snap_sys::dbus::message_from(message.data().to_vec()).unwrap();
        assert_eq!(driver_signal(&back).as_deref(), Some("NameOwnerChanged"));
        assert_eq!(back.body().deserialize::<(String, String, String)>().unwrap().0, "a.b");
        assert_eq!(answers(&back), None);
    }
}
