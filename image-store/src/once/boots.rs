//! The number of the boot that is going on. Every boot is noted: by a unit of its own, by the
//! restore daemon and by whoever takes an image, and by the first of them only.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Once;
use crate::error::{Error, Part, Result};
use crate::publish::publish;
use crate::quarantine::read_bounded;

const MAX_LEN: u64 = 4 << 10;

/// A boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootMark {
    /// Counted from the first one that was noted.
    pub number: u64,
    /// Its id, with the number of the soft reboot where there was one.
    pub id: String,
}

impl Once {
    /// The number of the boot with this id, which is the one that is going on: noted durably, unless
    /// somebody has done so before.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a count that cannot be read; [`Error::Io`]. Nobody knows then which
    /// boot this is.
    pub fn note_boot(&self, id: &str) -> Result<BootMark> {
        let path = self.dir.join("boots");
        let fail = |step| {
            let path = &path;
            move |source| Error::io(path, step, source)
        };
        if id.is_empty() {
            return Err(fail("name this boot in")(io::Error::from(io::ErrorKind::InvalidInput)));
        }
        let lock = self.dir.join("boots.lock");
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(lock);
        // Whoever holds it writes a few bytes.
        let lock = Flock::lock(lock.map_err(fail("lock"))?, FlockArg::LockExclusive);
        let _lock = lock.map_err(|(_, errno)| fail("lock")(errno.into()))?;
        let before = match read_bounded(&path, MAX_LEN) {
            Ok(bytes) => {
                let before: std::result::Result<BootMark, _> = serde_json::from_slice(&bytes);
                Some(before.map_err(|e| Error::corrupt(&path, Part::Catalogue, 0, e.to_string()))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fail("read")(error)),
        };
        let number = match before {
            Some(before) if before.id == id => return Ok(before),
            Some(before) => before.number + 1,
            None => 1,
        };
        let mark = BootMark { number, id: id.to_owned() };
        let bytes = serde_json::to_vec(&mark).map_err(|e| fail("write")(io::Error::other(e)))?;
        publish(&path, &bytes, "boots")?;
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use crate::Store;

    #[test]
    fn each_boot_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let once = Store::open(dir.path()).once();
        once.begin().unwrap();
        let number = |id| once.note_boot(id).unwrap().number;
        assert_eq!([number("a"), number("a"), number("b"), number("b"), number("a")], [1, 1, 2, 2, 3]);
        once.note_boot("").unwrap_err();
        std::fs::write(dir.path().join("once/boots"), "nonsense").unwrap();
        once.note_boot("c").unwrap_err();
    }
}
