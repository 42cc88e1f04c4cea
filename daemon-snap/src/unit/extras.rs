//! `[X-Fastboot]`: what a unit file says to us. systemd ignores sections that begin with X-.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Settings of the section, from fragment and drop-ins in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Files, directories (with all below) or glob patterns whose change makes the image stale.
    pub depends_on: Vec<String>,
    /// Prefixes of paths whose change does not.
    pub ignore_changes: Vec<PathBuf>,
    /// Writable state files may be open although a golden image would put old memory over newer data.
    pub allow_state: bool,
}

impl Extras {
    /// Reads the section from the unit's files.
    ///
    /// # Errors
    /// A file cannot be read; an unknown setting or a bad value, naming it.
    pub fn read<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let mut extras = Self::default();
        for file in files {
            let text = std::fs::read_to_string(file).map_err(|e| Error::io("reading", file.display(), &e))?;
            extras.add(&text).map_err(|message| Error::Internal {
                step: "reading [X-Fastboot]",
                message: format!("{}: {message}", file.display()),
            })?;
        }
        Ok(extras)
    }

    fn add(&mut self, text: &str) -> std::result::Result<(), String> {
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') {
                inside = line == "[X-Fastboot]";
                continue;
            }
            if !inside {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| format!("{line:?} has no value"))?;
            let words = || value.split_whitespace();
            match key.trim() {
                // As in systemd, an empty assignment resets a list.
                "DependsOn" if words().next().is_none() => self.depends_on.clear(),
                "DependsOn" => self.depends_on.extend(words().map(str::to_owned)),
                "IgnoreChanges" if words().next().is_none() => self.ignore_changes.clear(),
                "IgnoreChanges" => self.ignore_changes.extend(words().map(PathBuf::from)),
                "AllowState" => {
                    self.allow_state = match value.trim() {
                        "yes" | "true" | "on" | "1" => true,
                        "no" | "false" | "off" | "0" => false,
                        other => return Err(format!("AllowState={other} is neither yes nor no")),
                    }
                }
                other => return Err(format!("unknown setting {other}=")),
            }
        }
        Ok(())
    }

    /// Whether changes of a path do not matter.
    pub fn ignores(&self, path: &Path) -> bool {
        self.ignore_changes.iter().any(|prefix| path.starts_with(prefix))
    }

    /// All paths that `DependsOn=` names today: directories with everything below them.
    ///
    /// # Errors
    /// A pattern that is none, or a directory that cannot be listed.
    pub fn dependencies(&self) -> Result<Vec<PathBuf>> {
        let mut out = Vec::new();
        for pattern in &self.depends_on {
            let bad = |message: String| Error::Internal { step: "DependsOn=", message };
            let found = glob::glob(pattern).map_err(|e| bad(format!("{pattern}: {e}")))?;
            let before = out.len();
            for path in found {
                add_all(path.map_err(|e| bad(e.to_string()))?, &mut out)?;
            }
            // A file that is named but absent must stay absent.
            if out.len() == before && !pattern.contains(['*', '?', '[']) {
                out.push(PathBuf::from(pattern));
            }
        }
        Ok(out)
    }
}

fn add_all(path: PathBuf, out: &mut Vec<PathBuf>) -> Result<()> {
    let is_dir = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
    out.push(path.clone());
    if is_dir {
        let list = std::fs::read_dir(&path).map_err(|e| Error::io("listing", path.display(), &e))?;
        for entry in list {
            add_all(entry.map_err(|e| Error::io("listing", path.display(), &e))?.path(), out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_section_is_read() {
        let mut extras = Extras::default();
        extras.add("[Service]\nDependsOn=/no\n[X-Fastboot]\nDependsOn=/a /b\n# x\nAllowState=yes\n[Install]\nA=b").unwrap();
        assert_eq!(extras.depends_on, ["/a", "/b"]);
        assert!(extras.allow_state);
    }

    #[test]
    fn unknown_settings_are_named() {
        let error = Extras::default().add("[X-Fastboot]\nDependOn=/a").unwrap_err();
        assert_eq!(error, "unknown setting DependOn=");
    }
}
