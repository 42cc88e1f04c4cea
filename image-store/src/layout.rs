//! The byte layout of an image: the one place where it is written down in code.
//!
//! Pure: bytes in, values out. No files here, and no decision about what an error means for a boot.
//! Every number is little-endian. `docs/image-format.md` has the same as a table, with the rules.

use std::fmt;
use std::hash::Hasher as _;
use std::io::{self, Read as _};
use std::ops::Range;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use twox_hash::XxHash3_64;

use crate::digest::parse_hex;

/// Bytes in a page; also the alignment of the page area.
pub const PAGE_SIZE: usize = 4096;
/// First eight bytes of every image.
pub const MAGIC: [u8; 8] = *b"FBOOTIMG";
/// Format version that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Length of the header in every version of the format, in bytes.
pub const HEADER_LEN: usize = 4096;
/// Length of one entry of the section table in bytes.
pub const SECTION_ENTRY_LEN: usize = 48;
/// Most sections an image may have.
pub const MAX_SECTIONS: u32 = 256;
/// Longest section after decompression, in bytes.
pub const MAX_SECTION_RAW_LEN: u64 = 1 << 30;
/// Longest page area, in bytes.
pub const MAX_PAGE_AREA_LEN: u64 = 1 << 43;
/// Bytes of page area under one checksum. The last chunk may be shorter.
pub const CHECKSUM_CHUNK_LEN: usize = 1 << 20;
/// Compat flags that this build knows. Unknown ones may be ignored.
pub const KNOWN_COMPAT_FLAGS: u64 = 0;
/// Incompat flags that this build knows. An image with any other must be refused.
pub const KNOWN_INCOMPAT_FLAGS: u64 = 0;
/// Section flag: the stored bytes are one zstd frame.
pub const SECTION_FLAG_ZSTD: u16 = 1;

const OFFSET_VERSION: usize = 8;
const OFFSET_HEADER_LEN: usize = 12;
const OFFSET_COMPAT_FLAGS: usize = 16;
const OFFSET_INCOMPAT_FLAGS: usize = 24;
const OFFSET_IMAGE_ID: usize = 32;
const OFFSET_CREATED: usize = 48;
const OFFSET_TOTAL_LEN: usize = 56;
const OFFSET_PAGE_AREA_OFFSET: usize = 64;
const OFFSET_PAGE_AREA_LEN: usize = 72;
const OFFSET_TABLE_OFFSET: usize = 80;
const OFFSET_SECTION_COUNT: usize = 88;
const OFFSET_CHUNK_LEN: usize = 92;
const OFFSET_TABLE_CHECKSUM: usize = 96;
const OFFSET_RESERVED: usize = 104;
const OFFSET_HEADER_CHECKSUM: usize = HEADER_LEN - 8;

/// XXH3-64: the checksum of header, table, sections and page chunks. It finds damage, not malice:
/// files are root's.
pub fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The same of bytes that come in pieces.
#[derive(Default)]
pub struct Checksum(XxHash3_64);

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Checksum").field(&self.value()).finish()
    }
}

impl Checksum {
    /// The next piece.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// Of all pieces so far.
    pub fn value(&self) -> u64 {
        self.0.finish()
    }
}

/// What a section holds. Numbers are part of the format and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SectionKind(pub u32);

impl SectionKind {
    /// What must still be true ([`EvidenceV2`](crate::EvidenceV2)).
    pub const EVIDENCE: SectionKind = SectionKind(1);
    /// What was saved of the process tree as a whole. The engine owns its content.
    pub const STATE: SectionKind = SectionKind(2);
    /// One checksum per chunk of the page area. Written by [`ImageWriter`](crate::ImageWriter)
    /// itself.
    pub const PAGE_CHECKSUMS: SectionKind = SectionKind(3);
    /// What the unit was: its record and how it is started.
    pub const UNIT: SectionKind = SectionKind(4);
    /// Never written.
    pub const PAGE_RUNS: SectionKind = SectionKind(5);
    /// Open file descriptions and pipes. The engine owns its content.
    pub const FILES: SectionKind = SectionKind(6);
    /// Bus connections. The engine owns its content.
    pub const BUS: SectionKind = SectionKind(7);
    /// Processes and their threads. The engine owns its content.
    pub const PROCESSES: SectionKind = SectionKind(8);
    /// What files and mappings lead to. The engine owns its content.
    pub const OBJECTS: SectionKind = SectionKind(9);
    /// Address spaces, and which pages of the page area are theirs. The engine owns its content.
    pub const MEMORY: SectionKind = SectionKind(10);
    /// Objects of IPC that only ids lead to.
    pub const IPC: SectionKind = SectionKind(11);

