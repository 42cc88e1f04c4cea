//! Files on volatile file systems, made again with their content. Nothing is written to that was
//! not made here: another name may lead to it, or somebody may count on it.

use super::content::finish;
use super::desk::Desk;
use super::object::{Object, Opening, Source, is_of_type};
use super::trail::{Place, kind_of};
use super::volatile::{self, Attributes};
use image_store::{Image, ReasonCode};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use snap_error::{Error, Result};
use snap_state::{InodeV1, PAGE_BYTES, RawPath, VolatileFileV1};
use snap_sys as sys;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

/// How often the name may be taken between two looks at it.
const ATTEMPTS: u32 = 4;

impl Object for VolatileFileV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, from: &Source<'_>) -> Result<()> {
        if is_of_type(inode, SFlag::S_IFDIR) {
            return volatile::make_dir(&self.path, &Attributes::of(inode));
        }
        if is_of_type(inode, SFlag::S_IFIFO) {
            return volatile::make_fifo(desk, &self.path, inode);
        }
        let file = rebuild(inode, &self.path, from.image)?;
        if from.loose.contains(&inode.id) {
            return Ok(());
        }
        desk.put_object(inode.id, file.into())
    }

    /// Directories and FIFOs are opened by their names.
    fn open(&self, opening: Opening<'_>) -> Result<OwnedFd> {
        let by_name = [SFlag::S_IFDIR, SFlag::S_IFIFO];
        if by_name.into_iter().any(|file_type| is_of_type(opening.inode, file_type)) {
            return opening.found(&self.path);
        }
        opening.made()
    }

    fn is_on_disk(&self) -> bool {
        true
    }
}

/// The file opened for reading and writing. One that is there and equal is taken as it is, any
/// other is replaced; whoever has that open keeps it.
///
/// # Errors
/// `Stale`: the name belongs to somebody else or to something else. Kernel errors otherwise.
fn rebuild(inode: &InodeV1, path: &RawPath, image: &Image) -> Result<File> {
    let failed = |step| move |e| Error::kernel(step, path, e);
    let place = Place::of(path.as_path()).map_err(|e| super::rights::failed(path, e))?;
    for _ in 0..ATTEMPTS {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&place.directory, place.name, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(fd) => {
                let file = File::from(fd);
                finish(&file, inode, &path.to_string(), image)?;
                return Ok(file);
            }
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(failed("creating a file")(e)),
        }
        if let Some(file) = equal_file(&place, inode, path, image)? {
            return Ok(file);
        }
        match unlinkat(&place.directory, place.name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(failed("replacing a file")(e)),
        }
    }
    Err(Error::stale(ReasonCode::FileChanged, format!("{path} comes back whenever it is removed")))
}

/// What is there, when it is the recorded file already. `None`: it may be replaced.
fn equal_file(place: &Place<'_>, inode: &InodeV1, path: &RawPath, image: &Image) -> Result<Option<File>> {
    let failed = |step| move |e| Error::kernel(step, path, e);
    let there = match place.look() {
        Ok(there) => fstat(&there).map_err(failed("stat"))?,
        Err(Errno::ENOENT) => return Ok(None),
        Err(e) => return Err(failed("opening")(e)),
    };
    let stale = |what: &str| Err(Error::stale(ReasonCode::FileChanged, format!("{path} {what}")));
    if kind_of(there.st_mode) != SFlag::S_IFREG {
        return stale("is there already and is no regular file");
    }
    let around = fstat(&place.directory).map_err(failed("stat"))?;
    if around.st_mode & libc::S_ISVTX != 0 && there.st_uid != inode.uid && there.st_uid != 0 {
        return stale("is there already and belongs to somebody else");
    }
    let recorded = (inode.uid, inode.gid, inode.mode, inode.len_bytes as i64, 1);
    if (there.st_uid, there.st_gid, there.st_mode, there.st_size, there.st_nlink) != recorded {
        return Ok(None);
    }
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let Ok(fd) = openat(&place.directory, place.name, flags, Mode::empty()) else { return Ok(None) };
    let opened = fstat(&fd).map_err(failed("stat"))?;
    let is_looked_at = (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino);
    sys::rebuild::fcntl_number(fd.as_fd(), libc::F_SETFL, 0).map_err(failed("F_SETFL"))?;
    let file = File::from(fd);
    Ok((is_looked_at && holds_the_same(&file, inode, image)?).then_some(file))
}

/// Holes are zeroes.
fn holds_the_same(file: &File, inode: &InodeV1, image: &Image) -> Result<bool> {
    /// What is larger is written anew rather than compared.
    const MOST_BYTES: u64 = 1 << 20;
    if inode.len_bytes > MOST_BYTES {
        return Ok(false);
    }
    let len = inode.len_bytes as usize;
    let (mut wanted, mut found) = (vec![0; len.next_multiple_of(PAGE_BYTES as usize)], vec![0; len]);
    for run in &inode.content {
        let begin = (run.file_offset as usize).min(wanted.len());
        let end = (begin + run.pages as usize * PAGE_BYTES as usize).min(wanted.len());
        image
            .file()
            .read_exact_at(&mut wanted[begin..end], run.image_offset)
            .map_err(|e| Error::io("comparing a file's content", "image", &e))?;
    }
    Ok(file.read_exact_at(&mut found, 0).is_ok() && found == wanted[..len])
}
