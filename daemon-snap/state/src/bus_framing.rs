//! Where one D-Bus message ends and the next begins (D-Bus specification, "Message Format").

/// Bytes before the header fields: endianness, type, flags, version, body length, serial, length of
/// the fields.
const FIXED_BYTES: usize = 16;
/// The longest message that the protocol allows.
const MOST_BYTES: usize = 128 << 20;

/// Bytes that are no D-Bus message, or a longer one than the protocol allows (128 MiB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMessage;

/// Length of the message at the beginning of `bytes`, in bytes; `None` while its fixed part is not
/// there yet.
///
/// # Errors
/// What is there is no D-Bus message.
pub fn message_len(bytes: &[u8]) -> Result<Option<usize>, NotAMessage> {
    let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Ok(None) };
    let number = |at: usize| {
        let field = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        let value = if fixed[0] == b'B' { u32::from_be_bytes(field) } else { u32::from_le_bytes(field) };
        value as usize
    };
    let (body, fields) = (number(4), number(12));
    let len = FIXED_BYTES + fields.next_multiple_of(8) + body;
    match fixed[0] {
        b'l' | b'B' if fields <= MOST_BYTES && body <= MOST_BYTES && len <= MOST_BYTES => Ok(Some(len)),
        _ => Err(NotAMessage),
    }
}

/// Cuts `bytes` into messages of protocol version 1, the only one there is.
///
/// # Errors
/// They are not whole messages.
pub fn frames(mut bytes: &[u8]) -> Result<Vec<&[u8]>, NotAMessage> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let len = message_len(bytes)?.filter(|len| *len <= bytes.len()).ok_or(NotAMessage)?;
        let (first, rest) = bytes.split_at(len);
        if first[3] != 1 {
            return Err(NotAMessage);
        }
        frames.push(first);
        bytes = rest;
    }
    Ok(frames)
}

/// Whether `bytes` are whole messages, as far as their frames tell.
pub fn are_whole_messages(bytes: &[u8]) -> bool {
    frames(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message without header fields and with four bytes of body.
    const MESSAGE: [u8; 20] = [b'l', 1, 0, 1, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9];

    #[test]
    fn whole_messages_are_told_from_parts() {
        let two = [MESSAGE, MESSAGE].concat();
        assert_eq!(frames(&two), Ok(vec![&MESSAGE[..], &MESSAGE[..]]));
        assert!(are_whole_messages(&[]));
        assert!(!are_whole_messages(&two[..30]) && !are_whole_messages(&two[..39]));
    }

    #[test]
    fn other_bytes_and_versions_are_no_messages() {
        let with = |at: usize, byte: u8| {
            let mut changed = MESSAGE;
            changed[at] = byte;
            changed
        };
        assert!(!are_whole_messages(&with(0, b'x')) && !are_whole_messages(&with(3, 2)));
        assert!(!are_whole_messages(&with(7, 0xff)) && !are_whole_messages(&with(15, 0xff)));
    }
}
