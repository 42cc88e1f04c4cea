//! Writing one image: pages stream first, sections follow, the header comes last.
//!
//! The image is written to a temporary file beside its final path. Until the rename in
//! [`ImageWriter::finish`] the final path is untouched; whatever goes wrong before, the temporary
//! file is removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::background::{Background, Failure};
use crate::error::{Error, Result};
use crate::fault;
use crate::layout::{
    CHECKSUM_CHUNK_LEN, FORMAT_VERSION, HEADER_LEN, Header, ImageId, MAX_PAGE_AREA_LEN, MAX_SECTION_RAW_LEN,
    MAX_SECTIONS, PAGE_SIZE, SECTION_FLAG_ZSTD, SectionEntry, SectionKind, checksum,
};
use crate::publish::{sync_dir, temporary_path};

/// State sections are small and written while a daemon stands still: level 1 takes nearly all there
/// is to gain.
const ZSTD_LEVEL: i32 = 1;
/// Shorter sections are not worth it: to set up a decoder takes longer than to read them, and each
/// restore does.
const MIN_COMPRESS_LEN: usize = 8 << 10;
/// Version of the page checksum section.
pub(crate) const PAGE_CHECKSUMS_VERSION: u16 = 1;

/// Whether `finish` waits until the bytes are on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// fsync file and directory: needed when the image has to survive a power cut.
    Sync,
    /// Leave it to the kernel: for images on tmpfs or used at once.
    NoSync,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageInfo {
    /// Final path.
    pub path: PathBuf,
    /// Length of the file in bytes.
    pub len_bytes: u64,
    /// Length of its page area in bytes.
    pub page_bytes: u64,
    /// Id of the image.
    pub id: ImageId,
}

#[derive(Debug)]
struct PendingSection {
    kind: SectionKind,
    version: u16,
    flags: u16,
    raw_len: u64,
    stored: Vec<u8>,
}

/// An image that is being written. Dropped without [`finish`](ImageWriter::finish), it leaves
/// nothing.
#[derive(Debug)]
pub struct ImageWriter {
    file: File,
    final_path: PathBuf,
    /// Writes full chunks. Before `unfinished`, so that it has ended when the file is removed.
    background: Option<Background>,
    unfinished: UnfinishedFile,
    id: ImageId,
    /// One checksum chunk; `chunk_used` bytes of it wait to be written.
    chunk: Box<[u8]>,
    chunk_used: usize,
    page_checksums: Vec<u64>,
    /// Page bytes that have left `chunk` for the file.
    flushed_page_bytes: u64,
    sections: Vec<PendingSection>,
    failed: bool,
}

/// What has to be removed when the image is not finished: first the temporary name, after the
/// rename the final one.
#[derive(Debug)]
struct UnfinishedFile {
    path: Option<PathBuf>,
}

impl Drop for UnfinishedFile {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        if let Err(error) = fs::remove_file(path) {
            tracing::debug!(path = %path.display(), %error, "unfinished image not removed");
        }
    }
}

impl ImageWriter {
    /// Start an image that will appear at `final_path`. The directory must exist; the file gets
    /// mode 0600.
    ///
    /// # Errors
    /// [`Error::Gone`] when the directory does not exist, [`Error::NoSpace`], [`Error::Io`].
    pub fn create(final_path: &Path) -> Result<ImageWriter> {
        let fail = |source| Error::write(final_path, "create", 0, HEADER_LEN as u64, source);
        let id = ImageId::random().map_err(fail)?;
        let path = temporary_path(final_path, &id.to_string());
        fault::point("image.create").map_err(fail)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
        Ok(ImageWriter {
            file,
            final_path: final_path.to_owned(),
            background: None,
            unfinished: UnfinishedFile { path: Some(path) },
            id,
            chunk: vec![0; CHECKSUM_CHUNK_LEN].into_boxed_slice(),
            chunk_used: 0,
            page_checksums: Vec::new(),
            flushed_page_bytes: 0,
            sections: Vec::new(),
            failed: false,
        })
    }

    /// Id that the finished image will have.
    pub fn id(&self) -> ImageId {
        self.id
    }

    /// Bytes of pages appended so far.
    pub fn page_bytes(&self) -> u64 {
        self.flushed_page_bytes + self.chunk_used as u64
    }

