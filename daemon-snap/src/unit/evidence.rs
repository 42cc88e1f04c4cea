//! What must still be true at the next boot for a unit's image to be usable.

use super::extras::Extras;
use super::systemd::UnitInfo;
use crate::error::Result;
use crate::state::{BackingV1, FileKindV1, InodeId, InodeKindV1, TreeV1};
use image_store::{EvidenceV1, FileEvidence, MachineEvidence, UnitEvidence, evidence};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
/// Where daemons keep what outlives them.
const STATE_ROOTS: [&str; 3] = ["/var/lib", "/var/spool", "/srv"];

/// Machine, unit texts, environment files, executable, mapped and open files, `DependsOn=`, users and groups.
///
/// # Errors
/// A file cannot be read.
pub fn gather(info: &UnitInfo, extras: &Extras, tree: &TreeV1) -> Result<EvidenceV1> {
    let root = Path::new("/");
    let mut paths: BTreeSet<PathBuf> = depended_on(tree);
    paths.extend(extras.dependencies()?);
    paths.retain(|path| !extras.ignores(path));
    let mut files = Vec::with_capacity(paths.len() + 2);
    files.extend(FileEvidence::collect_chain(root, &info.exec_path, true)?);
    for path in &paths {
        files.push(FileEvidence::collect(root, path, true)?);
    }
    let environment_files = info
        .environment_files
        .iter()
        .map(|path| FileEvidence::collect(root, path, true))
        .collect::<image_store::Result<_>>()?;
    let name_of = |name: &str, id: Option<u32>| id.map(|id| (name.to_owned(), id));
    Ok(EvidenceV1 {
        machine: MachineEvidence::collect(root)?,
        unit: UnitEvidence::collect(root, &info.fragment, &info.drop_ins)?,
        files,
        environment_files,
        users: name_of(&info.user, evidence::user_id(root, &info.user)).into_iter().collect(),
        groups: name_of(&info.group, evidence::group_id(root, &info.group)).into_iter().collect(),
    })
}

/// Regular files that the tree maps or has open for reading only.
fn depended_on(tree: &TreeV1) -> BTreeSet<PathBuf> {
    let written = written(tree);
    tree.inodes
        .iter()
        .filter(|inode| inode.mode & S_IFMT == S_IFREG && !written.contains(&inode.id))
        .filter_map(|inode| match &inode.kind {
            InodeKindV1::Path { path } => Some(path.as_path().to_owned()),
            _ => None,
        })
        // Seen from outside the unit's own mounts it may be another file or none; the restore opens it and checks its kind.
        .filter(|path| path.to_str().is_some() && path.exists())
        .collect()
}

/// Files that the tree writes itself: logs grow, that is no staleness.
fn written(tree: &TreeV1) -> BTreeSet<InodeId> {
    let open = tree.files.iter().filter_map(|file| match file.kind {
        FileKindV1::Inode { inode, .. }
            if file.flags & libc::O_ACCMODE != libc::O_RDONLY && file.flags & libc::O_PATH == 0 =>
        {
            Some(inode)
        }
        _ => None,
    });
    let mapped = tree.processes.iter().flat_map(|p| &p.mm.vmas).filter_map(|vma| match vma.backing {
        BackingV1::Inode { inode, may_write: true, .. } if vma.shared => Some(inode),
        _ => None,
    });
    open.chain(mapped).collect()
}

/// State files that are open for writing: a golden image would put old memory over newer data.
pub fn writable_state(tree: &TreeV1) -> Vec<String> {
    let written = written(tree);
    tree.inodes
        .iter()
        .filter(|inode| inode.mode & S_IFMT == S_IFREG && written.contains(&inode.id))
        .filter_map(|inode| match &inode.kind {
            InodeKindV1::Path { path } => Some(path.to_string()),
            _ => None,
        })
        .filter(|path| STATE_ROOTS.iter().any(|root| Path::new(path).starts_with(root)))
        .collect()
}
