//! All file system and memory objects of a tree, each once. What a kind of object is read by is in
//! the file of that kind.

use super::description::Description;
use super::handle::Handle;
use super::object::{Seen, Surroundings};
use super::objects::{HUGETLBFS_MAGIC, kind_of};
use super::volatile_dirs::VolatileDirs;
use crate::blockers::{Found, failed, refused};
use crate::options::CollectOptions;
use crate::spaces::Spaces;
use crate::{lock, objects, ring};
use nix::sys::stat::{FileStat, SFlag, fstat, stat};
use snap_error::obstacle::{FileObstacle, MemoryObstacle, RingObstacle};
use snap_error::{Error, Obstacle};
use snap_state::{
    FileKindV1, InodeId, InodeKindV1, InodeV1, NamedFileV1, OpenInodeV1, Pid, PosixQueueV1, RawPath, RingV1,
    SegmentV1,
};
use snap_sys::fdquery;
use snap_sys::proc::MapsEntry;
use snap_sys::sysvipc::{self, Objects};
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Memory devices (major 1) without state of their own: null, zero, full, random, urandom.
const MEMORY_DEVICES: [u64; 5] = [3, 5, 7, 8, 9];
const KMSG: u64 = 11;
const DELETED: &[u8] = b" (deleted)";

/// All objects of the tree, each once.
#[derive(Debug)]
pub(crate) struct Inodes<'a> {
    around: Surroundings<'a>,
    /// By device and inode number.
    known: HashMap<(u64, u64), InodeId>,
    /// Rings that are open and refused, and why.
    refused_rings: HashMap<(u64, u64), RingObstacle>,
    /// By device, inode number and name in smaps, so that each mapped file is looked at once.
    mapped: HashMap<(Vec<u8>, u64, Vec<u8>), InodeId>,
    /// Whether a lock may be on a mapped file.
    may_be_locked: bool,
    list: Vec<InodeV1>,
    /// Where content comes from, parallel to `list`.
    sources: Vec<Option<Source>>,
    /// The tree watches files (inotify, fanotify) and would see them opened and read.
    watched: bool,
    pub(super) dirs: VolatileDirs,
    /// Nodes of sockets that the tree has, by device and inode number.
    pub(super) nodes: HashSet<(u64, u64)>,
}

/// Memory that is a file only inside the kernel: nobody ever had a descriptor of it to lock it
/// with.
fn is_nameless(entry: &MapsEntry) -> bool {
    entry.name == b"/dev/zero (deleted)"
        || entry.name.starts_with(b"[anon_shmem:")
        || entry.name.starts_with(b"/SYSV")
}

/// What tells objects apart. A SysV segment has its id for an inode number, on the same device on
/// which memfds are numbered.
fn key_of(found: &FileStat, link: &[u8]) -> (u64, u64) {
    let segment = link.starts_with(b"/SYSV") && link.ends_with(DELETED) && found.st_nlink == 0;
    (if segment { u64::MAX } else { found.st_dev }, found.st_ino)
}

/// Where the content of an object is read from.
#[derive(Debug)]
pub(crate) struct Source {
    pub file: File,
    /// The description is the daemon's: its position stays, and nothing is read by read(2), which
    /// watchers are told of.
    pub quiet: bool,
}

impl<'a> Inodes<'a> {
    pub fn new(spaces: &'a Spaces, options: &'a CollectOptions, ipc_objects: Objects) -> Self {
        let device = |path: &str| stat(&spaces.reachable(&RawPath(path.into()))).map(|stat| stat.st_dev).ok();
        let steady_devices = ["/", "/dev"].into_iter().filter_map(device).collect();
        Self {
            around: Surroundings { spaces, options, steady_devices, ipc_objects },
            known: HashMap::new(),
            refused_rings: HashMap::new(),
            mapped: HashMap::new(),
            may_be_locked: false,
            list: Vec::new(),
            sources: Vec::new(),
            watched: false,
            dirs: VolatileDirs::default(),
            nodes: HashSet::new(),
        }
    }