    /// Append whole pages. Returns the offset of the first one in the finished file, a multiple of
    /// [`PAGE_SIZE`].
    ///
    /// # Errors
    /// [`Error::Misuse`] when the length is not a multiple of [`PAGE_SIZE`], [`Error::NoSpace`],
    /// [`Error::Io`]. After an error the image cannot be finished.
    pub fn append_pages(&mut self, bytes: &[u8]) -> Result<u64> {
        let offset = self.begin_append(bytes.len())?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, after) = rest.split_at(rest.len().min(CHECKSUM_CHUNK_LEN - self.chunk_used));
            self.chunk[self.chunk_used..self.chunk_used + now.len()].copy_from_slice(now);
            self.chunk_used += now.len();
            rest = after;
            self.flush_full_chunk()?;
        }
        Ok(offset)
    }

    /// Append `len` bytes of pages that `fill` produces, without a buffer in between: `fill` is
    /// called with pieces of at most 1 MiB, in order, and must fill each completely. Returns the
    /// offset like [`append_pages`](ImageWriter::append_pages).
    ///
    /// # Errors
    /// As `append_pages`; an error of `fill` is returned as [`Error::Io`] with step "read pages
    /// for".
    pub fn append_pages_with(
        &mut self,
        len: usize,
        mut fill: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> Result<u64> {
        let offset = self.begin_append(len)?;
        let mut rest = len;
        while rest > 0 {
            let now = rest.min(CHECKSUM_CHUNK_LEN - self.chunk_used);
            if let Err(source) = fill(&mut self.chunk[self.chunk_used..self.chunk_used + now]) {
                self.failed = true;
                return Err(Error::Io { path: self.final_path.clone(), step: "read pages for", source });
            }
            self.chunk_used += now;
            rest -= now;
            self.flush_full_chunk()?;
        }
        Ok(offset)
    }

    /// Add a section. It is compressed when that makes it smaller, and kept in memory until
    /// `finish`.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a kind that is there already, the writer's own kind, or too many or
    /// too long sections.
    pub fn add_section(&mut self, kind: SectionKind, version: u16, bytes: &[u8]) -> Result<()> {
        if kind == SectionKind::PAGE_CHECKSUMS {
            return Err(self.misuse("the page checksum section is written by the writer itself"));
        }
        // One place is kept for the page checksums.
        if self.sections.len() as u32 + 1 >= MAX_SECTIONS {
            return Err(self.misuse("too many sections"));
        }
        self.push_section(kind, version, bytes)
    }

    fn push_section(&mut self, kind: SectionKind, version: u16, bytes: &[u8]) -> Result<()> {
        if self.sections.iter().any(|section| section.kind == kind) {
            return Err(self.misuse(format!("section {kind} was added twice")));
        }
        if bytes.len() as u64 > MAX_SECTION_RAW_LEN {
            return Err(self.misuse(format!("section {kind} of {} bytes is too long", bytes.len())));
        }
        let compressed = match bytes.len() >= MIN_COMPRESS_LEN {
            true => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok().filter(|frame| frame.len() < bytes.len()),
            false => None,
        };
        let (flags, stored) = match compressed {
            Some(frame) => (SECTION_FLAG_ZSTD, frame),
            None => (0, bytes.to_vec()),
        };
        self.sections.push(PendingSection { kind, version, flags, raw_len: bytes.len() as u64, stored });
        Ok(())
    }

    /// Write what is missing and give the image its name.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`]. Then neither the temporary nor the final file is there,
    /// unless the final path had an older image and the failure came before the rename: that one is
    /// untouched.
    pub fn finish(mut self, durability: Durability) -> Result<ImageInfo> {
        if self.failed {
            return Err(self.misuse("an earlier write failed"));
        }
        self.flush_chunk()?;
        let checksums: Vec<u8> = self.page_checksums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        self.push_section(SectionKind::PAGE_CHECKSUMS, PAGE_CHECKSUMS_VERSION, &checksums)?;

        let (tail, header) = self.encode_tail();
        let path = self.final_path.clone();
        let fail = |step| {
            let (path, written, needed) = (&path, self.flushed_page_bytes, header.total_len);
            move |source| Error::write(path, step, written, needed, source)
        };
        fault::point("image.write.sections").map_err(fail("write sections of"))?;
        self.file.write_all_at(&tail, header.page_area().end).map_err(fail("write sections of"))?;
        fault::point("image.write.header").map_err(fail("write header of"))?;
        self.file.write_all_at(&header.encode()[..], 0).map_err(fail("write header of"))?;
        if durability == Durability::Sync {
            fault::point("image.sync.file").map_err(fail("sync"))?;
            self.file.sync_all().map_err(fail("sync"))?;
        }
        fault::point("image.rename").map_err(fail("rename"))?;
        if let Some(temporary) = &self.unfinished.path {
            fs::rename(temporary, &path).map_err(fail("rename"))?;
        }
        // Until the directory is synced the durability of the name is unknown, so a failure takes
        // it away again.
        self.unfinished.path = Some(path.clone());
        if durability == Durability::Sync {
            let fail = |source| Error::io(&path, "sync directory of", source);
            fault::point("image.sync.dir").map_err(fail)?;
            sync_dir(&path).map_err(fail)?;
        }
        self.unfinished.path = None;
        Ok(ImageInfo { path, len_bytes: header.total_len, page_bytes: header.page_area_len, id: self.id })
    }

    /// Sections and table as one run of bytes, and the header that describes them.
    fn encode_tail(&self) -> (Vec<u8>, Header) {
        let pages_end = HEADER_LEN as u64 + self.flushed_page_bytes;
        let mut tail = Vec::new();
        let mut table = Vec::new();
        for section in &self.sections {
            let entry = SectionEntry {
                kind: section.kind,
                version: section.version,
                flags: section.flags,
                offset: pages_end + tail.len() as u64,
                stored_len: section.stored.len() as u64,
                raw_len: section.raw_len,
                checksum: checksum(&section.stored),
            };
            tail.extend_from_slice(&section.stored);
            table.extend_from_slice(&entry.encode());
        }
        let table_offset = pages_end + tail.len() as u64;
        let header = Header {
            version: FORMAT_VERSION,
            compat_flags: 0,
            incompat_flags: 0,
            image_id: self.id,
            created_unix_s: crate::now_unix_s(),
            total_len: table_offset + table.len() as u64,
            page_area_offset: HEADER_LEN as u64,
            page_area_len: self.flushed_page_bytes,
            table_offset,
            section_count: self.sections.len() as u32,
            checksum_chunk_len: CHECKSUM_CHUNK_LEN as u32,
            table_checksum: checksum(&table),
        };
        tail.extend_from_slice(&table);
        (tail, header)
    }

    fn begin_append(&mut self, len: usize) -> Result<u64> {
        if self.failed {
            return Err(self.misuse("an earlier write failed"));
        }
        if !len.is_multiple_of(PAGE_SIZE) {
            return Err(self.misuse(format!("{len} bytes are not a whole number of pages")));
        }
        if len as u64 > MAX_PAGE_AREA_LEN - self.page_bytes() {
            return Err(self.misuse("page area too long"));
        }
        Ok(HEADER_LEN as u64 + self.page_bytes())
    }

    /// A full chunk goes to the thread.
    fn flush_full_chunk(&mut self) -> Result<()> {
        if self.chunk_used < CHECKSUM_CHUNK_LEN {
            return Ok(());
        }
        if self.background.is_none() {
            let started = Background::start(&self.file);
            self.background =
                Some(started.map_err(|source| self.write_failed(self.flushed_page_bytes, source))?);
        }
        let offset = self.begin_chunk()?;
        let chunk = std::mem::take(&mut self.chunk);
        let next = self.background.as_mut().map(|background| background.write(chunk, offset));
        match next {
            Some(Ok(next)) => self.chunk = next,
            Some(Err(Failure { offset, source })) => return Err(self.write_failed(offset, source)),
            None => return Err(self.misuse("nobody writes")),
        }
        self.end_chunk(CHECKSUM_CHUNK_LEN);
        Ok(())
    }

    /// Write what is left. Only the last chunk of an image may be shorter than
    /// [`CHECKSUM_CHUNK_LEN`].
    fn flush_chunk(&mut self) -> Result<()> {
        if let Some(Err(failure)) = self.background.take().map(Background::finish) {
            return Err(self.write_failed(failure.offset, failure.source));
        }
        if self.chunk_used == 0 {
            return Ok(());
        }
        let offset = self.begin_chunk()?;
        let written = self.file.write_all_at(&self.chunk[..self.chunk_used], offset);
        written.map_err(|source| self.write_failed(offset, source))?;
        self.end_chunk(self.chunk_used);
        Ok(())
    }

    /// The chunk is complete: takes its checksum while it is in the processor's cache. Returns its
    /// place in the file.
    fn begin_chunk(&mut self) -> Result<u64> {
        let offset = HEADER_LEN as u64 + self.flushed_page_bytes;
        fault::point("image.write.pages").map_err(|source| self.write_failed(offset, source))?;
        self.page_checksums.push(checksum(&self.chunk[..self.chunk_used]));
        Ok(offset)
    }

    fn end_chunk(&mut self, len: usize) {
        self.flushed_page_bytes += len as u64;
        self.chunk_used = 0;
    }

    /// The error of a write at `offset` of the file, after which the image cannot be finished.
    fn write_failed(&mut self, offset: u64, source: io::Error) -> Error {
        self.failed = true;
        let needed = HEADER_LEN as u64 + self.page_bytes();
        Error::write(&self.final_path, "write pages of", offset, needed, source)
    }

    fn misuse(&self, what: impl Into<String>) -> Error {
        Error::misuse(&self.final_path, what)
    }
}
