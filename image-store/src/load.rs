//! Reading all pages of an image once: each chunk is compared with its checksum when it arrives,
//! and its bytes are handed on while they are in the processor's cache.
//!
//! What the page cache does not have is read past it, several chunks at a time, in whatever order
//! they arrive; what it has is taken from there meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::time::Duration;

use crate::error::{Error, Part, Result};
use crate::fault;
use crate::layout::{CHECKSUM_CHUNK_LEN, Checksum, PAGE_SIZE};
use crate::reader::{CHUNKS_AHEAD, Image, PageSums};
use crate::sys::direct::{Arrived, Reads, SLOT_LEN};
use crate::sys::resident::resident_pages;

/// Bytes that are compared and handed on at a time: they are still in the processor's second-level
/// cache then. Pieces begin at multiples of this in the page area.
pub const PIECE_LEN: usize = 256 << 10;
/// Chunks under way. Enough for a device that wants many requests, which it gets by cutting these;
/// few enough that somebody else's read does not wait long behind them.
const DEPTH: usize = 4;
/// How long a device may take before somebody asks whether there is still time.
const LOOK_AROUND: Duration = Duration::from_millis(50);

const _: () = assert!(SLOT_LEN == CHECKSUM_CHUNK_LEN && CHECKSUM_CHUNK_LEN.is_multiple_of(PIECE_LEN));

/// An image that can be read past the page cache.
#[derive(Debug)]
pub struct DirectFile(File);

impl Image {
    /// The file once more, for reading past the page cache. /proc has to be there.
    ///
    /// # Errors
    /// The file system cannot do that.
    pub fn open_direct(&self) -> Result<DirectFile> {
        let failed = |source| Error::io(self.path(), "open past the page cache", source);
        let path = format!("/proc/self/fd/{}", self.file().as_raw_fd());
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).map_err(failed)?;
        // Whatever /proc is here.
        let found = file.metadata().map_err(failed)?;
        let stamp = self.stamp();
        if (found.dev(), found.ino()) != (stamp.device, stamp.inode) {
            return Err(failed(io::Error::other("it is another file")));
        }
        Ok(DirectFile(file))
    }
}

/// One pass over the pages.
#[derive(Debug)]
pub struct PageLoader<'a> {
    image: &'a Image,
    sums: PageSums,
    /// By chunk: whether all of it lies in the page cache.
    cached: Vec<bool>,
    direct: DirectFile,
}

/// What becomes of what is read.
pub trait Sink {
    /// Why it goes no further.
    type Error: From<Error>;

    /// Takes bytes that begin at this offset of the file: a piece of [`PIECE_LEN`], or what is left
    /// of the last chunk. Whether they are what they were is known only when the pass is over.
    ///
    /// # Errors
    /// Ends the pass.
    fn take(&mut self, offset: u64, bytes: &[u8]) -> std::result::Result<(), Self::Error>;

    /// Called between two chunks, and while a device takes its time.
    ///
    /// # Errors
    /// Ends the pass.
    fn go_on(&mut self) -> std::result::Result<(), Self::Error>;
}

