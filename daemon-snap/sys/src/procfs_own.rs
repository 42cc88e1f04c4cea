//! A proc instance of our own: sees our PID namespace, is writable, and stays reachable in any
//! mount namespace.

use crate::detached;
use nix::dir::{Dir, Entry};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// For messages.
pub const LAST_PID: &str = "sys/kernel/ns_last_pid";

/// The root of a detached proc mount.
#[derive(Debug)]
pub struct OwnProc(OwnedFd);

impl OwnProc {
    /// Mounts an instance, attached nowhere.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN.
    pub fn mount() -> Result<Self, Errno> {
        detached::mount(c"proc").map(Self)
    }

    /// The instance that is mounted on /proc, where it is as good as one of our own: of our PID
    /// namespace, and writable.
    pub fn at_hand() -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let proc = open("/proc", flags, Mode::empty()).ok()?;
        let is_proc = fstatfs(&proc).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
        let read_only = fstatvfs(&proc).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY));
        let own = readlinkat(&proc, "self").ok()?;
        let is_ours = own.to_str().is_some_and(|pid| pid.parse() == Ok(std::process::id()));
        (is_proc && !read_only && is_ours).then_some(Self(proc))
    }

    /// The same mount under another descriptor.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives up the descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens a path below it.
    ///
    /// # Errors
    /// openat(2).
    pub fn open(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        openat(self.0.as_fd(), path, flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// openat(2), read(2).
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let file = self.open(path, OFlag::O_RDONLY)?;
        // Not read_to_end: it asks for the length, which is 0 here, and begins with 32 bytes.
        let mut out = vec![0; 1 << 13];
        let mut used = 0;
        loop {
            match nix::unistd::read(&file, &mut out[used..])? {
                0 => break,
                more => used += more,
            }
            if used == out.len() {
                out.resize(2 * used, 0);
            }
        }
        out.truncate(used);
        Ok(out)
    }

    /// The numbers that a directory has entries for: threads, descriptors.
    ///
    /// # Errors
    /// openat(2), getdents64(2).
    pub fn list(&self, path: &str) -> Result<Vec<i32>, Errno> {
        let mut directory = Dir::from_fd(self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
        let number = |entry: Result<Entry, Errno>| match entry {
            Ok(entry) => entry.file_name().to_str().ok()?.parse().ok().map(Ok),
            Err(e) => Some(Err(e)),
        };
        directory.iter().filter_map(number).collect()
    }

    /// Writes a whole file at once.
    ///
    /// # Errors
    /// openat(2), write(2).
    pub fn write(&self, path: &str, text: &str) -> Result<(), Errno> {
        let mut file = std::fs::File::from(self.open(path, OFlag::O_WRONLY)?);
        file.write_all(text.as_bytes()).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// Number that a process or thread of this PID namespace was given last (since Linux 3.3).
    ///
    /// # Errors
    /// Those of [`read`](Self::read); `EIO` when there is no number.
    pub fn last_pid(&self) -> Result<i32, Errno> {
        self.number(LAST_PID)
    }

    /// Has the next one numbered from here.
    ///
    /// # Errors
    /// `EPERM` without CAP_CHECKPOINT_RESTORE in the owner of the namespace.
    pub fn set_last_pid(&self, last: i64) -> Result<(), Errno> {
        self.write(LAST_PID, &last.to_string())
    }

    /// A file that holds one number.
    ///
    /// # Errors
    /// Those of [`read`](Self::read); `EIO` when there is no number.
    pub fn number(&self, path: &str) -> Result<i32, Errno> {
        String::from_utf8_lossy(&self.read(path)?).trim().parse().map_err(|_| Errno::EIO)
    }
}

impl AsFd for OwnProc {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
