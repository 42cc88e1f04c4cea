//! Libraries whose random numbers come again when an image is restored again (docs/randomness.md).

use snap_state::{BackingV1, InodeKindV1, TreeV1};
use std::collections::BTreeSet;

const RESEED: &str = "libfastboot-reseed.so";
/// Beginning of the file name; whether [`RESEED`] sees to it.
const REPEATING: [(&str, bool); 3] =
    [("libcrypto.so", true), ("libgcrypt.so", true), ("libgnutls.so", false)];
/// Beginning of the file name of what may have drawn secrets before the image was taken, or keeps
/// a generator that nobody helps: libssl draws the keys of session tickets when a service prepares
/// to listen, Java has generators that are asked for by name (Tomcat's session ids come from
/// SHA1PRNG), Node draws ahead.
const SHARES: [&str; 3] = ["libssl.so", "libjvm.so", "libnode.so"];
/// The program that has OpenSSL within.
const NODE: &str = "node";

/// A note for each that some process of the tree has mapped.
pub(super) fn notes(tree: &TreeV1) -> Vec<String> {
    notes_of(&mapped(tree))
}

/// Libraries and programs by which machines with one image would share secrets.
pub(super) fn repeated_elsewhere(tree: &TreeV1) -> Vec<String> {
    shared_of(&mapped(tree))
}

fn shared_of(mapped: &BTreeSet<String>) -> Vec<String> {
    let shares =
        |name: &&String| name.as_str() == NODE || SHARES.iter().any(|beginning| name.starts_with(beginning));
    repeating(mapped).chain(mapped.iter().filter(shares)).cloned().collect()
}

/// File names of what processes of the tree have mapped.
fn mapped(tree: &TreeV1) -> BTreeSet<String> {
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
    paths.collect()
}

fn repeating(mapped: &BTreeSet<String>) -> impl Iterator<Item = &String> {
    let is_reseeded = mapped.contains(RESEED);
    mapped.iter().filter(move |name| {
        REPEATING.iter().any(|(library, helped)| name.starts_with(library) && !(is_reseeded && *helped))
    })
}

fn notes_of(mapped: &BTreeSet<String>) -> Vec<String> {
    let note = |name: &String| {
        format!("{name} may draw the same random numbers after each restore; fastboot.unit(5), RANDOMNESS")
    };
    repeating(mapped).map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preloaded_library_helps_machines_only_with_what_is_drawn_later() {
        let shared =
            |names: &[&str]| shared_of(&names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        assert_eq!(shared(&["libcrypto.so.3", "libc.so.6"]), ["libcrypto.so.3"]);
        assert!(shared(&["libcrypto.so.3", RESEED]).is_empty());
        assert_eq!(shared(&["libcrypto.so.3", "libssl.so.3", RESEED]), ["libssl.so.3"]);
        assert_eq!(shared(&["java", "libjvm.so"]), ["libjvm.so"]);
        assert_eq!(shared(&["node", "nodelay"]), ["node"]);
        assert!(shared(&["python3.13", "libc.so.6"]).is_empty());
    }

    #[test]
    fn libraries_that_repeat_are_named_unless_they_are_helped() {
        let mapped = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(notes_of(&mapped(&["libc.so.6", "libcrypto.so.3", "libgnutls.so.30"])).len(), 2);
        let helped = notes_of(&mapped(&["libcrypto.so.3", "libgnutls.so.30", RESEED]));
        assert!(helped.len() == 1 && helped[0].starts_with("libgnutls"), "{helped:?}");
        assert!(notes_of(&mapped(&["libc.so.6", "libssl.so.3"])).is_empty());
    }
}