impl<'a> PageLoader<'a> {
    /// Looks at what is in the page cache.
    ///
    /// # Errors
    /// The checksums are damaged.
    pub fn new(image: &'a Image, direct: DirectFile) -> Result<PageLoader<'a>> {
        let sums = image.page_sums()?;
        // Where that cannot be told everything is read.
        let pages = resident_pages(image.file(), image.page_area()).unwrap_or_default();
        let cached = pages.chunks(CHECKSUM_CHUNK_LEN / PAGE_SIZE).map(|chunk| chunk.iter().all(|page| *page));
        let mut cached: Vec<bool> = cached.collect();
        cached.resize(sums.chunk_count() as usize, false);
        Ok(PageLoader { image, sums, cached, direct })
    }

    /// Whether most of it lies in the page cache.
    pub fn is_mostly_cached(&self) -> bool {
        self.cached.iter().filter(|cached| **cached).count() * 2 > self.cached.len()
    }

    /// Reads every chunk of which `wants` is true, compares it, hands it on. Without a ring, and
    /// where it would have nothing to do, all of it is read through the page cache.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the file offset of a bad chunk, [`Error::Io`]; those of `sink`.
    pub fn run<S: Sink>(
        &self,
        wants: impl Fn(u64) -> bool,
        sink: &mut S,
    ) -> std::result::Result<(), S::Error> {
        let PageLoader { image, sums, cached, direct } = self;
        let mut chunk = Chunk { image, sums, sink };
        let all = || (0..sums.chunk_count()).filter(|index| wants(*index));
        if all().all(|index| cached[index as usize]) {
            return through_cache(&mut chunk, all());
        }
        let reads = fault::point("image.load.ring").and_then(|()| Reads::new(direct.0.try_clone()?, DEPTH));
        let Ok(mut reads) = reads else {
            return through_cache(&mut chunk, all());
        };
        let failed = |source| Error::io(image.path(), "read", source);
        let mut from_device = all().filter(|index| !cached[*index as usize]).peekable();
        let mut from_cache = all().filter(|index| cached[*index as usize]);
        let mut buffer = Vec::new();
        loop {
            while reads.has_room()
                && let Some(index) = from_device.next()
            {
                let (offset, len) = chunk.place(index);
                reads.start(offset, len, index).map_err(failed)?;
            }
            chunk.sink.go_on()?;
            let next_cached = from_cache.next();
            if reads.under_way() > 0 {
                let wait = if next_cached.is_some() { Duration::ZERO } else { LOOK_AROUND };
                if let Some(arrived) = reads.next(wait).map_err(failed)? {
                    let (offset, len) = chunk.place(arrived.tag);
                    let bytes = &mut reads.bytes(&arrived)[..len];
                    complete(image, offset, bytes, &arrived)?;
                    chunk.compare(arrived.tag, bytes)?;
                    reads.put_back(arrived);
                }
            } else if next_cached.is_none() && from_device.peek().is_none() {
                return Ok(());
            }
            if let Some(index) = next_cached {
                chunk.read_cached(index, &mut buffer)?;
            }
        }
    }
}

fn through_cache<S: Sink>(
    chunk: &mut Chunk<'_, S>,
    wanted: impl Iterator<Item = u64>,
) -> std::result::Result<(), S::Error> {
    let mut buffer = Vec::new();
    for index in wanted {
        chunk.sink.go_on()?;
        // A failure only makes it slower.
        let _ = chunk.image.advise_chunk(index + CHUNKS_AHEAD);
        chunk.read_cached(index, &mut buffer)?;
    }
    Ok(())
}

/// What belongs to every chunk of a pass.
struct Chunk<'a, S> {
    image: &'a Image,
    sums: &'a PageSums,
    sink: &'a mut S,
}

impl<S: Sink> Chunk<'_, S> {
    /// Offset in the file, and length.
    fn place(&self, index: u64) -> (u64, usize) {
        let area = self.image.page_area();
        let offset = area.start + index * CHECKSUM_CHUNK_LEN as u64;
        (offset, (area.end - offset).min(CHECKSUM_CHUNK_LEN as u64) as usize)
    }

    fn compare(&mut self, index: u64, bytes: &[u8]) -> std::result::Result<(), S::Error> {
        let (offset, _) = self.place(index);
        let mut found = Checksum::default();
        for (at, piece) in (offset..).step_by(PIECE_LEN).zip(bytes.chunks(PIECE_LEN)) {
            found.add(piece);
            self.sink.take(at, piece)?;
        }
        self.judge(index, &found)
    }

    fn read_cached(&mut self, index: u64, buffer: &mut Vec<u8>) -> std::result::Result<(), S::Error> {
        let (offset, len) = self.place(index);
        let mut found = Checksum::default();
        buffer.resize(PIECE_LEN, 0);
        for at in (0..len).step_by(PIECE_LEN) {
            let piece = &mut buffer[..PIECE_LEN.min(len - at)];
            self.image.read_pages(offset + at as u64, piece)?;
            found.add(piece);
            self.sink.take(offset + at as u64, piece)?;
        }
        self.judge(index, &found)
    }

    fn judge(&self, index: u64, found: &Checksum) -> std::result::Result<(), S::Error> {
        if self.sums.get(index) == Some(found.value()) {
            return Ok(());
        }
        let (offset, _) = self.place(index);
        Err(Error::corrupt(self.image.path(), Part::Pages, offset, "page checksum differs").into())
    }
}

/// What a read past the page cache has left out is read through it, once: the file system may not
/// take such a read after all, or the file ends here.
fn complete(image: &Image, offset: u64, bytes: &mut [u8], arrived: &Arrived) -> Result<()> {
    let got = match &arrived.result {
        Ok(len) => *len,
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EAGAIN)) =>
        {
            0
        }
        Err(error) => {
            let source =
                error.raw_os_error().map_or(io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
            return Err(Error::io(image.path(), "read", source));
        }
    };
    match bytes.get_mut(got..) {
        Some(rest) if !rest.is_empty() => image.read_pages(offset + got as u64, rest),
        _ => Ok(()),
    }
}
