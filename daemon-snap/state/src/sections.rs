//! A [`TreeV1`] as the bytes of the sections of an image, and back. Each family of state has a
//! section and a version of its own.
//!
//! The order of fields is the layout (postcard has no names), so committed images pin it: whoever
//! changes a struct raises the version of its family, and says in [`before`] what becomes of a
//! section of the version before.

pub(crate) mod apart;
mod before;

use crate::corrupt::{Corrupt, SectionFault};
pub use crate::family::Family;
use crate::{
    BusConnectionV1, CgroupV1, ClocksV1, ConfinementV1, FileKindV1, FileV1, InodeId, InodeV1, MappedLockV1,
    MmV1, PipeV1, ProcessV1, SeccompFilterV1, SessionKeyringV1, StoredV1, SysvV1, Tree, TreeV1, VdsoV1,
    VolatileDirV1, VolatileNodeV1, ZombieV1,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// Upper bound of a decoded section in bytes; larger ones are refused before allocation.
pub const SECTION_MAX_BYTES: usize = 512 << 20;

impl Family {
    /// Whether a section of that version can be read: today's, and those that are converted.
    pub fn reads(self, version: u16) -> bool {
        version == self.version() || before::conversion(self, version).is_some()
    }
}

/// One section of today's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    pub family: Family,
    pub bytes: Vec<u8>,
}

/// What an image has of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub version: u16,
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
        Family::Ipc => postcard::to_stdvec(&tree.sysv),
        Family::Processes => postcard::to_stdvec(&ProcessesSection {
            processes: Cow::Borrowed(&tree.processes),
            zombies: Cow::Borrowed(&tree.zombies),
            seccomp_filters: Cow::Borrowed(&tree.seccomp_filters),
        }),
        Family::Memory => {
            postcard::to_stdvec(&tree.processes.iter().map(|process| &process.mm).collect::<Vec<_>>())
        }
        Family::Files => postcard::to_stdvec(&FilesSection {
            files: Cow::Borrowed(&tree.files),
            pipes: Cow::Borrowed(&tree.pipes),
            mapped_locks: Cow::Borrowed(&tree.mapped_locks),
        }),
        Family::Bus => postcard::to_stdvec(&tree.files.iter().filter_map(connection).collect::<Vec<_>>()),
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

fn connection(file: &FileV1) -> Option<&BusConnectionV1> {
    match &file.kind {
        FileKindV1::Bus(connection) => Some(connection),
        _ => None,
    }
}

/// The tree in sections of versions that are [read](Family::reads); `read` gives what the image has
/// of each family, `page_area` is where the image holds pages.
///
/// # Errors
/// What `read` says, and [`Corrupt`] when the bytes are not a consistent tree.
pub fn decode<E: From<Corrupt>>(
    read: impl FnMut(Family) -> Result<Stored, E>,
    page_area: Range<u64>,
) -> Result<Tree, E> {
    Ok(Tree::check(assemble(&of_today(read)?)?, &page_area)?)
}

/// The sections as today's version has them. A family that an earlier version kept in the section
/// of another is not asked for.
fn of_today<E: From<Corrupt>>(
    mut read: impl FnMut(Family) -> Result<Stored, E>,
) -> Result<BTreeMap<Family, Vec<u8>>, E> {
    let mut sections = BTreeMap::new();
    for family in Family::ALL {
        if sections.contains_key(&family) {
            continue;
        }
        let Stored { version, bytes } = read(family)?;
        check_length(family, &bytes)?;
        if version == family.version() {
            sections.insert(family, bytes);
            continue;
        }
        let unknown = || Corrupt::Section { family, fault: SectionFault::Version(version) };
        let converted = before::conversion(family, version).ok_or_else(unknown)?(&bytes)?;
        sections.extend(converted.into_iter().map(|section| (section.family, section.bytes)));
    }
    Ok(sections)
}

