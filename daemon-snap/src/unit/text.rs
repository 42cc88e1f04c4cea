//! The unit's own text: what stands after `ExecStart=`, and the `[X-Fastboot]` section, which systemd ignores.

use image_store::evidence::is_own_drop_in;
use image_store::unit_text;
use snap_collect::dump::LostPeer;
use snap_error::{Error, Result};
use std::path::{Path, PathBuf};

/// Section that is ours.
const SECTION: &str = "X-Fastboot";

/// What matters to us in fragment and drop-ins together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitText {
    /// Every `ExecStart=` since the last empty one, as written.
    pub exec_start: Vec<String>,
    /// `DependsOn=` (or `Paths=`): files, directories, patterns whose content counts.
    pub depends_on: Vec<String>,
    /// `IgnoreChanges=`: files, directories, patterns whose content does not count.
    pub ignore_changes: Vec<String>,
    /// `AllowState=yes`: the unit may be taken although it writes to its own state.
    pub allow_state: bool,
    /// `WarmUp=`: a command that is run before the last wait for quiet.
    pub warm_up: Option<String>,
    /// `BeforeSnapshot=`: commands that are run before the freeze.
    pub before_snapshot: Vec<String>,
    /// `AfterRestore=`: commands that are run when it goes on, after a restore and after the freeze.
    pub after_restore: Vec<String>,
    /// `OnLostPeer=close`: connections to others end, instead of keeping the unit from being taken.
    pub lost_peer: LostPeer,
    /// Keys in our section that mean nothing.
    pub unknown: Vec<String>,
}

impl UnitText {
    /// Reads fragment and drop-ins, ours excepted.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read(fragment: &Path, drop_ins: &[PathBuf]) -> Result<Self> {
        let mut text = Self::default();
        let others = drop_ins.iter().map(PathBuf::as_path).filter(|path| !is_own_drop_in(path));
        for path in std::iter::once(fragment).chain(others) {
            let read = std::fs::read(path);
            let bytes = read.map_err(|e| Error::io("read", path.display(), &e))?;
            text.add(&String::from_utf8_lossy(&bytes));
        }
        Ok(text)
    }

    /// Adds the assignments of one file.
    fn add(&mut self, text: &str) {
        for assignment in unit_text::parse(text) {
            let value = assignment.value.as_str();
            match (assignment.section.as_str(), assignment.key.as_str()) {
                ("Service", "ExecStart") => add_to_list(&mut self.exec_start, value, |v| vec![v.to_owned()]),
                (SECTION, "DependsOn" | "Paths") => add_to_list(&mut self.depends_on, value, words),
                (SECTION, "IgnoreChanges") => add_to_list(&mut self.ignore_changes, value, words),
                (SECTION, "AllowState") => self.allow_state = is_true(value),
                (SECTION, "WarmUp") => self.warm_up = Some(value.to_owned()).filter(|v| !v.is_empty()),
                (SECTION, "BeforeSnapshot") => {
                    add_to_list(&mut self.before_snapshot, value, |v| vec![v.to_owned()])
                }
                (SECTION, "AfterRestore") => {
                    add_to_list(&mut self.after_restore, value, |v| vec![v.to_owned()])
                }
                // The generator's.
                (SECTION, "SkipStartPre") => {}
                (SECTION, "OnLostPeer") if value == "close" => self.lost_peer = LostPeer::Close,
                (SECTION, "OnLostPeer") if value == "refuse" => self.lost_peer = LostPeer::Refuse,
                (SECTION, other) => self.unknown.push(other.to_owned()),
                _ => {}
            }
        }
    }
}

/// An empty value empties the list.
fn add_to_list(list: &mut Vec<String>, value: &str, split: impl Fn(&str) -> Vec<String>) {
    match value.is_empty() {
        true => list.clear(),
        false => list.extend(split(value)),
    }
}

/// Words at blanks; a word in quotes may have blanks in it.
fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for c in value.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ' | '\t') if word.is_empty() => {}
            (None, ' ' | '\t') => words.push(std::mem::take(&mut word)),
            _ => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

fn is_true(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].contains(&value.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> UnitText {
        let mut unit = UnitText::default();
        texts.iter().for_each(|text| unit.add(text));
        unit
    }

    #[test]
    fn exec_start_is_verbatim_and_an_empty_one_resets_it() {
        let fragment = "[Service]\nType=notify\nExecStart=-/bin/a \\\n  # no\n  one\n";
        assert_eq!(parse(&[fragment]).exec_start, ["-/bin/a    one"]);
        let drop_in = "[Service]\nExecStart=\nExecStart = @/bin/b b '%i'\n";
        assert_eq!(parse(&[fragment, drop_in]).exec_start, ["@/bin/b b '%i'"]);
        assert_eq!(parse(&["[Unit]\nExecStart=/bin/a\n"]).exec_start, Vec::<String>::new());
    }

    #[test]
    fn our_section_has_lists_of_words_and_unknown_keys_are_kept() {
        let text = "[X-Fastboot]\nDependsOn=/etc/a/*.conf \"/etc/b c\"\nDependsOn=/etc/d\nPaths=/etc/e\n\
                    IgnoreChanges=/var/cache/a\nAllowState=yes\nWarmUp=curl -s localhost\nColour=blue\n\
                    BeforeSnapshot=a b\nAfterRestore=+c\nAfterRestore=d\nSkipStartPre=yes\n";
        let unit = parse(&[text]);
        assert_eq!(unit.depends_on, ["/etc/a/*.conf", "/etc/b c", "/etc/d", "/etc/e"]);
        assert_eq!(unit.ignore_changes, ["/var/cache/a"]);
        assert!(unit.allow_state);
        assert_eq!(unit.warm_up.as_deref(), Some("curl -s localhost"));
        assert_eq!(unit.before_snapshot, ["a b"]);
        assert_eq!(unit.after_restore, ["+c", "d"]);
        assert_eq!(unit.unknown, ["Colour"]);
        assert!(parse(&[text, "[X-Fastboot]\nDependsOn=\n"]).depends_on.is_empty());
    }
}
