//! Users and groups by name.
//!
//! Read from `/etc/passwd` and `/etc/group` directly: a name service may need the network or a
//! daemon that has not started, and a check at boot may not wait for either. Names that are not in
//! these files (dynamic users, directory services) do not belong into evidence.

use std::fs;
use std::path::Path;

use super::file::under_root;
use super::reason::{ReasonCode, StaleReason};

/// Id of a user in `root/etc/passwd`; `None` when the name or the file is not there.
pub fn user_id(root: &Path, name: &str) -> Option<u32> {
    find(&read(root, "/etc/passwd")?, name)
}

/// Id of a group in `root/etc/group`.
pub fn group_id(root: &Path, name: &str) -> Option<u32> {
    find(&read(root, "/etc/group")?, name)
}

pub(super) fn check(
    root: &Path,
    users: &[(String, u32)],
    groups: &[(String, u32)],
) -> Result<(), StaleReason> {
    for (what, file, recorded) in [("user", "/etc/passwd", users), ("group", "/etc/group", groups)] {
        if recorded.is_empty() {
            continue;
        }
        let text = read(root, file).unwrap_or_default();
        for (name, was) in recorded {
            let sentence = match find(&text, name) {
                Some(id) if id == *was => continue,
                Some(id) => format!("{what} {name} has id {id}, was {was}"),
                None => format!("{what} {name} is not in {file}, had id {was}"),
            };
            return Err(StaleReason::new(ReasonCode::IdentityChanged, sentence));
        }
    }
    Ok(())
}

fn read(root: &Path, path: &str) -> Option<String> {
    let bytes = fs::read(under_root(root, Path::new(path))).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Both files have the id in the third field.
fn find(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)).flatten()?.parse().ok())
}