/// The tree that the bytes say, whether it is consistent or not.
fn assemble(sections: &BTreeMap<Family, Vec<u8>>) -> Result<TreeV1, Corrupt> {
    let whole: TreeSection<'_> = part(Family::Tree, sections)?;
    let sysv: SysvV1 = part(Family::Ipc, sections)?;
    let processes: ProcessesSection<'_> = part(Family::Processes, sections)?;
    let memory: Vec<MmV1> = part(Family::Memory, sections)?;
    let files: FilesSection<'_> = part(Family::Files, sections)?;
    let connections: Vec<BusConnectionV1> = part(Family::Bus, sections)?;
    let objects: ObjectsSection<'_> = part(Family::Objects, sections)?;
    Ok(TreeV1 {
        clocks: whole.clocks,
        vdso: whole.vdso.into_owned(),
        processes: with_memory(processes.processes.into_owned(), memory)?,
        files: with_connections(files.files.into_owned(), connections)?,
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
        sysv,
    })
}

fn with_memory(mut processes: Vec<ProcessV1>, memory: Vec<MmV1>) -> Result<Vec<ProcessV1>, Corrupt> {
    if processes.len() != memory.len() {
        let (spaces, count) = (memory.len(), processes.len());
        return Err(Corrupt::AddressSpaces { spaces, processes: count });
    }
    processes.iter_mut().zip(memory).for_each(|(process, mm)| process.mm = mm);
    Ok(processes)
}

fn with_connections(
    mut files: Vec<FileV1>,
    connections: Vec<BusConnectionV1>,
) -> Result<Vec<FileV1>, Corrupt> {
    let mut connections = connections.into_iter();
    for file in &mut files {
        if let FileKindV1::Bus(place) = &mut file.kind {
            *place = connections.next().ok_or(Corrupt::Rule("a bus connection is missing"))?;
        }
    }
    match connections.next() {
        None => Ok(files),
        Some(_) => Err(Corrupt::Rule("a bus connection without a file")),
    }
}

fn check_length(family: Family, bytes: &[u8]) -> Result<(), Corrupt> {
    if bytes.len() > SECTION_MAX_BYTES {
        let fault = SectionFault::TooLarge { len_bytes: bytes.len() };
        return Err(Corrupt::Section { family, fault });
    }
    Ok(())
}

fn part<T: DeserializeOwned>(family: Family, sections: &BTreeMap<Family, Vec<u8>>) -> Result<T, Corrupt> {
    let corrupt = |fault| Corrupt::Section { family, fault };
    let bytes = sections.get(&family).ok_or_else(|| corrupt(SectionFault::Missing))?;
    let taken = postcard::take_from_bytes::<T>(bytes);
    let (value, rest) = taken.map_err(|error| corrupt(SectionFault::Undecodable(error)))?;
    if !rest.is_empty() {
        return Err(corrupt(SectionFault::Rest { len_bytes: rest.len() }));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree_of;

    fn stored(sections: &[Section]) -> impl FnMut(Family) -> Result<Stored, Corrupt> {
        |family| {
            let section = sections.iter().find(|section| section.family == family).unwrap();
            Ok(Stored { version: family.version(), bytes: section.bytes.clone() })
        }
    }

    fn read_back(sections: &[Section]) -> Result<TreeV1, Corrupt> {
        assemble(&of_today(stored(sections))?)
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
        let decoded = decode(stored(&sections), 4096..4096);
        assert_eq!(decoded, Err(Corrupt::Rule("an executable out of range")));
    }

    #[test]
    fn version_that_nobody_has_written_is_not_read() {
        let sections = encode(&tree()).unwrap();
        for family in Family::ALL {
            let mut whole = stored(&sections);
            let read =
                |of| whole(of).map(|read| if of == family { Stored { version: 99, ..read } } else { read });
            let said = Corrupt::Section { family, fault: SectionFault::Version(99) };
            assert_eq!(of_today(read), Err(said));
            assert!(family.reads(family.version()) && !family.reads(99));
        }
    }

    #[test]
    fn memory_and_connections_have_to_be_as_many_as_their_owners() {
        for family in [Family::Memory, Family::Bus] {
            let mut sections = encode(&tree()).unwrap();
            let of_family = |section: &&mut Section| section.family == family;
            // One element more, or none.
            let bytes = &mut sections.iter_mut().find(of_family).unwrap().bytes;
            *bytes = match family {
                Family::Memory => vec![0],
                _ => postcard::to_stdvec(&[BusConnectionV1::default()]).unwrap(),
            };
            // A list and not an array.
            if family == Family::Bus {
                bytes.insert(0, 1);
            }
            assert!(read_back(&sections).is_err(), "{family:?}");
        }
    }
}
