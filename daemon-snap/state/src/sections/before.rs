//! Layouts of the versions before today's, and what becomes of their sections.
//!
//! A conversion decodes what the earlier version said and gives the sections that today's version
//! has for it. It knows its layout by itself: a struct that changes later gets a copy here of what
//! it was then.

use super::{Family, Section};
use crate::corrupt::{Corrupt, SectionFault};
use crate::{
    BusConnectionV1, FdV1, FileId, FileKindV1, FileLockV1, FileOwnerV1, InodeId, IntervalTimerV1,
    MappedLockV1, MmV1, NodeV1, Pid, PipeV1, PosixTimerV1, SeccompFilterV1, SigActionV1, SigInfoV1, SysvV1,
    ThreadV1, ZombieV1,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// From the bytes of a section to those of today's sections that hold the same.
pub(super) type Convert = fn(&[u8]) -> Result<Vec<Section>, Corrupt>;

/// Everything that is read and is not of today's version.
const CONVERSIONS: [(Family, u16, Convert); 4] = [
    (Family::Tree, 7, without_ipc),
    (Family::Processes, 1, memory_within_processes),
    (Family::Files, 1, connections_within_files),
    (Family::Objects, 1, without_message_queues),
];

/// How a section of an earlier version is read; `None`: not any more.
pub(super) fn conversion(family: Family, version: u16) -> Option<Convert> {
    CONVERSIONS
        .into_iter()
        .find(|(of, from, _)| (*of, *from) == (family, version))
        .map(|(_, _, convert)| convert)
}

/// Tree 7: trees with objects of IPC beside attached segments were refused.
fn without_ipc(bytes: &[u8]) -> Result<Vec<Section>, Corrupt> {
    Ok(vec![
        Section { family: Family::Tree, bytes: bytes.to_vec() },
        Section { family: Family::Ipc, bytes: written(&SysvV1::default())? },
    ])
}

/// Objects 1: POSIX message queues were refused; a kind behind the others changes nothing else.
fn without_message_queues(bytes: &[u8]) -> Result<Vec<Section>, Corrupt> {
    Ok(vec![Section { family: Family::Objects, bytes: bytes.to_vec() }])
}

/// Fields of a process before its memory, from `pid` to `rlimits`.
type BeforeMemory = (
    (Pid, Option<Pid>, Pid, Pid, i32, InodeId, FileId, Option<FileId>),
    (u32, u32, i32, bool, bool, u32, i32, u32, u32),
    (bool, Vec<(u64, u64)>),
);
/// Fields behind it, from `sigactions` to `profile`.
type BehindMemory = (
    (Vec<Option<SigActionV1>>, Vec<SigInfoV1>, [IntervalTimerV1; 3], Vec<PosixTimerV1>),
    (Vec<FdV1>, Vec<FileLockV1>, Vec<ThreadV1>, bool, Vec<Pid>, Option<String>),
);

/// Processes 1: each address space stood in the middle of its process.
fn memory_within_processes(bytes: &[u8]) -> Result<Vec<Section>, Corrupt> {
    let mut old = Old { family: Family::Processes, rest: bytes };
    let (mut processes, mut memory) = (Vec::new(), Vec::new());
    let count = old.count()?;
    for _ in 0..count {
        processes.push(old.bytes_of::<BeforeMemory>()?);
        memory.push(old.bytes_of::<MmV1>()?);
        processes.push(old.bytes_of::<BehindMemory>()?);
    }
    let others = old.last::<(Vec<ZombieV1>, Vec<SeccompFilterV1>)>()?;
    Ok(vec![
        Section { family: Family::Processes, bytes: joined(count, &processes, others)? },
        Section { family: Family::Memory, bytes: joined(count, &memory, &[])? },
    ])
}

/// Place of the bus among the kinds of file.
const BUS: u32 = 17;
/// `id`, `flags`, `owner`, `node`: the fields of a file before its kind.
type BeforeKind = (FileId, i32, Option<FileOwnerV1>, Option<NodeV1>);

/// Files 1: each connection to the bus stood in its file.
fn connections_within_files(bytes: &[u8]) -> Result<Vec<Section>, Corrupt> {
    let mut old = Old { family: Family::Files, rest: bytes };
    let (mut files, mut connections) = (Vec::new(), Vec::new());
    let count = old.count()?;
    for _ in 0..count {
        files.push(old.bytes_of::<BeforeKind>()?);
        let behind = old.rest;
        if old.take::<u32>()? == BUS {
            files.push(&behind[..behind.len() - old.rest.len()]);
            connections.push(old.bytes_of::<BusConnectionV1>()?);
        } else {
            old.rest = behind;
            files.push(old.bytes_of::<FileKindV1>()?);
        }
    }
    let others = old.last::<(Vec<PipeV1>, Vec<MappedLockV1>)>()?;
    Ok(vec![
        Section { family: Family::Files, bytes: joined(count, &files, others)? },
        Section { family: Family::Bus, bytes: joined(connections.len() as u32, &connections, &[])? },
    ])
}

/// What is left of a section of an earlier version.
struct Old<'a> {
    family: Family,
    rest: &'a [u8],
}

