//! Directories that a reboot takes away although the unit counts on them.

use crate::spaces::Spaces;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstatat};
use snap_error::{Error, Result};
use snap_state::{RawPath, VolatileDirV1};
use snap_sys::xattr;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Directories of many services: only what leads to something of the unit is its own there.
const SHARED: [&str; 5] = ["/run/systemd", "/run/user", "/run/lock", "/run/udev", "/dev"];
/// How far down, and how many in one directory.
const LEVELS: u32 = 3;
const MOST_BELOW: usize = 256;

/// Directories to be made before the files in them, by path, which puts parents first.
#[derive(Debug, Default)]
pub(crate) struct VolatileDirs(BTreeMap<RawPath, VolatileDirV1>);

impl VolatileDirs {
    /// Keeps all directories above `path`, as far up as the mount point or the volatile root, which
    /// somebody else makes.
    pub fn note_parents(&mut self, spaces: &Spaces, roots: &[PathBuf], path: &RawPath) -> Result<()> {
        let mut dir = path.as_path();
        while let Some(parent) = dir.parent() {
            dir = parent;
            let raw = RawPath::from_path(dir);
            if self.0.contains_key(&raw) || roots.iter().any(|root| root == dir) {
                break;
            }
            let Some(above) = dir.parent() else { break };
            let here = stat_of(spaces, dir)?;
            if here.st_dev != stat_of(spaces, above)?.st_dev {
                break;
            }
            self.note(spaces, raw, &here)?;
            if !SHARED.iter().any(|shared| dir.starts_with(shared)) {
                self.note_below(spaces, dir, here.st_dev, LEVELS)?;
            }
        }
        Ok(())
    }

    /// Directories in a directory of the unit: its processes may want to make something there later
    /// (dovecot). What they hold and nobody has open is not the unit's for certain.
    fn note_below(&mut self, spaces: &Spaces, dir: &Path, device: u64, levels: u32) -> Result<()> {
        let reachable = spaces.reachable(&RawPath::from_path(dir));
        // Who cannot be listed has nothing that we would know of.
        let entries = std::fs::read_dir(&reachable).into_iter().flatten().flatten();
        let names = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        for name in names.map(|entry| entry.file_name()).take(MOST_BELOW) {
            let below = dir.join(name);
            let raw = RawPath::from_path(&below);
            // Removed since it was listed: others may be at work there.
            let Ok(here) = stat_of(spaces, &below) else { continue };
            if self.0.contains_key(&raw) || here.st_dev != device {
                continue;
            }
            self.note(spaces, raw, &here)?;
            if levels > 1 {
                self.note_below(spaces, &below, device, levels - 1)?;
            }
        }
        Ok(())
    }

    pub fn note(&mut self, spaces: &Spaces, path: RawPath, stat: &FileStat) -> Result<()> {
        let xattrs = xattr::all(&spaces.reachable(&path))
            .map_err(|e| Error::kernel("read extended attributes", &path, e))?;
        let dir = VolatileDirV1 {
            path: path.clone(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            xattrs,
        };
        self.0.insert(path, dir);
        Ok(())
    }

    /// Of all that are kept, parents first.
    pub fn paths(&self) -> impl Iterator<Item = &RawPath> {
        self.0.keys()
    }

    pub fn into_list(self) -> Vec<VolatileDirV1> {
        self.0.into_values().collect()
    }
}

pub(super) fn stat_of(spaces: &Spaces, path: &Path) -> Result<FileStat> {
    let reachable = spaces.reachable(&RawPath::from_path(path));
    fstatat(nix::fcntl::AT_FDCWD, &reachable, AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(|e| Error::kernel("stat", path.display(), e))
}