    /// Name of a kind that this build knows.
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            SectionKind::EVIDENCE => "evidence",
            SectionKind::STATE => "state",
            SectionKind::PAGE_CHECKSUMS => "page-checksums",
            SectionKind::UNIT => "unit",
            SectionKind::PAGE_RUNS => "page-runs",
            SectionKind::FILES => "files",
            SectionKind::BUS => "bus",
            SectionKind::PROCESSES => "processes",
            SectionKind::OBJECTS => "objects",
            SectionKind::MEMORY => "memory",
            SectionKind::IPC => "ipc",
            _ => return None,
        })
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "#{}", self.0),
        }
    }
}

impl fmt::Debug for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Sixteen random bytes that name an image for ever. Text form is 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(pub [u8; 16]);

impl ImageId {
    /// A new id from the kernel's random number generator.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be read.
    pub fn random() -> io::Result<ImageId> {
        let mut bytes = [0; 16];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(ImageId(bytes))
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ImageId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ImageId, Self::Err> {
        parse_hex(text).map(ImageId).ok_or("not 32 hexadecimal digits")
    }
}

impl Serialize for ImageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ImageId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The header: everything needed to find and check the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// Format version.
    pub version: u32,
    /// Features that an older reader may ignore.
    pub compat_flags: u64,
    /// Features that a reader must know.
    pub incompat_flags: u64,
    /// Name of this image.
    pub image_id: ImageId,
    /// When it was written, seconds since 1970.
    pub created_unix_s: u64,
    /// Length of the whole file in bytes.
    pub total_len: u64,
    /// Where the page area starts: [`HEADER_LEN`] in version 1.
    pub page_area_offset: u64,
    /// Length of the page area in bytes, a multiple of [`PAGE_SIZE`].
    pub page_area_len: u64,
    /// Where the section table starts; it ends where the file ends.
    pub table_offset: u64,
    /// Entries in the section table.
    pub section_count: u32,
    /// Bytes of page area under one checksum: [`CHECKSUM_CHUNK_LEN`] in version 1.
    pub checksum_chunk_len: u32,
    /// Checksum of the section table.
    pub table_checksum: u64,
}

/// Why bytes are not a header or a table of this format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutError {
    /// A rule does not hold at this offset.
    Corrupt {
        /// Offset in bytes from the start of what was parsed.
        offset: u64,
        /// The rule.
        what: String,
    },
    /// Well-formed, but of another version or with unknown flags.
    Unsupported {
        /// What is not known.
        what: String,
    },
}

fn corrupt<T>(offset: usize, what: impl Into<String>) -> Result<T, LayoutError> {
    Err(LayoutError::Corrupt { offset: offset as u64, what: what.into() })
}

fn unsupported<T>(what: String) -> Result<T, LayoutError> {
    Err(LayoutError::Unsupported { what })
}

