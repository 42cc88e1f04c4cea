//! Which files a recorded tree depends on, and in which way. Pure: state in, paths out.

use super::UnitProperties;
use snap_error::UnitObstacle;
use snap_state::{
    BackingV1, FileKindV1, InodeId, InodeKindV1, InodeV1, InotifyV1, OpenInodeV1, RawPath, TreeV1,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How a file matters to the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// Read or mapped: its content must be the same.
    Content,
    /// A device node: it must be the same device.
    Device,
    /// Appended to, as a log: it only has to be there, which the restore finds out when it opens
    /// it.
    Log,
    /// Written in place: its content and the memory belong together.
    State,
}

/// How a file is open, all descriptors and mappings together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Access {
    pub writes: bool,
    /// Somebody reads and writes at places of their choice.
    pub in_place: bool,
}

impl Access {
    /// Of one open file description (`F_GETFL`).
    pub fn of_flags(flags: i32) -> Self {
        let writes = flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_RDONLY;
        let adds = flags & libc::O_APPEND != 0 || flags & libc::O_ACCMODE == libc::O_WRONLY;
        Self { writes, in_place: writes && !adds }
    }

    /// Another way in which the same file is open.
    pub fn add(&mut self, other: Self) {
        self.writes |= other.writes;
        self.in_place |= other.in_place;
    }
}

/// Why a file that is state refuses the unit.
pub(super) fn writes_state(path: &Path) -> UnitObstacle {
    UnitObstacle::WritesState { path: RawPath::from_path(path) }
}

/// Every file of the tree that a path leads to, with its use; those that travel in the image are
/// not among them.
pub(super) fn uses(tree: &TreeV1, unit: &UnitProperties) -> BTreeMap<PathBuf, Use> {
    let mut uses = BTreeMap::new();
    for (id, access) in accesses(tree) {
        let Some(inode) = tree.inodes.get(id.index()) else { continue };
        if let (Some(path), Some(usage)) = (path_of(inode), usage(inode, &access, unit)) {
            uses.insert(path.as_path().to_owned(), usage);
        }
    }
    uses
}

/// Files that travel in the image and that the tree has open for writing.
pub(super) fn written_volatile(tree: &TreeV1) -> BTreeSet<PathBuf> {
    let written = accesses(tree).into_iter().filter(|(_, access)| access.writes);
    let inodes = written.filter_map(|(id, _)| tree.inodes.get(id.index()));
    let path = |inode: &InodeV1| match &inode.kind {
        InodeKindV1::Volatile(file) => Some(file.path.as_path().to_owned()),
        _ => None,
    };
    inodes.filter_map(path).collect()
}

fn accesses(tree: &TreeV1) -> BTreeMap<InodeId, Access> {
    let mut accesses: BTreeMap<InodeId, Access> = BTreeMap::new();
    for file in &tree.files {
        let FileKindV1::Inode(OpenInodeV1 { inode, .. }) = file.kind else { continue };
        accesses.entry(inode).or_default().add(Access::of_flags(file.flags));
    }
    for process in &tree.processes {
        accesses.entry(process.exe).or_default();
        for vma in &process.mm.vmas {
            let BackingV1::Inode { inode, may_write, .. } = vma.backing else { continue };
            let access = accesses.entry(inode).or_default();
            if vma.shared && may_write {
                access.add(Access { writes: true, in_place: true });
            }
        }
    }
    accesses
}

/// Where a file that does not travel is found again. What lies in /proc and /sys is of today's
/// kernel whatever it said before.
fn path_of(inode: &InodeV1) -> Option<&RawPath> {
    inode.kind.found_at().filter(|path| !is_of_kernel(path.as_path()))
}

/// Whether a path leads into /proc or /sys, by whatever way.
pub(super) fn is_of_kernel(path: &Path) -> bool {
    let below = |path: &Path| ["/proc", "/sys"].iter().any(|root| path.starts_with(root));
    below(path) || path.parent().and_then(|dir| dir.canonicalize().ok()).is_some_and(|dir| below(&dir))
}

fn usage(inode: &InodeV1, access: &Access, unit: &UnitProperties) -> Option<Use> {
    let path = path_of(inode)?;
    match inode.mode & libc::S_IFMT {
        libc::S_IFCHR | libc::S_IFBLK => Some(Use::Device),
        libc::S_IFREG if !access.writes => Some(Use::Content),
        libc::S_IFREG if is_log(path.as_path(), inode.len_bytes, access, unit) => Some(Use::Log),
        libc::S_IFREG => Some(Use::State),
        // A directory that is open or current only has to be there; nobody knows whether it was
        // listed.
        _ => None,
    }
}

