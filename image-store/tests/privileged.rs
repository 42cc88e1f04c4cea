//! What only root can make: a file system that is full, one without direct reads.

mod common;

use common::{flip, names_in, pages, write_image};
use image_store::load::{PageLoader, Sink};
use image_store::{
    Durability, Error, ErrorKind, Image, ImageWriter, Part, Result, SectionKind, UncheckedImage,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use test_frame::{Need, tests};

fn main() -> std::process::ExitCode {
    test_frame::libtest::main(tests![[Need::Root];
        a_full_file_system_is_named_and_nothing_is_left,
        every_page_comes_from_the_device_once_and_as_it_was,
        what_is_in_the_page_cache_comes_from_there,
        damage_is_named_by_its_chunk_wherever_it_is,
        a_file_that_shrinks_under_the_reader_is_corrupt,
        without_a_ring_the_pages_come_through_the_cache,
        a_file_system_without_direct_reads_says_so,
    ])
}

fn a_full_file_system_is_named_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let options = Some("size=1m,mode=0700");
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), options).unwrap();
    let path = dir.path().join("a.img");
    let write = |page_count: usize, section_len: usize| -> Result<()> {
        let mut writer = ImageWriter::create(&path)?;
        writer.append_pages(&pages(page_count, 1))?;
        writer.add_section(SectionKind::STATE, 1, &pages(section_len, 3))?;
        writer.finish(Durability::Sync).map(|_| ())
    };
    let full = [write(512, 0), write(0, 512)].map(Result::unwrap_err);
    let left = names_in(dir.path());
    let fits = write(100, 1);
    umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
    for error in full {
        assert!(matches!(error, Error::NoSpace { needed_bytes: 1_048_576.., .. }), "{error:?}");
        assert!(error.to_string().contains("a.img") && error.kind() == ErrorKind::Io, "{error}");
    }
    assert_eq!(left, [""; 0]);
    fits.unwrap();
}

/// What was handed on, by offset.
#[derive(Default)]
struct Taken {
    pieces: Vec<(u64, Vec<u8>)>,
    /// Called with the first piece.
    first: Option<Box<dyn FnOnce()>>,
}

impl Sink for Taken {
    type Error = Error;

    fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if let Some(first) = self.first.take() {
            first();
        }
        self.pieces.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn go_on(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Taken {
    fn bytes(mut self) -> Vec<u8> {
        self.pieces.sort_by_key(|(offset, _)| *offset);
        self.pieces.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }
}

/// More than are under way at a time, and a short chunk at the end.
const PAGE_COUNT: usize = 256 * 9 + 7;

/// On a disk: /tmp may be a tmpfs, which is nothing but page cache.
fn dir_on_disk() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// An image of which the page cache has nothing.
fn cold(path: &std::path::Path) -> Image {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    UncheckedImage::open(path).unwrap().check().unwrap()
}

fn load(image: &Image, taken: &mut Taken) -> Result<()> {
    PageLoader::new(image, image.open_direct()?)?.run(|_| true, taken)
}

fn every_page_comes_from_the_device_once_and_as_it_was() {
    let dir = dir_on_disk();
    let path = dir.path().join("a.img");
    write_image(&path, PAGE_COUNT);
    let image = cold(&path);
    let mut taken = Taken::default();
    load(&image, &mut taken).unwrap();
    assert!(taken.bytes() == pages(PAGE_COUNT, 1));
    let loader = PageLoader::new(&image, image.open_direct().unwrap()).unwrap();
    assert!(!loader.is_mostly_cached(), "the pages went through the page cache");
    let mut some = Taken::default();
    loader.run(|chunk| chunk % 2 == 1, &mut some).unwrap();
    let first = some.pieces.iter().map(|(offset, _)| *offset).min();
    assert_eq!(first, Some(image.page_area().start + (1 << 20)));
    assert_eq!(some.bytes().len(), (4 << 20) + 7 * 4096);
}

fn what_is_in_the_page_cache_comes_from_there() {
    let dir = dir_on_disk();
    let path = dir.path().join("a.img");
    write_image(&path, PAGE_COUNT);
    let image = cold(&path);
    let mut begin = vec![0; 6 << 20];
    image.read_pages(image.page_area().start, &mut begin).unwrap();
    assert!(PageLoader::new(&image, image.open_direct().unwrap()).unwrap().is_mostly_cached());
    let mut taken = Taken::default();
    load(&image, &mut taken).unwrap();
    assert!(taken.bytes() == pages(PAGE_COUNT, 1));
}

fn damage_is_named_by_its_chunk_wherever_it_is() {
    let dir = dir_on_disk();
    let path = dir.path().join("a.img");
    write_image(&path, PAGE_COUNT);
    let last = 4096 * PAGE_COUNT as u64;
    for (at, chunk) in [(4096, 0), (4096 + (5 << 20) + 77, 5), (last + 4095, 9)] {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        flip(&file, at);
        match load(&cold(&path), &mut Taken::default()).unwrap_err() {
            Error::Corrupt { part: Part::Pages, offset, .. } => assert_eq!(offset, 4096 + (chunk << 20)),
            other => panic!("byte {at}: {other}"),
        }
        flip(&file, at);
    }
    load(&cold(&path), &mut Taken::default()).unwrap();
}

fn a_file_that_shrinks_under_the_reader_is_corrupt() {
    let dir = dir_on_disk();
    let path = dir.path().join("a.img");
    write_image(&path, PAGE_COUNT);
    let image = cold(&path);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    // In the middle of a chunk that is not under way yet.
    let shrink = move || file.set_len(4096 + (7 << 20) + 5000).unwrap();
    let error = load(&image, &mut Taken { first: Some(Box::new(shrink)), ..Taken::default() }).unwrap_err();
    assert!(matches!(error, Error::Corrupt { part: Part::Pages, .. }), "{error}");
}

fn without_a_ring_the_pages_come_through_the_cache() {
    let dir = dir_on_disk();
    let path = dir.path().join("a.img");
    write_image(&path, PAGE_COUNT);
    let image = cold(&path);
    let _fault = image_store::fault::arm("image.load.ring");
    let mut taken = Taken::default();
    load(&image, &mut taken).unwrap();
    assert!(taken.bytes() == pages(PAGE_COUNT, 1));
    assert!(PageLoader::new(&image, image.open_direct().unwrap()).unwrap().is_mostly_cached());
}

fn a_file_system_without_direct_reads_says_so() {
    let dir = tempfile::tempdir().unwrap();
    mount(Some("ramfs"), dir.path(), Some("ramfs"), MsFlags::empty(), None::<&str>).unwrap();
    let path = dir.path().join("a.img");
    write_image(&path, 300);
    let opened = UncheckedImage::open(&path).unwrap().check().unwrap().open_direct();
    umount2(dir.path(), MntFlags::MNT_DETACH).unwrap();
    assert!(matches!(opened, Err(Error::Io { .. })), "{opened:?}");
}
