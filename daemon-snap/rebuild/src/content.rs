//! What belongs to a file beside its name, through a descriptor: content, owner, permissions, time.

use image_store::Image;
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, ftruncate};
use snap_error::{Error, Result};
use snap_state::{InodeV1, PAGE_BYTES};
use snap_sys as sys;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// The recorded times of the last access and the last change.
///
/// # Errors
/// futimens(3).
pub fn set_time(file: &File, inode: &InodeV1) -> Result<()> {
    let time = |ns: i64| TimeSpec::from_duration(Duration::from_nanos(u64::try_from(ns).unwrap_or_default()));
    futimens(file, &time(inode.atime_ns), &time(inode.mtime_ns))
        .map_err(|e| Error::kernel("setting a file's time", inode.id, e))
}

/// Extended attributes as recorded; after the owner, whose change takes some away.
///
/// # Errors
/// fsetxattr(2).
pub fn set_xattrs(file: &File, inode: &InodeV1) -> Result<()> {
    for (name, value) in &inode.xattrs {
        sys::xattr::set_of(file.as_fd(), name, value)
            .map_err(|e| Error::kernel("setting an extended attribute", String::from_utf8_lossy(name), e))?;
    }
    Ok(())
}

/// Owner and permissions as recorded. `name`: for messages.
///
/// # Errors
/// fchown(2), fchmod(2).
pub fn own(file: &File, inode: &InodeV1, name: &str) -> Result<()> {
    let stat = fstat(file).map_err(|e| Error::kernel("stat", name, e))?;
    let moves = (stat.st_uid, stat.st_gid) != (inode.uid, inode.gid);
    if moves {
        fchown(file, Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)))
            .map_err(|e| Error::kernel("chown", name, e))?;
    }
    // A new owner takes set-ids away.
    if moves || stat.st_mode & 0o7777 != inode.mode & 0o7777 {
        fchmod(file, Mode::from_bits_truncate(inode.mode & 0o7777))
            .map_err(|e| Error::kernel("chmod", name, e))?;
    }
    Ok(())
}

/// Sets size and content.
///
/// # Errors
/// ftruncate(2), write(2), reading the image.
pub fn fill(file: &File, inode: &InodeV1, image: &Image) -> Result<()> {
    let step = "writing a file's content";
    ftruncate(file, 0).map_err(|e| Error::kernel(step, inode.id, e))?;
    ftruncate(file, inode.len_bytes as i64).map_err(|e| Error::kernel(step, inode.id, e))?;
    fill_content(file, inode, image)
}

/// The content of a file that has its size already.
///
/// # Errors
/// write(2), reading the image.
pub fn fill_content(file: &File, inode: &InodeV1, image: &Image) -> Result<()> {
    let step = "writing a file's content";
    let mut buffer = vec![0; 1 << 20];
    for run in &inode.content {
        let mut done = 0;
        // The last page of a file is carried whole; only what lies within the file is written.
        let total = (u64::from(run.pages) * PAGE_BYTES).min(inode.len_bytes.saturating_sub(run.file_offset));
        while done < total {
            let part = &mut buffer[..(total - done).min(1 << 20) as usize];
            image
                .file()
                .read_exact_at(part, run.image_offset + done)
                .map_err(|e| Error::io(step, "image", &e))?;
            file.write_all_at(part, run.file_offset + done).map_err(|e| Error::io(step, inode.id, &e))?;
            done += part.len() as u64;
        }
    }
    Ok(())
}

/// Content first, then what writing would change. `name`: for messages.
///
/// # Errors
/// Those of each.
pub fn finish(file: &File, inode: &InodeV1, name: &str, image: &Image) -> Result<()> {
    fill(file, inode, image)?;
    own(file, inode, name)?;
    set_xattrs(file, inode)?;
    set_time(file, inode)
}
