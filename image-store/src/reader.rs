//! Reading one image: nothing is believed before its checksum has been compared, nothing allocated
//! before its length has been bounded.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::error::{Error, Part, Result};
use crate::layout::{
    CHECKSUM_CHUNK_LEN, Checksum, HEADER_LEN, Header, ImageId, LayoutError, PAGE_SIZE, SectionEntry,
    SectionKind, checksum, decode_section_table,
};
use crate::load::PIECE_LEN;
use crate::sys;
use crate::writer::PAGE_CHECKSUMS_VERSION;

/// An open file of which nothing is known yet.
#[derive(Debug)]
pub struct UncheckedImage {
    file: File,
    path: PathBuf,
}

/// An image whose header and section table are intact. Sections and pages are checked as they are
/// read.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
    header: Header,
    sections: Vec<SectionEntry>,
    stamp: Stamp,
}

/// What shows that nobody has written to an open image since it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub len_bytes: u64,
    /// Of the last write. (That of the last change is another one too when a newer image takes this
    /// one's name away.)
    pub written_ns: i64,
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            len_bytes: metadata.size(),
            written_ns: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
        }
    }
}

/// Chunks that the kernel begins to read while one is compared. Its own window is 128 KiB on most
/// machines, which no device is quick with.
pub(crate) const CHUNKS_AHEAD: u64 = 4;

/// Checksums of the pages, one per chunk of [`CHECKSUM_CHUNK_LEN`] bytes.
#[derive(Debug)]
pub struct PageSums(Vec<u8>);

impl PageSums {
    /// How many chunks there are.
    pub fn chunk_count(&self) -> u64 {
        self.0.len() as u64 / 8
    }

    pub(crate) fn get(&self, index: u64) -> Option<u64> {
        let (sums, _) = self.0.as_chunks::<8>();
        sums.get(usize::try_from(index).ok()?).map(|sum| u64::from_le_bytes(*sum))
    }
}

impl UncheckedImage {
    /// Open a regular file for reading.
    ///
    /// # Errors
    /// [`Error::Gone`], [`Error::Io`], [`Error::Unsupported`] when it is not a regular file.
    pub fn open(path: &Path) -> Result<UncheckedImage> {
        // Asked before opening: opening a FIFO would wait for a writer.
        let metadata = fs::metadata(path).map_err(|source| Error::io(path, "examine", source))?;
        if !metadata.is_file() {
            return Err(not_regular(path));
        }
        let file = File::open(path).map_err(|source| Error::io(path, "open", source))?;
        Ok(UncheckedImage { file, path: path.to_owned() })
    }

    /// Open a regular file of the directory `dir` for reading, without following a link on the way.
    /// `path` is relative; `shown` is for messages. It has to belong to us or to root, and nobody
    /// else may be able to write to it.
    ///
    /// # Errors
    /// As [`open`](UncheckedImage::open).
    pub(crate) fn open_below(dir: &File, path: &Path, shown: PathBuf) -> Result<UncheckedImage> {
        let failed = |source| Error::io(&shown, "open", source);
        // A FIFO would wait for a writer.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let file = openat2(dir, path, OpenHow::new().flags(flags).resolve(resolve));
        let file = File::from(file.map_err(|errno| failed(errno.into()))?);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(not_regular(&shown));
        }
        require_private(&metadata, &shown)?;
        Ok(UncheckedImage { file, path: shown })
    }

    /// Take a file that is already open; `path` is only for messages.
    pub fn from_file(file: File, path: impl Into<PathBuf>) -> UncheckedImage {
        UncheckedImage { file, path: path.into() }
    }

    /// Check header and section table against their checksums and against the length of the file.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the part and the offset, [`Error::Unsupported`], [`Error::Io`].
    pub fn check(self) -> Result<Image> {
        let UncheckedImage { file, path } = self;
        let metadata = file.metadata().map_err(|source| Error::io(&path, "examine", source))?;
        if !metadata.is_file() {
            return Err(not_regular(&path));
        }
        let file_len = metadata.len();
        if file_len < HEADER_LEN as u64 {
            let what = format!("file has {file_len} bytes, a header needs {HEADER_LEN}");
            return Err(Error::corrupt(&path, Part::Length, file_len, what));
        }
        let mut bytes = Box::new([0; HEADER_LEN]);
        read_exact_at(&file, &path, Part::Header, &mut bytes[..], 0)?;
        let header = Header::decode(&bytes, file_len).map_err(|e| layout_error(&path, Part::Header, 0, e))?;
        let mut table = vec![0; header.table_len()];
        read_exact_at(&file, &path, Part::SectionTable, &mut table, header.table_offset)?;
        let sections = decode_section_table(&table, &header)
            .map_err(|e| layout_error(&path, Part::SectionTable, header.table_offset, e))?;
        Ok(Image { file, path, header, sections, stamp: Stamp::of(&metadata) })
    }
}

