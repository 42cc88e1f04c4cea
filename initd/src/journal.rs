//! Lines for the journal: stderr with the level in front, as `sd-daemon(3)` describes. Binaries
//! only.

use std::fmt;
use std::io::Write as _;

/// Something that did not work, ending with the consequence.
pub fn warning(text: impl fmt::Display) {
    line(4, text);
}

/// Something that is not what was hoped for, yet in order: a unit that starts cold.
pub fn notice(text: impl fmt::Display) {
    line(5, text);
}

/// Something that worked.
pub fn info(text: impl fmt::Display) {
    line(6, text);
}

fn line(level: u8, text: impl fmt::Display) {
    let text = text.to_string().replace('\n', "; ");
    // There is nowhere else to say that this failed.
    let _ = std::io::stderr().write_all(format!("<{level}>{text}\n").as_bytes());
}