    pub fn spaces(&self) -> &'a Spaces {
        self.around.spaces
    }

    pub fn options(&self) -> &'a CollectOptions {
        self.around.options
    }

    /// Entries, and the files that their content is read from.
    pub fn into_parts(self) -> (Vec<InodeV1>, Vec<Option<Source>>, VolatileDirs) {
        (self.list, self.sources, self.dirs)
    }

    /// The object of a ring that is open.
    pub(super) fn add_ring(
        &mut self,
        file: &Description,
        fd: BorrowedFd<'_>,
        ring: RingV1,
    ) -> Found<InodeId> {
        let found = fstat(fd).map_err(failed("stat", file.pid, file.fd))?;
        let id = InodeId(self.list.len() as u32);
        self.known.insert((found.st_dev, found.st_ino), id);
        self.list.push(InodeV1 {
            id,
            kind: InodeKindV1::Ring(ring),
            mode: found.st_mode,
            uid: found.st_uid,
            gid: found.st_gid,
            len_bytes: 0,
            rdev: 0,
            mtime_ns: 0,
            atime_ns: 0,
            xattrs: Vec::new(),
            content: Vec::new(),
        });
        self.sources.push(None);
        Ok(id)
    }

    /// The object of a System V segment that nobody has attached.
    pub(super) fn add_loose_segment(&mut self, segment: SegmentV1, len_bytes: u64) -> Found<InodeId> {
        let what = format!("shmid {}", segment.id);
        let open = || sysvipc::open_segment(segment.id, len_bytes);
        let file =
            sysvipc::within(self.around.spaces.ipc(), open).map_err(|e| Error::io("attach", &what, &e))?;
        let magic = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            .map_err(|_| Error::Internal { step: "statfs", message: "a path with NUL".into() })?;
        let fs = fdquery::file_system_magic(&magic).map_err(|e| Error::kernel("statfs", &what, e))?;
        if fs == HUGETLBFS_MAGIC {
            return refused(FileObstacle::Hugetlb { path: RawPath(what.into_bytes()) });
        }
        let found = fstat(&file).map_err(|e| Error::kernel("stat", &what, e))?;
        let id = InodeId(self.list.len() as u32);
        let time = |seconds: i64, ns: i64| seconds * 1_000_000_000 + ns;
        self.list.push(InodeV1 {
            id,
            kind: InodeKindV1::Segment(segment),
            mode: found.st_mode,
            uid: found.st_uid,
            gid: found.st_gid,
            len_bytes,
            rdev: found.st_rdev,
            mtime_ns: time(found.st_mtime, found.st_mtime_nsec),
            atime_ns: time(found.st_atime, found.st_atime_nsec),
            xattrs: Vec::new(),
            content: Vec::new(),
        });
        self.sources.push(Some(Source { file, quiet: false }));
        Ok(id)
    }

    /// Why a ring that is open cannot be carried.
    pub(super) fn refuse_ring(&mut self, file: &Description, why: &RingObstacle) {
        self.refused_rings.insert((file.dev, file.ino), why.clone());
    }

    fn of_ring_mapping(&self, pid: Pid, entry: &MapsEntry) -> Found<InodeId> {
        let magic = format!("/proc/{pid}/map_files/{:x}-{:x}", entry.start.0, entry.end.0);
        let found = stat(magic.as_str()).map_err(failed("stat", pid, &magic))?;
        match self.known.get(&(found.st_dev, found.st_ino)) {
            Some(&id) => Ok(id),
            None => match self.refused_rings.get(&(found.st_dev, found.st_ino)) {
                Some(why) => refused(Obstacle::MemoryOfRing(why.clone())),
                None => refused(MemoryObstacle::ClosedRing),
            },
        }
    }

    /// The file behind a mapping.
    pub fn of_mapping(&mut self, pid: Pid, entry: &MapsEntry) -> Found<InodeId> {
        if entry.name == ring::LINK {
            return self.of_ring_mapping(pid, entry);
        }
        if entry.name.starts_with(b"anon_inode:") {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            return refused(MemoryObstacle::AnonymousInode { name });
        }
        // Others may look at the locks of what is shared with them; what is mapped privately is a
        // library or data that stays as it is, and nobody minds that it is locked for a moment.
        self.may_be_locked |= entry.shared && !is_nameless(entry);
        let key = (entry.dev.clone(), entry.ino, entry.name.clone());
        if let Some(&id) = self.mapped.get(&key) {
            return Ok(id);
        }
        let magic = format!("/proc/{pid}/map_files/{:x}-{:x}", entry.start.0, entry.end.0);
        let link = if entry.name.starts_with(b"[anon_shmem:") {
            // A name given by prctl stands in place of the kernel's own.
            b"/dev/zero (deleted)".as_slice()
        } else {
            &entry.name
        };
        let id = self.intern(pid, Handle::of_link(&magic, link))?;
        self.mapped.insert(key, id);
        // Who may not open it asks the list of all locks.
        let may_be_locked = !is_nameless(entry) && (self.watched || !lock::is_free(&magic));
        self.may_be_locked = self.may_be_locked || may_be_locked;
        Ok(id)
    }

    /// From here on nothing is opened that can be avoided.
    pub(super) fn note_watchers(&mut self) {
        self.watched = true;
    }

    /// Whether some mapped file may have a lock that no descriptor tells of.
    pub(super) fn may_be_locked(&self) -> bool {
        self.may_be_locked
    }

    /// The executable of a process. It is always opened by path.
    pub fn of_executable(&mut self, pid: Pid, link: &[u8]) -> Found<InodeId> {
        let magic = format!("/proc/{pid}/exe");
        let id = self.intern(pid, Handle::of_link(&magic, link))?;
        let (inode, source) = (&mut self.list[id.index()], &mut self.sources[id.index()]);
        let Some(path) = inode.kind.first_name().cloned() else {
            return refused(FileObstacle::ExecutableDeleted);
        };
        (inode.kind, *source) = (InodeKindV1::Path(NamedFileV1 { path }), None);
        Ok(id)
    }

    /// The entry of an object; a new one when it has none yet.
    pub fn intern(&mut self, pid: Pid, handle: Handle<'_>) -> Found<InodeId> {
        let found = stat(handle.magic).map_err(failed("stat", pid, handle.magic))?;
        let file_type = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        inspect_type(file_type, &found, handle)?;
        let key = key_of(&found, handle.link);
        if let Some(&id) = self.known.get(&key) {
            return Ok(id);
        }
        let seen = self.seen(pid, &found, file_type, handle)?;
        let kind = objects::classify(&seen, &self.around)?;
        let object = kind_of(&kind);
        let carries_content = file_type == SFlag::S_IFREG && object.has_pages();
        let source = match object.open(handle.magic)? {
            Some(file) => Some(Source { file, quiet: true }),
            None if carries_content => Some(self.source(handle)?),
            None => None,
        };
        source.as_ref().map_or(Ok(()), |source| inspect_attributes(&source.file, handle.link))?;
        if let Some(path) = object.volatile_name() {
            self.dirs.note_parents(self.around.spaces, &self.around.options.volatile_roots, path)?;
        }
        let len_bytes = object.len_bytes(&seen, &self.around)?;
        let xattrs = object.xattrs(&seen, &self.around)?;
        let complete = match &source {
            Some(source) => object.complete(&source.file, pid)?,
            None => None,
        };
        let kind = complete.unwrap_or(kind);
        let id = InodeId(self.list.len() as u32);
        self.known.insert(key, id);
        let time = |seconds: i64, ns: i64| if carries_content { seconds * 1_000_000_000 + ns } else { 0 };
        let (mtime_ns, atime_ns) =
            (time(found.st_mtime, found.st_mtime_nsec), time(found.st_atime, found.st_atime_nsec));
        self.list.push(InodeV1 {
            id,
            kind,
            mtime_ns,
            atime_ns,
            xattrs,
            mode: found.st_mode,
            uid: found.st_uid,
            gid: found.st_gid,
            len_bytes,
            rdev: found.st_rdev,
            content: Vec::new(),
        });
        self.sources.push(source);
        Ok(id)
    }

    /// A socket's node in the file system: the directories above it, where they do not outlive a
    /// reboot.
    pub fn note_node(&mut self, path: &RawPath, stat: &FileStat) -> snap_error::Result<()> {
        self.nodes.insert((stat.st_dev, stat.st_ino));
        let reachable = self.around.spaces.reachable(path);
        let text = CString::new(reachable.into_os_string().into_encoded_bytes())
            .map_err(|_| Error::Internal { step: "statfs", message: "a path with NUL".into() })?;
        let fs = fdquery::file_system_magic(&text).map_err(|e| Error::kernel("statfs", path, e))?;
        if self.around.is_volatile(fs, stat, path.as_path()) {
            self.dirs.note_parents(self.around.spaces, &self.around.options.volatile_roots, path)?;
        }
        Ok(())
    }

    /// What content is read from: where the tree would see a file opened, by its own descriptor, in
    /// a way that nobody hears of.
    fn source(&self, handle: Handle<'_>) -> Found<Source> {
        let own = handle.duplicate.filter(|fd| self.watched && fdquery::can_be_read(*fd));
        let Some(fd) = own else { return Ok(Source { file: open_for_reading(handle.magic)?, quiet: false }) };
        let file = fd.try_clone_to_owned().map_err(|e| Error::io("dup", handle.magic, &e))?;
        Ok(Source { file: File::from(file), quiet: true })
    }

    /// Whether a descriptor is one of a directory.
    pub fn is_directory(&self, kind: &FileKindV1) -> bool {
        let FileKindV1::Inode(OpenInodeV1 { inode, .. }) = kind else { return false };
        self.get(*inode)
            .is_some_and(|inode| SFlag::from_bits_truncate(inode.mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
    }

    /// Whether an object is a named FIFO.
    pub fn is_fifo(&self, id: InodeId) -> bool {
        self.get(id)
            .is_some_and(|inode| SFlag::from_bits_truncate(inode.mode) & SFlag::S_IFMT == SFlag::S_IFIFO)
    }

    /// System V objects of the tree's IPC namespace.
    pub fn ipc_objects(&self) -> &Objects {
        &self.around.ipc_objects
    }

    /// POSIX message queues, with their devices and inode numbers.
    pub fn message_queues(&self) -> impl Iterator<Item = (&PosixQueueV1, (u64, u64))> {
        self.known.iter().filter_map(|(key, id)| match &self.get(*id)?.kind {
            InodeKindV1::MessageQueue(queue) => Some((queue, *key)),
            _ => None,
        })
    }

    /// An entry by its id.
    pub fn get(&self, id: InodeId) -> Option<&InodeV1> {
        self.list.get(id.index())
    }

    /// An object that is mapped: `MAJOR:MINOR:INODE` as in /proc/locks.
    pub fn mapped_object(&self, object: &str) -> Option<InodeId> {
        let (dev, ino) = object.rsplit_once(':')?;
        let mut mapped = self.mapped.iter();
        mapped.find(|((d, i, _), _)| d == dev.as_bytes() && i.to_string() == ino).map(|(_, id)| *id)
    }

    /// The entry that this object has already.
    pub fn known(&self, stat: &FileStat) -> Option<InodeId> {
        self.known.get(&(stat.st_dev, stat.st_ino)).copied()
    }

    /// An object as those look at it who may know what it is.
    fn seen<'h>(
        &self,
        pid: Pid,
        found: &'h FileStat,
        file_type: SFlag,
        handle: Handle<'h>,
    ) -> Found<Seen<'h>> {
        let magic_path = CString::new(handle.magic)
            .map_err(|_| Error::Internal { step: "stat", message: "a path with NUL".into() })?;
        let fs = fdquery::file_system_magic(&magic_path).map_err(failed("statfs", pid, handle.magic))?;
        let (path, marked_deleted) = match handle.link.strip_suffix(DELETED) {
            // It may be part of the name.
            Some(_) if self.around.leads_to(&RawPath(handle.link.to_vec()), found) => (handle.link, false),
            Some(path) => (path, true),
            None => (handle.link, false),
        };
        Ok(Seen { pid, found, file_type, fs, handle, path, marked_deleted })
    }
}

