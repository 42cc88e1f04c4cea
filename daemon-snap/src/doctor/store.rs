//! Where images are kept: whether they are safe there, survive, fit, and are there when the
//! generator looks.

use super::finding::{Finding, Seen};
use super::machine::is_on;
use image_store::Store;
use image_store::evidence::Scope;
use nix::sys::statfs::{self, FsType, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use procfs::process::{MountInfo, MountInfos};
use procfs::{Current as _, FromRead as _};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// File systems that a reboot empties.
const VOLATILE: [(FsType, &str); 2] = [(statfs::TMPFS_MAGIC, "tmpfs"), (RAMFS_MAGIC, "ramfs")];
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

pub(super) fn examine(store: &Path, root: &Path) -> Vec<Finding> {
    let place = existing(store);
    vec![
        Finding::necessary(
            "store-permissions",
            permissions(store),
            "images hold all that services have in memory, keys and passwords too: others could read or replace them",
        ),
        Finding::necessary(
            "store-catalogue",
            catalogue(store),
            "every service starts cold, and no snapshot can be stored; `fastboot remove --all` sets a damaged one aside",
        ),
        Finding::useful("store-writable", writable(&place), "images are used, but no snapshot can be stored"),
        Finding::necessary("store-survives", survives(&place), "images are gone after a reboot"),
        Finding::useful(
            "store-at-boot",
            at_boot(&place, root),
            "unless the initial RAM disk mounts it (x-initrd.mount), the generator finds no images: every service starts cold",
        ),
        Finding::useful(
            "store-space",
            space(&place),
            "a snapshot of all services may not fit; what does not fit is not stored, and the services go on",
        ),
        Finding::useful(
            "store-leftovers",
            leftovers(store),
            "they take space; the next snapshot, boot or `fastboot remove` removes them",
        ),
        Finding::useful("store-dax", dax(&place), "images are read, not mapped")
            .but("not used by this version, which reads with preadv(2)"),
    ]
}

/// The store, or what it will be made in.
fn existing(store: &Path) -> PathBuf {
    store.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn permissions(store: &Path) -> Seen {
    let metadata = match fs::symlink_metadata(store) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(format!("{} is made by the first snapshot", store.display()));
        }
        Err(error) => return Err(format!("{}: {error}", store.display())),
        Ok(metadata) => metadata,
    };
    let (mode, uid) = (metadata.mode() & 0o7777, metadata.uid());
    let what = format!("{} is {mode:o}, of uid {uid}", store.display());
    // The question of boots and snapshots.
    match Store::open(store).require_trust() {
        Ok(()) if uid == 0 && mode & 0o077 != 0 => Ok(format!("{what}; the next snapshot makes it 700")),
        Ok(()) if uid == 0 => Ok(what),
        _ => Err(format!("{what}; it has to be a directory of root's that nobody else may write to")),
    }
}

fn catalogue(store: &Path) -> Seen {
    let catalogue = Store::open(store).load().map_err(|error| error.to_string())?;
    let images = catalogue.newest_images();
    let golden = images.iter().filter(|(_, entry)| entry.machine.scope() == Scope::EqualMachines).count();
    let of = match images.len() {
        0 => return Ok("no images so far".to_owned()),
        1 => "images of one service".to_owned(),
        count => format!("images of {count} services"),
    };
    Ok(match golden {
        0 => of,
        golden => format!("{of}, {golden} golden (for all machines equal to the one that made them)"),
    })
}

/// A snapshot that works right now has not left anything yet.
fn leftovers(store: &Path) -> Seen {
    let store = Store::open(store);
    let bytes = match store.is_locked() {
        Ok(true) => 0,
        _ => store.leftover_bytes().unwrap_or(0),
    };
    match bytes {
        0 => Ok("no parts of images".to_owned()),
        bytes => Err(format!("{} MB of a snapshot that was killed", bytes.div_ceil(1_000_000))),
    }
}

fn writable(place: &Path) -> Seen {
    let flags = statvfs(place).map_err(|e| format!("{}: {}", place.display(), e.desc()))?.flags();
    match flags.contains(FsFlags::ST_RDONLY) {
        true => Err(format!("{} is mounted read-only", place.display())),
        false => Ok("not mounted read-only".to_owned()),
    }
}

fn survives(place: &Path) -> Seen {
    statfs(place).map_err(|e| format!("{}: {}", place.display(), e.desc()))?;
    match volatile_file_system(place) {
        Some(name) => Err(format!("{} is on {name}", place.display())),
        None => Ok(format!("{} is on a file system that stays", place.display())),
    }
}

