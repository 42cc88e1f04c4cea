//! Lines for the journal: stderr with the level in front, as `sd-daemon(3)` describes. Binaries
//! only.
//!
//! What became of a service's start goes to the journal with fields, the service's own name among
//! them, so that `journalctl --unit` and `systemctl status` of the service show it too.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use fastboot_runtime::journal;
use image_store::ReasonCode;

const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;

/// What is said of a start.
#[derive(Clone, Copy, Debug)]
pub struct OfUnit<'a> {
    /// The service.
    pub unit: &'a str,
    /// Why it starts cold; `None` for one that was restored.
    pub code: Option<ReasonCode>,
    /// Of a snapshot, and not of the boot.
    pub is_trial: bool,
}

impl OfUnit<'_> {
    /// Something that is not what was hoped for, yet in order.
    pub fn notice(&self, text: impl fmt::Display) {
        self.say(NOTICE, text);
    }

    /// Something that went wrong.
    pub fn warning(&self, text: impl fmt::Display) {
        self.say(WARNING, text);
    }

    /// Something that worked.
    pub fn info(&self, text: impl fmt::Display) {
        self.say(INFO, text);
    }

    fn say(&self, level: u8, text: impl fmt::Display) {
        let trial = if self.is_trial { " (trial of a snapshot)" } else { "" };
        let text = format!("{}: {text}{trial}", self.unit);
        let id = self.code.map_or_else(|| journal::RESTORED.to_owned(), journal::message_id);
        let (level_text, code) = (level.to_string(), self.code.map(ReasonCode::as_str).unwrap_or_default());
        let mut fields = vec![
            ("MESSAGE", text.as_str()),
            ("MESSAGE_ID", id.as_str()),
            ("PRIORITY", level_text.as_str()),
            ("SYSLOG_IDENTIFIER", "fastboot-initd"),
            ("OBJECT_SYSTEMD_UNIT", self.unit),
            ("FASTBOOT_OUTCOME", if self.code.is_some() { "cold" } else { "restored" }),
        ];
        if !code.is_empty() {
            fields.push(("FASTBOOT_REASON", code));
        }
        if self.is_trial {
            fields.push(("FASTBOOT_TRIAL", "1"));
        }
        // Where nobody takes it so, it is a line like others.
        if !is_heard_by_journal() || journal::send(&fields).is_err() {
            line(level, text);
        }
    }
}

/// Whether our stderr is the journal's: elsewhere nobody looks for us there.
fn is_heard_by_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    stderr.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Something that did not work, ending with the consequence.
pub fn warning(text: impl fmt::Display) {
    line(WARNING, text);
}

/// Something that is not what was hoped for, yet in order: a unit that starts cold.
pub fn notice(text: impl fmt::Display) {
    line(NOTICE, text);
}

/// Something that worked.
pub fn info(text: impl fmt::Display) {
    line(INFO, text);
}

fn line(level: u8, text: impl fmt::Display) {
    let text = text.to_string().replace('\n', "; ");
    // There is nowhere else to say that this failed.
    let _ = std::io::stderr().write_all(format!("<{level}>{text}\n").as_bytes());
}
