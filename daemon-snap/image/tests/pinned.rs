//! Small images of real processes, committed when the layout of their state was made, a directory
//! for each layout. They never change.
//!
//! A test that fails here says that the layout of a family has changed: raise its version in
//! `snap_state::sections`, add images of the new one, and say in `sections/before.rs` what becomes
//! of the old ones.

mod exercise;

use exercise::{LAYOUTS, State, committed, open};
use image_store::{Durability, ImageWriter, PAGE_SIZE};
use snap_image::{read_tree, section_of};
use snap_state::sections::{self, Family};
use snap_state::{
    FileKindV1, InodeId, InodeKindV1, InodeV1, NamedFileV1, NodeV1, PipeV1, RawPath, Tree, TreeV1,
    UnixMessageV1, UnixSocketV1, UnixStateV1,
};
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn images_of_todays_layout_are_read_and_written_again_to_the_byte() {
    for path in committed(LAYOUTS[LAYOUTS.len() - 1]) {
        let image = open(&path);
        let tree = read_tree(&image).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let stored = State::of(&image);
        let written = sections::encode(&tree).unwrap();
        assert_eq!(written.len(), stored.parts().len(), "{}", path.display());
        for (section, (family, recorded)) in written.iter().zip(stored.parts()) {
            assert_eq!((section.family, section.family.version()), (*family, recorded.version));
            let is_same = section.bytes == recorded.bytes;
            assert!(is_same, "{}: the layout of {family:?} has changed", path.display());
        }
    }
}

/// Where the image holds the pages that a tree speaks of.
fn pages_of(tree: &Tree) -> BTreeSet<u64> {
    let of_memory = tree.processes.iter().flat_map(|process| &process.mm.runs);
    let of_objects = tree.inodes.iter().flat_map(|inode| &inode.content);
    let runs = of_memory.map(|run| (run.image_offset, run.pages));
    let runs = runs.chain(of_objects.map(|run| (run.image_offset, run.pages)));
    runs.flat_map(|(start, pages)| (0..u64::from(pages)).map(move |at| start + at * PAGE_SIZE as u64))
        .collect()
}

#[test]
fn images_of_layouts_before_are_converted() {
    let (tree, objects) = ((Family::Tree, 7), (Family::Objects, 1));
    let first = [tree, (Family::Processes, 1), (Family::Files, 1), objects];
    let (memory, bus) = ((Family::Memory, 1), (Family::Bus, 1));
    let second = [tree, (Family::Processes, 2), memory, (Family::Files, 2), bus, objects];
    let before: [(&str, &[(Family, u16)]); 2] = [("1", &first), ("2", &second)];
    let paths = |(layout, versions)| committed(layout).into_iter().map(move |path| (versions, path));
    for (before, path) in before.into_iter().flat_map(paths) {
        let image = open(&path);
        let parts = State::of(&image);
        let versions: Vec<(Family, u16)> =
            parts.parts().iter().map(|(family, stored)| (*family, stored.version)).collect();
        assert_eq!(versions, before, "{}", path.display());

        let tree = read_tree(&image).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The image says by itself which pages it has; those that a fork shares are there once.
        let page_area = image.page_area();
        let pages = (page_area.end - page_area.start) / PAGE_SIZE as u64;
        let all: BTreeSet<u64> = page_area.step_by(PAGE_SIZE).collect();
        assert_eq!(pages_of(&tree), all, "{}", path.display());
        assert!(
            tree.processes.iter().all(|process| !process.mm.vmas.is_empty() && !process.threads.is_empty())
        );

        // Written again it is of today's layout, and the same.
        let dir = tempfile::tempdir().unwrap();
        let converted = dir.path().join("converted.img");
        let mut writer = ImageWriter::create(&converted).unwrap();
        let mut bytes = vec![0; pages as usize * PAGE_SIZE];
        image.read_pages(image.page_area().start, &mut bytes).unwrap();
        writer.append_pages(&bytes).unwrap();
        snap_image::write_tree(&mut writer, &tree).unwrap();
        writer.finish(Durability::NoSync).unwrap();
        assert_eq!(read_tree(&open(&converted)).unwrap(), tree, "{}", path.display());
    }
}

#[test]
fn sections_of_a_version_that_is_not_read_are_refused_by_their_age() {
    let image = open(&committed(LAYOUTS[LAYOUTS.len() - 1])[0]);
    let dir = tempfile::tempdir().unwrap();
    let stored = State::of(&image);
    for (age, other) in [("older", 0), ("newer", 99)] {
        for family in Family::ALL {
            let path = dir.path().join(format!("{age}-{family:?}.img"));
            let mut writer = ImageWriter::create(&path).unwrap();
            for (of, part) in stored.parts() {
                let version = if *of == family { other } else { part.version };
                writer.add_section(section_of(*of), version, &part.bytes).unwrap();
            }
            writer.finish(Durability::NoSync).unwrap();
            let error = read_tree(&open(&path)).unwrap_err().to_string();
            let section = section_of(family).to_string();
            assert!(error.contains(age) && error.contains(&section), "{family:?}: {error}");
        }
    }
}

