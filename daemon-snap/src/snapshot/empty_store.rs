//! A boot begins with nothing in systemd's store, and so must the start that an image is taken of:
//! what a plain restart hands over is a part of the life before. The only way to have one job
//! restart a unit, those that depend on it as ever, and drop what is stored, is
//! `FileDescriptorStorePreserve=no` (since systemd 254) while it lasts.
//!
//! systemd knows it until it reads its units again. The file is there only for the moment in which
//! it is read: whoever kills us leaves nothing that outlives the next `systemctl daemon-reload`.

use crate::unit::Systemd;
use image_store::evidence::OWN_DROP_IN;
use snap_error::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where drop-ins lie that do not outlive a boot.
const UNITS: &str = "/run/systemd/system";
const TEXT: &str = "# Written by `fastboot snapshot`, which restarts the service.\n\
                    [Service]\nFileDescriptorStorePreserve=no\n";

/// Units whose store is emptied when they stop, as long as this lives.
#[derive(Debug)]
pub(super) struct EmptyStores<'a> {
    systemd: &'a Systemd,
    is_in_force: bool,
}

impl<'a> EmptyStores<'a> {
    /// For these units; for none of them nothing happens.
    ///
    /// # Errors
    /// When it cannot be written, or systemd does not read it.
    pub(super) fn begin(systemd: &'a Systemd, units: &[&str]) -> Result<Self> {
        let stores = Self { systemd, is_in_force: !units.is_empty() };
        if !stores.is_in_force {
            return Ok(stores);
        }
        let mut files = Files::default();
        for unit in units {
            files.write(Path::new(UNITS).join(format!("{unit}.d")))?;
        }
        systemd.reload()?;
        files.remove()?;
        Ok(stores)
    }

    /// Removes what a snapshot has left behind that was killed just then; systemd forgets it when
    /// it reads its units next.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn clear() -> Result<()> {
        let dirs = std::fs::read_dir(UNITS).into_iter().flatten().flatten();
        let paths = dirs.map(|dir| dir.path().join(OWN_DROP_IN)).filter(|path| is_ours(path));
        Files(paths.collect()).remove()
    }

    /// Whether systemd names a drop-in of ours that it has read and that is gone by now.
    pub(super) fn is_read(path: &Path) -> bool {
        path.starts_with(UNITS) && path.file_name().is_some_and(|name| name == OWN_DROP_IN) && !path.exists()
    }

    /// Stores outlive a restart again, where the units say so.
    ///
    /// # Errors
    /// When systemd does not read its units again.
    pub(super) fn end(mut self) -> Result<()> {
        self.reload()
    }

    fn reload(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_in_force) { self.systemd.reload() } else { Ok(()) }
    }
}

impl Drop for EmptyStores<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.reload() {
            tracing::debug!(%error, "stores of units are emptied at a restart until systemd reads its units again");
        }
    }
}

/// One of our name may be an administrator's.
fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text == TEXT)
}

/// Drop-ins of ours; removed when this is dropped, at the latest.
#[derive(Debug, Default)]
struct Files(Vec<PathBuf>);

impl Files {
    fn write(&mut self, dir: PathBuf) -> Result<()> {
        let path = dir.join(OWN_DROP_IN);
        // An administrator's stays as it is; whether it says something else shows at the restart.
        if path.exists() {
            return Ok(());
        }
        let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, TEXT));
        self.0.push(path);
        written.map_err(|e| Error::io("write", dir.display(), &e))
    }

    fn remove(&mut self) -> Result<()> {
        for path in std::mem::take(&mut self.0) {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove", path.display(), &e));
                }
                _ => {}
            }
            // Others may have theirs in it.
            let _ = path.parent().map(std::fs::remove_dir);
        }
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::debug!(%error, "a drop-in stays until the next snapshot");
        }
    }
}
