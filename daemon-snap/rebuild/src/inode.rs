//! Files by path, volatile and deleted files, memfds, shared memory.

use super::content::{fill, fill_content, own, set_time, set_xattrs};
use super::desk::Desk;
use super::rights::{self, Recorded, Whose};
use super::trail::{self, Last, Place};
use super::volatile::Attributes;
use image_store::{Image, ReasonCode};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use snap_error::{Error, Result};
use snap_state::{
    BackingV1, FileKindV1, FileV1, Files, InodeId, InodeKindV1, InodeV1, Inodes, MappedLockV1, OpenInodeV1,
    PAGE_BYTES, Pid, ProcessV1, RawPath, Tree,
};
use snap_sys as sys;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

const F_ADD_SEALS: i32 = 1033;

/// Where the content of objects comes from, and who has them.
struct Source<'a> {
    image: &'a Image,
    files: Files<'a>,
    /// Volatile files that nobody may have open.
    loose: BTreeSet<InodeId>,
}

/// Makes every object whose content travels in the image, and opens all that is mapped or executed.
///
/// # Errors
/// `Stale`: a file is missing or is another kind of file. Kernel errors otherwise.
pub fn rebuild_inodes(desk: &mut Desk, tree: &Tree, image: &Image) -> Result<()> {
    let loose = tree.volatile_files.iter().copied().collect();
    let from = Source { image, files: tree.files(), loose };
    for inode in tree.inodes() {
        match &inode.kind {
            // Opened when they are needed.
            InodeKindV1::Path { .. } | InodeKindV1::OfProcess { .. } => {}
            InodeKindV1::Renamed { was, path } => {
                let fd = find_renamed(desk, inode, was, path)?;
                desk.put_object(inode.id, fd)?;
            }
            InodeKindV1::Volatile { path } => make_volatile(desk, inode, path, &from)?,
            InodeKindV1::Deleted { path } => make_deleted(desk, inode, path, &from)?,
            InodeKindV1::Memfd { name, flags, seals } => {
                let flags = flags | if *seals != 1 { libc::MFD_ALLOW_SEALING } else { 0 };
                let fd = sys::rebuild::memfd(name, flags)
                    .map_err(|e| Error::kernel("memfd_create", String::from_utf8_lossy(name), e))?;
                make_memfd(desk, inode, File::from(fd), &from)?;
            }
            InodeKindV1::SharedAnon => {
                let file = create_shared_anonymous(desk, inode)?;
                fill(&file, inode, image)?;
                desk.put_object(inode.id, file.into())?;
            }
            InodeKindV1::Segment(segment) => {
                let (file, at) = super::sysv::rebuild_segment(desk, inode, segment, &tree.sysv)?;
                fill_content(&file, inode, image)?;
                desk.segments.push((inode.id, segment.id, at));
            }
            InodeKindV1::MessageQueue(queue) => {
                let fd = super::posix_queue::rebuild_queue(desk, inode, queue, from.files)?;
                desk.put_object(inode.id, fd)?;
            }
            InodeKindV1::Ring(recorded) => {
                let made = super::ring::rebuild_ring(inode.id, recorded)?;
                desk.rings.push((inode.id, made.takes_address));
                desk.put_object(inode.id, made.fd)?;
            }
        }
    }
    open_mapped(desk, &tree.processes, tree.inodes())
}

fn make_volatile(desk: &mut Desk, inode: &InodeV1, path: &RawPath, from: &Source<'_>) -> Result<()> {
    if is_dir(inode) {
        return super::volatile::make_dir(path, &Attributes::of(inode));
    }
    if is_fifo(inode) {
        return super::volatile::make_fifo(desk, path, inode);
    }
    let file = super::volatile_file::rebuild(inode, path, from.image)?;
    if from.loose.contains(&inode.id) {
        return Ok(());
    }
    desk.put_object(inode.id, file.into())
}

fn make_deleted(desk: &mut Desk, inode: &InodeV1, path: &RawPath, from: &Source<'_>) -> Result<()> {
    let nameless = from.files.iter().find(|file| is_made_nameless(file, inode.id));
    let (file, first) = create_deleted(desk, inode, path, nameless)?;
    finish(&file, inode, &path.to_string(), from.image)?;
    desk.put_object(inode.id, file.into())?;
    if let (Some(first), Some(nameless)) = (first, nameless) {
        desk.put_file(nameless.id, first)?;
    }
    Ok(())
}

fn make_memfd(desk: &mut Desk, inode: &InodeV1, file: File, from: &Source<'_>) -> Result<()> {
    finish(&file, inode, "memfd", from.image)?;
    if let Some(made) = from.files.iter().find(|file| may_have_made(file, inode.id)) {
        let first = file.try_clone().map_err(|e| Error::io("dup", inode.id, &e))?;
        desk.put_file(made.id, first.into())?;
    }
    desk.put_object(inode.id, file.into())
}

/// Content first, then what writing would change. `name`: for messages.
fn finish(file: &File, inode: &InodeV1, name: &str, image: &Image) -> Result<()> {
    fill(file, inode, image)?;
    own(file, inode, name)?;
    set_xattrs(file, inode)?;
    set_time(file, inode)
}