#[test]
fn committed_images_hold_what_they_are_named_for() {
    for layout in LAYOUTS {
        let tree = |name: &str| -> Tree {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(layout).join(name);
            read_tree(&open(&path)).unwrap()
        };
        let kinds =
            |tree: &Tree| format!("{:?}", tree.files.iter().map(|file| &file.kind).collect::<Vec<_>>());
        assert!(kinds(&tree("eventfd.img")).contains("EventFd"));
        assert!(kinds(&tree("unix-pair.img")).contains("Unix"));
        assert!(format!("{:?}", tree("memfd.img").inodes).contains("Memfd"));
        if layout == "3" {
            let kinds = format!("{:?}", tree("posix-queue.img").inodes);
            assert_eq!(kinds.matches("MessageQueue").count(), 4, "{kinds}");
            let sysv = [&tree("message-queue.img").sysv, &tree("semaphores.img").sysv];
            assert_eq!(sysv.map(|sysv| sysv.queues.len()), [1, 0]);
            assert_eq!(sysv.map(|sysv| (sysv.semaphore_sets.len(), sysv.undo.len())), [(0, 0), (1, 3)]);
        }
        assert!(tree("file-locks.img").processes.iter().any(|process| !process.locks.is_empty()));
    }
}

#[test]
fn tree_whose_parts_do_not_go_together_is_corrupt() {
    let refused = |name: &str, change: &dyn Fn(&mut TreeV1)| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/3").join(name);
        let image = open(&path);
        let mut tree = read_tree(&image).unwrap().into_inner();
        change(&mut tree);
        Tree::check(tree, &image.page_area()).expect_err(name).to_string()
    };
    let nobodys = refused("eventfd.img", &|tree| {
        let node = NodeV1 { uid: 0, gid: 0, mode: 0o600 };
        let (data, packets) = (Vec::new(), Vec::new());
        tree.pipes.push(PipeV1 { capacity_bytes: 4096, data, packets, fifo: None, hung_up: false, node });
    });
    assert_eq!(nobodys, "a pipe of nobody");

    let unused = refused("eventfd.img", &|tree| {
        let id = InodeId(tree.inodes.len() as u32);
        let kind = InodeKindV1::Path(NamedFileV1 { path: RawPath(b"/etc".to_vec()) });
        tree.inodes.push(InodeV1 { id, kind, content: Vec::new(), ..tree.inodes[0].clone() });
    });
    assert!(unused.ends_with("belongs to nothing"), "{unused}");

    let posix = refused("posix-queue.img", &|tree| {
        for inode in &mut tree.inodes {
            if let InodeKindV1::MessageQueue(queue) = &mut inode.kind {
                queue.messages.reverse();
            }
        }
    });
    assert_eq!(posix, "messages out of order");
    let queue = refused("message-queue.img", &|tree| tree.sysv.queues[0].messages[0].kind = 0);
    assert_eq!(queue, "a message without a type");
    let value = refused("semaphores.img", &|tree| tree.sysv.semaphore_sets[0].semaphores[0].value = 40_000);
    assert_eq!(value, "semaphores out of range");
    let undo = refused("semaphores.img", &|tree| tree.sysv.undo[0].number = 5);
    assert_eq!(undo, "an adjustment of nothing");
    let order = refused("semaphores.img", &|tree| tree.sysv.undo.reverse());
    assert_eq!(order, "adjustments out of order");

    let sockets = |tree: &mut TreeV1, change: &dyn Fn(&mut UnixSocketV1)| {
        for file in &mut tree.files {
            if let FileKindV1::Unix(socket) = &mut file.kind {
                change(socket);
            }
        }
    };
    let unheard = refused("unix-pair.img", &|tree| {
        sockets(tree, &|socket| {
            if let UnixStateV1::Pair { peer } = socket.state {
                socket.state = UnixStateV1::Waiting { listener: peer, place: 0 };
            }
        });
    });
    assert_eq!(unheard, "a connection to what does not listen");

    let unsent = refused("unix-pair.img", &|tree| {
        sockets(tree, &|socket| {
            socket.state = UnixStateV1::Unconnected;
            socket.address.clear();
            socket.queue = vec![UnixMessageV1::default()];
        });
    });
    assert_eq!(unsent, "a message that nobody can have sent");
}

/// Numbers that are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// What a fuzz target does without end, in bounds and the same in every run.
#[test]
fn changed_bytes_of_any_family_are_damage_or_a_consistent_tree_and_never_a_panic() {
    const ROUNDS: usize = 120;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for path in LAYOUTS.into_iter().flat_map(committed) {
        let whole = State::of(&open(&path));
        for (family, stored) in whole.parts() {
            assert!(whole.exercise(*family, &stored.bytes), "{}", path.display());
            let mut refused = 0;
            for _ in 0..ROUNDS {
                let mut changed = stored.bytes.clone();
                for _ in 0..=numbers.next(4) {
                    let place = numbers.next(changed.len());
                    match numbers.next(4) {
                        0 => changed[place] = numbers.next(256) as u8,
                        1 => changed[place] ^= 1 << numbers.next(8),
                        2 => changed.insert(place, numbers.next(256) as u8),
                        _ => changed.truncate(place.max(1)),
                    }
                }
                refused += usize::from(!whole.exercise(*family, &changed));
            }
            // A changed byte of a number or a name is another state, not damage; what the store's
            // checksums are for.
            let say = format!("{} {family:?}: {refused} of {ROUNDS} were refused", path.display());
            assert!(refused > ROUNDS / 10, "{say}");
        }
    }
}
