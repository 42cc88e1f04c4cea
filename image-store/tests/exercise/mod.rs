//! What untrusted bytes reach in this crate. The fuzz targets (`daemon-snap/image/fuzz`) and the
//! bounded runs of `mutation.rs` drive the same functions: each ends, with a value or with an
//! error, and tells whether it is a value.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use image_store::{Catalogue, EvidenceV2, SectionKind, UncheckedImage};

const MAX_RAW_LEN: u64 = 1 << 20;

/// Everything that a reader does with an image file: header, table, pages, sections.
pub fn image(bytes: &[u8]) -> bool {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    let Ok(image) = UncheckedImage::from_file(file, "mutated").check() else { return false };
    assert!(image.page_area().end <= image.len_bytes());
    let mut intact = image.verify_pages(1).is_ok();
    for section in image.sections().to_vec() {
        match image.section(section.kind, section.version, MAX_RAW_LEN) {
            Ok(raw) => {
                assert_eq!(raw.len() as u64, section.raw_len);
                if section.kind == SectionKind::EVIDENCE {
                    intact &= evidence(&raw);
                }
            }
            Err(_) => intact = false,
        }
    }
    intact
}

/// The section of evidence.
pub fn evidence(bytes: &[u8]) -> bool {
    EvidenceV2::decode(bytes, Path::new("mutated")).is_ok()
}

/// `catalogue.json`. What is read is written again as the same.
pub fn catalogue(bytes: &[u8]) -> bool {
    let path = Path::new("mutated");
    let Ok(catalogue) = Catalogue::decode(bytes, path) else { return false };
    let again = catalogue.encode(path).unwrap();
    assert_eq!(Catalogue::decode(&again, path).unwrap(), catalogue);
    true
}
