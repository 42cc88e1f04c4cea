//! Files of each format version, as they were written once. They never change: a build that cannot
//! read them any more, or reads them differently, has broken the format.

mod common;

use std::path::{Path, PathBuf};

use common::{STATE, evidence, make_root, pages};
use image_store::{
    Catalogue, Durability, EvidenceV1, EvidenceV2, ImageWriter, Observation, PAGE_SIZE, Rule, SectionKind,
    Source, UncheckedImage,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn image_v1_reads_as_it_was_written() {
    let path = golden("image-v1.img");
    let image = UncheckedImage::open(&path).unwrap().check().unwrap();
    image.verify_pages(1).unwrap();
    let mut read = vec![0; 2 * PAGE_SIZE];
    image.read_pages(image.page_area().start, &mut read).unwrap();
    assert_eq!(read, pages(2, 1));
    assert_eq!(image.section(SectionKind::STATE, 3, 1 << 20).unwrap(), STATE.repeat(8));
    let section = image.section(SectionKind::EVIDENCE, EvidenceV1::VERSION, EvidenceV1::MAX_LEN).unwrap();
    let evidence = EvidenceV1::decode(&section, &path).unwrap();
    assert_eq!(evidence.machine.kernel_release, "6.18.0");
    assert_eq!(evidence.machine.cpu.model, "143");
    assert_eq!(evidence.unit.drop_ins[0].path, Path::new(common::DROP_IN));
    assert_eq!(evidence.files[0].blake3, Some(common::digest("port 6379\n")));
    assert_eq!(evidence.users, [("redis".to_owned(), 105)]);
}

#[test]
fn catalogue_v1_reads_as_it_was_written() {
    let path = golden("catalogue-v1.json");
    let catalogue = Catalogue::decode(&std::fs::read(&path).unwrap(), &path).unwrap();
    let image = UncheckedImage::open(&golden("image-v1.img")).unwrap().check().unwrap();
    let (generation, newest) = catalogue.newest("redis.service").unwrap();
    assert_eq!((generation.id, newest.image_id, newest.len_bytes), (1, image.id(), image.len_bytes()));
    assert_eq!(newest.service.pids, [3_000_001, 3_000_002]);
    assert_eq!(newest.systemd, None, "it was not recorded then");
    assert_eq!(newest.service.exec_start_raw, "-@/usr/bin/redis-server redis-server /etc/redis/redis.conf");
}

#[test]
fn evidence_v2_reads_as_it_was_written() {
    let path = golden("image-v1-evidence-v2.img");
    let image = UncheckedImage::open(&path).unwrap().check().unwrap();
    let section = image.section(SectionKind::EVIDENCE, EvidenceV2::VERSION, EvidenceV2::MAX_LEN).unwrap();
    let evidence = EvidenceV2::decode(&section, &path).unwrap();
    assert_eq!(evidence.machine.kernel_release, "6.18.0");
    assert_eq!(evidence.observation, Observation::Recorded { not_observed: Vec::new() });
    let item = &evidence.files[0];
    assert_eq!(item.file.blake3, Some(common::digest("port 6379\n")));
    assert_eq!((item.rule, item.source), (Rule::Content, Source::Observed));
    assert_eq!(evidence.users, [("redis".to_owned(), 105)]);
}

/// No check: made the files once, with FASTBOOT_WRITE_GOLDEN set, and refuses to make them again.
/// For a new format version, write new names.
#[test]
fn write_golden_files_on_request() {
    if std::env::var_os("FASTBOOT_WRITE_GOLDEN").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make_root(dir.path());
    let path = golden("image-v1-evidence-v2.img");
    assert!(!path.exists(), "golden files never change");
    let mut writer = ImageWriter::create(&path).unwrap();
    writer.append_pages(&pages(2, 1)).unwrap();
    let bytes = evidence(dir.path()).encode(&path).unwrap();
    writer.add_section(SectionKind::EVIDENCE, EvidenceV2::VERSION, &bytes).unwrap();
    writer.add_section(SectionKind::STATE, 3, &STATE.repeat(8)).unwrap();
    writer.finish(Durability::NoSync).unwrap();
}
