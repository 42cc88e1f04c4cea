//! What is wrong with a state that is not a consistent tree, as values.

use crate::family::Family;
use crate::{FileId, FilterId, InodeId, Pid, RawPath};

/// Why a tree is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Something that no tree can have. These are the rules of `check`, which stand beside what
    /// they are about; none of them has anything to tell but its words.
    #[error("{0}")]
    Rule(&'static str),
    /// The bytes of a section.
    #[error("{}", fault.of(*family))]
    Section { family: Family, fault: SectionFault },
    /// What was read from an earlier version cannot be written as today's.
    #[error("{0}")]
    Unwritable(postcard::Error),
    /// Sections that go together do not.
    #[error("{spaces} address spaces of {processes} processes")]
    AddressSpaces { spaces: usize, processes: usize },
    /// State that would be dropped silently.
    #[error("object {0} belongs to nothing")]
    Unused(InodeId),
    /// A part of the tree asks for another one that was not made.
    #[error("{0}")]
    NotMade(Wanted),
    #[error("network interface {0} without a name")]
    Interface(u32),
    #[error("socket path {0} begins nowhere")]
    SocketPath(RawPath),
    #[error("thread {tid}: extended state of {len_bytes} bytes")]
    ExtendedState { tid: Pid, len_bytes: usize },
    #[error("process {0} asks for an id")]
    ProcessUnknown(Pid),
}

/// What is wrong with the bytes of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionFault {
    Missing,
    /// Neither today's version nor one that is converted.
    Version(u16),
    TooLarge {
        len_bytes: usize,
    },
    Undecodable(postcard::Error),
    /// The same of an earlier version.
    EarlierUndecodable(postcard::Error),
    /// Bytes behind the last value.
    Rest {
        len_bytes: usize,
    },
}

/// What was recorded, and is not there when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wanted {
    #[error("open file {0} was recorded but not made")]
    File(FileId),
    #[error("object {0} was recorded but not made")]
    Object(InodeId),
    #[error("mapped object {0} was recorded but not opened")]
    Mapped(InodeId),
    #[error("seccomp filter {0} is missing")]
    Filter(FilterId),
}

impl SectionFault {
    fn of(&self, family: Family) -> String {
        match self {
            Self::Missing => format!("no state of {family:?}"),
            Self::Version(version) => format!("version {version} of {family:?} is not read"),
            Self::TooLarge { len_bytes } => {
                format!("a section of {len_bytes} bytes is too large ({family:?})")
            }
            Self::Undecodable(error) => format!("state of {family:?}: {error}"),
            Self::EarlierUndecodable(error) => format!("state of {family:?}, earlier version: {error}"),
            Self::Rest { len_bytes } => format!("{len_bytes} bytes behind the state of {family:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_written_as_they_are_read() {
        let family = Family::Files;
        let said = |fault| Corrupt::Section { family, fault }.to_string();
        assert_eq!(said(SectionFault::Version(99)), "version 99 of Files is not read");
        assert_eq!(said(SectionFault::Rest { len_bytes: 3 }), "3 bytes behind the state of Files");
        assert_eq!(
            Corrupt::NotMade(Wanted::File(FileId(7))).to_string(),
            "open file 7 was recorded but not made"
        );
        assert_eq!(Corrupt::Rule("a pipe of nobody").to_string(), "a pipe of nobody");
    }
}
