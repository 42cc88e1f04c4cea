//! Files by path, volatile and deleted files, memfds, shared memory.

use super::desk::Desk;
use crate::error::{Error, Result};
use crate::state::{BackingV1, FileKindV1, InodeId, InodeKindV1, InodeV1, PAGE_BYTES, RawPath, TreeV1};
use crate::sys;
use image_store::{Image, ReasonCode};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown, ftruncate};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

const F_ADD_SEALS: i32 = 1033;

/// Makes every object whose content travels in the image, and opens all that is mapped or executed.
///
/// # Errors
/// `Stale`: a file is missing or is another kind of file. Kernel errors otherwise.
pub fn rebuild_inodes(desk: &mut Desk, tree: &TreeV1, image: &Image) -> Result<()> {
    let volatile: BTreeSet<InodeId> = tree.volatile_files.iter().copied().collect();
    for inode in &tree.inodes {
        match &inode.kind {
            InodeKindV1::Path { .. } => {}
            InodeKindV1::Volatile { path } if is_dir(inode) => {
                super::volatile::make_dir(path, inode.mode, inode.uid, inode.gid)?;
            }
            InodeKindV1::Volatile { path } => {
                let file = create_volatile(inode, path)?;
                fill(&file, inode, image)?;
                if !volatile.contains(&inode.id) {
                    desk.put_object(inode.id, file.into())?;
                }
            }
            InodeKindV1::Deleted { path } => {
                let file = create_deleted(inode, path)?;
                fill(&file, inode, image)?;
                own(&file, inode, &path.to_string())?;
                desk.put_object(inode.id, file.into())?;
            }
            InodeKindV1::Memfd { name, flags, seals } => {
                let flags = flags | if *seals != 1 { libc::MFD_ALLOW_SEALING } else { 0 };
                let fd = sys::rebuild::memfd(name, flags)
                    .map_err(|e| Error::kernel("memfd_create", String::from_utf8_lossy(name), e))?;
                let file = File::from(fd);
                fill(&file, inode, image)?;
                own(&file, inode, "memfd")?;
                desk.put_object(inode.id, file.into())?;
            }
            InodeKindV1::SharedAnon => {
                let file = create_shared_anonymous(desk, inode)?;
                fill(&file, inode, image)?;
                desk.put_object(inode.id, file.into())?;
            }
        }
    }
    open_mapped(desk, tree)?;
    Ok(())
}

/// Seals come after every writable mapping description was opened: a write seal forbids opening for writing.
///
/// # Errors
/// fcntl(2).
pub fn rebuild_seals(desk: &Desk, tree: &TreeV1) -> Result<()> {
    for inode in &tree.inodes {
        if let InodeKindV1::Memfd { seals, .. } = inode.kind
            && seals > 1
            && let Some(fd) = desk.object(inode.id)
        {
            sys::rebuild::fcntl_number(fd, F_ADD_SEALS, seals as i32)
                .map_err(|e| Error::kernel("sealing a memfd", inode.id, e))?;
        }
    }
    Ok(())
}

fn is_dir(inode: &InodeV1) -> bool {
    SFlag::from_bits_truncate(inode.mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

fn create_volatile(inode: &InodeV1, path: &RawPath) -> Result<File> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(inode.mode & 0o7777);
    let file =
        File::from(open(path.as_path(), flags, mode).map_err(|e| Error::kernel("creating a file", path, e))?);
    own(&file, inode, &path.to_string())?;
    Ok(file)
}

fn create_deleted(inode: &InodeV1, path: &RawPath) -> Result<File> {
    let directory = path.as_path().parent().unwrap_or(std::path::Path::new("/"));
    let mode = Mode::from_bits_truncate(inode.mode & 0o7777);
    let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    match open(directory, flags, mode) {
        Ok(fd) => Ok(File::from(fd)),
        // The directory is gone or its file system has no nameless files: memory will do, nobody can see the difference.
        Err(_) => sys::rebuild::memfd(b"deleted", 0)
            .map(File::from)
            .map_err(|e| Error::kernel("making a deleted file again", path, e)),
    }
}

fn create_shared_anonymous(desk: &Desk, inode: &InodeV1) -> Result<File> {
    let len = inode.len_bytes.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
    let what = "making shared memory again";
    let range = sys::rebuild::map_shared_anonymous(len).map_err(|e| Error::kernel(what, inode.id, e))?;
    let path = format!("self/map_files/{:x}-{:x}", range.start, range.end);
    let opened = desk.proc.open(&path, OFlag::O_RDWR);
    sys::rebuild::unmap(range);
    opened.map(File::from).map_err(|e| Error::kernel(what, path, e))
}

fn own(file: &File, inode: &InodeV1, name: &str) -> Result<()> {
    let stat = fstat(file).map_err(|e| Error::kernel("stat", name, e))?;
    if (stat.st_uid, stat.st_gid) != (inode.uid, inode.gid) {
        fchown(file, Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)))
            .map_err(|e| Error::kernel("chown", name, e))?;
    }
    if stat.st_mode & 0o7777 != inode.mode & 0o7777 {
        fchmod(file, Mode::from_bits_truncate(inode.mode & 0o7777))
            .map_err(|e| Error::kernel("chmod", name, e))?;
    }
    Ok(())
}

