//! Unix sockets that no name leads to any more: it was removed, or its directory was. A name in a
//! file system of our own, which is mounted nowhere, gives them the address of then, byte for byte.
//! What has that name today, and whether its directory is there, does not matter.

use super::unix_address::show;
use super::working_directory::WorkingDirectory;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat, umask};
use nix::unistd::{UnlinkatFlags, chroot, fchdir, mkdir, unlinkat};
use snap_error::{Error, Result};
use snap_sys as sys;
use snap_sys::detached;
use snap_sys::rebuild::unix_address;
use std::cell::{OnceCell, RefCell};
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The file system, and what was bound in it.
#[derive(Debug, Default)]
pub struct NamelessSockets {
    root: OnceCell<OwnedFd>,
    bound: RefCell<Vec<Bound>>,
}

#[derive(Debug)]
struct Bound {
    /// Inode number of the socket.
    ino: u64,
    /// A directory of its own, because many may have the same address.
    directory: PathBuf,
    /// From there.
    path: PathBuf,
}

impl NamelessSockets {
    /// Binds a socket to a path. `first_fd`: the lowest number that a descriptor of ours may have.
    ///
    /// # Errors
    /// fsopen(2); bind(2).
    pub fn bind(&self, fd: BorrowedFd<'_>, address: &[u8], first_fd: i32) -> Result<()> {
        let failed = |step| move |e| Error::kernel(step, show(address), e);
        if self.root.get().is_none() {
            let made = detached::mount(c"tmpfs").map_err(failed("mounting a tmpfs"))?;
            let made = sys::rebuild::duplicate_above(made.as_fd(), first_fd).map_err(failed("F_DUPFD"))?;
            self.root.get_or_init(|| made);
        }
        let Some(root) = self.root.get() else { return Ok(()) };
        let mut bound = self.bound.borrow_mut();
        let directory = PathBuf::from(bound.len().to_string());
        // Who connects to it has the ids of somebody else.
        sys::fork::do_aside(|| {
            umask(Mode::empty());
            fchdir(root)?;
            mkdir(&directory, Mode::from_bits_truncate(0o777))?;
            chroot(&directory)?;
            nix::unistd::chdir("/")?;
            for (at, _) in address.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/') {
                match mkdir(OsStr::from_bytes(&address[..at]), Mode::from_bits_truncate(0o777)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(e),
                }
            }
            sys::rebuild::bind(fd, &unix_address(address))
        })
        .map_err(failed("bind"))?;
        let ino = fstat(fd).map_err(failed("stat"))?.st_ino;
        bound.push(Bound { ino, directory, path: lexical(address) });
        Ok(())
    }

    /// The address by which such a socket is connected to, in a working directory that is ours
    /// until it is dropped; `None`: it is no such socket.
    ///
    /// # Errors
    /// openat(2).
    pub fn way_to(&self, fd: BorrowedFd<'_>) -> Result<Option<(WorkingDirectory, Vec<u8>)>> {
        let failed = |step| move |e| Error::kernel(step, format!("socket {}", fd.as_raw_fd()), e);
        let bound = self.bound.borrow();
        let ino = fstat(fd).map_err(failed("stat"))?.st_ino;
        let (Some(root), Some(found)) = (self.root.get(), bound.iter().rfind(|bound| bound.ino == ino))
        else {
            return Ok(None);
        };
        let directory = open_directory(root, &found.directory).map_err(failed("opening"))?;
        let entered = WorkingDirectory::enter(directory.as_fd())?;
        Ok(Some((entered, unix_address(found.path.as_os_str().as_bytes()))))
    }

    /// Takes the names away. Nobody can connect to the sockets any more.
    ///
    /// # Errors
    /// unlinkat(2).
    pub fn forget(&self) -> Result<()> {
        for Bound { directory, path, .. } in self.bound.borrow_mut().drain(..) {
            let failed = |e| Error::kernel("unlink", path.display(), e);
            let Some(root) = self.root.get() else { continue };
            let there = open_directory(root, &directory).map_err(failed)?;
            unlinkat(&there, &path, UnlinkatFlags::NoRemoveDir).map_err(failed)?;
            let above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
            for directory in above {
                // A path like a/../b has made more, which goes with the file system.
                let _ = unlinkat(&there, directory, UnlinkatFlags::RemoveDir);
            }
        }
        Ok(())
    }
}

fn open_directory(root: &OwnedFd, name: &Path) -> nix::Result<OwnedFd> {
    openat(root, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Where a path leads from the root, absolute or not, when no symbolic link is on the way.
fn lexical(address: &[u8]) -> PathBuf {
    let mut path = PathBuf::new();
    for name in address.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        match name {
            b"." => {}
            b".." => {
                path.pop();
            }
            name => path.push(OsStr::from_bytes(name)),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_goes_up_no_further_than_the_root() {
        assert_eq!(lexical(b"/run/./a//s"), Path::new("run/a/s"));
        assert_eq!(lexical(b"../a/../b/s"), Path::new("b/s"));
    }
}
