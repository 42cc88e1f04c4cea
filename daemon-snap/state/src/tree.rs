//! The whole tree: as it is written, and as it is after everything in it has been checked.

use super::check::{Around, Corrupt, Result, check};
use super::stored::check_stored;
use super::unix::check_sockets;
use super::{
    BackingV1, CgroupV1, ConfinementV1, FileId, FileKindV1, FileV1, FilterId, InodeId, InodeKindV1, InodeV1,
    MappedLockV1, Pid, PipeId, PipeV1, ProcessV1, SeccompFilterV1, SessionKeyringV1, StoredV1, SysvV1,
    VolatileDirV1, VolatileNodeV1, ZombieV1,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Range};

/// A process tree: one or several roots whose parent is outside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TreeV1 {
    pub clocks: ClocksV1,
    pub vdso: VdsoV1,
    /// Parents stand before their children.
    pub processes: Vec<ProcessV1>,
    /// Open file descriptions. Index is [`FileId`].
    pub files: Vec<FileV1>,
    /// Files by path, deleted files, memfds, shared memory. Index is [`InodeId`].
    pub inodes: Vec<InodeV1>,
    /// Index is [`PipeId`].
    pub pipes: Vec<PipeV1>,
    /// Classic BPF programs, in no order. Index is [`FilterId`].
    pub seccomp_filters: Vec<SeccompFilterV1>,
    /// Directories that have to exist before volatile files and sockets are made again, parents
    /// first.
    pub volatile_dirs: Vec<VolatileDirV1>,
    /// Directories whose watchers, files and sockets vanish at a reboot (RuntimeDirectory=,
    /// PrivateTmp=): files that nobody held open but that belong to the unit (PID files and the
    /// like).
    pub volatile_files: Vec<InodeId>,
    pub mapped_locks: Vec<MappedLockV1>,
    /// The same for symbolic links, further names of files and sockets that nobody has.
    pub volatile_nodes: Vec<VolatileNodeV1>,
    /// Ascending.
    pub zombies: Vec<ZombieV1>,
    /// Control groups of the unit; empty where there is none but its own.
    pub cgroups: Vec<CgroupV1>,
    /// `None`: that of who starts the tree.
    pub session_keyring: Option<SessionKeyringV1>,
    /// `None` where AppArmor is off, or the tree is not a unit.
    pub confinement: Option<ConfinementV1>,
    /// In the order in which systemd lists them.
    pub stored: Vec<StoredV1>,
    pub sysv: SysvV1,
}

/// Clocks of the tree at the moment of the freeze, as its processes saw them (time namespace
/// applied).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClocksV1 {
    pub monotonic_ns: i64,
    pub boottime_ns: i64,
    pub realtime_ns: i64,
}

/// The vDSO that the recorded addresses belong to; another one cannot take its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VdsoV1 {
    /// BLAKE3 of the vDSO's bytes.
    pub digest: [u8; 32],
    pub len_bytes: u64,
}

impl TreeV1 {
    /// Number of pages that the image carries for processes and shared objects together.
    pub fn page_count(&self) -> u64 {
        let private: u64 = self.processes.iter().flat_map(|p| &p.mm.runs).map(|r| u64::from(r.pages)).sum();
        let shared: u64 = self.inodes.iter().flat_map(|i| &i.content).map(|c| u64::from(c.pages)).sum();
        private + shared
    }

    /// The processes whose parent is not in the tree.
    pub fn roots(&self) -> impl Iterator<Item = &ProcessV1> {
        self.processes.iter().filter(|p| p.parent.is_none())
    }
}

/// A table of a tree, by the ids that stand in that tree.
#[derive(Debug)]
pub struct Table<'a, T>(&'a [T]);

impl<T> Clone for Table<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Table<'_, T> {}

/// Open file descriptions.
pub type Files<'a> = Table<'a, FileV1>;
/// Files by path, memfds, shared memory.
pub type Inodes<'a> = Table<'a, InodeV1>;
/// Pipes.
pub type Pipes<'a> = Table<'a, PipeV1>;

impl<'a, T> Table<'a, T> {
    /// All entries, in the order of their ids.
    pub fn iter(self) -> std::slice::Iter<'a, T> {
        self.0.iter()
    }
}

impl<'a, T> IntoIterator for Table<'a, T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a> Files<'a> {
    /// The description that an id of the same tree means.
    pub fn get(self, id: FileId) -> &'a FileV1 {
        &self.0[id.index()]
    }
}