/// Attributes that forbid what making the file again consists of (chattr(1)). Others are inherited
/// from the directory, or are hints.
fn inspect_attributes(file: &File, link: &[u8]) -> Found<()> {
    const FS_IMMUTABLE_FL: u32 = 0x10;
    const FS_APPEND_FL: u32 = 0x20;
    const FS_VERITY_FL: u32 = 0x10_0000;
    const FORBIDDING: [(u32, &str); 3] = [
        (FS_IMMUTABLE_FL, "immutable"),
        (FS_APPEND_FL, "append-only"),
        (FS_VERITY_FL, "protected by fs-verity"),
    ];
    let set = fdquery::file_attributes(file.as_fd()).unwrap_or_default();
    match FORBIDDING.iter().find(|(flag, _)| set & flag != 0) {
        Some((_, attribute)) => refused(FileObstacle::Attribute { attribute, path: RawPath(link.to_vec()) }),
        None => Ok(()),
    }
}

/// Types that cannot be opened again by name.
fn inspect_type(file_type: SFlag, found: &FileStat, handle: Handle<'_>) -> Found<()> {
    if handle.by_name_only {
        return Ok(());
    }
    let path = RawPath(handle.link.to_vec());
    let (major, minor) = (nix::sys::stat::major(found.st_rdev), nix::sys::stat::minor(found.st_rdev));
    match file_type {
        SFlag::S_IFREG | SFlag::S_IFDIR => Ok(()),
        SFlag::S_IFCHR if major == 1 && MEMORY_DEVICES.contains(&minor) => Ok(()),
        // Readers of the kernel log have a position of their own that cannot be set.
        SFlag::S_IFCHR if major == 1 && minor == KMSG && handle.writable => Ok(()),
        SFlag::S_IFCHR => refused(FileObstacle::CharacterDevice { path, major, minor }),
        SFlag::S_IFBLK => refused(FileObstacle::BlockDevice { path, major, minor }),
        SFlag::S_IFIFO => Ok(()),
        SFlag::S_IFSOCK => refused(FileObstacle::SocketFile { path }),
        _ => refused(FileObstacle::UnknownType { path }),
    }
}

fn open_for_reading(magic: &str) -> Found<File> {
    let open = |flags| File::options().read(true).custom_flags(flags).open(magic);
    // Without O_NOATIME the dump would be seen in the file's times.
    let opened = open(libc::O_NOATIME).or_else(|_| open(0));
    Ok(opened.map_err(|e| Error::io("open for its content", magic, &e))?)
}