impl<'a> Old<'a> {
    fn corrupt(&self, fault: SectionFault) -> Corrupt {
        Corrupt::Section { family: self.family, fault }
    }

    fn take<T: DeserializeOwned>(&mut self) -> Result<T, Corrupt> {
        let taken = postcard::take_from_bytes::<T>(self.rest);
        let (value, rest) = taken.map_err(|error| self.corrupt(SectionFault::EarlierUndecodable(error)))?;
        self.rest = rest;
        Ok(value)
    }

    /// Length of a list.
    fn count(&mut self) -> Result<u32, Corrupt> {
        self.take::<u32>()
    }

    /// The bytes that a value takes, which has to be one.
    fn bytes_of<T: DeserializeOwned>(&mut self) -> Result<&'a [u8], Corrupt> {
        let before = self.rest;
        self.take::<T>()?;
        Ok(&before[..before.len() - self.rest.len()])
    }

    /// The same of the last value.
    fn last<T: DeserializeOwned>(mut self) -> Result<&'a [u8], Corrupt> {
        let bytes = self.bytes_of::<T>()?;
        match self.rest.is_empty() {
            true => Ok(bytes),
            false => Err(self.corrupt(SectionFault::Rest { len_bytes: self.rest.len() })),
        }
    }
}

/// A list of `count` elements that are bytes already, and what stands behind it.
fn joined(count: u32, elements: &[&[u8]], behind: &[u8]) -> Result<Vec<u8>, Corrupt> {
    let count = written(&count)?;
    Ok([count.as_slice(), &elements.concat(), behind].concat())
}

fn written(value: &impl Serialize) -> Result<Vec<u8>, Corrupt> {
    postcard::to_stdvec(value).map_err(Corrupt::Unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections::{Stored, assemble, encode, of_today};
    use crate::testing::tree_of;
    use crate::{EventFdV1, FileV1, SignalFdV1, TreeV1};

    fn bus(name: &str) -> FileKindV1 {
        FileKindV1::Bus(BusConnectionV1 { unique_name: name.into(), ..BusConnectionV1::default() })
    }

    fn tree() -> TreeV1 {
        let kinds = [
            FileKindV1::EventFd(EventFdV1 { count: 3, semaphore: true }),
            bus(":1.7"),
            FileKindV1::SignalFd(SignalFdV1 { mask: 1 }),
            bus(":1.42"),
        ];
        let file = |(at, kind)| FileV1 { id: FileId(at as u32), flags: 2, owner: None, node: None, kind };
        let files = kinds.into_iter().enumerate().map(file).collect();
        TreeV1 { files, ..tree_of(&[(1_000_010, None, 1_000_010, 1_000_010)]) }
    }

    /// As the version before wrote it: what has a section of its own today stands in its place.
    fn files_of_before(tree: &TreeV1) -> Vec<u8> {
        let mut bytes = written(&(tree.files.len() as u32)).unwrap();
        for FileV1 { id, flags, owner, node, kind } in &tree.files {
            bytes.extend(written(&(id, flags, owner, node)).unwrap());
            bytes.extend(match kind {
                FileKindV1::Bus(connection) => written(&(BUS, connection)).unwrap(),
                other => written(other).unwrap(),
            });
        }
        bytes.extend(written(&(&tree.pipes, &tree.mapped_locks)).unwrap());
        bytes
    }

    fn read(files: Vec<u8>) -> Result<TreeV1, Corrupt> {
        let sections = encode(&tree()).unwrap();
        let sections = of_today(|family| match family {
            Family::Files => Ok::<_, Corrupt>(Stored { version: 1, bytes: files.clone() }),
            Family::Bus => panic!("the version before had no section of it"),
            _ => {
                let section = sections.iter().find(|section| section.family == family).unwrap();
                Ok(Stored { version: family.version(), bytes: section.bytes.clone() })
            }
        })?;
        assemble(&sections)
    }

    #[test]
    fn connections_that_stood_in_their_files_are_kept() {
        assert_eq!(written(&bus("")).unwrap(), written(&BUS).unwrap(), "the place of the bus has changed");
        assert_eq!(read(files_of_before(&tree())), Ok(tree()));
    }

    #[test]
    fn trees_of_before_have_no_objects_of_ipc() {
        let sections = encode(&tree()).unwrap();
        let sections = of_today(|family| match family {
            Family::Ipc => panic!("the version before had no section of it"),
            _ => {
                let section = sections.iter().find(|section| section.family == family).unwrap();
                let version = if family == Family::Tree { 7 } else { family.version() };
                Ok::<_, Corrupt>(Stored { version, bytes: section.bytes.clone() })
            }
        });
        assert_eq!(assemble(&sections.unwrap()), Ok(tree()));
    }

    #[test]
    fn damage_in_a_section_of_the_version_before_is_found() {
        let whole = files_of_before(&tree());
        for len in 0..whole.len() {
            assert!(read(whole[..len].to_vec()).is_err(), "cut at {len}");
        }
        assert!(read([whole.as_slice(), b"more"].concat()).is_err());
    }

    #[test]
    fn every_conversion_is_of_a_version_before_todays() {
        for (family, version, _) in CONVERSIONS {
            assert!(version < family.version(), "{family:?} {version}");
        }
    }
}
