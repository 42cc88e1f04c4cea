//! Images: what is written is read, what is damaged is named, what fails leaves nothing.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;

use common::{STATE, UNIT, flip, names_in, pages, write_image};
use image_store::layout::{HEADER_LEN, Header, SECTION_ENTRY_LEN, SectionEntry, checksum};
use image_store::{
    Durability, Error, ErrorKind, Image, ImageWriter, PAGE_SIZE, Part, Result, SectionKind, UncheckedImage,
    fault,
};

fn open(path: &Path) -> Result<Image> {
    UncheckedImage::open(path)?.check()
}

/// Everything that a reader can check.
fn read_all(path: &Path) -> Result<()> {
    let image = open(path)?;
    for entry in image.sections() {
        image.section(entry.kind, entry.version, 1 << 20)?;
    }
    image.verify_pages(2)
}

#[test]
fn an_image_reads_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    // Not a multiple of the checksum chunk, appended in pieces that straddle chunks.
    let content = pages(700, 7);
    let mut writer = ImageWriter::create(&path).unwrap();
    assert_eq!(writer.append_pages(&content[..PAGE_SIZE]).unwrap(), 4096);
    assert_eq!(writer.append_pages(&content[PAGE_SIZE..600 * PAGE_SIZE]).unwrap(), 8192);
    assert_eq!(writer.page_bytes(), 600 * PAGE_SIZE as u64);
    let mut source = &content[600 * PAGE_SIZE..];
    let fill = |buffer: &mut [u8]| std::io::Read::read_exact(&mut source, buffer);
    assert_eq!(writer.append_pages_with(100 * PAGE_SIZE, fill).unwrap(), 4096 + 600 * PAGE_SIZE as u64);
    writer.add_section(SectionKind::STATE, 3, &STATE.repeat(100)).unwrap();
    writer.add_section(SectionKind::UNIT, 1, UNIT).unwrap();
    writer.add_section(SectionKind(9000), 1, b"").unwrap();
    assert_eq!(
        fs::metadata(dir.path().join(&names_in(dir.path())[0])).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let info = writer.finish(Durability::Sync).unwrap();

    assert_eq!(names_in(dir.path()), ["a.img"]);
    assert_eq!(info.len_bytes, fs::metadata(&path).unwrap().len());
    let image = open(&path).unwrap();
    assert_eq!((image.id(), image.len_bytes()), (info.id, info.len_bytes));
    assert_eq!(image.page_area(), 4096..4096 + 700 * PAGE_SIZE as u64);
    assert_eq!(image.section(SectionKind::STATE, 3, 1 << 20).unwrap(), STATE.repeat(100));
    assert_eq!(image.section(SectionKind::UNIT, 1, 5).unwrap(), UNIT);
    assert_eq!(image.section(SectionKind(9000), 1, 0).unwrap(), b"");
    assert!(image.sections()[0].is_compressed() && !image.sections()[1].is_compressed());
    let mut read = vec![0; content.len()];
    image.read_pages(4096, &mut read).unwrap();
    assert!(read == content);
    image.readahead().unwrap();
    for threads in [0, 1, 2, 64] {
        image.verify_pages(threads).unwrap();
    }
    assert!(image.read_pages(4095, &mut read[..1]).is_err());
    assert!(image.read_pages(8192, &mut read).is_err());
}

#[test]
fn an_image_without_pages_or_sections_is_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.img");
    ImageWriter::create(&path).unwrap().finish(Durability::NoSync).unwrap();
    read_all(&path).unwrap();
    open(&path).unwrap().readahead().unwrap();
}

#[test]
fn one_flipped_bit_in_any_byte_is_reported_with_its_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    write_image(&path, 2);
    let (header, sections) = {
        let image = open(&path).unwrap();
        (image.header().clone(), image.sections().to_vec())
    };
    let part_at = |offset: u64| {
        let holds = |entry: &&SectionEntry| (entry.offset..entry.offset + entry.stored_len).contains(&offset);
        match offset {
            0..4096 => Part::Header,
            _ if header.page_area().contains(&offset) => Part::Pages,
            _ if offset >= header.table_offset => Part::SectionTable,
            _ => Part::Section(sections.iter().find(holds).expect("no byte outside every part").kind),
        }
    };
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for offset in 0..header.total_len {
        flip(&file, offset);
        let error = read_all(&path).expect_err(&format!("byte {offset} was flipped"));
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {offset}: {error}");
        match error {
            Error::Corrupt { part, .. } => assert_eq!(part, part_at(offset), "byte {offset}"),
            other => panic!("byte {offset}: {other}"),
        }
        flip(&file, offset);
    }
    read_all(&path).unwrap();
}

