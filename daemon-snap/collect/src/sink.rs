//! Where the bytes of memory go.

use snap_error::Result;

/// Where pages go; implemented by the image writer and by tests.
pub trait PageSink {
    /// Appends whole pages and returns the absolute image offset of the first one.
    ///
    /// # Errors
    /// The store's error (full disk …).
    fn append_pages(&mut self, bytes: &[u8]) -> Result<u64>;
}

impl PageSink for image_store::ImageWriter {
    fn append_pages(&mut self, bytes: &[u8]) -> Result<u64> {
        Ok(image_store::ImageWriter::append_pages(self, bytes)?)
    }
}
