//! Writing beside the filling: while one chunk goes into the page cache, the next one is read.
//!
//! Both take about the same time, and a daemon stands still meanwhile. The thread is started with
//! the first full chunk, so that small images do without it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// Chunks that are filled or being written at a time.
const DEPTH: usize = 4;

/// A thread that writes what it is given, in order. Dropped, it ends first.
#[derive(Debug)]
pub(crate) struct Background {
    /// Gone when nothing more comes.
    full: Option<SyncSender<(Box<[u8]>, u64)>>,
    written: Receiver<Result<Box<[u8]>, Failure>>,
    thread: Option<JoinHandle<()>>,
    under_way: usize,
}

/// A write that failed. Nothing is written after it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Where in the file.
    pub offset: u64,
    pub source: io::Error,
}

impl Background {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread or descriptor to be had.
    pub fn start(file: &File) -> io::Result<Background> {
        let file = file.try_clone()?;
        let (full, to_write) = sync_channel::<(Box<[u8]>, u64)>(DEPTH);
        let (done, written) = channel();
        let write_all = move || {
            for (bytes, offset) in to_write {
                let result = file.write_all_at(&bytes, offset).map_err(|source| Failure { offset, source });
                let failed = result.is_err();
                if done.send(result.map(|()| bytes)).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("image-writer".to_owned()).spawn(write_all)?;
        Ok(Background { full: Some(full), written, thread: Some(thread), under_way: 0 })
    }

    /// Hands a chunk over. Returns one of the same length to be filled next.
    ///
    /// # Errors
    /// An earlier chunk could not be written.
    pub fn write(&mut self, chunk: Box<[u8]>, offset: u64) -> Result<Box<[u8]>, Failure> {
        let len = chunk.len();
        // A thread that has ended says why in `written`.
        let sent = self.full.as_ref().is_some_and(|full| full.send((chunk, offset)).is_ok());
        self.under_way += usize::from(sent);
        if sent && self.under_way < DEPTH {
            return Ok(vec![0; len].into_boxed_slice());
        }
        self.next_written(offset)
    }

    /// Waits until everything has been written.
    ///
    /// # Errors
    /// The first chunk that could not be written.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.full = None;
        while self.under_way > 0 {
            self.next_written(0)?;
        }
        Ok(())
    }

    fn next_written(&mut self, offset: u64) -> Result<Box<[u8]>, Failure> {
        self.under_way = self.under_way.saturating_sub(1);
        self.written.recv().unwrap_or_else(|_| {
            Err(Failure { offset, source: io::Error::other("the writing thread has ended") })
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            // It has said in `written` what it had to say.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_arrive_where_they_belong() {
        let file = tempfile::tempfile().unwrap();
        let mut background = Background::start(&file).unwrap();
        let mut chunk = vec![0; 4096].into_boxed_slice();
        for index in 0..50u64 {
            chunk.fill(index as u8);
            chunk = background.write(chunk, index * 4096).unwrap();
            assert_eq!(chunk.len(), 4096);
        }
        background.finish().unwrap();
        let mut bytes = vec![0; 4096];
        for index in 0..50u64 {
            file.read_exact_at(&mut bytes, index * 4096).unwrap();
            assert!(bytes.iter().all(|byte| *byte == index as u8), "chunk {index}");
        }
    }

    #[test]
    fn a_write_that_fails_is_told_and_ends_it() {
        // Opened for reading only: every write is EBADF.
        let file = File::open("/dev/null").unwrap();
        let mut background = Background::start(&file).unwrap();
        let chunk = || vec![0; 4096].into_boxed_slice();
        let failure = (0..20).find_map(|index| background.write(chunk(), index * 4096).err()).unwrap();
        assert_eq!((failure.offset, failure.source.raw_os_error()), (0, Some(libc::EBADF)));

        let mut background = Background::start(&file).unwrap();
        background.write(chunk(), 0).unwrap();
        assert_eq!(background.finish().unwrap_err().source.raw_os_error(), Some(libc::EBADF));
    }
}
