//! Libraries that would draw the same random numbers after each restore, and are brought to seed
//! themselves again (docs/decisions/0031).
//!
//! OpenSSL and libgcrypt remember their process id with the state of their generators and seed
//! again when getpid(2) says something else, because they are in the child of a fork then. They ask
//! through a word of their own, which the dynamic linker has filled. A restored process has a page
//! with a few instructions that give another number in each of its lives, and another one in each
//! process, and these words lead there. Everybody else in the process asks as ever.
//!
//! The page is memory of the process like any other: its forks have it, and so has its next image.
//! The restore of that finds the page by how it begins and gives it a new number, so that there is
//! one of it for ever, and words that lead there are right before and after.

mod dynamic;

use crate::desk::Desk;
use crate::tape::{self, Reseed};
use dynamic::Dynamic;
use image_store::Image;
use nix::sys::uio::pread;
use snap_error::Result;
use snap_state::{
    BackingV1, InodeId, InodeKindV1, InodeV1, NamedFileV1, PAGE_BYTES, ProcessV1, SeccompFilterV1, Tree,
    TreeV1, VmaV1,
};
use snap_sys as sys;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;

const FUNCTION: &[u8] = b"getpid";
/// How the names of their files begin: as they are built, and as wheels of Python rename them.
const LIBRARIES: [&[u8]; 5] = [b"libcrypto.so", b"libcrypto-", b"libgcrypt.so", b"libgcrypt-", b"fips.so"];
const EXECUTABLE: u8 = libc::PROT_EXEC as u8;

/// What is to be done in each process of a tree, by index.
///
/// # Errors
/// The image cannot be read.
pub fn plan(desk: &Desk, tree: &Tree, image: &Image) -> Result<Vec<Option<Reseed>>> {
    let mut known: HashMap<InodeId, Option<Dynamic>> = HashMap::new();
    let mut plans = Vec::with_capacity(tree.processes.len());
    let mut used = BTreeSet::new();
    for process in &tree.processes {
        let mut slots = Vec::new();
        for (inode, _) in libraries(process, &tree.inodes) {
            let library = known.entry(inode).or_insert_with(|| {
                let fd = desk.mapped(inode, false).ok()?;
                inspect(sys::rebuild::placed(fd))
            });
            slots.extend(
                library.as_ref().and_then(|library| slots_of(process, inode, library)).unwrap_or_default(),
            );
        }
        let page = left_page(process, image)?;
        used.extend(page.map(|(_, key)| key));
        let is_wanted = page.is_some() || !slots.is_empty();
        let can_seed = is_wanted && may_seed(process, &tree.seccomp_filters);
        plans.push(can_seed.then(|| Reseed { slots, page: page.map(|(at, _)| at), key: 0 }));
    }
    if plans.iter().any(Option::is_some) {
        let key = new_key(&used);
        plans.iter_mut().flatten().for_each(|plan| plan.key = key);
    }
    Ok(plans)
}

/// Names of libraries in a tree that ought to be reached and are not: by process and mapping, `open`
/// gives the file that is mapped there.
pub fn unreached(tree: &TreeV1, open: impl Fn(&ProcessV1, &VmaV1) -> Option<File>) -> BTreeSet<String> {
    let mut known: HashMap<InodeId, Option<Dynamic>> = HashMap::new();
    let mut names = BTreeSet::new();
    for process in &tree.processes {
        for (inode, library) in libraries(process, &tree.inodes) {
            let dynamic = known.entry(inode).or_insert_with(|| {
                // A process that runs again may have cut one of them.
                let file =
                    process.mm.vmas.iter().filter(|vma| is_of(vma, inode)).find_map(|vma| open(process, vma));
                inspect(file?)
            });
            let slots = dynamic.as_ref().and_then(|dynamic| slots_of(process, inode, dynamic));
            let is_reached = slots.is_some_and(|slots| !slots.is_empty());
            if !is_reached || !may_seed(process, &tree.seccomp_filters) {
                names.insert(library.into_owned());
            }
        }
    }
    names
}

/// Libraries of these kinds that a process has mapped to be executed, with the names of their
/// files.
fn libraries<'a>(process: &ProcessV1, inodes: &'a [InodeV1]) -> BTreeMap<InodeId, std::borrow::Cow<'a, str>> {
    let executed = process.mm.vmas.iter().filter(|vma| vma.prot & EXECUTABLE != 0);
    let named = executed.filter_map(|vma| {
        let BackingV1::Inode { inode, .. } = vma.backing else { return None };
        let InodeKindV1::Path(NamedFileV1 { path }) = &inodes.get(inode.0 as usize)?.kind else {
            return None;
        };
        let name = path.as_path().file_name()?;
        let is_one = LIBRARIES.iter().any(|library| name.as_bytes().starts_with(library));
        is_one.then(|| (inode, name.to_string_lossy()))
    });
    named.collect()
}

