//! A [`TreeV1`] as the bytes of the sections of an image, and back. Each family of state has a
//! section and a version of its own.
//!
//! The order of fields is the layout (postcard has no names), so the committed images of
//! `tests/images` pin it: whoever changes a struct raises the version of its family.

use crate::check::Corrupt;
use crate::{
    CgroupV1, ClocksV1, ConfinementV1, FileV1, InodeId, InodeV1, MappedLockV1, PipeV1, ProcessV1,
    SeccompFilterV1, SessionKeyringV1, StoredV1, Tree, TreeV1, VdsoV1, VolatileDirV1, VolatileNodeV1,
    ZombieV1,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// Upper bound of a decoded section in bytes; larger ones are refused before allocation.
pub const SECTION_MAX_BYTES: usize = 512 << 20;

/// A family of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// What belongs to the tree as a whole.
    Tree,
    /// Processes with their threads and memory, what is left of ended ones, their filters.
    Processes,
    /// Open file descriptions and pipes.
    Files,
    /// What files and mappings lead to, and what has to be in volatile directories.
    Objects,
}

impl Family {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 4] = [Self::Tree, Self::Processes, Self::Files, Self::Objects];

    /// Version of its section. Raised with each change of the layout; 1 to 6 of the tree's were the
    /// whole state in one section.
    pub const fn version(self) -> u16 {
        match self {
            Self::Tree => 7,
            Self::Processes | Self::Files | Self::Objects => 1,
        }
    }
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub family: Family,
    pub bytes: Vec<u8>,
}

/// Why a tree has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    #[error(
        "the section of {family:?} would have {len_bytes} bytes, at most {SECTION_MAX_BYTES} are read again"
    )]
    TooLarge { family: Family, len_bytes: usize },
    #[error(transparent)]
    Serialise(#[from] postcard::Error),
}

#[derive(Serialize, Deserialize)]
struct TreeSection<'a> {
    clocks: ClocksV1,
    vdso: Cow<'a, VdsoV1>,
    cgroups: Cow<'a, [CgroupV1]>,
    session_keyring: Cow<'a, Option<SessionKeyringV1>>,
    confinement: Cow<'a, Option<ConfinementV1>>,
    stored: Cow<'a, [StoredV1]>,
}

#[derive(Serialize, Deserialize)]
struct ProcessesSection<'a> {
    processes: Cow<'a, [ProcessV1]>,
    zombies: Cow<'a, [ZombieV1]>,
    seccomp_filters: Cow<'a, [SeccompFilterV1]>,
}

#[derive(Serialize, Deserialize)]
struct FilesSection<'a> {
    files: Cow<'a, [FileV1]>,
    pipes: Cow<'a, [PipeV1]>,
    mapped_locks: Cow<'a, [MappedLockV1]>,
}

#[derive(Serialize, Deserialize)]
struct ObjectsSection<'a> {
    inodes: Cow<'a, [InodeV1]>,
    volatile_dirs: Cow<'a, [VolatileDirV1]>,
    volatile_files: Cow<'a, [InodeId]>,
    volatile_nodes: Cow<'a, [VolatileNodeV1]>,
}

/// The sections of a tree, one of each family.
///
/// # Errors
/// A section is larger than [`SECTION_MAX_BYTES`].
pub fn encode(tree: &TreeV1) -> Result<Vec<Section>, EncodeError> {
    Family::ALL.into_iter().map(|family| section(tree, family)).collect()
}

fn section(tree: &TreeV1, family: Family) -> Result<Section, EncodeError> {
    let bytes = match family {
        Family::Tree => postcard::to_stdvec(&TreeSection {
            clocks: tree.clocks,
            vdso: Cow::Borrowed(&tree.vdso),
            cgroups: Cow::Borrowed(&tree.cgroups),
            session_keyring: Cow::Borrowed(&tree.session_keyring),
            confinement: Cow::Borrowed(&tree.confinement),
            stored: Cow::Borrowed(&tree.stored),
        }),
        Family::Processes => postcard::to_stdvec(&ProcessesSection {
            processes: Cow::Borrowed(&tree.processes),
            zombies: Cow::Borrowed(&tree.zombies),
            seccomp_filters: Cow::Borrowed(&tree.seccomp_filters),
        }),
        Family::Files => postcard::to_stdvec(&FilesSection {
            files: Cow::Borrowed(&tree.files),
            pipes: Cow::Borrowed(&tree.pipes),
            mapped_locks: Cow::Borrowed(&tree.mapped_locks),
        }),
        Family::Objects => postcard::to_stdvec(&ObjectsSection {
            inodes: Cow::Borrowed(&tree.inodes),
            volatile_dirs: Cow::Borrowed(&tree.volatile_dirs),
            volatile_files: Cow::Borrowed(&tree.volatile_files),
            volatile_nodes: Cow::Borrowed(&tree.volatile_nodes),
        }),
    }?;
    if bytes.len() > SECTION_MAX_BYTES {
        return Err(EncodeError::TooLarge { family, len_bytes: bytes.len() });
    }
    Ok(Section { family, bytes })
}

