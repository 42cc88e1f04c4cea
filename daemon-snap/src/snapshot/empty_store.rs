//! A boot begins with nothing in systemd's store, and so must the start that an image is taken of: what a plain restart hands over
//! is a part of the life before. The only way to have one job restart a unit, those that depend on it as ever, and drop what is
//! stored, is `FileDescriptorStorePreserve=no` (since systemd 254) while it lasts.

use crate::error::{Error, Result};
use crate::unit::Systemd;
use image_store::evidence::OWN_DROP_IN;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where drop-ins lie that do not outlive a boot.
const UNITS: &str = "/run/systemd/system";
const TEXT: &str = "# Written by `fastboot snapshot`, for as long as it restarts the service.\n\
                    [Service]\nFileDescriptorStorePreserve=no\n";

/// Units whose store is emptied when they stop, as long as this lives.
#[derive(Debug)]
pub(super) struct EmptyStores<'a> {
    systemd: &'a Systemd,
    written: Vec<PathBuf>,
}

impl<'a> EmptyStores<'a> {
    /// For these units; for none of them nothing happens.
    ///
    /// # Errors
    /// When it cannot be written, or systemd does not read it.
    pub(super) fn begin(systemd: &'a Systemd, units: &[&str]) -> Result<Self> {
        let mut stores = Self { systemd, written: Vec::new() };
        for unit in units {
            let dir = Path::new(UNITS).join(format!("{unit}.d"));
            let path = dir.join(OWN_DROP_IN);
            let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, TEXT));
            stores.written.push(path);
            written.map_err(|e| Error::io("write", dir.display(), &e))?;
        }
        if !units.is_empty() {
            systemd.reload()?;
        }
        Ok(stores)
    }

    /// What a snapshot that was killed has left behind.
    ///
    /// # Errors
    /// When it cannot be removed, or systemd does not read its units again.
    pub(super) fn clear(systemd: &Systemd) -> Result<()> {
        let dirs = std::fs::read_dir(UNITS).into_iter().flatten().flatten();
        let paths = dirs.map(|dir| dir.path().join(OWN_DROP_IN)).filter(|path| path.exists());
        EmptyStores { systemd, written: paths.collect() }.end()
    }

    /// Stores outlive a restart again, where the units say so.
    ///
    /// # Errors
    /// As [`EmptyStores::clear`].
    pub(super) fn end(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        let written = std::mem::take(&mut self.written);
        for path in &written {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove", path.display(), &e));
                }
                _ => {}
            }
            // Others may have theirs in it.
            let _ = path.parent().map(std::fs::remove_dir);
        }
        if written.is_empty() { Ok(()) } else { self.systemd.reload() }
    }
}

impl Drop for EmptyStores<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::debug!(%error, "stores of units are emptied at their next restart");
        }
    }
}
