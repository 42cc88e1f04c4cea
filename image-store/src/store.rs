//! The store on disk: a directory with a catalogue, the images of its generations, and the
//! quarantine.
//!
//! ```text
//! /var/lib/fastboot/            0700
//!   lock                        flock(2): one snapshot at a time
//!   catalogue.json              replaced by rename, which is the only commit
//!   images/<generation>/        0700
//!     redis-server.service.img  0600
//!   quarantine/<image id>.json  written at boot, never part of the catalogue
//! ```

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::catalogue::{Catalogue, CatalogueEntry, Generation, MAX_CATALOGUE_LEN, is_inside_store};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::mountinfo::{self, Mount};
use crate::publish::{publish, sync_dir};
use crate::quarantine::read_bounded;
use crate::reader::{UncheckedImage, require_private};

/// Where the store is unless told otherwise.
pub const DEFAULT_ROOT: &str = "/var/lib/fastboot";

/// Longest unit name that is used as a file name; with `.img` it stays below every file system's
/// limit.
const MAX_UNIT_FILE_NAME: usize = 200;

/// A store directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Where its catalogue is copied to when it is not on the root file system: generators run
    /// before anything else is mounted.
    early: Option<PathBuf>,
}

/// Held while a snapshot changes the store; released when dropped.
#[derive(Debug)]
pub struct StoreLock {
    _file: Flock<File>,
}

/// A generation that is being filled. Dropped without [`commit`](PendingGeneration::commit), it
/// leaves nothing.
#[derive(Debug)]
pub struct PendingGeneration {
    store: Store,
    id: u64,
    committed: bool,
}

impl Store {
    /// Name a store. Nothing is created or read; a store that is not there is an empty one.
    pub fn open(root: impl Into<PathBuf>) -> Store {
        Store { root: root.into(), early: None }
    }

    /// The same store with a place for the copy of its catalogue. Whoever opens the store of a boot
    /// asks `fastboot_runtime::open_store`, which knows that place.
    #[must_use]
    pub fn with_early_copy(self, path: impl Into<PathBuf>) -> Store {
        Store { early: Some(path.into()), ..self }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Path of `catalogue.json`.
    pub fn catalogue_path(&self) -> PathBuf {
        self.root.join("catalogue.json")
    }

    /// Absolute path of an image of the catalogue.
    pub fn image_file(&self, entry: &CatalogueEntry) -> PathBuf {
        self.root.join(&entry.file)
    }

    /// Open the image of an entry, and compare length and id with it. Header and section table are
    /// checked.
    ///
    /// # Errors
    /// As [`UncheckedImage::open`] and [`UncheckedImage::check`]; [`Error::Corrupt`] for another
    /// image than the one in the catalogue.
    pub fn open_image(&self, entry: &CatalogueEntry) -> Result<crate::Image> {
        let path = self.image_file(entry);
        let image =
            UncheckedImage::open_below(&self.open_root()?, Path::new(&entry.file), path.clone())?.check()?;
        if image.id() != entry.image_id {
            let what = format!("image id is {}, the catalogue says {}", image.id(), entry.image_id);
            return Err(Error::corrupt(&path, crate::Part::Header, 0, what));
        }
        Ok(image)
    }

    /// The directory itself, which may be no link, has to belong to us or to root, and to be closed
    /// to everybody else.
    fn open_root(&self) -> Result<File> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_PATH;
        let root = OpenOptions::new().read(true).custom_flags(flags).open(&self.root);
        let root = root.map_err(|source| Error::io(&self.root, "open", source))?;
        let metadata = root.metadata().map_err(|source| Error::io(&self.root, "examine", source))?;
        require_private(&metadata, &self.root)?;
        Ok(root)
    }

    /// Whether a boot would use what is in it: root's or ours, and nobody else can have put
    /// anything there. One that is not there yet will be made so.
    ///
    /// # Errors
    /// [`Error::Io`] with owner and mode.
    pub fn require_trust(&self) -> Result<()> {
        match self.open_root() {
            Err(Error::Gone { .. }) => Ok(()),
            opened => opened.map(drop),
        }
    }