impl Image {
    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What it was when it was checked.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether it still is what it was at `stamp`: what has been compared since then is what has
    /// been read since then.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when somebody has written to it, [`Error::Io`].
    pub fn require_unwritten_since(&self, stamp: Stamp) -> Result<()> {
        let now = self.file.metadata().map_err(|source| Error::io(&self.path, "examine", source))?;
        let what = "it was written to while it was in use";
        let intact = Stamp::of(&now) == stamp;
        intact.then_some(()).ok_or_else(|| Error::corrupt(&self.path, Part::Pages, 0, what))
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Id of the image.
    pub fn id(&self) -> ImageId {
        self.header.image_id
    }

    /// Length of the file in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.header.total_len
    }

    /// Where the pages lie in the file.
    pub fn page_area(&self) -> Range<u64> {
        self.header.page_area()
    }

    /// The header, for display.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The section table, for display.
    pub fn sections(&self) -> &[SectionEntry] {
        &self.sections
    }

    /// Whether the image has a section of this kind.
    pub fn has_section(&self, kind: SectionKind) -> bool {
        self.sections.iter().any(|entry| entry.kind == kind)
    }

    /// Content of a section of `expected_version`, of at most `max_raw_len` bytes.
    ///
    /// # Errors
    /// [`Error::SectionMissing`], [`Error::SectionVersion`], [`Error::SectionTooLong`] (before
    /// anything is allocated), [`Error::Corrupt`], [`Error::Io`].
    pub fn section(&self, kind: SectionKind, expected_version: u16, max_raw_len: u64) -> Result<Vec<u8>> {
        let path = &self.path;
        let Some(entry) = self.sections.iter().find(|entry| entry.kind == kind) else {
            return Err(Error::SectionMissing { path: path.clone(), section: kind });
        };
        if entry.version != expected_version {
            return Err(Error::SectionVersion {
                path: path.clone(),
                section: kind,
                found: entry.version,
                expected: expected_version,
            });
        }
        if entry.raw_len > max_raw_len {
            return Err(Error::SectionTooLong {
                path: path.clone(),
                section: kind,
                raw_len: entry.raw_len,
                max_raw_len,
            });
        }
        let part = Part::Section(kind);
        // The table guarantees stored_len <= raw_len, so the caller's bound holds for both
        // allocations.
        let mut stored = vec![0; entry.stored_len as usize];
        read_exact_at(&self.file, path, part, &mut stored, entry.offset)?;
        if checksum(&stored) != entry.checksum {
            return Err(Error::corrupt(path, part, entry.offset, "section checksum differs"));
        }
        if !entry.is_compressed() {
            return Ok(stored);
        }
        let raw = zstd::bulk::decompress(&stored, entry.raw_len as usize).map_err(|error| {
            Error::corrupt(path, part, entry.offset, format!("not decompressed: {error}"))
        })?;
        if raw.len() as u64 != entry.raw_len {
            let what = format!("decompressed to {} bytes, not {}", raw.len(), entry.raw_len);
            return Err(Error::corrupt(path, part, entry.offset, what));
        }
        Ok(raw)
    }

