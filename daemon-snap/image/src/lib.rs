//! The state of a process tree in the sections of an image: which family is in which section.

use image_store::{Image, ImageWriter, SectionKind};
use snap_error::Result;
use snap_state::sections::{self, Family, SECTION_MAX_BYTES, Section, Stored};
use snap_state::{Tree, TreeV1};

/// The section of a family.
pub const fn section_of(family: Family) -> SectionKind {
    match family {
        Family::Tree => SectionKind::STATE,
        Family::Ipc => SectionKind::IPC,
        Family::Processes => SectionKind::PROCESSES,
        Family::Memory => SectionKind::MEMORY,
        Family::Files => SectionKind::FILES,
        Family::Bus => SectionKind::BUS,
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

/// What an image has of a family, in today's version or in an earlier one that is still read.
///
/// # Errors
/// Those of the image: it has no such section, in a version that is not read, or a damaged one.
pub fn read_stored(image: &Image, family: Family) -> Result<Stored> {
    let kind = section_of(family);
    let found = image.sections().iter().find(|entry| entry.kind == kind).map(|entry| entry.version);
    let version = found.filter(|version| family.reads(*version)).unwrap_or(family.version());
    Ok(Stored { version, bytes: image.section(kind, version, SECTION_MAX_BYTES as u64)? })
}

/// The tree of an image.
///
/// # Errors
/// `Corrupt` when it is not consistent, `Stale` when it was written in a version of the layout that
/// is not read, with a word about which of the two is older.
pub fn read_tree(image: &Image) -> Result<Tree> {
    sections::decode(|family| read_stored(image, family), image.page_area())
}
