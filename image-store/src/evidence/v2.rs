//! Everything that is known to matter for one image, and how it came to be known.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::reason::{ReasonCode, StaleReason};
use super::{
    AccountsEvidence, CheckDepth, Digests, FileEvidence, FileKind, MachineEvidence, MountTable, Rule, Source,
    UnitEvidence, ValueEvidence, decode, encode, identity,
};
use crate::error::Result;

/// A file, directory or link that is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileItem {
    /// As it was, at the path outside of the unit.
    pub file: FileEvidence,
    /// Why it is compared in the way in which it is.
    pub rule: Rule,
    /// Who said that it matters.
    pub source: Source,
}

/// Something that the service used and that is not compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// As the unit sees it.
    pub path: PathBuf,
    /// Why not.
    pub rule: Rule,
}

/// Whether the start that the image is of was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observation {
    /// From its first command to the freeze.
    Recorded {
        /// What no observer was there for, in words.
        not_observed: Vec<String>,
    },
    /// It was not, and why. What was read and closed is known only as far as `DependsOn=` and the
    /// command line say.
    None {
        /// In words.
        why: String,
    },
}

/// Content of [`SectionKind::EVIDENCE`](crate::SectionKind::EVIDENCE), version
/// [`EvidenceV2::VERSION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceV2 {
    /// The machine and its kernel.
    pub machine: MachineEvidence,
    /// The unit's own text.
    pub unit: UnitEvidence,
    /// Whether anybody looked on.
    pub observation: Observation,
    /// Programs, configuration, directories, links.
    pub files: Vec<FileItem>,
    /// Files of accounts that were read.
    pub accounts: Vec<AccountsEvidence>,
    /// Files of the kernel that were read for their value.
    pub values: Vec<ValueEvidence>,
    /// What was used and is not compared.
    pub left_out: Vec<LeftOut>,
    /// Files named by `EnvironmentFile=`; [`FileKind::Absent`] for an optional one that was not
    /// there.
    pub environment_files: Vec<FileEvidence>,
    /// Users of `/etc/passwd` and the ids that the processes hold for them.
    pub users: Vec<(String, u32)>,
    /// Groups of `/etc/group` likewise.
    pub groups: Vec<(String, u32)>,
}

impl EvidenceV2 {
    /// Section version of this struct.
    pub const VERSION: u16 = 2;
    /// Longest encoded form that is read or written, in bytes.
    pub const MAX_LEN: u64 = super::MAX_LEN;

    /// The bytes of the evidence section.
    ///
    /// # Errors
    /// [`Error::Misuse`](crate::Error::Misuse) for a path that is not UTF-8, or when the result is
    /// longer than [`EvidenceV2::MAX_LEN`].
    pub fn encode(&self, image_path: &Path) -> Result<Vec<u8>> {
        encode(self, image_path)
    }

    /// Read what [`encode`](EvidenceV2::encode) wrote. `image_path` is only for messages.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt); bytes left over count as damage.
    pub fn decode(bytes: &[u8], image_path: &Path) -> Result<EvidenceV2> {
        decode(bytes, image_path)
    }

    /// Compare machine and unit text: what the generator does.
    ///
    /// # Errors
    /// The first thing that changed.
    pub fn check_unit(
        &self,
        root: &Path,
        machine_now: &MachineEvidence,
        fragment_now: &Path,
        drop_ins_now: &[PathBuf],
    ) -> std::result::Result<(), StaleReason> {
        self.machine.check(machine_now)?;
        self.unit.check(root, fragment_now, drop_ins_now)
    }

    /// Compare every file, directory, account and value.
    ///
    /// # Errors
    /// The first one that changed.
    pub fn check_files(&self, root: &Path, depth: CheckDepth) -> std::result::Result<(), StaleReason> {
        let mut first = Ok(());
        let _ = self.check_each(root, depth, &Digests::default(), &mut |reason| {
            first = Err(reason);
            std::ops::ControlFlow::Break(())
        });
        first
    }

    /// The same; `found` is told each reason and says whether to go on. What lies on a file system
    /// that may not answer is not touched.
    pub fn check_each(
        &self,
        root: &Path,
        depth: CheckDepth,
        digests: &Digests,
        found: &mut dyn FnMut(StaleReason) -> std::ops::ControlFlow<()>,
    ) -> std::ops::ControlFlow<()> {
        let mounts = MountTable::read(root);
        for value in &self.values {
            tell(value.check(root), found)?;
        }
        for accounts in &self.accounts {
            tell(reachable(&mounts, &accounts.path).and_then(|()| accounts.check(root)), found)?;
        }
        for file in self.all_files() {
            let checked = reachable(&mounts, &file.path).and_then(|()| file.check_with(root, depth, digests));
            tell(checked, found)?;
        }
        std::ops::ControlFlow::Continue(())
    }

    /// Files that are compared, those of `EnvironmentFile=` included.
    pub fn all_files(&self) -> impl Iterator<Item = &FileEvidence> {
        self.files.iter().map(|item| &item.file).chain(&self.environment_files)
    }

    /// Compare the ids of users and groups with `/etc/passwd` and `/etc/group`.
    ///
    /// # Errors
    /// The first one that changed, with [`ReasonCode::IdentityChanged`].
    pub fn check_identities(&self, root: &Path) -> std::result::Result<(), StaleReason> {
        identity::check(root, &self.users, &self.groups)
    }
}

impl FileItem {
    /// The rule that fits to what is there, for something that counts by itself and not by its
    /// place.
    pub fn new(file: FileEvidence, source: Source) -> FileItem {
        let rule = match file.kind {
            FileKind::File | FileKind::Absent => Rule::Content,
            FileKind::Dir => Rule::Names,
            FileKind::Symlink => Rule::Link,
            FileKind::Device | FileKind::Other => Rule::Kind,
        };
        FileItem { file, rule, source }
    }
}

fn tell(
    checked: std::result::Result<(), StaleReason>,
    found: &mut dyn FnMut(StaleReason) -> std::ops::ControlFlow<()>,
) -> std::ops::ControlFlow<()> {
    checked.map_or_else(found, std::ops::ControlFlow::Continue)
}

fn reachable(mounts: &MountTable, path: &Path) -> std::result::Result<(), StaleReason> {
    mounts.remote(path).map_or(Ok(()), |kind| {
        let sentence =
            format!("{} lies on {kind}, which may not answer; it was not compared", path.display());
        Err(StaleReason::new(ReasonCode::FileUnreachable, sentence))
    })
}