    /// Read pages at a file offset inside the page area.
    ///
    /// # Errors
    /// [`Error::Misuse`] outside the page area, [`Error::Corrupt`] when the file has become
    /// shorter, [`Error::Io`].
    pub fn read_pages(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let area = self.page_area();
        let inside = offset >= area.start && offset <= area.end && buffer.len() as u64 <= area.end - offset;
        if !inside {
            return Err(Error::misuse(&self.path, format!("offset {offset} is outside the page area")));
        }
        read_exact_at(&self.file, &self.path, Part::Pages, buffer, offset)
    }

    /// The checksums of the pages.
    ///
    /// # Errors
    /// As [`section`](Image::section); [`Error::Corrupt`] when there are more or fewer than there
    /// are chunks.
    pub fn page_sums(&self) -> Result<PageSums> {
        let chunk_count = self.page_area_len().div_ceil(CHECKSUM_CHUNK_LEN as u64);
        let sums = self.section(SectionKind::PAGE_CHECKSUMS, PAGE_CHECKSUMS_VERSION, chunk_count * 8)?;
        if sums.len() as u64 != chunk_count * 8 {
            let what = format!("{} bytes of checksums for {chunk_count} chunks", sums.len());
            return Err(Error::corrupt(&self.path, Part::Section(SectionKind::PAGE_CHECKSUMS), 0, what));
        }
        Ok(PageSums(sums))
    }

    /// Compare one chunk of the page area with its checksum. `buffer` is scratch space, kept from
    /// call to call.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the chunk's file offset, [`Error::Io`], [`Error::Misuse`] for a
    /// chunk that is not there.
    pub fn verify_chunk(&self, sums: &PageSums, index: u64, buffer: &mut Vec<u8>) -> Result<()> {
        let area = self.page_area();
        let offset = area.start + index * CHECKSUM_CHUNK_LEN as u64;
        let sum =
            sums.get(index).ok_or_else(|| Error::misuse(&self.path, format!("there is no chunk {index}")))?;
        let len = (area.end - offset).min(CHECKSUM_CHUNK_LEN as u64) as usize;
        // Small images are mostly smaller than a piece, and memory that is touched costs more than
        // the reading.
        buffer.resize(buffer.len().max(len.min(PIECE_LEN)), 0);
        let mut found = Checksum::default();
        for at in (0..len).step_by(PIECE_LEN) {
            let piece = &mut buffer[..PIECE_LEN.min(len - at)];
            read_exact_at(&self.file, &self.path, Part::Pages, piece, offset + at as u64)?;
            found.add(piece);
        }
        let intact = found.value() == sum;
        intact
            .then_some(())
            .ok_or_else(|| Error::corrupt(&self.path, Part::Pages, offset, "page checksum differs"))
    }

    /// Compare every page with its checksum, on `threads` threads (at least one).
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the file offset of the first bad chunk, [`Error::Io`].
    pub fn verify_pages(&self, threads: usize) -> Result<()> {
        self.verify_pages_from(0, threads)
    }

