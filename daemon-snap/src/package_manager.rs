//! Whether the machine's packages are being changed at this moment.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use std::path::Path;

/// Files that dpkg, apt and rpm lock by fcntl(2) while they work.
const LOCKED: [&str; 3] =
    ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "usr/lib/sysimage/rpm/.rpm.lock"];
/// Files that are there only while pacman works.
const PRESENT: [&str; 1] = ["var/lib/pacman/db.lck"];

/// The lock that a package manager holds, if one is at work. What cannot be looked at is held by
/// nobody.
pub fn at_work(root: &Path) -> Option<String> {
    let is_held = |name: &&&str| is_locked(&root.join(name)).unwrap_or_default();
    let is_there = |name: &&&str| root.join(name).exists();
    let held = LOCKED.iter().find(is_held).or_else(|| PRESENT.iter().find(is_there))?;
    Some(root.join(held).display().to_string())
}

/// Whether somebody has locked any part of a file.
fn is_locked(path: &Path) -> nix::Result<bool> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = match open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(false),
        file => file?,
    };
    let mut conflict = whole_file();
    fcntl(&file, FcntlArg::F_GETLK(&mut conflict))?;
    Ok(conflict.l_type != libc::F_UNLCK as libc::c_short)
}

/// A lock for writing on all of a file.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn a_lock_that_somebody_holds_is_named_by_its_file() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(at_work(root.path()), None);
        let dir = root.path().join("var/lib/dpkg");
        fs::create_dir_all(&dir).unwrap();
        let lock = dir.join("lock-frontend");
        File::create(&lock).unwrap();
        assert_eq!(at_work(root.path()), None, "a file alone is no lock");

        // A record lock of our own process would not stand in our way; that of a description does.
        let held = File::options().write(true).open(&lock).unwrap();
        fcntl(&held, FcntlArg::F_OFD_SETLK(&whole_file())).unwrap();
        assert_eq!(at_work(root.path()), Some(lock.display().to_string()));
        drop(held);
        assert_eq!(at_work(root.path()), None);
    }

    #[test]
    fn a_file_of_pacman_counts_by_being_there() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("var/lib/pacman");
        fs::create_dir_all(&dir).unwrap();
        File::create(dir.join("db.lck")).unwrap();
        assert!(at_work(root.path()).is_some_and(|path| path.ends_with("db.lck")));
    }
}