    /// Wait for no one: take the lock, or say who holds it. Creates the store when it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn lock(&self) -> Result<StoreLock> {
        create_private_dir(&self.root)?;
        self.require_trust()?;
        // It may have been made by someone with another umask.
        let is_private = |metadata: fs::Metadata| metadata.permissions().mode() & 0o777 == 0o700;
        if !fs::metadata(&self.root).is_ok_and(is_private) {
            let private = fs::set_permissions(&self.root, Permissions::from_mode(0o700));
            private.map_err(|source| Error::io(&self.root, "make private", source))?;
        }
        let path = self.root.join("lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|source| Error::io(&path, "open", source))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // Only for those who ask who holds it: a disk that is full keeps nobody out.
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                Ok(StoreLock { _file: file })
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                let holder = fs::read_to_string(&path).ok().and_then(|pid| pid.trim().parse().ok());
                Err(Error::Locked { path, pid: holder })
            }
            Err((_, errno)) => Err(Error::io(&path, "lock", errno.into())),
        }
    }

    /// Whether somebody holds the lock right now.
    ///
    /// # Errors
    /// [`Error::Io`]. A store without a lock file has never been locked.
    pub fn is_locked(&self) -> Result<bool> {
        let path = self.root.join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(Error::io(&path, "open", source)),
        };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(Error::io(&path, "lock", errno.into())),
        }
    }

    /// Read the catalogue. A store without one is empty.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub fn load(&self) -> Result<Catalogue> {
        load_from(&self.catalogue_path())
    }

    /// Move a damaged catalogue out of the way, so that a new snapshot can be published, and remove
    /// its images, which nobody can tell apart any more. Returns where it went, or `None` when the
    /// catalogue is not damaged. Hold the lock.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_aside_damaged_catalogue(&self) -> Result<Option<PathBuf>> {
        match self.load() {
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(None),
        }
        let path = self.catalogue_path();
        let aside = self.root.join("catalogue.json.damaged");
        fs::rename(&path, &aside).map_err(|source| Error::io(&path, "set aside", source))?;
        sync_dir(&path).map_err(|source| Error::io(&path, "sync directory of", source))?;
        // The newest number stays in use, so that it is not given out again.
        let newest = self.generation_dirs().ok().and_then(|ids| ids.into_iter().max());
        self.remove_unreferenced(&Catalogue::default(), newest);
        Ok(Some(aside))
    }

    /// Start a generation: allocates its number and makes its directory. Hold the lock until it is
    /// committed.
    ///
    /// # Errors
    /// As [`load`](Store::load); [`Error::NoSpace`].
    pub fn begin_generation(&self) -> Result<PendingGeneration> {
        let catalogue = self.load()?;
        let images = self.images_dir();
        create_private_dir(&self.root)?;
        create_private_dir(&images)?;
        let in_catalogue = catalogue.generations.iter().map(|generation| generation.id).max().unwrap_or(0);
        // A directory without a generation was left by a crash; its number is skipped rather than
        // reused, and what is in it is room for what follows.
        let on_disk = self.generation_dirs()?.into_iter().max().unwrap_or(0);
        let id = in_catalogue.max(on_disk) + 1;
        self.remove_unreferenced(&catalogue, Some(on_disk));
        let pending = PendingGeneration { store: self.clone(), id, committed: false };
        let dir = pending.dir();
        fault::point("store.begin").map_err(|source| Error::io(&dir, "create", source))?;
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|source| Error::write(&dir, "create", 0, 0, source))?;
        Ok(pending)
    }

    /// Remove all images of a unit. Returns whether there were any. Hold the lock.
    ///
    /// On a disk that is full the images go before the catalogue that does without them is written:
    /// a boot that finds one without the other starts the unit cold, which is what was asked for.
    ///
    /// # Errors
    /// As [`load`](Store::load); [`Error::NoSpace`] where even that makes no room.
    pub fn remove(&self, unit: &str) -> Result<bool> {
        let before = self.load()?;
        let mut catalogue = before.clone();
        if !catalogue.remove(unit) {
            return Ok(false);
        }
        match self.publish_catalogue(&catalogue) {
            Err(Error::NoSpace { .. }) => {
                self.remove_unreferenced(&before, None);
                let images = before.generations.iter().filter_map(|generation| generation.image(unit));
                for file in images.map(|entry| self.image_file(entry)) {
                    remove_logged(&file, fs::remove_file(&file));
                }
                self.publish_catalogue(&catalogue)?;
            }
            published => published?,
        }
        self.remove_unreferenced(&catalogue, None);
        Ok(true)
    }

    /// Remove all images of all units, and the catalogue with them: a store without one is empty.
    /// That takes no space, so it can be done on a disk that is full. Hold the lock.
    ///
    /// # Errors
    /// [`Error::Io`]. Before the catalogue is gone nothing has changed.
    pub fn remove_all(&self) -> Result<()> {
        let files = [Some(self.catalogue_path()), self.early.clone(), Some(self.refresh_path())];
        for path in files.into_iter().flatten() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                removed => removed.map_err(|source| Error::io(&path, "remove", source))?,
            }
            sync_dir(&path).map_err(|source| Error::io(&path, "sync directory of", source))?;
        }
        // The newest number stays in use, so that it is not given out again.
        let newest = self.generation_dirs().ok().and_then(|ids| ids.into_iter().max());
        self.remove_unreferenced(&Catalogue::default(), newest);
        match self.once().is_there() {
            true => self.once().begin(),
            false => Ok(()),
        }
    }

    /// Bytes in images that no generation refers to. While somebody holds the lock that is what is
    /// being written; else a snapshot was killed over it.
    ///
    /// # Errors
    /// As [`load`](Store::load).
    pub fn leftover_bytes(&self) -> Result<u64> {
        let catalogue = self.load()?;
        let images = catalogue.generations.iter().flat_map(|generation| &generation.images);
        let files: BTreeSet<PathBuf> = images.map(|image| self.image_file(image)).collect();
        let found = list(&self.images_dir()).into_iter().flat_map(|dir| list(&dir));
        let left = found.filter(|file| !files.contains(file));
        Ok(left.filter_map(|file| Some(fs::symlink_metadata(file).ok()?.len())).sum())
    }

    /// Remove what a snapshot that was killed has left. Hold the lock.
    ///
    /// # Errors
    /// As [`load`](Store::load). What cannot be removed now goes next time.
    pub fn sweep(&self) -> Result<()> {
        let catalogue = self.load()?;
        // The number of an empty directory stays in use.
        let newest = self.generation_dirs().unwrap_or_default().into_iter().max();
        self.remove_unreferenced(&catalogue, newest);
        Ok(())
    }

    fn publish_catalogue(&self, catalogue: &Catalogue) -> Result<()> {
        let path = self.catalogue_path();
        let bytes = catalogue.encode(&path)?;
        publish(&path, &bytes, "catalogue")?;
        // What was committed stays so: a copy that is older only names images that are not found
        // any more.
        if let Err(error) = self.copy_early(&bytes) {
            tracing::debug!(%error, "no copy of the catalogue for the generator");
        }
        Ok(())
    }

    fn copy_early(&self, bytes: &[u8]) -> Result<()> {
        let Some(early) = &self.early else { return Ok(()) };
        if !self.is_mounted_late() {
            return match fs::remove_file(early) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Error::io(early, "remove", error))
                }
                _ => Ok(()),
            };
        }
        create_private_dir(early.parent().unwrap_or(Path::new("/")))?;
        publish(early, bytes, "early-catalogue")
    }

    /// Whether the store is on another mount than the root directory.
    pub fn is_mounted_late(&self) -> bool {
        let mounts = mountinfo::parse(&fs::read("/proc/self/mountinfo").unwrap_or_default());
        let root = fs::canonicalize(&self.root).unwrap_or_else(|_| self.root.clone());
        is_below_a_mount(&mounts, &root)
    }

    /// The catalogue as far as it can be seen before other file systems than the root are mounted.
    ///
    /// # Errors
    /// As [`load`](Store::load).
    pub fn load_early(&self) -> Result<Catalogue> {
        if self.catalogue_path().exists() {
            return self.load();
        }
        match &self.early {
            Some(early) => load_from(early),
            None => Ok(Catalogue::default()),
        }
    }

    /// Whether a generator would find in the copy what is in the catalogue; true where no copy is
    /// needed.
    ///
    /// # Errors
    /// As [`load`](Store::load).
    pub fn is_seen_early(&self, entry: &CatalogueEntry) -> Result<bool> {
        match &self.early {
            Some(early) if self.is_mounted_late() => {
                Ok(load_from(early)?.by_image_id(entry.image_id).is_some())
            }
            _ => Ok(true),
        }
    }

    fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    fn generation_dirs(&self) -> Result<Vec<u64>> {
        let dir = self.images_dir();
        let fail = |source| Error::io(&dir, "list", source);
        let entries = fs::read_dir(&dir).map_err(fail)?.collect::<io::Result<Vec<_>>>().map_err(fail)?;
        Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    /// Remove image files, generation directories, leftovers of crashes and failure records that
    /// `catalogue` does not refer to. The commit has happened: what cannot be removed now goes next
    /// time.
    fn remove_unreferenced(&self, catalogue: &Catalogue, keep_dir: Option<u64>) {
        let images: Vec<&CatalogueEntry> = catalogue.generations.iter().flat_map(|g| &g.images).collect();
        let files: BTreeSet<PathBuf> = images.iter().map(|image| self.image_file(image)).collect();
        for dir in list(&self.images_dir()) {
            for file in list(&dir) {
                if !files.contains(&file) {
                    remove_logged(&file, fs::remove_file(&file));
                }
            }
            let is_kept = keep_dir.is_some_and(|id| dir == self.generation_dir(id));
            if list(&dir).is_empty() && !is_kept {
                remove_logged(&dir, fs::remove_dir(&dir));
            }
        }
        let ids: BTreeSet<String> = images.iter().map(|image| format!("{}.json", image.image_id)).collect();
        for record in list(&self.quarantine_dir()) {
            // Temporary files here may belong to a boot that is writing one right now.
            let name = record.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".json") && !ids.contains(name) {
                remove_logged(&record, fs::remove_file(&record));
            }
        }
        for file in list(&self.root) {
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(crate::publish::TEMPORARY_PREFIX) {
                remove_logged(&file, fs::remove_file(&file));
            }
        }
    }

    fn generation_dir(&self, id: u64) -> PathBuf {
        self.images_dir().join(id.to_string())
    }
}