#[test]
fn a_bad_page_chunk_is_named_by_its_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    write_image(&path, 256 * 12 + 1);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // The last, short chunk, and one in the middle: the first bad one is named, whichever thread
    // finds it.
    flip(&file, 4096 + (12 << 20) + 17);
    let offset = |threads| match open(&path).unwrap().verify_pages(threads).unwrap_err() {
        Error::Corrupt { part: Part::Pages, offset, .. } => offset,
        other => panic!("{other}"),
    };
    assert_eq!(offset(2), 4096 + (12 << 20));
    flip(&file, 4096 + (3 << 20));
    assert_eq!((offset(1), offset(3)), (4096 + (3 << 20), 4096 + (3 << 20)));
}

#[test]
fn a_file_cut_short_or_extended_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let info = write_image(&path, 1);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for len in (0..info.len_bytes).rev().chain([info.len_bytes + 1]) {
        file.set_len(len).unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
    }
}

#[test]
fn a_file_that_shrinks_after_the_check_is_corrupt_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    write_image(&path, 300);
    let image = open(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(300 * 4096).unwrap();
    assert_eq!(image.section(SectionKind::UNIT, 1, 100).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(image.verify_pages(2).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Change the header and make its checksum right again.
fn with_header(path: &Path, change: impl FnOnce(&mut Header)) -> Result<Image> {
    let original = fs::read(path).unwrap();
    let mut header = open(path).unwrap().header().clone();
    change(&mut header);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&header.encode()[..], 0).unwrap();
    let result = open(path);
    fs::write(path, original).unwrap();
    result
}

#[test]
fn every_header_field_out_of_bounds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    write_image(&path, 2);
    let kind = |change: fn(&mut Header)| with_header(&path, change).unwrap_err().kind();
    let absurd: [fn(&mut Header); 18] = [
        |h| h.total_len += 1,
        |h| h.total_len = u64::MAX,
        |h| h.total_len = 0,
        |h| h.page_area_offset = 0,
        |h| h.page_area_offset = u64::MAX,
        |h| h.page_area_offset += 4096,
        |h| h.page_area_len = u64::MAX,
        |h| h.page_area_len = u64::MAX - 4095,
        |h| h.page_area_len += 1,
        |h| h.page_area_len += 4096,
        |h| h.page_area_len = 0,
        |h| h.table_offset = 0,
        |h| h.table_offset = u64::MAX,
        |h| h.table_offset -= 1,
        |h| h.section_count = u32::MAX,
        |h| h.section_count -= 1,
        |h| h.checksum_chunk_len = 0,
        |h| h.table_checksum ^= 1,
    ];
    for change in absurd {
        assert_eq!(kind(change), ErrorKind::Corrupt);
    }
    assert_eq!(kind(|h| h.version = 2), ErrorKind::Unsupported);
    assert_eq!(kind(|h| h.incompat_flags = 1 << 63), ErrorKind::Unsupported);
    with_header(&path, |h| h.compat_flags = 1).expect("a compat flag may be ignored");
    with_header(&path, |_| ()).unwrap();
}

#[test]
fn every_table_field_out_of_bounds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    write_image(&path, 1);
    let original = fs::read(&path).unwrap();
    let image = open(&path).unwrap();
    let kind = |change: fn(&mut SectionEntry)| {
        let (mut header, mut entries) = (image.header().clone(), image.sections().to_vec());
        change(&mut entries[0]);
        let table: Vec<u8> = entries.iter().flat_map(SectionEntry::encode).collect();
        header.table_checksum = checksum(&table);
        let mut bytes = original.clone();
        bytes[..HEADER_LEN].copy_from_slice(&header.encode()[..]);
        bytes[header.table_offset as usize..].copy_from_slice(&table);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let checked = UncheckedImage::from_file(file, "changed").check();
        checked.and_then(|image| image.section(entries[0].kind, 3, 1 << 20)).map_err(|error| error.kind())
    };
    assert_eq!(kind(|e| e.kind = SectionKind::UNIT), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.version = 4), Err(ErrorKind::Unsupported));
    assert_eq!(kind(|e| e.flags = 0x8000), Err(ErrorKind::Unsupported));
    assert_eq!(kind(|e| e.flags = 0), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.offset = u64::MAX), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.offset -= 1), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.stored_len = u64::MAX), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.stored_len -= 1), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.raw_len = u64::MAX), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.raw_len = e.stored_len), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.raw_len = 1 << 30), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.raw_len -= 1), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.raw_len += 1), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|e| e.checksum ^= 1), Err(ErrorKind::Corrupt));
    assert_eq!(kind(|_| ()), Ok(STATE.repeat(80)));
    assert_eq!(SECTION_ENTRY_LEN, 48);
}