/// The kind of file system that a path is on, where a reboot empties it.
pub fn volatile_file_system(path: &Path) -> Option<&'static str> {
    let kind = statfs(path).ok()?.filesystem_type();
    VOLATILE.iter().find(|(volatile, _)| *volatile == kind).map(|(_, name)| *name)
}

fn at_boot(place: &Path, root: &Path) -> Seen {
    match is_on(root, place) {
        Ok(true) => Ok("on the root file system".to_owned()),
        Ok(false) => Err("on a file system of its own, which is mounted after the generator".to_owned()),
        Err(error) => Err(format!("{}: {error}", place.display())),
    }
}

/// The generation before is kept beside a new one, so there must be room for two of the largest
/// kind: everything that is in anonymous memory now.
fn space(place: &Path) -> Seen {
    let free = statvfs(place).map_err(|e| format!("{}: {}", place.display(), e.desc()))?;
    let free_bytes = free.blocks_available() * free.fragment_size();
    let needed_bytes = 2 * anonymous_bytes();
    let found = format!("{} MB free", free_bytes / 1_000_000);
    match free_bytes >= needed_bytes {
        true => Ok(found),
        false => {
            Err(format!("{found}; two images of all memory in use would be {} MB", needed_bytes / 1_000_000))
        }
    }
}

fn anonymous_bytes() -> u64 {
    procfs::Meminfo::current().ok().and_then(|memory| memory.anon_pages).unwrap_or(0)
}

/// Whether files there are accessed without a page cache, as on persistent memory.
fn dax(place: &Path) -> Seen {
    let mounts = MountInfos::from_file("/proc/self/mountinfo").map_err(|e| e.to_string())?;
    match mount_of(&mounts, &fs::canonicalize(place).unwrap_or_else(|_| place.to_owned())) {
        Some(mount) if is_dax(mount) => Ok("mounted with DAX".to_owned()),
        Some(_) => Err("not mounted with DAX".to_owned()),
        None => Err("its mount is not to be seen".to_owned()),
    }
}

/// The mount that `path` is on. Of two at one place the later one is seen.
fn mount_of<'a>(mounts: &'a MountInfos, path: &Path) -> Option<&'a MountInfo> {
    let above = mounts.0.iter().filter(|mount| path.starts_with(&mount.mount_point));
    above.max_by_key(|mount| mount.mount_point.as_os_str().len())
}

fn is_dax(mount: &MountInfo) -> bool {
    let value = mount.super_options.get("dax").map(|value| value.as_deref());
    matches!(value, Some(None | Some("always")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_store_that_others_may_write_to_is_not_fit() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("fastboot");
        assert!(permissions(&store).is_ok(), "it is made later");
        fs::create_dir(&store).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).unwrap();
        // Whoever runs this test has made it; only root's is fit.
        assert_eq!(permissions(&store).is_ok(), nix::unistd::geteuid().is_root());
        fs::set_permissions(&store, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            permissions(&store).is_ok_and(|said| said.contains("is 755") && said.contains("makes it 700")),
            nix::unistd::geteuid().is_root()
        );
        fs::set_permissions(&store, fs::Permissions::from_mode(0o770)).unwrap();
        assert!(permissions(&store).unwrap_err().contains("is 770"));
    }

    #[test]
    fn a_damaged_catalogue_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert!(catalogue(&dir.path().join("later")).is_ok());
        assert!(catalogue(dir.path()).is_ok());
        fs::write(dir.path().join("catalogue.json"), "{}").unwrap();
        assert!(catalogue(dir.path()).unwrap_err().contains("damaged"));
    }

    #[test]
    fn a_store_in_memory_does_not_survive() {
        assert!(survives(Path::new("/dev/shm")).unwrap_err().ends_with("tmpfs"));
        assert!(survives(Path::new(env!("CARGO_MANIFEST_DIR"))).is_ok());
        assert!(at_boot(Path::new("/dev/shm"), Path::new("/")).is_err());
    }

    #[test]
    fn the_options_are_those_of_the_innermost_mount() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      30 22 259:0 / /var/lib rw,noatime shared:9 - ext4 /dev/pmem0 rw,dax=always\n\
                      31 22 259:1 / /var/lib/other rw - ext4 /dev/pmem1 rw\n\
                      32 22 259:2 / /var/lib/never rw - ext4 /dev/pmem2 rw,dax=never\n";
        let mounts = MountInfos::from_read(mounts.as_bytes()).unwrap();
        let dax_at = |path: &str| is_dax(mount_of(&mounts, Path::new(path)).unwrap());
        assert!(dax_at("/var/lib/fastboot"));
        assert!(!dax_at("/var/lib/other/x"));
        assert!(!dax_at("/var/library"));
        assert!(!dax_at("/var/lib/never/x"));
    }
}
