//! Small images of real processes, committed when the layout of their state was made. They never
//! change.
//!
//! A test that fails here says that the layout of a family has changed: raise its version in
//! `snap_state::sections`, add images of the new one, and say in `snap_image` what becomes of the
//! old ones.

use image_store::{Image, UncheckedImage};
use snap_image::{read_tree, section_of};
use snap_state::check::Corrupt;
use snap_state::sections::{self, Family, SECTION_MAX_BYTES};
use snap_state::{
    FileKindV1, InodeId, InodeKindV1, InodeV1, NodeV1, PipeV1, RawPath, Tree, TreeV1, UnixMessageV1,
    UnixSocketV1, UnixStateV1,
};
use std::path::{Path, PathBuf};

fn committed() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    let entries = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let mut images: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|it| it == "img")).collect();
    images.sort();
    assert!(images.len() >= 4, "{images:?}");
    images
}

/// The state of an image; who owns the file is for the store to ask.
fn open(path: &Path) -> Image {
    UncheckedImage::open(path).unwrap().check().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn bytes_of(image: &Image, family: Family) -> Vec<u8> {
    image.section(section_of(family), family.version(), SECTION_MAX_BYTES as u64).unwrap()
}

#[test]
fn committed_images_are_read_and_written_again_to_the_byte() {
    for path in committed() {
        let image = open(&path);
        let tree = read_tree(&image).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for section in sections::encode(&tree).unwrap() {
            let recorded = bytes_of(&image, section.family);
            assert!(
                section.bytes == recorded,
                "{}: the layout of {:?} has changed",
                path.display(),
                section.family
            );
        }
    }
}

#[test]
fn committed_images_hold_what_they_are_named_for() {
    let tree = |name: &str| -> Tree {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(name);
        read_tree(&open(&path)).unwrap()
    };
    let kinds = |tree: &Tree| format!("{:?}", tree.files.iter().map(|file| &file.kind).collect::<Vec<_>>());
    assert!(kinds(&tree("eventfd.img")).contains("EventFd"));
    assert!(kinds(&tree("unix-pair.img")).contains("Unix"));
    assert!(format!("{:?}", tree("memfd.img").inodes).contains("Memfd"));
    assert!(tree("file-locks.img").processes.iter().any(|process| !process.locks.is_empty()));
}

#[test]
fn tree_whose_parts_do_not_go_together_is_corrupt() {
    let refused = |name: &str, change: &dyn Fn(&mut TreeV1)| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(name);
        let image = open(&path);
        let mut tree = read_tree(&image).unwrap().into_inner();
        change(&mut tree);
        Tree::check(tree, &image.page_area()).expect_err(name).0
    };
    let nobodys = refused("eventfd.img", &|tree| {
        let node = NodeV1 { uid: 0, gid: 0, mode: 0o600 };
        let (data, packets) = (Vec::new(), Vec::new());
        tree.pipes.push(PipeV1 { capacity_bytes: 4096, data, packets, fifo: None, hung_up: false, node });
    });
    assert_eq!(nobodys, "a pipe of nobody");

    let unused = refused("eventfd.img", &|tree| {
        let id = InodeId(tree.inodes.len() as u32);
        let kind = InodeKindV1::Path { path: RawPath(b"/etc".to_vec()) };
        tree.inodes.push(InodeV1 { id, kind, content: Vec::new(), ..tree.inodes[0].clone() });
    });
    assert!(unused.ends_with("belongs to nothing"), "{unused}");

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

#[test]
fn changed_bytes_are_damage_or_a_consistent_tree_and_never_a_panic() {
    const ROUNDS: usize = 4_000;
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for path in committed() {
        let image = open(&path);
        let whole: Vec<Vec<u8>> = Family::ALL.map(|family| bytes_of(&image, family)).to_vec();
        let mut refused = 0;
        for _ in 0..ROUNDS {
            let mut changed = whole.clone();
            let at = numbers.next(changed.len());
            for _ in 0..=numbers.next(4) {
                let section = &mut changed[at];
                let place = numbers.next(section.len());
                match numbers.next(3) {
                    0 => section[place] = numbers.next(256) as u8,
                    1 => section[place] ^= 1 << numbers.next(8),
                    _ => section.truncate(place.max(1)),
                }
            }
            let read = |family: Family| Ok::<_, Corrupt>(changed[family as usize].clone());
            refused += usize::from(sections::decode(read, image.page_area()).is_err());
        }
        // A changed byte of a number or a name is another state, not damage; what the store's
        // checksums are for.
        assert!(refused > ROUNDS / 10, "{}: only {refused} of {ROUNDS} were refused", path.display());
    }
}