impl Header {
    /// The 4096 bytes as they are on disk, checksum included.
    pub fn encode(&self) -> Box<[u8; HEADER_LEN]> {
        let mut bytes = Box::new([0; HEADER_LEN]);
        let mut put =
            |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(OFFSET_VERSION, &self.version.to_le_bytes());
        put(OFFSET_HEADER_LEN, &(HEADER_LEN as u32).to_le_bytes());
        put(OFFSET_COMPAT_FLAGS, &self.compat_flags.to_le_bytes());
        put(OFFSET_INCOMPAT_FLAGS, &self.incompat_flags.to_le_bytes());
        put(OFFSET_IMAGE_ID, &self.image_id.0);
        put(OFFSET_CREATED, &self.created_unix_s.to_le_bytes());
        put(OFFSET_TOTAL_LEN, &self.total_len.to_le_bytes());
        put(OFFSET_PAGE_AREA_OFFSET, &self.page_area_offset.to_le_bytes());
        put(OFFSET_PAGE_AREA_LEN, &self.page_area_len.to_le_bytes());
        put(OFFSET_TABLE_OFFSET, &self.table_offset.to_le_bytes());
        put(OFFSET_SECTION_COUNT, &self.section_count.to_le_bytes());
        put(OFFSET_CHUNK_LEN, &self.checksum_chunk_len.to_le_bytes());
        put(OFFSET_TABLE_CHECKSUM, &self.table_checksum.to_le_bytes());
        let sum = checksum(&bytes[..OFFSET_HEADER_CHECKSUM]);
        bytes[OFFSET_HEADER_CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Read a header of a file that is `file_len` bytes long.
    ///
    /// The checksum is compared before any other field is believed, so damage is never taken for a
    /// newer version.
    ///
    /// # Errors
    /// [`LayoutError`]; every length and offset of an accepted header lies inside the file.
    pub fn decode(bytes: &[u8; HEADER_LEN], file_len: u64) -> Result<Header, LayoutError> {
        if bytes[..MAGIC.len()] != MAGIC {
            return corrupt(0, "no fastboot image starts like this");
        }
        if u64_at(bytes, OFFSET_HEADER_CHECKSUM) != checksum(&bytes[..OFFSET_HEADER_CHECKSUM]) {
            return corrupt(OFFSET_HEADER_CHECKSUM, "header checksum differs");
        }
        let header = Header {
            version: u32_at(bytes, OFFSET_VERSION),
            compat_flags: u64_at(bytes, OFFSET_COMPAT_FLAGS),
            incompat_flags: u64_at(bytes, OFFSET_INCOMPAT_FLAGS),
            image_id: ImageId(array_at(bytes, OFFSET_IMAGE_ID)),
            created_unix_s: u64_at(bytes, OFFSET_CREATED),
            total_len: u64_at(bytes, OFFSET_TOTAL_LEN),
            page_area_offset: u64_at(bytes, OFFSET_PAGE_AREA_OFFSET),
            page_area_len: u64_at(bytes, OFFSET_PAGE_AREA_LEN),
            table_offset: u64_at(bytes, OFFSET_TABLE_OFFSET),
            section_count: u32_at(bytes, OFFSET_SECTION_COUNT),
            checksum_chunk_len: u32_at(bytes, OFFSET_CHUNK_LEN),
            table_checksum: u64_at(bytes, OFFSET_TABLE_CHECKSUM),
        };
        if header.version != FORMAT_VERSION {
            return unsupported(format!("image format version {}", header.version));
        }
        let unknown = header.incompat_flags & !KNOWN_INCOMPAT_FLAGS;
        if unknown != 0 {
            return unsupported(format!("incompat flags {unknown:#x}"));
        }
        if u32_at(bytes, OFFSET_HEADER_LEN) as usize != HEADER_LEN {
            return corrupt(OFFSET_HEADER_LEN, "header length is not 4096");
        }
        let extended = header.compat_flags & !KNOWN_COMPAT_FLAGS != 0;
        if !extended && bytes[OFFSET_RESERVED..OFFSET_HEADER_CHECKSUM].iter().any(|&byte| byte != 0) {
            return corrupt(OFFSET_RESERVED, "reserved bytes are not zero");
        }
        header.check_bounds(file_len)?;
        Ok(header)
    }

    fn check_bounds(&self, file_len: u64) -> Result<(), LayoutError> {
        if self.total_len != file_len {
            let what = format!("file has {file_len} bytes, the header says {}", self.total_len);
            return corrupt(OFFSET_TOTAL_LEN, what);
        }
        if self.page_area_offset != HEADER_LEN as u64 {
            return corrupt(OFFSET_PAGE_AREA_OFFSET, "page area does not follow the header");
        }
        let pages_fit = self.page_area_len <= MAX_PAGE_AREA_LEN
            && self.page_area_len.is_multiple_of(PAGE_SIZE as u64)
            && file_len.checked_sub(self.page_area_offset).is_some_and(|room| self.page_area_len <= room);
        if !pages_fit {
            return corrupt(OFFSET_PAGE_AREA_LEN, format!("page area of {} bytes", self.page_area_len));
        }
        if self.section_count > MAX_SECTIONS {
            return corrupt(OFFSET_SECTION_COUNT, format!("{} sections", self.section_count));
        }
        // Both factors are bounded by constants above, so the product is far from overflow.
        let table_len = u64::from(self.section_count) * SECTION_ENTRY_LEN as u64;
        let starts_after_pages = self.table_offset >= self.page_area_offset + self.page_area_len;
        if !starts_after_pages || file_len.checked_sub(self.table_offset) != Some(table_len) {
            return corrupt(OFFSET_TABLE_OFFSET, "section table does not end at the end of the file");
        }
        if self.checksum_chunk_len as usize != CHECKSUM_CHUNK_LEN {
            return corrupt(OFFSET_CHUNK_LEN, "checksum chunk is not 1 MiB");
        }
        Ok(())
    }

    /// Where the page area lies in the file.
    pub fn page_area(&self) -> Range<u64> {
        self.page_area_offset..self.page_area_offset + self.page_area_len
    }

    /// Length of the section table in bytes; bounded by [`MAX_SECTIONS`] for a decoded header.
    pub fn table_len(&self) -> usize {
        self.section_count as usize * SECTION_ENTRY_LEN
    }
}

/// One line of the section table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SectionEntry {
    /// What the section holds.
    pub kind: SectionKind,
    /// Version of that content.
    pub version: u16,
    /// [`SECTION_FLAG_ZSTD`] or 0.
    pub flags: u16,
    /// Where the stored bytes start in the file.
    pub offset: u64,
    /// Stored bytes.
    pub stored_len: u64,
    /// Bytes after decompression; equal to `stored_len` without compression, greater with.
    pub raw_len: u64,
    /// Checksum of the stored bytes.
    pub checksum: u64,
}

impl SectionEntry {
    /// The 48 bytes as they are on disk.
    pub fn encode(&self) -> [u8; SECTION_ENTRY_LEN] {
        let mut bytes = [0; SECTION_ENTRY_LEN];
        bytes[0..4].copy_from_slice(&self.kind.0.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; SECTION_ENTRY_LEN]) -> (SectionEntry, u64) {
        let entry = SectionEntry {
            kind: SectionKind(u32_at(bytes, 0)),
            version: u16::from_le_bytes(array_at(bytes, 4)),
            flags: u16::from_le_bytes(array_at(bytes, 6)),
            offset: u64_at(bytes, 8),
            stored_len: u64_at(bytes, 16),
            raw_len: u64_at(bytes, 24),
            checksum: u64_at(bytes, 32),
        };
        (entry, u64_at(bytes, 40))
    }

