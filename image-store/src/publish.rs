//! Replacing a file so that readers see the old or the new one, never a part.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fault;
use crate::layout::ImageId;

/// Start of the name of every temporary file; whoever holds the store lock may remove such files.
pub(crate) const TEMPORARY_PREFIX: &str = ".fastboot-tmp-";

/// A name beside `path`. It does not contain the name of `path`, which may be as long as the file
/// system allows.
pub(crate) fn temporary_path(path: &Path, unique: &str) -> PathBuf {
    let mut name = OsString::from(TEMPORARY_PREFIX);
    name.push(unique);
    path.with_file_name(name)
}

/// fsync the directory that `path` is in, so that a rename in it survives a power cut.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)?.sync_all()
}

/// Replace `path` by `bytes`, mode 0600: temporary file → fsync → rename → fsync of the directory.
///
/// Fault points are `{what}.write`, `{what}.sync.file`, `{what}.rename` and `{what}.sync.dir`.
///
/// # Errors
/// [`Error::NoSpace`], [`Error::Io`], [`Error::Gone`] when the directory is missing. Before the
/// rename the old file is untouched and the temporary one removed; an error after it
/// (`{what}.sync.dir`) leaves the new file in place.
pub(crate) fn publish(path: &Path, bytes: &[u8], what: &str) -> Result<()> {
    let fail = |step| move |source| Error::write(path, step, 0, bytes.len() as u64, source);
    let unique = ImageId::random().map_err(fail("name a temporary file for"))?.to_string();
    let temporary = temporary_path(path, &unique);
    let renamed = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(fail("create"))?;
        fault::point(&format!("{what}.write")).map_err(fail("write"))?;
        file.write_all(bytes).map_err(fail("write"))?;
        fault::point(&format!("{what}.sync.file")).map_err(fail("sync"))?;
        file.sync_all().map_err(fail("sync"))?;
        fault::point(&format!("{what}.rename")).map_err(fail("rename"))?;
        fs::rename(&temporary, path).map_err(fail("rename"))
    })();
    if renamed.is_err() {
        // Nothing to add to the error that is on its way.
        let _ = fs::remove_file(&temporary);
        return renamed;
    }
    fault::point(&format!("{what}.sync.dir")).map_err(fail("sync directory of"))?;
    sync_dir(path).map_err(fail("sync directory of"))
}