/// Whether the daemon's memory is mapped already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealWhen {
    BeforeMapping,
    AfterMapping,
}

/// Seals come after every writable mapping description was opened: a write seal forbids opening for
/// writing. One that forbids only later writable mappings comes when all mappings are there, and
/// with it the one that forbids further seals.
///
/// # Errors
/// fcntl(2).
pub fn rebuild_seals(desk: &Desk, inodes: Inodes<'_>, when: SealWhen) -> Result<()> {
    const F_SEAL_SEAL: u32 = 1;
    const F_SEAL_FUTURE_WRITE: u32 = 0x10;
    for inode in inodes {
        let InodeKindV1::Memfd { seals, .. } = inode.kind else { continue };
        let late = if seals & F_SEAL_FUTURE_WRITE != 0 { F_SEAL_SEAL | F_SEAL_FUTURE_WRITE } else { 0 };
        let seals = if when == SealWhen::AfterMapping { seals & late } else { seals & !late };
        // A memfd that was made without seals is born with the first one.
        if (seals > F_SEAL_SEAL || late & seals != 0)
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

fn is_fifo(inode: &InodeV1) -> bool {
    SFlag::from_bits_truncate(inode.mode) & SFlag::S_IFMT == SFlag::S_IFIFO
}

/// The description that made the file (O_TMPFILE): the only one with that flag.
fn is_made_nameless(file: &FileV1, id: InodeId) -> bool {
    let made = file.flags & libc::O_TMPFILE == libc::O_TMPFILE;
    made && matches!(file.kind, FileKindV1::Inode(OpenInodeV1 { inode, .. }) if inode == id)
}

/// A description that memfd_create(2) may have made. It counts as nobody who writes, others do: the
/// memfd could not be executed then.
fn may_have_made(file: &FileV1, id: InodeId) -> bool {
    let reads_and_writes = file.flags & (libc::O_ACCMODE | libc::O_PATH) == libc::O_RDWR;
    reads_and_writes && matches!(file.kind, FileKindV1::Inode(OpenInodeV1 { inode, .. }) if inode == id)
}

/// The file opened for reading and writing, and the description that made it where that was
/// recorded.
fn create_deleted(
    desk: &Desk,
    inode: &InodeV1,
    path: &RawPath,
    nameless: Option<&FileV1>,
) -> Result<(File, Option<OwnedFd>)> {
    const LATER: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_ASYNC;
    let failed = |e| Error::kernel("making a deleted file again", path, e);
    let directory = path.as_path().parent().unwrap_or(std::path::Path::new("/"));
    let directory = trail::resolve(directory, Last::Directory);
    let mode = Mode::from_bits_truncate(inode.mode & 0o7777);
    if let Some(nameless) = nameless {
        let flags = OFlag::from_bits_retain(nameless.flags & !LATER) | OFlag::O_CLOEXEC;
        let first = directory.and_then(|directory| openat(directory, ".", flags, mode)).map_err(failed)?;
        let file = desk.reopen(first.as_fd(), OFlag::O_RDWR).map_err(failed)?;
        return Ok((File::from(file), Some(first)));
    }
    // A name that is gone cannot come back: O_EXCL forbids linkat(2).
    let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = match directory.and_then(|directory| openat(directory, ".", flags, mode)) {
        Ok(fd) => File::from(fd),
        // The directory is gone or its file system has no nameless files: memory will do, nobody
        // can see the difference.
        Err(_) => File::from(sys::rebuild::memfd(b"deleted", 0).map_err(failed)?),
    };
    Ok((file, None))
}

/// A file under its other name. Where nothing has taken the old name meanwhile it gets that one
/// back for a moment, so that its description says the same as before. It is only looked at here:
/// who may open it is asked when it is opened.
fn find_renamed(desk: &Desk, inode: &InodeV1, was: &RawPath, path: &RawPath) -> Result<OwnedFd> {
    let found = trail::resolve(path.as_path(), Last::Itself).map_err(|e| rights::failed(path, e))?;
    let stat = fstat(&found).map_err(|e| Error::kernel("stat", path, e))?;
    rights::check_kind(&stat, inode, path)?;
    let Ok(old) = Place::of(was.as_path()) else { return Ok(found) };
    let name = Desk::name_of(found.as_fd());
    let is_recorded = (stat.st_uid, stat.st_gid, stat.st_mode) == (inode.uid, inode.gid, inode.mode);
    if !is_recorded
        || linkat(&desk.proc, name.as_str(), &old.directory, old.name, AtFlags::AT_SYMLINK_FOLLOW).is_err()
    {
        return Ok(found);
    }
    let again = old.look();
    unlinkat(&old.directory, old.name, UnlinkatFlags::NoRemoveDir)
        .map_err(|e| Error::kernel("unlink", was, e))?;
    // Somebody may have put something else there just now.
    Ok(again.ok().filter(|again| is_same(again.as_fd(), found.as_fd())).unwrap_or(found))
}

fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let id = |fd| fstat(fd).map(|found| (found.st_dev, found.st_ino));
    id(one).is_ok_and(|one| id(other) == Ok(one))
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

/// Opens an object with the wanted flags: by path, or once more if it was made again.
///
/// # Errors
/// `Stale`: missing, another kind of file or device than recorded, or not what the processes that
/// had it may open ([`rights::Rights::open`]).
pub fn open_inode(desk: &Desk, inode: &InodeV1, whose: Whose, flags: OFlag) -> Result<OwnedFd> {
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let by_path = |path, reopen: &dyn Fn(BorrowedFd<'_>) -> nix::Result<OwnedFd>| {
        desk.rights.open(whose, Recorded { inode, path }, reopen)
    };
    match (&inode.kind, desk.object(inode.id)) {
        (InodeKindV1::Renamed { path, .. }, Some(object)) => by_path(path, &|found| {
            let found = if is_same(object, found) { object } else { found };
            desk.reopen(found, flags & !OFlag::O_NOFOLLOW)
        }),
        (_, Some(object)) => {
            desk.reopen(object, flags).map_err(|e| Error::kernel("opening", format!("{:?}", inode.kind), e))
        }
        (InodeKindV1::Path { path }, None) => by_path(path, &|found| open_found(desk, path, found, flags)),
        (InodeKindV1::Volatile { path }, None) if is_dir(inode) || is_fifo(inode) => {
            by_path(path, &|found| open_found(desk, path, found, flags))
        }
        _ => Err(Error::Corrupt(format!("object {} was recorded but not made", inode.id))),
    }
}

/// Opens what was found under a path. Our link in /proc cannot be followed with O_NOFOLLOW, which
/// stays visible among the flags.
fn open_found(desk: &Desk, path: &RawPath, found: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    if !flags.contains(OFlag::O_NOFOLLOW) {
        return desk.reopen(found, flags);
    }
    // Where somebody puts a FIFO there just now, nobody waits for it. openat2(2) takes nothing
    // meaningless beside O_PATH.
    let only_path = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let asked = if flags.contains(OFlag::O_PATH) { flags & only_path } else { flags | OFlag::O_NONBLOCK };
    let how = OpenHow::new().flags(asked).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let opened = openat2(AT_FDCWD, path.as_path(), how)?;
    let (wanted, got) = (fstat(found)?, fstat(&opened)?);
    if (wanted.st_dev, wanted.st_ino) != (got.st_dev, got.st_ino) {
        return Err(Errno::ELOOP);
    }
    if !flags.intersects(OFlag::O_NONBLOCK | OFlag::O_PATH) {
        let kept = flags & (OFlag::O_APPEND | OFlag::O_DIRECT | OFlag::O_NOATIME);
        sys::rebuild::fcntl_number(opened.as_fd(), libc::F_SETFL, kept.bits())?;
    }
    Ok(opened)
}

/// Opens what is mapped or executed, once each.
fn open_mapped(desk: &mut Desk, processes: &[ProcessV1], inodes: Inodes<'_>) -> Result<()> {
    let mut wanted: BTreeSet<(InodeId, bool)> = processes.iter().map(|p| (p.exe, false)).collect();
    for vma in processes.iter().flat_map(|p| &p.mm.vmas) {
        if let BackingV1::Inode { inode, may_write, .. } = vma.backing {
            wanted.insert((inode, vma.shared && may_write));
        }
    }
    // Segments are attached by their ids.
    wanted.retain(|(id, _)| desk.segment(*id).is_none());
    for (id, writable) in wanted {
        let inode = inodes.get(id);
        let flags = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let fd = match desk.object(id) {
            Some(made) if is_mapped_as_made(&inode.kind, writable) => {
                made.try_clone_to_owned().map_err(|e| Error::io("dup", id, &e))?
            }
            _ => open_inode(desk, inode, Whose::Mapped(id), flags)?,
        };
        desk.put_mapped(id, writable, fd)?;
    }
    Ok(())
}

/// A ring cannot be opened once more, and whoever opens a memfd for writing counts as a writer
/// ([`may_have_made`]).
fn is_mapped_as_made(kind: &InodeKindV1, writable: bool) -> bool {
    matches!(kind, InodeKindV1::Ring(_)) || writable && matches!(kind, InodeKindV1::Memfd { .. })
}

/// Locks that this process took through descriptions which only its mappings keep; called in it,
/// because the kernel notes who takes a lock. The mapping that is made from the description keeps
/// it, and so the lock, when all descriptors are closed.
///
/// # Errors
/// `Stale`: somebody else has the lock.
pub fn take_mapped_locks(desk: &Desk, locks: &[MappedLockV1], pid: Pid) -> Result<()> {
    for lock in locks.iter().filter(|lock| lock.pid == pid) {
        let number = desk.mapped(lock.inode, true).or_else(|_| desk.mapped(lock.inode, false))?;
        sys::rebuild::flock(sys::rebuild::placed(number), lock.exclusive).map_err(|e| match e {
            Errno::EWOULDBLOCK => Error::stale(
                ReasonCode::AddressTaken,
                format!("somebody else has a lock of mapped object {}", lock.inode),
            ),
            e => Error::kernel("flock", lock.inode, e),
        })?;
    }
    Ok(())
}