    /// Whether the stored bytes are a zstd frame.
    pub fn is_compressed(&self) -> bool {
        self.flags & SECTION_FLAG_ZSTD != 0
    }
}

/// Read the section table that `header` describes. `bytes` is the table as stored.
///
/// Sections follow each other without gaps, from the end of the page area to the start of the
/// table, so no byte of the file is outside every checksum, and none inside two.
///
/// # Errors
/// [`LayoutError`], offsets relative to the table.
pub fn decode_section_table(bytes: &[u8], header: &Header) -> Result<Vec<SectionEntry>, LayoutError> {
    if bytes.len() != header.table_len() {
        return corrupt(0, "section table is cut short");
    }
    if checksum(bytes) != header.table_checksum {
        return corrupt(0, "section table checksum differs");
    }
    let mut entries: Vec<SectionEntry> = Vec::with_capacity(header.section_count as usize);
    let mut expected_offset = header.page_area().end;
    for (index, chunk) in bytes.chunks_exact(SECTION_ENTRY_LEN).enumerate() {
        let at = index * SECTION_ENTRY_LEN;
        let (entry, reserved) = SectionEntry::decode(&array_at(chunk, 0));
        let kind = entry.kind;
        if entry.flags & !SECTION_FLAG_ZSTD != 0 || reserved != 0 {
            return unsupported(format!("section {kind} with flags {:#x}", entry.flags));
        }
        if entries.iter().any(|earlier| earlier.kind == kind) {
            return corrupt(at, format!("section {kind} occurs twice"));
        }
        if entry.offset != expected_offset {
            return corrupt(at + 8, format!("section {kind} does not start where the one before it ends"));
        }
        // `expected_offset` never passes the table, so the room left is not negative.
        if entry.stored_len > header.table_offset - expected_offset {
            return corrupt(at + 16, format!("section {kind} reaches into the table"));
        }
        let lengths_agree = match entry.is_compressed() {
            true => entry.raw_len > entry.stored_len,
            false => entry.raw_len == entry.stored_len,
        };
        if !lengths_agree || entry.raw_len > MAX_SECTION_RAW_LEN {
            return corrupt(at + 24, format!("section {kind} claims {} bytes", entry.raw_len));
        }
        expected_offset += entry.stored_len;
        entries.push(entry);
    }
    if expected_offset != header.table_offset {
        return corrupt(0, "bytes between the last section and the table");
    }
    Ok(entries)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}