impl PendingGeneration {
    /// Number of the generation.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its directory.
    pub fn dir(&self) -> PathBuf {
        self.store.generation_dir(self.id)
    }

    /// Where the image of `unit` belongs: give this to
    /// [`ImageWriter::create`](crate::ImageWriter::create).
    ///
    /// # Errors
    /// [`Error::Misuse`] for a name that is not a unit name.
    pub fn image_path(&self, unit: &str) -> Result<PathBuf> {
        Ok(self.store.root.join(self.relative_path(unit)?))
    }

    /// The same path relative to the store, as it goes into [`CatalogueEntry::file`].
    ///
    /// # Errors
    /// [`Error::Misuse`] for a name that is not a unit name.
    pub fn relative_path(&self, unit: &str) -> Result<String> {
        let name = unit_file_name(unit)
            .ok_or_else(|| Error::misuse(&self.dir(), format!("{unit:?} is not the name of a unit")))?;
        Ok(format!("images/{}/{name}.img", self.id))
    }

    /// Publish. `entries` are the images that were written for this generation; units without a new
    /// image keep the one they have. The generation before stays, older ones and files that nobody
    /// refers to are removed.
    ///
    /// # Errors
    /// [`Error::Misuse`] for an entry twice, or one whose file is not what it says;
    /// [`Error::NoSpace`], [`Error::Io`]. Unless the failure is the very last directory sync, the
    /// old catalogue is in force, and the new images are removed.
    pub fn commit(mut self, entries: Vec<CatalogueEntry>) -> Result<Generation> {
        let mut units = BTreeSet::new();
        for entry in &entries {
            self.check_entry(entry)?;
            if !units.insert(entry.unit.as_str()) {
                return Err(Error::misuse(&self.dir(), format!("{} has two images", entry.unit)));
            }
        }
        let mut catalogue = self.store.load()?;
        if catalogue.generations.iter().any(|generation| generation.id >= self.id) {
            return Err(Error::misuse(&self.dir(), "another snapshot was published meanwhile"));
        }
        // The names of images and of their directory must be on disk before the catalogue mentions
        // them.
        for path in [self.dir().join("."), self.dir(), self.store.images_dir()] {
            sync_dir(&path).map_err(|source| Error::io(&path, "sync directory of", source))?;
        }
        let created_unix_s = crate::now_unix_s();
        catalogue.add_generation(self.id, created_unix_s, entries);
        let published = self.store.publish_catalogue(&catalogue);
        // A failed sync after the rename leaves the new catalogue in place: its images must stay
        // then. So they must when nobody can say.
        let is_in_force =
            |on_disk: Catalogue| on_disk.generations.iter().any(|generation| generation.id == self.id);
        self.committed = published.is_ok() || self.store.load().map_or(true, is_in_force);
        published?;
        self.store.remove_unreferenced(&catalogue, Some(self.id));
        catalogue.generations.pop().ok_or_else(|| Error::misuse(&self.dir(), "nothing was published"))
    }

