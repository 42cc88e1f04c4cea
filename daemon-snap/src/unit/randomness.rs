//! Libraries whose random numbers come again when an image is restored again (docs/randomness.md).

use snap_state::{BackingV1, InodeKindV1, TreeV1};
use std::collections::BTreeSet;

const RESEED: &str = "libfastboot-reseed.so";
/// Beginning of the file name; whether [`RESEED`] sees to it.
const REPEATING: [(&str, bool); 3] =
    [("libcrypto.so", true), ("libgcrypt.so", true), ("libgnutls.so", false)];

/// A note for each that some process of the tree has mapped.
pub(super) fn notes(tree: &TreeV1) -> Vec<String> {
    let vmas = tree.processes.iter().flat_map(|process| &process.mm.vmas);
    let inodes: BTreeSet<u32> = vmas
        .filter_map(|vma| match vma.backing {
            BackingV1::Inode { inode, .. } => Some(inode.0),
            _ => None,
        })
        .collect();
    let paths = inodes.iter().filter_map(|id| match &tree.inodes.get(*id as usize)?.kind {
        InodeKindV1::Path { path } => Some(path.as_path().file_name()?.to_string_lossy().into_owned()),
        _ => None,
    });
    notes_of(&paths.collect::<BTreeSet<_>>())
}

fn notes_of(mapped: &BTreeSet<String>) -> Vec<String> {
    let is_reseeded = mapped.contains(RESEED);
    let repeats = |name: &&String| {
        REPEATING.iter().any(|(library, helped)| name.starts_with(library) && !(is_reseeded && *helped))
    };
    let note = |name: &String| {
        format!("{name} may draw the same random numbers after each restore; fastboot.unit(5), RANDOMNESS")
    };
    mapped.iter().filter(repeats).map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_repeat_are_named_unless_they_are_helped() {
        let mapped = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(notes_of(&mapped(&["libc.so.6", "libcrypto.so.3", "libgnutls.so.30"])).len(), 2);
        let helped = notes_of(&mapped(&["libcrypto.so.3", "libgnutls.so.30", RESEED]));
        assert!(helped.len() == 1 && helped[0].starts_with("libgnutls"), "{helped:?}");
        assert!(notes_of(&mapped(&["libc.so.6", "libssl.so.3"])).is_empty());
    }
}