fn inspect(file: impl AsFd) -> Option<Dynamic> {
    let read = |offset: u64, len: usize| {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let at = i64::try_from(offset.checked_add(filled as u64)?).ok()?;
            match pread(&file, &mut bytes[filled..], at) {
                Ok(0) | Err(_) => return None,
                Ok(got) => filled += got,
            }
        }
        Some(bytes)
    };
    dynamic::inspect(&read, FUNCTION)
}

fn is_of(vma: &VmaV1, library: InodeId) -> bool {
    matches!(vma.backing, BackingV1::Inode { inode, .. } if inode == library) && !vma.shared
}

/// The addresses of all words of a library in a process, which may have several copies of it.
/// `None`: something executable of it belongs to no copy that is mapped as its file says.
fn slots_of(process: &ProcessV1, inode: InodeId, library: &Dynamic) -> Option<Vec<u64>> {
    let mapped = || process.mm.vmas.iter().filter(|vma| is_of(vma, inode));
    let (mut slots, mut copies) = (Vec::new(), Vec::new());
    for first in mapped().filter(|vma| matches!(vma.backing, BackingV1::Inode { offset: 0, .. })) {
        let start = first.start.0;
        let address = |word: &dynamic::Word| {
            let at = start.checked_add(word.distance)?;
            let is_there = |vma: &&VmaV1| {
                let BackingV1::Inode { offset, .. } = vma.backing else { return false };
                (vma.start.0..vma.end.0).contains(&at) && offset + (at - vma.start.0) == word.file_offset
            };
            // The linker has written there, so the page is one of the process's own.
            (mapped().any(|vma| is_there(&vma)) && has_page(process, at)).then_some(at)
        };
        if let Some(found) = library.words.iter().map(address).collect::<Option<Vec<u64>>>() {
            slots.extend(found);
            copies.push(start..start.saturating_add(library.len_bytes));
        }
    }
    let belongs = |vma: &VmaV1| copies.iter().any(|copy| copy.contains(&vma.start.0));
    mapped().filter(|vma| vma.prot & EXECUTABLE != 0).all(belongs).then_some(slots)
}

fn has_page(process: &ProcessV1, at: u64) -> bool {
    let page = at & !(PAGE_BYTES - 1);
    let runs = &process.mm.runs;
    let after = runs.partition_point(|run| run.addr.0 <= page);
    let run = after.checked_sub(1).and_then(|index| runs.get(index));
    run.is_some_and(|run| page < run.addr.0 + u64::from(run.pages) * PAGE_BYTES)
}

/// The page of an earlier restore, with the number in it.
fn left_page(process: &ProcessV1, image: &Image) -> Result<Option<(u64, u32)>> {
    let is_alike = |vma: &&VmaV1| {
        vma.backing == BackingV1::Anon
            && !vma.shared
            && vma.len_bytes() == PAGE_BYTES
            && vma.prot == libc::PROT_READ as u8 | EXECUTABLE
    };
    for vma in process.mm.vmas.iter().filter(is_alike) {
        // Alone in its area, so it is alone in its run or next to what lies elsewhere.
        let runs = &process.mm.runs;
        let Some(run) = runs
            .iter()
            .find(|run| (run.addr.0..run.addr.0 + u64::from(run.pages) * PAGE_BYTES).contains(&vma.start.0))
        else {
            continue;
        };
        let mut page = vec![0; PAGE_BYTES as usize];
        image.read_pages(run.image_offset + (vma.start.0 - run.addr.0), &mut page)?;
        if let Some(key) = tape::answer_key(&page) {
            return Ok(Some((vma.start.0, key)));
        }
    }
    Ok(None)
}

/// Whether the filters of a process let it ask and seed. One that has shut itself off from
/// getrandom(2) after it was seeded would have no numbers at all if it had to seed again.
fn may_seed(process: &ProcessV1, filters: &[SeccompFilterV1]) -> bool {
    let programs = process.threads.iter().flat_map(|thread| &thread.seccomp);
    let programs: Option<Vec<&[u8]>> =
        programs.map(|(id, _)| filters.get(id.0 as usize).map(|filter| filter.program.as_slice())).collect();
    programs.is_some_and(|programs| {
        tape::allows(&programs, libc::SYS_getpid as u32, &[])
            && tape::allows(&programs, libc::SYS_getrandom as u32, &[0, 32, 0])
    })
}

