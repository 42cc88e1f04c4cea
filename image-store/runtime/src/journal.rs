//! Entries of the journal with fields, in its native protocol, and what their kinds are called.
//!
//! Only what an operator looks for: what became of a service's start (with the service's own name
//! in a field, so that `journalctl --unit` and `systemctl status` of the service show it), and what
//! became of a boot. `systemd-units/catalog/fastboot.catalog` explains each kind.

use std::io;
use std::os::unix::net::UnixDatagram;

use image_store::{Digest, ReasonCode};

const SOCKET: &str = "/run/systemd/journal/socket";

/// A whole boot, in one sentence.
pub const BOOT: &str = "0f1c7ab29d1e4d3b8a35c2f6e47d9b10";
/// A service was restored.
pub const RESTORED: &str = "6b0a9ce7d0a54b7fb28a1d83c95e4f21";

/// What a service that starts cold for this reason is called.
pub fn message_id(code: ReasonCode) -> String {
    let digest = Digest::of(format!("fastboot cold start: {}", code.as_str()).as_bytes());
    digest.to_string()[..32].to_owned()
}

/// Send one entry. It does not wait: a journal that is busy, or not there yet, gets none.
///
/// # Errors
/// When it was not taken.
pub fn send(fields: &[(&str, &str)]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(&encode(fields), SOCKET).map(drop)
}

fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_value_with_a_line_break_has_its_length_before_it() {
        assert_eq!(encode(&[("A", "b"), ("C", "d=e")]), b"A=b\nC=d=e\n");
        assert_eq!(encode(&[("A", "b\nc")]), b"A\n\x03\0\0\0\0\0\0\0b\nc\n");
    }

    #[test]
    fn every_kind_of_entry_has_a_name_of_its_own() {
        let ids: BTreeSet<String> = ReasonCode::ALL.iter().map(|code| message_id(*code)).collect();
        assert_eq!(ids.len(), ReasonCode::ALL.len());
        let is_id = |id: &str| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(ids.iter().all(|id| is_id(id)) && is_id(BOOT) && is_id(RESTORED));
        // The name of one is for good: people's filters have it.
        assert_eq!(message_id(ReasonCode::FileChanged), "f93a3a085aa9d99b1f3ffbbd09260749");
    }
}