/// The checked tree in sections of today's versions; `read` gives the bytes of each, `page_area` is where
/// the image holds pages.
///
/// # Errors
/// What `read` says, and [`Corrupt`] when the bytes are not a consistent tree.
pub fn decode<E: From<Corrupt>>(
    read: impl FnMut(Family) -> Result<Vec<u8>, E>,
    page_area: Range<u64>,
) -> Result<Tree, E> {
    Ok(Tree::check(assemble(read)?, &page_area)?)
}

/// The tree that the bytes say, whether it is consistent or not.
fn assemble<E: From<Corrupt>>(mut read: impl FnMut(Family) -> Result<Vec<u8>, E>) -> Result<TreeV1, E> {
    let whole: TreeSection<'_> = part(Family::Tree, &read(Family::Tree)?)?;
    let processes: ProcessesSection<'_> = part(Family::Processes, &read(Family::Processes)?)?;
    let files: FilesSection<'_> = part(Family::Files, &read(Family::Files)?)?;
    let objects: ObjectsSection<'_> = part(Family::Objects, &read(Family::Objects)?)?;
    Ok(TreeV1 {
        clocks: whole.clocks,
        vdso: whole.vdso.into_owned(),
        processes: processes.processes.into_owned(),
        files: files.files.into_owned(),
        inodes: objects.inodes.into_owned(),
        pipes: files.pipes.into_owned(),
        seccomp_filters: processes.seccomp_filters.into_owned(),
        volatile_dirs: objects.volatile_dirs.into_owned(),
        volatile_files: objects.volatile_files.into_owned(),
        mapped_locks: files.mapped_locks.into_owned(),
        volatile_nodes: objects.volatile_nodes.into_owned(),
        zombies: processes.zombies.into_owned(),
        cgroups: whole.cgroups.into_owned(),
        session_keyring: whole.session_keyring.into_owned(),
        confinement: whole.confinement.into_owned(),
        stored: whole.stored.into_owned(),
    })
}

fn part<T: DeserializeOwned>(family: Family, bytes: &[u8]) -> Result<T, Corrupt> {
    if bytes.len() > SECTION_MAX_BYTES {
        return Err(Corrupt(format!("a section of {} bytes is too large ({family:?})", bytes.len())));
    }
    let taken = postcard::take_from_bytes::<T>(bytes);
    let (value, rest) = taken.map_err(|error| Corrupt(format!("state of {family:?}: {error}")))?;
    if !rest.is_empty() {
        return Err(Corrupt(format!("{} bytes behind the state of {family:?}", rest.len())));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree_of;

    fn read_back(sections: &[Section]) -> Result<TreeV1, Corrupt> {
        let bytes = |family| sections.iter().find(|section| section.family == family).unwrap().bytes.clone();
        assemble(|family| Ok(bytes(family)))
    }

    fn tree() -> TreeV1 {
        tree_of(&[
            (1_000_010, None, 1_000_010, 1_000_010),
            (1_000_011, Some(1_000_010), 1_000_010, 1_000_010),
        ])
    }

    #[test]
    fn decoded_tree_is_the_one_that_was_encoded() {
        assert_eq!(read_back(&encode(&tree()).unwrap()), Ok(tree()));
    }

    #[test]
    fn bytes_behind_a_section_are_damage() {
        let mut sections = encode(&tree()).unwrap();
        for at in 0..sections.len() {
            sections[at].bytes.push(0);
            assert!(read_back(&sections).is_err(), "{:?}", sections[at].family);
            sections[at].bytes.pop();
        }
        assert!(read_back(&sections).is_ok());
    }

    #[test]
    fn truncated_sections_are_damage_and_never_a_panic() {
        let whole = encode(&tree()).unwrap();
        for at in 0..whole.len() {
            for len in 0..whole[at].bytes.len() {
                let mut cut = whole.clone();
                cut[at].bytes.truncate(len);
                assert!(read_back(&cut).is_err(), "{:?} cut at {len}", whole[at].family);
            }
        }
    }

    #[test]
    fn tree_that_is_not_consistent_is_corrupt() {
        let sections = encode(&tree()).unwrap();
        let bytes = |family| sections.iter().find(|section| section.family == family).unwrap().bytes.clone();
        let decoded = decode(|family| Ok(bytes(family)), 4096..4096);
        assert_eq!(decoded, Err(Corrupt("an executable out of range".into())));
    }
}