/// A file whose content says nothing to the daemon itself. **Appending is not logging**: a journal
/// of a database grows at its end too, and only its place tells the two apart.
pub(super) fn is_log(path: &Path, len_bytes: u64, access: &Access, unit: &UnitProperties) -> bool {
    // Lock files are opened for writing and stay empty.
    len_bytes == 0 || !access.in_place && is_below_logs(path, unit)
}

fn is_below_logs(path: &Path, unit: &UnitProperties) -> bool {
    path.starts_with("/var/log") || is_below(path, "/var/log", &unit.logs_directories)
}

/// Whether a path is where services keep what they know.
pub(super) fn is_below_state(path: &Path, unit: &UnitProperties) -> bool {
    ["/var/lib", "/var/spool", "/var/cache", "/var/mail", "/var/backups"]
        .iter()
        .any(|dir| path.starts_with(dir))
        || is_below(path, "/var/lib", &unit.state_directories)
        || is_below(path, "/var/cache", &unit.cache_directories)
}

fn is_below(path: &Path, parent: &str, names: &[String]) -> bool {
    names.iter().any(|name| path.starts_with(Path::new(parent).join(name)))
}

/// Paths that the tree watches for changes and whose changes it would miss between two boots.
pub(super) fn watched(tree: &TreeV1, unit: &UnitProperties, volatile_roots: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::new();
    for file in &tree.files {
        match &file.kind {
            FileKindV1::Inotify(InotifyV1 { watches }) => {
                paths.extend(watches.iter().map(|watch| watch.path.as_path().to_owned()));
            }
            // Of whole mounts and file systems nobody can say whether something in them has
            // changed.
            FileKindV1::Fanotify(group) => {
                let inodes = group.marks.iter().filter(|mark| mark.kind == 0);
                paths.extend(inodes.map(|mark| mark.path.as_path().to_owned()));
            }
            _ => {}
        }
    }
    let made_anew = ["/run", "/dev", "/proc", "/sys", "/tmp", "/var/tmp"].map(PathBuf::from);
    paths.retain(|path| {
        let is_volatile = made_anew.iter().chain(volatile_roots).any(|root| path.starts_with(root));
        !is_volatile && !is_below_logs(path, unit) && !is_below_state(path, unit)
    });
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::NamedFileV1;

    fn judge(path: &str, len_bytes: u64, writes: bool, in_place: bool) -> Option<Use> {
        let inode = InodeV1 {
            id: InodeId(0),
            kind: InodeKindV1::Path(NamedFileV1 { path: RawPath(path.into()) }),
            mode: libc::S_IFREG | 0o644,
            uid: 0,
            gid: 0,
            len_bytes,
            rdev: 0,
            mtime_ns: 0,
            atime_ns: 0,
            xattrs: Vec::new(),
            content: Vec::new(),
        };
        let unit = UnitProperties { state_directories: vec!["app".into()], ..UnitProperties::default() };
        usage(&inode, &Access { writes, in_place }, &unit)
    }

    #[test]
    fn what_is_only_read_counts_by_content() {
        assert_eq!(judge("/usr/lib/libc.so.6", 9, false, false), Some(Use::Content));
        assert_eq!(judge("/var/lib/app/index", 9, false, false), Some(Use::Content));
    }

    #[test]
    fn views_of_the_kernel_are_no_dependencies() {
        assert_eq!(judge("/proc/meminfo", 0, false, false), None);
        assert_eq!(judge("/etc/../proc/self/mounts", 0, false, false), None);
        assert_eq!(judge("/sys/fs/cgroup/system.slice/app.service/memory.pressure", 0, true, true), None);
    }

    #[test]
    fn logs_and_locks_may_grow_and_data_may_not() {
        assert_eq!(judge("/var/log/nginx/access.log", 9, true, false), Some(Use::Log));
        assert_eq!(judge("/var/log/nginx/pipe", 9, true, true), Some(Use::State));
        assert_eq!(judge("/srv/app/trace", 9, true, false), Some(Use::State));
        assert_eq!(
            judge("/home/app/db/000003.log", 9, true, false),
            Some(Use::State),
            "a journal of LevelDB"
        );
        assert_eq!(judge("/var/lib/app/server.log", 9, true, false), Some(Use::State));
        assert_eq!(judge("/var/lib/app/lock", 0, true, true), Some(Use::Log));
        assert_eq!(judge("/var/lib/redis/appendonly.aof", 9, true, false), Some(Use::State));
        assert_eq!(judge("/srv/app/db.sqlite3", 9, true, true), Some(Use::State));
    }
}
