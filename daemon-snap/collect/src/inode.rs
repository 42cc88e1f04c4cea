//! Files, memfds and shared memory: which object it is, and whether its content has to travel.

use super::description::Description;
use super::handle::Handle;
use super::volatile_dirs::VolatileDirs;
use crate::blockers::{Found, failed, refused};
use crate::options::CollectOptions;
use crate::spaces::Spaces;
use crate::{kernel_file, lock, posix_queue, ring, sysv_segment};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat, stat};
use snap_error::obstacle::{FileObstacle, MemoryObstacle, RingObstacle};
use snap_error::{Error, Obstacle};
use snap_state::{
    FileKindV1, InodeId, InodeKindV1, InodeV1, OpenInodeV1, Pid, PosixQueueV1, RawPath, RingV1, SegmentV1,
};
use snap_sys::fdquery;
use snap_sys::proc::MapsEntry;
use snap_sys::sysvipc::{self, Objects};
use snap_sys::xattr;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
/// File systems whose files are views of the kernel.
const KERNEL_FILE_SYSTEMS: [(i64, &str); 12] = [
    (0x9fa0, "/proc"),
    (0x6265_6572, "/sys"),
    (0x6367_7270, "cgroup"),
    (0x0027_e0eb, "cgroup"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0xcafe_4a11, "bpf"),
    (posix_queue::MQUEUE_MAGIC, "POSIX message queue"),
    (0x7363_6673, "securityfs"),
    (0xde5e_81e4, "efivarfs"),
    (0x1cd1, "terminal"),
    (0x4249_4e4d, "binfmt_misc"),
];
/// Memory devices (major 1) without state of their own: null, zero, full, random, urandom.
const MEMORY_DEVICES: [u64; 5] = [3, 5, 7, 8, 9];
const KMSG: u64 = 11;
const DELETED: &[u8] = b" (deleted)";

