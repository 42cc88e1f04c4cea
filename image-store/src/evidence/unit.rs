//! The text that defines a unit: its fragment and its drop-ins.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::under_root;
use super::reason::{ReasonCode, StaleReason};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// File name of the drop-in that fastboot's own generator writes. It is not part of the evidence.
pub const OWN_DROP_IN: &str = "zzzz-fastboot.conf";

/// One text file, by path and exact content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextEvidence {
    /// Path as systemd names it.
    pub path: PathBuf,
    /// Digest of the content.
    pub digest: Digest,
}

/// Fragment and drop-ins in the order in which systemd reads them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitEvidence {
    /// The unit file.
    pub fragment: TextEvidence,
    /// Its drop-ins, without our own.
    pub drop_ins: Vec<TextEvidence>,
}

/// Whether `path` is our own drop-in: its name, in `UNIT.d` below a generator directory. A file of
/// that name elsewhere is the administrator's, and counts.
pub fn is_own_drop_in(path: &Path) -> bool {
    let generator_dir =
        path.parent().and_then(Path::parent).and_then(Path::file_name).and_then(OsStr::to_str);
    path.file_name() == Some(OsStr::new(OWN_DROP_IN))
        && matches!(generator_dir, Some("generator" | "generator.early" | "generator.late"))
}

impl UnitEvidence {
    /// Read fragment and drop-ins, given in the order of systemd's `FragmentPath` and
    /// `DropInPaths`.
    ///
    /// # Errors
    /// [`Error::Gone`] or [`Error::Io`] for a file that cannot be read.
    pub fn collect(root: &Path, fragment: &Path, drop_ins: &[PathBuf]) -> Result<UnitEvidence> {
        let read = |path: &Path| -> Result<TextEvidence> {
            let real = under_root(root, path);
            let text = fs::read(&real).map_err(|source| Error::io(&real, "read", source))?;
            Ok(TextEvidence { path: path.to_owned(), digest: Digest::of(&text) })
        };
        let drop_ins = drop_ins.iter().filter(|path| !is_own_drop_in(path));
        Ok(UnitEvidence {
            fragment: read(fragment)?,
            drop_ins: drop_ins.map(|path| read(path)).collect::<Result<_>>()?,
        })
    }

    /// Compare with the unit as systemd would load it now.
    ///
    /// # Errors
    /// What changed, with [`ReasonCode::UnitChanged`].
    pub fn check(
        &self,
        root: &Path,
        fragment_now: &Path,
        drop_ins_now: &[PathBuf],
    ) -> std::result::Result<(), StaleReason> {
        let stale = |sentence: String| Err(StaleReason::new(ReasonCode::UnitChanged, sentence));
        if self.fragment.path != fragment_now {
            let (was, is) = (self.fragment.path.display(), fragment_now.display());
            return stale(format!("unit file is {is}, was {was} at the snapshot"));
        }
        let now: Vec<&PathBuf> = drop_ins_now.iter().filter(|path| !is_own_drop_in(path)).collect();
        if let Some(added) = now.iter().find(|path| !self.drop_ins.iter().any(|was| was.path == ***path)) {
            return stale(format!("drop-in {} was added", added.display()));
        }
        if let Some(removed) = self.drop_ins.iter().find(|was| !now.iter().any(|path| was.path == **path)) {
            return stale(format!("drop-in {} was removed", removed.path.display()));
        }
        if !now.into_iter().eq(self.drop_ins.iter().map(|was| &was.path)) {
            return stale("drop-ins apply in another order".to_owned());
        }
        for text in std::iter::once(&self.fragment).chain(&self.drop_ins) {
            match fs::read(under_root(root, &text.path)) {
                Ok(content) if Digest::of(&content) == text.digest => {}
                Ok(_) => return stale(format!("{} changed", text.path.display())),
                Err(error) => return stale(format!("{} cannot be read: {error}", text.path.display())),
            }
        }
        Ok(())
    }
}
