//! What untrusted bytes reach when the state of an image is decoded. The fuzz targets (`../fuzz`)
//! and the bounded runs of `pinned.rs` drive the same functions.

use image_store::{Image, UncheckedImage};
use snap_image::read_stored;
use snap_state::check::{Corrupt, SectionFault};
use snap_state::sections::{self, Family, Stored};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Directories of committed images, one for each layout; the last is today's.
pub const LAYOUTS: [&str; 3] = ["1", "2", "3"];

/// The committed images of a layout, by name.
pub fn committed(layout: &str) -> Vec<PathBuf> {
    // The crate of the fuzz targets lies below this one.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR").trim_end_matches("/fuzz"));
    let dir = dir.join("tests/images").join(layout);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let images = entries.map(|entry| entry.unwrap().path());
    let mut images: Vec<PathBuf> =
        images.filter(|path| path.extension().is_some_and(|it| it == "img")).collect();
    images.sort();
    assert!(images.len() >= 4, "{images:?}");
    images
}

/// An image; who owns the file is for the store to ask.
pub fn open(path: &Path) -> Image {
    let checked = UncheckedImage::open(path).unwrap().check();
    checked.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The state of an image as it is stored.
pub struct State {
    parts: Vec<(Family, Stored)>,
    page_area: Range<u64>,
}

impl State {
    /// All families that the image has.
    pub fn of(image: &Image) -> State {
        let has = |family: &Family| image.has_section(snap_image::section_of(*family));
        let parts = Family::ALL.into_iter().filter(has);
        let parts = parts.map(|family| (family, read_stored(image, family).unwrap())).collect();
        State { parts, page_area: image.page_area() }
    }

    /// What there is, in the versions in which it is there.
    pub fn parts(&self) -> &[(Family, Stored)] {
        &self.parts
    }

    /// Decodes it with other bytes in the place of one family. Whatever they are, that ends with a
    /// consistent tree or with an error; `true`: with a tree.
    pub fn exercise(&self, changed: Family, bytes: &[u8]) -> bool {
        let read = |family: Family| {
            let part = self.parts.iter().find(|(of, _)| *of == family);
            let (_, stored) = part.ok_or(Corrupt::Section { family, fault: SectionFault::Missing })?;
            let bytes = if family == changed { bytes } else { &stored.bytes };
            Ok::<_, Corrupt>(Stored { version: stored.version, bytes: bytes.to_vec() })
        };
        sections::decode(read, self.page_area.clone()).is_ok()
    }
}
