//! What only root can make: a file system that is full.

mod common;

use common::{names_in, pages};
use image_store::{Durability, Error, ErrorKind, ImageWriter, Result, SectionKind};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use test_frame::{Need, tests};

fn main() -> std::process::ExitCode {
    test_frame::libtest::main(tests![[Need::Root]; a_full_file_system_is_named_and_nothing_is_left])
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
