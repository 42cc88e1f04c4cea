//! Names of the users and groups that a unit's processes run as.

use snap_state::TreeV1;
use std::collections::BTreeSet;
use std::path::Path;

/// Users and groups with the ids that they had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identities {
    pub users: Vec<(String, u32)>,
    pub groups: Vec<(String, u32)>,
}

/// Names below `root/etc` for every id that a thread holds. Ids without a name there (dynamic
/// users) are left out: they cannot be compared at boot without asking a name service.
pub(super) fn identities(root: &Path, tree: &TreeV1) -> Identities {
    let threads = || tree.processes.iter().flat_map(|process| &process.threads);
    let uids: BTreeSet<u32> = threads().flat_map(|thread| thread.creds.uids).collect();
    let gids: BTreeSet<u32> = threads()
        .flat_map(|thread| thread.creds.gids.into_iter().chain(thread.creds.groups.iter().copied()))
        .collect();
    let read = |path: &str| std::fs::read(root.join(path)).unwrap_or_default();
    Identities {
        users: names(&String::from_utf8_lossy(&read("etc/passwd")), &uids),
        groups: names(&String::from_utf8_lossy(&read("etc/group")), &gids),
    }
}

/// The first name of each id; several names may have one id.
fn names(text: &str, ids: &BTreeSet<u32>) -> Vec<(String, u32)> {
    let mut left = ids.clone();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        let (name, id) = (fields.next().unwrap_or_default(), fields.nth(1).and_then(|id| id.parse().ok()));
        if let Some(id) = id.filter(|id| left.remove(id)) {
            found.push((name.to_owned(), id));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_gets_its_first_name_and_unknown_ones_none() {
        let text = "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nwww-data:x:33:33:::\nbroken\n";
        let ids = BTreeSet::from([0, 33, 61184]);
        assert_eq!(names(text, &ids), [("root".to_owned(), 0), ("www-data".to_owned(), 33)]);
    }
}