    fn check_entry(&self, entry: &CatalogueEntry) -> Result<()> {
        let path = self.store.image_file(entry);
        if !is_inside_store(&entry.file) || entry.file != self.relative_path(&entry.unit)? {
            return Err(Error::misuse(
                &path,
                format!("not the place of {} in generation {}", entry.unit, self.id),
            ));
        }
        let image = self.store.open_image(entry)?;
        if image.len_bytes() != entry.len_bytes {
            return Err(Error::misuse(&path, "length differs from the catalogue entry"));
        }
        Ok(())
    }
}

impl Drop for PendingGeneration {
    fn drop(&mut self) {
        if !self.committed {
            let dir = self.dir();
            remove_logged(&dir, fs::remove_dir_all(&dir));
        }
    }
}

/// The name of a unit as a part of a file name; `None` where it is not the name of one.
pub(crate) fn unit_file_name(unit: &str) -> Option<String> {
    let is_unit_byte = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    let is_unit_name = !unit.is_empty() && !unit.starts_with('.') && unit.bytes().all(is_unit_byte);
    is_unit_name.then(|| match unit.len() <= MAX_UNIT_FILE_NAME {
        true => unit.to_owned(),
        false => format!("{}-{}", &unit[..100], Digest::of(unit.as_bytes())),
    })
}

