//! `PIDFile=` of a restored service: systemd reads it when the shim of a forking service has ended.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// Write the file in the mount namespace of `shim`, as the daemon would have: as the unit's user,
/// or as root where only root can. Changes the namespace of this process for good: for a worker
/// that is about to exit.
///
/// # Errors
/// Any; systemd would not find the main process of a forking service then.
pub fn write(path: &Path, main_pid: i32, shim: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    setns(shim, CloneFlags::CLONE_NEWNS)?;
    let text = format!("{main_pid}\n");
    // The file may have come back with the image.
    if fs::read_to_string(path).is_ok_and(|content| content.trim() == text.trim()) {
        return Ok(());
    }
    let as_user = write_as(path, &text, uid, gid);
    match as_user {
        Err(error) if uid != 0 && error.kind() == io::ErrorKind::PermissionDenied => {
            write_as_root(path, &text)
        }
        result => result,
    }
}

/// With the rights of the unit's user: a link that somebody has put there leads no further than he
/// could go himself.
fn write_as(path: &Path, text: &str, uid: u32, gid: u32) -> io::Result<()> {
    let (old_gid, old_uid) = (setfsgid(Gid::from_raw(gid)), setfsuid(Uid::from_raw(uid)));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    let written = options.open(path).and_then(|mut file: File| file.write_all(text.as_bytes()));
    setfsuid(old_uid);
    setfsgid(old_gid);
    written
}

/// Only into a directory that nobody but root can write to.
fn write_as_root(path: &Path, text: &str) -> io::Result<()> {
    let dir = fs::metadata(path.parent().unwrap_or(Path::new("/")))?;
    if dir.uid() != 0 || dir.mode() & 0o022 != 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644).custom_flags(libc::O_NOFOLLOW);
    options.open(path)?.write_all(text.as_bytes())
}
