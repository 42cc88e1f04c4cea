//! The state of a process tree in the sections of an image: which family is in which section.

use image_store::{Image, ImageWriter, SectionKind};
use snap_error::Result;
use snap_state::sections::{self, Family, SECTION_MAX_BYTES, Section};
use snap_state::{Tree, TreeV1};

/// The section of a family.
pub const fn section_of(family: Family) -> SectionKind {
    match family {
        Family::Tree => SectionKind::STATE,
        Family::Processes => SectionKind::PROCESSES,
        Family::Files => SectionKind::FILES,
        Family::Objects => SectionKind::OBJECTS,
    }
}

/// Adds sections to an image.
///
/// # Errors
/// Those of the writer.
pub fn write_sections(writer: &mut ImageWriter, sections: &[Section]) -> Result<()> {
    for Section { family, bytes } in sections {
        writer.add_section(section_of(*family), family.version(), bytes)?;
    }
    Ok(())
}

/// Adds the whole state of a tree to an image.
///
/// # Errors
/// It is too large, and those of the writer.
pub fn write_tree(writer: &mut ImageWriter, tree: &TreeV1) -> Result<()> {
    write_sections(writer, &sections::encode(tree)?)
}

/// The tree of an image.
///
/// # Errors
/// `Corrupt` when it is not consistent, `Stale` when it was written in another version of the
/// layout.
pub fn read_tree(image: &Image) -> Result<Tree> {
    let read =
        |family: Family| Ok(image.section(section_of(family), family.version(), SECTION_MAX_BYTES as u64)?);
    sections::decode(read, image.page_area())
}
