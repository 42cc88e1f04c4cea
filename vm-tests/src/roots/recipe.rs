//! What a root file system is made of. Pure values: the cache finds a built root by their hash.

use std::borrow::Cow;

/// Raised when a root is built in another way from the same recipe.
const BUILD_VERSION: u32 = 1;

/// A file that is put into the root after its packages and before its setup script.
#[derive(Debug, Clone)]
pub struct RootFile {
    /// Absolute path in the root.
    pub path: Cow<'static, str>,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub content: Cow<'static, [u8]>,
}

impl RootFile {
    /// An ordinary file, readable by all.
    pub fn text(path: &'static str, content: &'static str) -> RootFile {
        RootFile { path: path.into(), mode: 0o644, content: content.as_bytes().into() }
    }

    /// An executable.
    pub fn program(path: &'static str, content: impl Into<Cow<'static, [u8]>>) -> RootFile {
        RootFile { path: path.into(), mode: 0o755, content: content.into() }
    }
}

/// Everything that decides what a root holds.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Short name, part of the directory's name.
    pub name: &'static str,
    /// Debian suite, as `trixie`.
    pub suite: &'static str,
    /// Packages on top of the essential ones.
    pub packages: Vec<&'static str>,
    /// Packages of Debian's sid, where the suite's own do not do; what they need may come from
    /// there too.
    pub from_sid: Vec<&'static str>,
    /// Files.
    pub files: Vec<RootFile>,
    /// Shell script that runs in the root, as root, at the end.
    pub setup: &'static str,
}

impl Recipe {
    /// Name of the directory that a root built from this has: the recipe's name and 64 bits of its
    /// hash.
    pub fn key(&self) -> String {
        let mut hash = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(&BUILD_VERSION.to_le_bytes());
        part(self.suite.as_bytes());
        part(self.packages.join(",").as_bytes());
        part(self.setup.as_bytes());
        if !self.from_sid.is_empty() {
            part(self.from_sid.join(",").as_bytes());
        }
        for file in &self.files {
            part(file.path.as_bytes());
            part(&file.mode.to_le_bytes());
            part(&file.content);
        }
        let hex = hash.finalize().to_hex();
        format!("{}-{}", self.name, &hex[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        let files = vec![RootFile::text("/a", "b")];
        Recipe { name: "n", suite: "trixie", packages: vec!["p"], from_sid: Vec::new(), files, setup: "true" }
    }

    #[test]
    fn every_part_of_a_recipe_counts() {
        let key = recipe().key();
        assert!(key.starts_with("n-"));
        assert_eq!(key, recipe().key());
        let mut changed = [recipe(), recipe(), recipe(), recipe(), recipe()];
        changed[0].suite = "sid";
        changed[1].packages.push("q");
        changed[2].files[0] = RootFile::program("/a", b"b".as_slice());
        changed[3].setup = "false";
        changed[4].from_sid.push("q");
        for other in changed {
            assert_ne!(other.key(), key);
        }
    }
}