    /// The same without the chunks before `first_chunk`, which somebody has compared already.
    ///
    /// # Errors
    /// As [`verify_pages`](Image::verify_pages).
    pub fn verify_pages_from(&self, first_chunk: u64, threads: usize) -> Result<()> {
        let sums = self.page_sums()?;
        let chunk_count = sums.chunk_count();
        let next = AtomicU64::new(first_chunk);
        let worker = || -> Result<()> {
            let mut buffer = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= chunk_count {
                    return Ok(());
                }
                if chunk_count > CHUNKS_AHEAD {
                    // A failure only makes it slower.
                    let _ = self.advise_chunk(index + CHUNKS_AHEAD);
                }
                let checked = self.verify_chunk(&sums, index, &mut buffer);
                if checked.is_err() {
                    // The others need not go on; chunks before this one are already taken and will
                    // be finished.
                    next.store(chunk_count, Ordering::Relaxed);
                    return checked;
                }
            }
        };
        // No more threads than there is work for: starting one costs as much as checking a chunk.
        let left = chunk_count.saturating_sub(first_chunk);
        let threads = threads.clamp(1, left.div_ceil(4).max(1) as usize);
        if threads == 1 {
            return worker();
        }
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let offset_of = |error: &Error| match error {
            Error::Corrupt { offset, .. } => *offset,
            _ => u64::MAX,
        };
        results.into_iter().filter_map(Result::err).min_by_key(offset_of).map_or(Ok(()), Err)
    }

    /// Ask the kernel to read the page area into the page cache, and return when all reads have
    /// been handed over.
    ///
    /// Uses io_uring, and `posix_fadvise(2)` where that is not available. Worth it when there is
    /// other work to do until the pages are needed: a full pass right after it, such as
    /// [`verify_pages`](Image::verify_pages), is slower with it than without where the kernel's own
    /// window is large (0.7 of the speed on a virtio disk with `read_ahead_kb` 8192;
    /// `examples/page-speed.rs`).
    ///
    /// # Errors
    /// [`Error::Io`]. The caller may ignore it: later reads are slower, not wrong.
    pub fn readahead(&self) -> Result<()> {
        sys::readahead::readahead(&self.file, self.page_area())
            .map_err(|source| Error::io(&self.path, "read ahead", source))
    }

    /// From now on the kernel reads what is asked for and nothing beyond it: who reads in steps can
    /// then stop between them, and has one step under way at most. Holds for everybody who shares
    /// the open file.
    ///
    /// # Errors
    /// [`Error::Io`]. The caller may ignore it.
    pub fn read_only_what_is_asked(&self) -> Result<()> {
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM;
        nix::fcntl::posix_fadvise(&self.file, 0, 0, advice)
            .map_err(|errno| Error::io(&self.path, "advise on", errno.into()))
    }

    /// Have the kernel begin to read a chunk of the page area; none that is not there.
    ///
    /// # Errors
    /// [`Error::Io`]. The caller may ignore it.
    pub fn advise_chunk(&self, index: u64) -> Result<()> {
        let (area, len) = (self.page_area(), CHECKSUM_CHUNK_LEN as u64);
        let offset = area.start.saturating_add(index.saturating_mul(len));
        if offset >= area.end {
            return Ok(());
        }
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        nix::fcntl::posix_fadvise(&self.file, offset as i64, len as i64, advice)
            .map_err(|errno| Error::io(&self.path, "advise on", errno.into()))
    }

    fn page_area_len(&self) -> u64 {
        self.header.page_area_len
    }

    /// Number of pages in the page area.
    pub fn page_count(&self) -> u64 {
        self.header.page_area_len / PAGE_SIZE as u64
    }
}

/// Nobody but root and we may write to it.
pub(crate) fn require_private(metadata: &fs::Metadata, path: &Path) -> Result<()> {
    let is_ours = metadata.uid() == 0 || metadata.uid() == nix::unistd::geteuid().as_raw();
    if is_ours && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let what = format!("owner {} and mode {:o}", metadata.uid(), metadata.mode() & 0o7777);
    Err(Error::io(path, "trust", io::Error::new(io::ErrorKind::PermissionDenied, what)))
}

fn not_regular(path: &Path) -> Error {
    Error::Unsupported { path: path.to_owned(), what: "a file that is not a regular file".to_owned() }
}

fn layout_error(path: &Path, part: Part, base: u64, error: LayoutError) -> Error {
    match error {
        LayoutError::Corrupt { offset, what } => Error::corrupt(path, part, base + offset, what),
        LayoutError::Unsupported { what } => Error::Unsupported { path: path.to_owned(), what },
    }
}

/// A short read is damage: the length was checked before, so the file has shrunk.
fn read_exact_at(file: &File, path: &Path, part: Part, buffer: &mut [u8], offset: u64) -> Result<()> {
    file.read_exact_at(buffer, offset).map_err(|source| match source.kind() {
        io::ErrorKind::UnexpectedEof => Error::corrupt(path, part, offset, "file ends here"),
        _ => Error::io(path, "read", source),
    })
}
