//! How often userspace has begun anew since the kernel was booted (`systemctl soft-reboot`, since
//! systemd 254): the kernel, its boot id and /run go on, and for services it is a boot all the
//! same.
//!
//! Generators are not told in the run that matters: systemd 257 has `SYSTEMD_SOFT_REBOOTS_COUNT`
//! for them, but reads the number back only after they have run. So a unit of ours counts, the last
//! thing before systemd executes itself.

use std::fs;
use std::io;

use crate::file::{self, PUBLIC, unless_missing};
use crate::{RunDir, first_start, generator, status, trial};

const FILE_NAME: &str = "soft-reboots";
/// Longest file that is read, in bytes: a number.
const MAX_LEN: u64 = 64;

/// How often userspace has begun anew; zero also when that cannot be read.
pub fn count(run_dir: &RunDir) -> u64 {
    let bytes = file::read(&run_dir.file(FILE_NAME), MAX_LEN).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().parse().unwrap_or(0)
}

/// The userspace that ends now has been the last but one.
///
/// # Errors
/// It cannot be noted: all services start cold after this soft reboot.
pub fn begin_anew(run_dir: &RunDir) -> io::Result<()> {
    let number = (count(run_dir) + 1).to_string();
    file::replace(&run_dir.file(FILE_NAME), PUBLIC, number.as_bytes())?;
    forget_earlier(run_dir)
}

/// Forget what earlier userspaces have left: who was started, what became of it, trials. The record
/// of the generator goes last: as long as it is there, it is seen to be of another userspace, and
/// this is done again.
///
/// # Errors
/// Something could not be removed. Nothing may be restored then.
pub fn forget_earlier(run_dir: &RunDir) -> io::Result<()> {
    for dir in [first_start::DIR_NAME, trial::DIR_NAME] {
        unless_missing(fs::remove_dir_all(run_dir.file(dir)))?;
    }
    for file in [status::FILE_NAME, generator::FILE_NAME] {
        unless_missing(fs::remove_file(run_dir.file(file)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userspaces_are_counted_and_nothing_of_an_earlier_one_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::at(dir.path());
        assert_eq!(count(&run_dir), 0);
        begin_anew(&run_dir).unwrap();
        assert_eq!(count(&run_dir), 1);
        fs::create_dir_all(dir.path().join("asked")).unwrap();
        fs::create_dir_all(dir.path().join("trial")).unwrap();
        for file in ["asked/a.service", "trial/a.service.permit", "status.json", "generator.json", "other"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        begin_anew(&run_dir).unwrap();
        assert_eq!(count(&run_dir), 2);
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", FILE_NAME]);
    }
}
