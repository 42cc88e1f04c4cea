//! Files of accounts that a service read: entries that were there must be there, others may have
//! come.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::file::under_root;
use super::reason::{ReasonCode, StaleReason};
use crate::digest::Digest;
use crate::error::{Error, Result};

/// One file with a line for each user or group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountsEvidence {
    /// Absolute path.
    pub path: PathBuf,
    /// Name and digest of each line.
    pub entries: Vec<(String, Digest)>,
}

impl AccountsEvidence {
    /// Read the file. One that is not there has no entries.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn collect(root: &Path, path: &Path) -> Result<AccountsEvidence> {
        let real = under_root(root, path);
        let text = match fs::read(&real) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|source| Error::io(&real, "read", source))?,
        };
        Ok(AccountsEvidence { path: path.to_owned(), entries: entries(&text) })
    }

    /// Compare with the file as it is now.
    ///
    /// # Errors
    /// The first entry that changed or is gone, with [`ReasonCode::FileChanged`].
    pub fn check(&self, root: &Path) -> std::result::Result<(), StaleReason> {
        let text = fs::read(under_root(root, &self.path)).unwrap_or_default();
        let now: BTreeMap<String, Digest> = entries(&text).into_iter().collect();
        for (name, was) in &self.entries {
            let how = match now.get(name) {
                Some(is) if is == was => continue,
                Some(_) => "changed",
                None => "is gone",
            };
            let sentence = format!("{} changed (the entry of {name} {how})", self.path.display());
            return Err(StaleReason::new(ReasonCode::FileChanged, sentence));
        }
        Ok(())
    }
}

fn entries(text: &[u8]) -> Vec<(String, Digest)> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let entry = |line: &[u8]| {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        (String::from_utf8_lossy(name).into_owned(), Digest::of(line))
    };
    // Of entries of one name the first counts, as for whoever looks one up.
    let mut seen = std::collections::BTreeSet::new();
    lines.map(entry).filter(|(name, _)| seen.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_may_come_and_those_that_were_there_must_stay_as_they_were() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let put = |text: &str| std::fs::write(root.path().join("etc/passwd"), text).unwrap();
        put("root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\n");
        let was = AccountsEvidence::collect(root.path(), Path::new("/etc/passwd")).unwrap();
        let verdict = || was.check(root.path()).err().map(|reason| reason.sentence);
        assert_eq!(verdict(), None);
        put("root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\nnew:x:999:999::/:/bin/sh\n");
        assert_eq!(verdict(), None);
        put("root:x:0:0::/root:/bin/sh\nwww:x:34:33::/var/www:/bin/false\n");
        assert_eq!(verdict().unwrap(), "/etc/passwd changed (the entry of www changed)");
        put("root:x:0:0::/root:/bin/sh\n");
        assert_eq!(verdict().unwrap(), "/etc/passwd changed (the entry of www is gone)");
    }
}