/// Make a directory of mode 0700, with its parents, unless it is there.
pub(crate) fn create_private_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| Error::write(dir, "create", 0, 0, source))
}

fn load_from(path: &Path) -> Result<Catalogue> {
    match read_bounded(path, MAX_CATALOGUE_LEN) {
        Ok(bytes) => Catalogue::decode(&bytes, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Catalogue::default()),
        Err(error) => Err(Error::io(path, "read", error)),
    }
}

fn is_below_a_mount(mounts: &[Mount], path: &Path) -> bool {
    mounts.iter().any(|mount| mount.point != Path::new("/") && path.starts_with(&mount.point))
}

/// What is in a directory; nothing where it cannot be read.
pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}

fn remove_logged(path: &Path, removed: io::Result<()>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(path = %path.display(), %error, "not removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_between_the_root_and_the_store_is_found() {
        let mounts = "21 1 0:20 / / rw - ext4 /dev/a rw\n22 21 0:21 / /var rw - ext4 /dev/b rw\n\
                      23 21 0:22 / /run rw - tmpfs tmpfs rw\n";
        let mounts = &mountinfo::parse(mounts.as_bytes());
        assert!(is_below_a_mount(mounts, Path::new("/var/lib/fastboot")));
        assert!(!is_below_a_mount(mounts, Path::new("/srv/fastboot")));
        assert!(!is_below_a_mount(mounts, Path::new("/variable")));
    }

    #[test]
    fn the_copy_is_only_looked_at_where_there_is_no_catalogue() {
        let dir = tempfile::tempdir().unwrap();
        let early = dir.path().join("etc/catalogue.json");
        fs::create_dir_all(early.parent().unwrap()).unwrap();
        let store = Store::open(dir.path().join("store")).with_early_copy(&early);
        assert_eq!(store.load_early().unwrap(), Catalogue::default());
        fs::write(&early, "nonsense").unwrap();
        store.load_early().unwrap_err();
        fs::create_dir_all(store.root()).unwrap();
        let empty = Catalogue::default();
        fs::write(store.catalogue_path(), empty.encode(&early).unwrap()).unwrap();
        assert_eq!(store.load_early().unwrap(), empty);
    }
}
