//! The one error type of the crate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::evidence::{ReasonCode, StaleReason};
use crate::layout::SectionKind;

/// Result of everything in this crate that touches a file.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller chooses by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// Bytes on disk are not what was written.
    Corrupt,
    /// Intact, but something that it depends on has changed.
    Stale,
    /// Intact, but made by a version that this one does not understand, or asked for in a way that
    /// is not offered.
    Unsupported,
    /// The file is not there.
    Gone,
    /// The kernel said no: space, permission, device.
    Io,
}

/// The part of a file that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Length of the file as a whole.
    Length,
    /// The 4096 bytes at offset 0.
    Header,
    /// The table of sections at the end of the file.
    SectionTable,
    /// The stored bytes of one section.
    Section(SectionKind),
    /// The page area.
    Pages,
    /// `catalogue.json`.
    Catalogue,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Length => f.write_str("length"),
            Part::Header => f.write_str("header"),
            Part::SectionTable => f.write_str("section table"),
            Part::Section(kind) => write!(f, "section {kind}"),
            Part::Pages => f.write_str("pages"),
            Part::Catalogue => f.write_str("catalogue"),
        }
    }
}

/// What went wrong, with the file, the part and the offset as fields.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checksum, a length or a rule of the layout does not hold.
    #[error("{} is damaged: {part} at offset {offset}: {what}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Which part of it.
        part: Part,
        /// Offset in bytes from the start of the file.
        offset: u64,
        /// The rule that does not hold.
        what: String,
    },
    /// Evidence does not hold.
    #[error("{} is stale: {reason}", path.display())]
    Stale {
        /// The image whose evidence it is.
        path: PathBuf,
        /// What changed.
        reason: StaleReason,
    },
    /// A format, version or flag that this build does not know.
    #[error("{}: {what} is not supported", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not known.
        what: String,
    },
    /// A section has another version than the caller can decode.
    #[error("{}: section {section} has version {found}, {} than {expected}, which this build reads", path.display(), age(*found, *expected))]
    SectionVersion {
        /// The image.
        path: PathBuf,
        /// The section.
        section: SectionKind,
        /// Version in the table.
        found: u16,
        /// Version that the caller asked for.
        expected: u16,
    },
    /// A section that the caller needs is not in the table.
    #[error("{}: section {section} is missing", path.display())]
    SectionMissing {
        /// The image.
        path: PathBuf,
        /// The section.
        section: SectionKind,
    },
    /// A section would decode to more bytes than the caller allows.
    #[error("{}: section {section} claims {raw_len} bytes, at most {max_raw_len} are allowed", path.display())]
    SectionTooLong {
        /// The image.
        path: PathBuf,
        /// The section.
        section: SectionKind,
        /// Claimed decoded length in bytes.
        raw_len: u64,
        /// The caller's bound in bytes.
        max_raw_len: u64,
    },
    /// The file does not exist (any more).
    #[error("{} does not exist", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// The file system, quota or file size limit is exhausted. Nothing was left behind.
    #[error("no space for {}: {written_bytes} bytes written, at least {needed_bytes} needed: {source}", path.display())]
    NoSpace {
        /// The file that was being written.
        path: PathBuf,
        /// Bytes that had been written before.
        written_bytes: u64,
        /// Bytes that were needed at that point.
        needed_bytes: u64,
        /// ENOSPC, EDQUOT or EFBIG.
        source: io::Error,
    },
    /// Someone else holds the store lock.
    #[error("{} is held by {}", path.display(), holder(*pid))]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who has written its number into it.
        pid: Option<i32>,
    },
    /// Any other failed system call.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb ("open", "rename").
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The caller broke a documented rule of this crate.
    #[error("{}: {what}", path.display())]
    Misuse {
        /// The file.
        path: PathBuf,
        /// The rule.
        what: String,
    },
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(|| "another fastboot".to_owned(), |pid| format!("another fastboot (PID {pid})"))
}

/// Of a version that is another one than is read.
fn age(found: u16, expected: u16) -> &'static str {
    if found < expected { "older" } else { "newer" }
}

impl Error {
    /// What a caller chooses by.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Corrupt { .. } | Error::SectionMissing { .. } | Error::SectionTooLong { .. } => {
                ErrorKind::Corrupt
            }
            Error::Stale { .. } => ErrorKind::Stale,
            Error::Unsupported { .. } | Error::SectionVersion { .. } | Error::Misuse { .. } => {
                ErrorKind::Unsupported
            }
            Error::Gone { .. } => ErrorKind::Gone,
            Error::NoSpace { .. } | Error::Locked { .. } | Error::Io { .. } => ErrorKind::Io,
        }
    }

    /// The file that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Error::Corrupt { path, .. }
            | Error::Stale { path, .. }
            | Error::Unsupported { path, .. }
            | Error::SectionVersion { path, .. }
            | Error::SectionMissing { path, .. }
            | Error::SectionTooLong { path, .. }
            | Error::Gone { path }
            | Error::NoSpace { path, .. }
            | Error::Locked { path, .. }
            | Error::Io { path, .. }
            | Error::Misuse { path, .. } => path,
        }
    }

    /// The same fact as a reason to start cold.
    pub fn to_stale_reason(&self) -> StaleReason {
        let code = match self {
            Error::Stale { reason, .. } => return reason.clone(),
            _ => match self.kind() {
                ErrorKind::Corrupt => ReasonCode::ImageCorrupt,
                ErrorKind::Gone => ReasonCode::ImageMissing,
                ErrorKind::Unsupported => ReasonCode::ImageUnsupported,
                ErrorKind::Stale | ErrorKind::Io => ReasonCode::ImageUnreadable,
            },
        };
        StaleReason::new(code, self.to_string())
    }

    /// An I/O error at `step`; "not found" becomes [`Error::Gone`].
    pub(crate) fn io(path: &Path, step: &'static str, source: io::Error) -> Error {
        if source.kind() == io::ErrorKind::NotFound {
            return Error::Gone { path: path.to_owned() };
        }
        Error::Io { path: path.to_owned(), step, source }
    }

    /// An I/O error while writing; exhausted space becomes [`Error::NoSpace`].
    pub(crate) fn write(
        path: &Path,
        step: &'static str,
        written: u64,
        needed: u64,
        source: io::Error,
    ) -> Error {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
                Error::NoSpace { path: path.to_owned(), written_bytes: written, needed_bytes: needed, source }
            }
            _ => Error::io(path, step, source),
        }
    }

    pub(crate) fn corrupt(path: &Path, part: Part, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { path: path.to_owned(), part, offset, what: what.into() }
    }

    pub(crate) fn misuse(path: &Path, what: impl Into<String>) -> Error {
        Error::Misuse { path: path.to_owned(), what: what.into() }
    }
}