impl<'a> Inodes<'a> {
    /// The object that an id of the same tree means.
    pub fn get(self, id: InodeId) -> &'a InodeV1 {
        &self.0[id.index()]
    }
}

impl<'a> Pipes<'a> {
    /// The pipe that an id of the same tree means.
    pub fn get(self, id: PipeId) -> &'a PipeV1 {
        &self.0[id.index()]
    }
}

/// A tree in which everything has been checked: an id that stands in it means something in it, so
/// that looking it up cannot fail. It cannot be changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree(TreeV1);

impl Deref for Tree {
    type Target = TreeV1;

    fn deref(&self) -> &TreeV1 {
        &self.0
    }
}

impl Tree {
    /// Checks every id, area and page of a tree; `page_area` is where the image holds pages.
    ///
    /// # Errors
    /// [`Corrupt`] with the first thing that is not where it may be.
    pub fn check(tree: TreeV1, page_area: &Range<u64>) -> std::result::Result<Self, Corrupt> {
        check_tree(&tree, page_area)?;
        Ok(Self(tree))
    }

    /// The same, to be changed.
    pub fn into_inner(self) -> TreeV1 {
        self.0
    }

    /// All open file descriptions.
    pub fn files(&self) -> Files<'_> {
        Table(&self.0.files)
    }

    /// All files, memfds and shared memory.
    pub fn inodes(&self) -> Inodes<'_> {
        Table(&self.0.inodes)
    }

    /// All pipes.
    pub fn pipes(&self) -> Pipes<'_> {
        Table(&self.0.pipes)
    }

    /// The description that an id of this tree means.
    pub fn file(&self, id: FileId) -> &FileV1 {
        self.files().get(id)
    }

    /// The object that an id of this tree means.
    pub fn inode(&self, id: InodeId) -> &InodeV1 {
        self.inodes().get(id)
    }

    /// The pipe that an id of this tree means.
    pub fn pipe(&self, id: PipeId) -> &PipeV1 {
        self.pipes().get(id)
    }

    /// The seccomp filter that an id of this tree means.
    pub fn filter(&self, id: FilterId) -> &SeccompFilterV1 {
        &self.0.seccomp_filters[id.index()]
    }

    /// The process with this number, and its place in the order of the tree. A number may be that
    /// of a session or a group whose leader is not in the tree.
    pub fn process(&self, pid: Pid) -> Option<(usize, &ProcessV1)> {
        self.0.processes.iter().enumerate().find(|(_, process)| process.pid == pid)
    }
}

fn check_tree(tree: &TreeV1, page_area: &Range<u64>) -> Result<()> {
    check(!tree.processes.is_empty(), "a tree without processes")?;
    let in_order = |ids: &mut dyn Iterator<Item = usize>| ids.enumerate().all(|(at, id)| at == id);
    check(in_order(&mut tree.files.iter().map(|file| file.id.index())), "files out of order")?;
    check(in_order(&mut tree.inodes.iter().map(|inode| inode.id.index())), "inodes out of order")?;
    let around = around(tree, page_area);
    tree.files.iter().try_for_each(|file| file.check(&around))?;
    let sockets = tree.files.iter().filter_map(|file| match &file.kind {
        FileKindV1::Unix(socket) => Some((file.id, socket)),
        _ => None,
    });
    check_sockets(&sockets.collect::<BTreeMap<_, _>>())?;
    tree.pipes.iter().try_for_each(|pipe| pipe.check(&around))?;
    check_pipes_are_held(tree)?;
    tree.inodes.iter().try_for_each(|inode| inode.check(&around))?;
    tree.seccomp_filters.iter().try_for_each(SeccompFilterV1::check)?;
    tree.volatile_dirs.iter().try_for_each(VolatileDirV1::check)?;
    check_mapped_locks(tree, &around)?;
    let known = tree.volatile_files.iter().all(|id| around.has_inode(*id));
    check(known, "a volatile file out of range")?;
    tree.volatile_nodes.iter().try_for_each(|node| node.check(&tree.inodes))?;
    check_stored(&tree.stored, &around)?;
    tree.sysv.check(&tree.inodes, &around)?;
    tree.cgroups.iter().try_for_each(CgroupV1::check)?;
    check_processes(tree, &around)?;
    check_all_used(tree)
}