/// All objects of the tree, each once.
#[derive(Debug)]
pub(crate) struct Inodes<'a> {
    spaces: &'a Spaces,
    options: &'a CollectOptions,
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
    /// Devices of `/` and `/dev`: their files are there again at the next boot whatever file system
    /// it is.
    steady_devices: Vec<u64>,
    ipc_objects: Objects,
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
        Self {
            spaces,
            options,
            known: HashMap::new(),
            refused_rings: HashMap::new(),
            mapped: HashMap::new(),
            may_be_locked: false,
            list: Vec::new(),
            sources: Vec::new(),
            watched: false,
            dirs: VolatileDirs::default(),
            steady_devices: ["/", "/dev"].into_iter().filter_map(device).collect(),
            ipc_objects,
            nodes: HashSet::new(),
        }
    }

    pub fn spaces(&self) -> &'a Spaces {
        self.spaces
    }

    pub fn options(&self) -> &'a CollectOptions {
        self.options
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
        let file = sysvipc::within(self.spaces.ipc(), open).map_err(|e| Error::io("attach", &what, &e))?;
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
        match &inode.kind {
            InodeKindV1::Path { .. } => {}
            InodeKindV1::Volatile { path } => {
                inode.kind = InodeKindV1::Path { path: path.clone() };
                *source = None;
            }
            _ => return refused(FileObstacle::ExecutableDeleted),
        }
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
        let kind = self.classify(pid, &found, file_type, handle)?;
        let by_name = matches!(
            kind,
            InodeKindV1::Path { .. } | InodeKindV1::OfProcess { .. } | InodeKindV1::Renamed { .. }
        );
        let is_queue = matches!(kind, InodeKindV1::MessageQueue(_));
        let carries_content = file_type == SFlag::S_IFREG && !by_name && !is_queue;
        let source = match (carries_content, is_queue) {
            (true, _) => Some(self.source(handle)?),
            (_, true) => Some(Source { file: posix_queue::open(handle.magic)?, quiet: true }),
            _ => None,
        };
        source.as_ref().map_or(Ok(()), |source| inspect_attributes(&source.file, handle.link))?;
        if let InodeKindV1::Volatile { path } = &kind {
            self.dirs.note_parents(self.spaces, &self.options.volatile_roots, path)?;
        }
        let kind = match (kind, &source) {
            (InodeKindV1::Memfd { name, .. }, Some(source)) => memfd(name, &source.file, pid)?,
            (kind, _) => kind,
        };
        let len_bytes = match &kind {
            // The file has whole pages.
            InodeKindV1::MessageQueue(_) => 0,
            InodeKindV1::Segment(segment) => sysv_segment::find(&self.ipc_objects, segment.id as u64, b"")?.1,
            _ if file_type == SFlag::S_IFREG => found.st_size as u64,
            _ => 0,
        };
        let id = InodeId(self.list.len() as u32);
        self.known.insert(key, id);
        let xattrs = match &kind {
            InodeKindV1::Volatile { path } => {
                let place = self.spaces.reachable(path);
                xattr::all(&place).map_err(|e| Error::kernel("read extended attributes", path, e))?
            }
            InodeKindV1::Deleted { .. } | InodeKindV1::Memfd { .. } => {
                xattr::all_behind(Path::new(handle.magic))
                    .map_err(|e| Error::kernel("read extended attributes", handle.magic, e))?
            }
            _ => Vec::new(),
        };
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
        let reachable = self.spaces.reachable(path);
        let text = CString::new(reachable.into_os_string().into_encoded_bytes())
            .map_err(|_| Error::Internal { step: "statfs", message: "a path with NUL".into() })?;
        let fs = fdquery::file_system_magic(&text).map_err(|e| Error::kernel("statfs", path, e))?;
        if self.is_volatile(fs, stat, path.as_path()) {
            self.dirs.note_parents(self.spaces, &self.options.volatile_roots, path)?;
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

    fn is_volatile(&self, fs: i64, stat: &FileStat, path: &Path) -> bool {
        let in_memory =
            matches!(fs, TMPFS_MAGIC | RAMFS_MAGIC) && !self.steady_devices.contains(&stat.st_dev);
        in_memory || self.options.volatile_roots.iter().any(|root| path != root && path.starts_with(root))
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
        &self.ipc_objects
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

    fn classify(
        &self,
        pid: Pid,
        found: &FileStat,
        file_type: SFlag,
        handle: Handle<'_>,
    ) -> Found<InodeKindV1> {
        let magic_path = CString::new(handle.magic)
            .map_err(|_| Error::Internal { step: "stat", message: "a path with NUL".into() })?;
        let fs = fdquery::file_system_magic(&magic_path).map_err(failed("statfs", pid, handle.magic))?;
        let (path, marked_deleted) = match handle.link.strip_suffix(DELETED) {
            // It may be part of the name.
            Some(_) if self.leads_to(&RawPath(handle.link.to_vec()), found) => (handle.link, false),
            Some(path) => (path, true),
            None => (handle.link, false),
        };
        let shown = || RawPath(handle.link.to_vec());
        if fs == HUGETLBFS_MAGIC {
            return refused(FileObstacle::Hugetlb { path: shown() });
        }
        if let Some(kind) = kernel_file::classify(fs, path, pid, handle.open) {
            return kind;
        }
        if fs == posix_queue::MQUEUE_MAGIC {
            return posix_queue::classify(pid, found, handle, (path, found.st_nlink == 0));
        }
        if let Some(&(_, file_system)) = KERNEL_FILE_SYSTEMS.iter().find(|(magic, _)| *magic == fs) {
            return refused(FileObstacle::KernelFile { file_system, path: shown() });
        }
        let nameless = marked_deleted && found.st_nlink == 0;
        if nameless && fs == TMPFS_MAGIC && file_type == SFlag::S_IFREG {
            if let Some(name) = path.strip_prefix(b"/memfd:") {
                return Ok(InodeKindV1::Memfd { name: name.to_vec(), flags: 0, seals: 0 });
            }
            if path == b"/dev/zero" {
                return Ok(InodeKindV1::SharedAnon);
            }
            if path.starts_with(b"/SYSV") {
                let (segment, _) = sysv_segment::find(&self.ipc_objects, found.st_ino, handle.link)?;
                return Ok(InodeKindV1::Segment(segment));
            }
        }
        if path == b"/[aio]" {
            return refused(MemoryObstacle::AioRing);
        }
        if path == b"/secretmem" && marked_deleted {
            return refused(MemoryObstacle::Secret);
        }
        if !path.starts_with(b"/") {
            return refused(FileObstacle::NoPath { name: shown() });
        }
        self.classify_by_path(found, file_type, fs, RawPath(path.to_vec()), marked_deleted)
    }

    fn leads_to(&self, path: &RawPath, found: &FileStat) -> bool {
        fstatat(nix::fcntl::AT_FDCWD, &self.spaces.reachable(path), AtFlags::AT_SYMLINK_NOFOLLOW)
            .is_ok_and(|there| (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino))
    }

    /// A file that has lost the name it was opened by but has another one, which is looked for in
    /// the same directory.
    fn find_other_name(&self, found: &FileStat, fs: i64, was: RawPath) -> Found<InodeKindV1> {
        let lost = |path| refused(FileObstacle::OtherNameUnknown { path });
        let Some(directory) = was.as_path().parent() else { return lost(was) };
        if self.is_volatile(fs, found, was.as_path()) {
            return refused(FileObstacle::OtherNameVolatile { path: was });
        }
        let Ok(entries) = std::fs::read_dir(self.spaces.reachable(&RawPath::from_path(directory))) else {
            return lost(was);
        };
        for entry in entries.flatten() {
            let path = RawPath::from_path(&directory.join(entry.file_name()));
            if std::os::unix::fs::DirEntryExt::ino(&entry) == found.st_ino && self.leads_to(&path, found) {
                return Ok(InodeKindV1::Renamed { was, path });
            }
        }
        lost(was)
    }

    fn classify_by_path(
        &self,
        found: &FileStat,
        file_type: SFlag,
        fs: i64,
        path: RawPath,
        marked_deleted: bool,
    ) -> Found<InodeKindV1> {
        if marked_deleted || found.st_nlink == 0 {
            return match file_type {
                SFlag::S_IFREG if found.st_nlink > 0 => self.find_other_name(found, fs, path),
                SFlag::S_IFREG => Ok(InodeKindV1::Deleted { path }),
                SFlag::S_IFDIR => refused(FileObstacle::DeletedDirectory { path }),
                SFlag::S_IFIFO => refused(FileObstacle::DeletedFifo { path }),
                _ => refused(FileObstacle::DeletedSpecialFile { path }),
            };
        }
        let reachable = self.spaces.reachable(&path);
        let there = fstatat(nix::fcntl::AT_FDCWD, &reachable, AtFlags::AT_SYMLINK_NOFOLLOW);
        match there {
            Ok(there) if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino) => {}
            // systemd opens /dev/null outside, and PrivateDevices= makes another node of the same
            // device inside.
            Ok(there) if file_type == SFlag::S_IFCHR && is_same_device(&there, found) => {}
            Ok(_) => return refused(FileObstacle::PathLeadsElsewhere { path }),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {
                return refused(FileObstacle::PathUnreachable { path });
            }
            Err(e) => return Err(Error::kernel("stat", path, e).into()),
        }
        let plain = matches!(file_type, SFlag::S_IFREG | SFlag::S_IFDIR | SFlag::S_IFIFO);
        if plain && self.is_volatile(fs, found, path.as_path()) {
            return Ok(InodeKindV1::Volatile { path });
        }
        Ok(InodeKindV1::Path { path })
    }
}

fn is_same_device(a: &FileStat, b: &FileStat) -> bool {
    let format = |stat: &FileStat| stat.st_mode & SFlag::S_IFMT.bits();
    format(a) == format(b) && a.st_rdev == b.st_rdev
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

fn memfd(name: Vec<u8>, file: &File, pid: Pid) -> Found<InodeKindV1> {
    const MFD_ALLOW_SEALING: u32 = 2;
    const F_SEAL_SEAL: u32 = 1;
    let seals = fdquery::seals(file.as_fd()).map_err(failed("read seals", pid, "memfd"))?;
    // A memfd that was made without the flag is born with exactly this seal.
    let flags = if seals == F_SEAL_SEAL { 0 } else { MFD_ALLOW_SEALING };
    Ok(InodeKindV1::Memfd { name, flags, seals })
}
