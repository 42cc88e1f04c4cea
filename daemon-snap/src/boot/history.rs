//! How boots went: a line of JSON for each, in the store, the last of them.

use serde::{Deserialize, Serialize};
use snap_error::{Error, Result};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "history.jsonl";
/// Boots that are kept.
const KEPT: usize = 200;
/// Longest file that is read, in bytes.
const MAX_LEN: u64 = 16 << 20;

/// A boot that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastBoot {
    pub boot_id: String,
    /// When this was written, seconds since 1970.
    pub unix_s: u64,
    pub summary: String,
    pub restored: usize,
    pub cold: Vec<ColdStart>,
    /// From the start of userspace until the last service was there, and what that would have been
    /// with cold starts.
    pub boot_ms: Option<f64>,
    pub cold_boot_ms: Option<f64>,
    pub gain_ms: Option<f64>,
    /// Units whose image is not tried any more.
    pub quarantined: Vec<String>,
}

/// A service that was not restored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    pub unit: String,
    pub code: Option<String>,
    pub reason: String,
}

fn path(store: &Path) -> PathBuf {
    store.join(FILE_NAME)
}

/// Boots, oldest first. A line that is no boot is left out: a disk may have been full.
///
/// # Errors
/// When there is a file that cannot be read.
pub fn load(store: &Path) -> Result<Vec<PastBoot>> {
    let path = path(store);
    let fail = |e: std::io::Error| Error::io("read", path.display(), &e);
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        found => {
            let len = found.map_err(fail)?.len();
            if len > MAX_LEN {
                return Err(fail(std::io::Error::other(format!("{len} bytes are too many"))));
            }
        }
    }
    let text = fs::read_to_string(&path).map_err(fail)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Adds a boot, in the place of what was written of it before.
///
/// # Errors
/// When it cannot be written; then the file is what it was.
pub fn add(store: &Path, boot: &PastBoot) -> Result<()> {
    let mut boots = load(store)?;
    boots.retain(|other| other.boot_id != boot.boot_id);
    boots.push(boot.clone());
    let surplus = boots.len().saturating_sub(KEPT);
    let lines: Vec<String> =
        boots.iter().skip(surplus).filter_map(|boot| serde_json::to_string(boot).ok()).collect();
    let (path, temporary) = (path(store), store.join(".fastboot-tmp-history"));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all((lines.join("\n") + "\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Error::io("write", path.display(), &e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(id: usize) -> PastBoot {
        PastBoot {
            boot_id: id.to_string(),
            unix_s: 1,
            summary: "1 of 1 service restored".to_owned(),
            restored: 1,
            cold: Vec::new(),
            boot_ms: Some(900.0),
            cold_boot_ms: Some(1900.0),
            gain_ms: Some(1000.0),
            quarantined: Vec::new(),
        }
    }

    #[test]
    fn the_last_boots_are_kept_each_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), []);
        for id in 0..KEPT + 5 {
            add(dir.path(), &boot(id)).unwrap();
        }
        let again = PastBoot { restored: 7, ..boot(9) };
        add(dir.path(), &again).unwrap();
        let boots = load(dir.path()).unwrap();
        assert_eq!((boots.len(), boots.last()), (KEPT, Some(&again)));
        assert_eq!(boots[0].boot_id, "5");
        fs::write(dir.path().join(FILE_NAME), "half a li").unwrap();
        assert_eq!(load(dir.path()).unwrap(), []);
    }
}