fn around<'a>(tree: &TreeV1, page_area: &'a Range<u64>) -> Around<'a> {
    let rings = tree.inodes.iter().filter(|inode| matches!(inode.kind, InodeKindV1::Ring(_)));
    let threads = tree.processes.iter().flat_map(|process| &process.threads);
    Around {
        page_area,
        files: tree.files.len(),
        inodes: tree.inodes.len(),
        pipes: tree.pipes.len(),
        filters: tree.seccomp_filters.len(),
        rings: rings.map(|inode| inode.id).collect(),
        processes: tree.processes.iter().map(|process| process.pid).collect(),
        zombies: tree.zombies.iter().map(|zombie| zombie.pid).collect(),
        threads: threads.map(|thread| thread.tid).collect(),
    }
}

fn check_pipes_are_held(tree: &TreeV1) -> Result<()> {
    let ends = tree.files.iter().filter_map(|file| match file.kind {
        FileKindV1::Pipe(open) => Some(open.pipe.index()),
        _ => None,
    });
    let held: BTreeSet<usize> = ends.collect();
    check((0..tree.pipes.len()).all(|pipe| held.contains(&pipe)), "a pipe of nobody")
}

fn check_mapped_locks(tree: &TreeV1, around: &Around<'_>) -> Result<()> {
    let is_mapped = |id: InodeId| {
        let mut vmas = tree.processes.iter().flat_map(|process| &process.mm.vmas);
        vmas.any(|vma| matches!(vma.backing, BackingV1::Inode { inode, .. } if inode == id))
    };
    let sound = |lock: &MappedLockV1| is_mapped(lock.inode) && around.has_process(lock.pid);
    check(tree.mapped_locks.iter().all(sound), "a lock of a file that is not mapped")
}

fn check_processes(tree: &TreeV1, around: &Around<'_>) -> Result<()> {
    let is_inode = |id: &FileId| {
        tree.files.get(id.index()).is_some_and(|file| matches!(file.kind, FileKindV1::Inode(_)))
    };
    let (mut pids, mut tids) = (BTreeSet::new(), BTreeSet::new());
    for process in &tree.processes {
        check(process.parent.is_none_or(|parent| pids.contains(&parent)), "a child before its parent")?;
        check(pids.insert(process.pid) && process.pid.0 > 1, "a process number twice or out of range")?;
        process.check(around)?;
        let mut directories = [Some(process.cwd), process.root].into_iter().flatten();
        check(directories.all(|id| is_inode(&id)), "a working or root directory that is none")?;
        for thread in &process.threads {
            check(tids.insert(thread.tid) && thread.tid.0 > 1, "a thread number twice or out of range")?;
        }
        process.mm.check(&tree.inodes, around)?;
    }
    for zombie in &tree.zombies {
        check(tids.insert(zombie.pid) && zombie.pid.0 > 1, "a process number twice or out of range")?;
        zombie.check(around)?;
    }
    let is_stopped_child = |parent: Pid, pid: Pid| {
        let child = tree.processes.iter().find(|process| process.pid == pid);
        child.is_some_and(|child| child.parent == Some(parent) && child.stopped)
    };
    tree.processes.iter().try_for_each(|process| {
        let mut stops = process.told_stops.iter();
        check(stops.all(|pid| is_stopped_child(process.pid, *pid)), "news of a stop that is none")
    })
}

/// Every object is used by something; one that is not would be state dropped silently.
fn check_all_used(tree: &TreeV1) -> Result<()> {
    let mut used: BTreeSet<InodeId> = tree.volatile_files.iter().copied().collect();
    used.extend(tree.processes.iter().map(|process| process.exe));
    used.extend(tree.files.iter().filter_map(|file| file.kind.inode()));
    used.extend(tree.pipes.iter().filter_map(|pipe| pipe.fifo));
    used.extend(tree.sysv.loose_segments.iter().map(|loose| loose.inode));
    let vmas = tree.processes.iter().flat_map(|process| &process.mm.vmas);
    used.extend(vmas.filter_map(|vma| match vma.backing {
        BackingV1::Inode { inode, .. } => Some(inode),
        _ => None,
    }));
    match tree.inodes.iter().find(|inode| !used.contains(&inode.id)) {
        Some(inode) => Err(Corrupt::Unused(inode.id)),
        None => Ok(()),
    }
}
