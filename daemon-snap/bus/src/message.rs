//! The few messages that we write and the parts of others that we read. Encoding is zbus's.

use snap_error::{BusFault, Error, Result};
use snap_state::bus_framing;
use std::num::NonZeroU32;
use zbus::Message;
use zbus::message::{Flags, Type};
use zbus::zvariant::serialized::{Context, Data};
use zbus::zvariant::{DynamicType, LE, OwnedValue};

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

/// The same, to which the bus shall not answer.
///
/// # Errors
/// It cannot be encoded.
pub fn driver_call_without_reply<B>(serial: u32, interface: &str, member: &str, body: &B) -> Result<Vec<u8>>
where
    B: serde::Serialize + DynamicType,
{
    let build = || {
        Message::method_call(DRIVER_PATH, member)?
            .destination(DRIVER)?
            .interface(interface)?
            .serial(NonZeroU32::new(serial).unwrap_or(NonZeroU32::MIN))
            .with_flags(Flags::NoReplyExpected)?
            .build(body)
    };
    build().map(|message| message.data().to_vec()).map_err(|e| encoding(&e))
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

/// Whose call a message answers, and with which number, as `org.freedesktop.DBus.Properties.Get`
/// does. `None` for what is no answer.
///
/// Taken apart here: services that are spoken to without a bus name themselves as the sender by a
/// name that is none of a connection (systemd does), and [`Message::header`] panics about that.
///
/// # Errors
/// It is no message, or an error or something else than a number is what is answered.
pub(crate) fn numeric_answer(bytes: &[u8]) -> Result<Option<(u32, u64)>> {
    const METHOD_RETURN: u8 = 2;
    const ERROR: u8 = 3;
    const REPLY_SERIAL: u8 = 5;
    /// Byte order, type, flags, version, length of the body, serial, fields (D-Bus specification,
    /// "Message Format").
    type Head = (u8, u8, u8, u8, u32, u32, Vec<(u8, OwnedValue)>);
    let kind = bytes.get(1).copied().unwrap_or_default();
    if !matches!(kind, METHOD_RETURN | ERROR) {
        return Ok(None);
    }
    if bytes.first() != Some(&b'l') {
        return Err(unreadable(&"an answer in another byte order"));
    }
    let data = Data::new(bytes, Context::new_dbus(LE, 0));
    let ((.., fields), len) = data.deserialize::<Head>().map_err(|e| unreadable(&e))?;
    let serial = fields.iter().find(|(code, _)| *code == REPLY_SERIAL);
    let serial = serial.and_then(|(_, value)| value.downcast_ref::<u32>().ok());
    let serial = serial.ok_or_else(|| unreadable(&"an answer to nothing"))?;
    let body = data.slice(len.next_multiple_of(8).min(bytes.len())..);
    if kind == ERROR {
        let text = body.deserialize::<String>().map(|(text, _)| text).unwrap_or_default();
        return Err(unreadable(&format!("an error is answered: {text}")));
    }
    let (value, _) = body.deserialize::<OwnedValue>().map_err(|e| unreadable(&e))?;
    let wide = value.downcast_ref::<u64>();
    let number = wide.or_else(|_| value.downcast_ref::<u32>().map(u64::from)).map_err(|e| unreadable(&e))?;
    Ok(Some((serial, number)))
}

/// What came from the bus cannot be understood.
pub fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::Bus { step: "reading from the bus", fault: BusFault::NotUnderstood { found: error.to_string() } }
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

    #[test]
    fn a_number_is_read_also_where_the_sender_has_no_name_of_a_connection() {
        const OF_A_CONNECTION: &str = ":1.000000000000000000000";
        const OF_SYSTEMD: &str = "org.freedesktop.systemd1";
        let call = driver_call(7, "x.y", "Get", &()).unwrap();
        let call = snap_sys::dbus::message_from(call).unwrap();
        let answer = |value: zbus::zvariant::Value<'_>| {
            let reply = Message::method_return(&call.header()).unwrap().sender(OF_A_CONNECTION).unwrap();
            let mut bytes = reply.build(&value).unwrap().data().to_vec();
            let name = bytes.windows(OF_SYSTEMD.len()).position(|some| some == OF_A_CONNECTION.as_bytes());
            let name = name.unwrap();
            bytes[name..name + OF_SYSTEMD.len()].copy_from_slice(OF_SYSTEMD.as_bytes());
            bytes
        };
        assert_eq!(numeric_answer(&answer(4711_u64.into())).unwrap(), Some((7, 4711)));
        assert_eq!(numeric_answer(&answer(42_u32.into())).unwrap(), Some((7, 42)));
        assert!(numeric_answer(&answer("text".into())).is_err());
        let whole = answer(4711_u64.into());
        for len in 2..whole.len() {
            assert!(numeric_answer(&whole[..len]).is_err(), "{len}");
        }
        assert_eq!(numeric_answer(name_owner_changed("a.b", "", "").unwrap().data()).unwrap(), None);
    }
}