/// A number for this restore that none of the pages has. The bit above all process ids is set: what
/// it is mixed with becomes neither 0 nor an id.
fn new_key(used: &BTreeSet<u32>) -> u32 {
    const ABOVE: u32 = 1 << 30;
    let key_of = |number: u32| (number % ABOVE) | ABOVE;
    let mut key = key_of(sys::own::draw());
    while used.contains(&key) {
        key = key_of(key + 1);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::testing::tree_of;
    use snap_state::{Addr, PageRunV1, RawPath, VmaFlagsV1};

    const BASE: u64 = 0x7000_0000_0000;

    fn vma(start: u64, pages: u64, prot: u8, offset: u64) -> VmaV1 {
        VmaV1 {
            start: Addr(start),
            end: Addr(start + pages * PAGE_BYTES),
            prot,
            shared: false,
            backing: BackingV1::Inode { inode: InodeId(0), offset, may_write: false },
            flags: VmaFlagsV1::default(),
            name: None,
        }
    }

    /// A process with the object of the other module at [`BASE`].
    fn process() -> ProcessV1 {
        let mut process = tree_of(&[(10, None, 10, 10)]).processes.remove(0);
        process.mm.vmas = vec![vma(BASE, 1, 5, 0), vma(BASE + 0x2000, 1, 1, 0x1000)];
        process.mm.runs = vec![PageRunV1 { addr: Addr(BASE + 0x2000), pages: 1, image_offset: 0x1000 }];
        process
    }

    fn library() -> Dynamic {
        dynamic::inspect(&dynamic::tests::from(&dynamic::tests::object()), FUNCTION).expect("an object")
    }

    #[test]
    fn slots_are_where_the_library_is_mapped() {
        let both = |base: u64| [base + 0x2010, base + 0x2020];
        assert_eq!(slots_of(&process(), InodeId(0), &library()).unwrap(), both(BASE));
        let mut twice = process();
        let second = BASE + 0x10_0000;
        twice.mm.vmas.extend([vma(second, 1, 5, 0), vma(second + 0x2000, 1, 1, 0x1000)]);
        let run = PageRunV1 { addr: Addr(second + 0x2000), pages: 1, image_offset: 0x2000 };
        twice.mm.runs.push(run);
        let all = [both(BASE), both(second)].concat();
        assert_eq!(slots_of(&twice, InodeId(0), &library()).unwrap(), all);
    }

    #[test]
    fn a_file_that_is_only_read_does_not_matter_and_a_torn_library_is_not_understood() {
        let mut read = process();
        read.mm.vmas.push(vma(BASE + 0x10_0000, 2, 1, 0));
        assert_eq!(slots_of(&read, InodeId(0), &library()).unwrap().len(), 2);
        let mut elsewhere = process();
        elsewhere.mm.vmas[1] = vma(BASE + 0x3000, 1, 1, 0x1000);
        assert_eq!(slots_of(&elsewhere, InodeId(0), &library()), None);
        let mut untouched = process();
        untouched.mm.runs.clear();
        assert_eq!(slots_of(&untouched, InodeId(0), &library()), None);
    }

    #[test]
    fn libraries_are_known_by_their_names_and_only_when_they_are_executed() {
        let named = |name: &str, prot: u8| {
            let mut process = process();
            process.mm.vmas[0].prot = prot;
            let kind =
                InodeKindV1::Path(NamedFileV1 { path: RawPath(format!("/usr/lib/{name}").into_bytes()) });
            let inode = InodeV1 {
                id: InodeId(0),
                kind,
                mode: 0o100_644,
                uid: 0,
                gid: 0,
                len_bytes: 0x2000,
                rdev: 0,
                mtime_ns: 0,
                atime_ns: 0,
                xattrs: Default::default(),
                content: Vec::new(),
            };
            libraries(&process, &[inode]).len()
        };
        for name in ["libcrypto.so.3", "libcrypto-1a2b3c.so.1.1", "libgcrypt.so.20.4.1", "fips.so"] {
            assert_eq!((named(name, 5), named(name, 1)), (1, 0), "{name}");
        }
        for name in ["libcrypto++.so.8", "libssl.so.3", "libcrypt.so.1"] {
            assert_eq!(named(name, 5), 0, "{name}");
        }
    }

    #[test]
    fn a_key_makes_another_number_of_each_process_id_and_none_that_a_process_has() {
        let used = BTreeSet::from([1 << 30, (1 << 30) + 1]);
        let key = new_key(&used);
        assert!(!used.contains(&key));
        for pid in [1, 300, (1 << 22) - 1] {
            let number = (pid ^ key) as i32;
            assert!(number >= 1 << 30, "{number}");
        }
    }
}