#[test]
fn sections_are_bounded_and_versioned_by_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    write_image(&path, 0);
    let image = open(&path).unwrap();
    assert!(matches!(
        image.section(SectionKind::STATE, 3, 10),
        Err(Error::SectionTooLong { max_raw_len: 10, .. })
    ));
    assert!(matches!(
        image.section(SectionKind::STATE, 2, 1 << 20),
        Err(Error::SectionVersion { found: 3, .. })
    ));
    assert!(matches!(image.section(SectionKind::BUS, 1, 1 << 20), Err(Error::SectionMissing { .. })));
}

#[test]
fn what_is_not_an_image_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(open(&fifo).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(open(dir.path()).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(open(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(open(&dir.path().join("none")).unwrap_err().kind(), ErrorKind::Gone);
}

#[test]
fn the_writer_refuses_what_the_format_cannot_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ImageWriter::create(&dir.path().join("a.img")).unwrap();
    let misuse = |result: Result<()>| assert!(matches!(result, Err(Error::Misuse { .. })));
    misuse(writer.append_pages(&[0; 100]).map(|_| ()));
    misuse(writer.add_section(SectionKind::PAGE_CHECKSUMS, 1, b""));
    writer.add_section(SectionKind::STATE, 1, b"").unwrap();
    misuse(writer.add_section(SectionKind::STATE, 1, b""));
    for kind in 1000..1254 {
        writer.add_section(SectionKind(kind), 1, b"").unwrap();
    }
    misuse(writer.add_section(SectionKind(1), 1, b""));
    writer.finish(Durability::NoSync).unwrap();
    read_all(&dir.path().join("a.img")).unwrap();
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ImageWriter::create(&dir.path().join("a.img")).unwrap();
    writer.append_pages(&pages(300, 1)).unwrap();
    drop(writer);
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[test]
fn a_fault_at_any_point_leaves_nothing_new() {
    let points =
        ["create", "write.pages", "write.sections", "write.header", "sync.file", "rename", "sync.dir"]
            .map(|p| format!("image.{p}"));
    for point in points {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.img");
        let _armed = fault::arm(&point);
        let write = || -> Result<()> {
            let mut writer = ImageWriter::create(&path)?;
            writer.append_pages(&pages(300, 1))?;
            writer.finish(Durability::Sync).map(|_| ())
        };
        let error = write().expect_err(&point);
        assert!(error.to_string().contains(&point), "{error}");
        assert_eq!(names_in(dir.path()), [""; 0], "{point}");
    }
}

#[test]
fn a_failed_write_leaves_an_older_image_untouched_and_cannot_be_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.img");
    let old = write_image(&path, 1);
    let mut writer = ImageWriter::create(&path).unwrap();
    {
        let _armed = fault::arm("image.write.pages");
        writer.append_pages(&pages(256, 1)).unwrap_err();
    }
    assert!(writer.append_pages(&pages(1, 1)).is_err());
    assert!(writer.finish(Durability::NoSync).is_err());
    assert_eq!(names_in(dir.path()), ["a.img"]);
    assert_eq!(open(&path).unwrap().id(), old.id);
}
