//! Inhibitors of logind: the write end of a FIFO that logind watches.
//!
//! logind tells over the bus which inhibitors there are, but not which descriptor belongs to which.
//! Its own note beside the FIFO does (`/run/systemd/inhibit/N`), in the format of environment
//! files; what is not there as expected refuses the unit.

use super::description::Description;
use crate::blockers::{Found, refused};
use snap_error::obstacle::{DescriptorObstacle, InhibitorFlaw};
use snap_state::{InhibitorV1, Pid, RawPath};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const DIR: &str = "/run/systemd/inhibit/";

/// The inhibitor that a descriptor holds; `None` when its path is none of logind's.
pub(super) fn collect(file: &Description) -> Found<Option<InhibitorV1>> {
    let Some(path) = std::str::from_utf8(&file.link).ok().filter(|path| path.starts_with(DIR)) else {
        return Ok(None);
    };
    let refuse =
        |flaw| refused(DescriptorObstacle::InhibitorUnknown { path: RawPath(file.link.clone()), flaw });
    let is_same =
        std::fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (file.dev, file.ino));
    let note = path.strip_suffix(".ref").map(Path::new).filter(|_| is_same);
    let Some(text) = note.and_then(|note| std::fs::read_to_string(note).ok()) else {
        return refuse(InhibitorFlaw::Gone);
    };
    match parse(&text, path) {
        Some(found) if found.pid == file.pid => Ok(Some(found)),
        Some(found) => refuse(InhibitorFlaw::AskedForBy(found.pid)),
        None => refuse(InhibitorFlaw::NoteNotUnderstood),
    }
}

/// logind's note about the inhibitor with this FIFO.
fn parse(text: &str, fifo: &str) -> Option<InhibitorV1> {
    let fields: HashMap<&str, &str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    let get = |name: &str| fields.get(name).copied();
    if get("FIFO") != Some(fifo) {
        return None;
    }
    Some(InhibitorV1 {
        what: get("WHAT")?.to_owned(),
        who: unescape(get("WHO").unwrap_or_default())?,
        why: unescape(get("WHY").unwrap_or_default())?,
        mode: get("MODE")?.to_owned(),
        pid: Pid(get("PID")?.parse().ok()?),
        uid: get("UID")?.parse().ok()?,
    })
}

/// Escapes of C: one letter, or three octal digits for a byte.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next()? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            same @ (b'\\' | b'"' | b'\'') => same,
            first @ b'0'..=b'3' => {
                let digits = [first, rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 8).ok()?
            }
            _ => return None,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "# This is private data. Do not parse.\nWHAT=sleep:shutdown\nMODE=delay\nUID=0\nPID=81\nWHO=UPower\n\
                        WHY=Ger\\303\\244te \\\"an\\\"halten\nFIFO=/run/systemd/inhibit/3.ref\n";

    #[test]
    fn a_note_of_logind_is_read() {
        let found = parse(NOTE, "/run/systemd/inhibit/3.ref").unwrap();
        assert_eq!((found.what.as_str(), found.mode.as_str()), ("sleep:shutdown", "delay"));
        assert_eq!((found.who.as_str(), found.why.as_str()), ("UPower", "Geräte \"an\"halten"));
        assert_eq!((found.pid, found.uid), (Pid(81), 0));
    }

    #[test]
    fn a_note_about_something_else_or_with_something_unknown_is_not() {
        assert_eq!(parse(NOTE, "/run/systemd/inhibit/4.ref"), None);
        let fifo = "/run/systemd/inhibit/3.ref";
        assert_eq!(parse(&NOTE.replace("WHY=Ger", "WHY=\\xe4"), fifo), None);
        assert_eq!(parse(&NOTE.replace("PID=81\n", ""), fifo), None);
    }
}