/// Sets size and content.
fn fill(file: &File, inode: &InodeV1, image: &Image) -> Result<()> {
    let step = "writing a file's content";
    ftruncate(file, 0).map_err(|e| Error::kernel(step, inode.id, e))?;
    ftruncate(file, inode.len_bytes as i64).map_err(|e| Error::kernel(step, inode.id, e))?;
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

/// Opens an object with the wanted flags: by path, or once more if it was made again.
///
/// # Errors
/// `Stale`: missing, or another kind of file or device than recorded.
pub fn open_inode(desk: &Desk, inode: &InodeV1, flags: OFlag) -> Result<OwnedFd> {
    if let Some(object) = desk.object(inode.id) {
        return desk
            .reopen(object, flags)
            .map_err(|e| Error::kernel("opening", format!("{:?}", inode.kind), e));
    }
    let path = match &inode.kind {
        InodeKindV1::Path { path } => path,
        InodeKindV1::Volatile { path } if is_dir(inode) => path,
        _ => return Err(Error::Corrupt(format!("object {} was recorded but not made", inode.id))),
    };
    let fd = open(path.as_path(), flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty()).map_err(
        |e| match e {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENXIO | Errno::ENODEV => {
                Error::stale(ReasonCode::FileMissing, format!("{path} is missing"))
            }
            e => Error::kernel("opening", path, e),
        },
    )?;
    let stat = fstat(&fd).map_err(|e| Error::kernel("stat", path, e))?;
    let kind = |mode: u32| SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    if kind(stat.st_mode) != kind(inode.mode) {
        return Err(Error::stale(ReasonCode::FileChanged, format!("{path} is another kind of file")));
    }
    let device = kind(inode.mode) == SFlag::S_IFCHR || kind(inode.mode) == SFlag::S_IFBLK;
    if device && stat.st_rdev != inode.rdev {
        return Err(Error::stale(ReasonCode::FileChanged, format!("{path} is another device")));
    }
    Ok(fd)
}

/// Opens what is mapped or executed, once each.
fn open_mapped(desk: &mut Desk, tree: &TreeV1) -> Result<()> {
    let mut wanted: BTreeSet<(InodeId, bool)> = tree.processes.iter().map(|p| (p.exe, false)).collect();
    for vma in tree.processes.iter().flat_map(|p| &p.mm.vmas) {
        if let BackingV1::Inode { inode, may_write, .. } = vma.backing {
            wanted.insert((inode, vma.shared && may_write));
        }
    }
    for (id, writable) in wanted {
        let inode =
            tree.inodes.get(id.0 as usize).ok_or_else(|| Error::Corrupt(format!("no object {id}")))?;
        let flags = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let fd = open_inode(desk, inode, flags)?;
        desk.put_mapped(id, writable, fd)?;
    }
    Ok(())
}

/// Every object is used by something; one that is not would be state dropped silently.
///
/// # Errors
/// `Corrupt`, naming the object.
pub fn check_all_used(tree: &TreeV1) -> Result<()> {
    let mut used: BTreeSet<InodeId> = tree.volatile_files.iter().copied().collect();
    used.extend(tree.processes.iter().map(|p| p.exe));
    used.extend(tree.files.iter().filter_map(|f| match f.kind {
        FileKindV1::Inode { inode, .. } => Some(inode),
        _ => None,
    }));
    used.extend(tree.processes.iter().flat_map(|p| &p.mm.vmas).filter_map(|v| match v.backing {
        BackingV1::Inode { inode, .. } => Some(inode),
        _ => None,
    }));
    match tree.inodes.iter().find(|i| !used.contains(&i.id)) {
        Some(inode) => {
            Err(Error::Corrupt(format!("object {} ({:?}) belongs to nothing", inode.id, inode.kind)))
        }
        None => Ok(()),
    }
}
