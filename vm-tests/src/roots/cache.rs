//! Built roots, by recipe, and copies of them that a test may change as it likes.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::archive::sources_of;
use super::{CACHE_DIR, Recipe};
use crate::container::run_in_root;
use crate::needs;

/// Longest that a setup script may take.
const SETUP_BOUND: Duration = Duration::from_secs(300);
/// Roots of one name that stay, those that were used last: work trees side by side have recipes of
/// their own.
const KEPT_PER_NAME: usize = 2;
/// A root that was used since then stays in any case.
const IN_USE: Duration = Duration::from_secs(86_400);
/// A root that was not used since then goes in any case: nothing has its name any more.
const FORGOTTEN: Duration = Duration::from_secs(30 * 86_400);

/// The root that `recipe` describes; built now if it is not there yet. Not to be changed: boot a
/// [`Scratch`].
///
/// # Errors
/// Building fails: no network, a package that does not exist, a setup script that fails.
pub fn cached(recipe: &Recipe) -> Result<PathBuf> {
    let roots = Path::new(CACHE_DIR).join("roots");
    fs::create_dir_all(&roots).with_context(|| format!("making {}", roots.display()))?;
    let root = roots.join(recipe.key());
    // Held while building, so that two runs build a root once; released with the process whatever
    // happens.
    let _lock = lock(&roots.join(format!("{}.lock", recipe.key())))?;
    if root.exists() {
        return Ok(root);
    }
    let started = Instant::now();
    eprintln!(
        "building the {} root ({} packages of Debian {})",
        recipe.name,
        recipe.packages.len(),
        recipe.suite
    );
    let building = roots.join(format!("{}.building", recipe.key()));
    remove_tree(&building)?;
    build(recipe, &building).with_context(|| format!("building the {} root", recipe.name))?;
    fs::rename(&building, &root).with_context(|| format!("renaming {}", building.display()))?;
    eprintln!("built in {:.0} s: {}", started.elapsed().as_secs_f64(), root.display());
    Ok(root)
}

/// Opening it also notes in its modification time that the root was used.
pub(super) fn lock(path: &Path) -> Result<Flock<File>> {
    loop {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let file = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .with_context(|| format!("locking {}", path.display()))?;
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether the path still leads to this file: who removes a root removes its lock with it.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
    Ok(fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
}

/// Remove roots that no recipe of today asks for, as far as that can be told from when they were
/// used.
fn prune(roots: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(roots) else { return Ok(()) };
    let mut used = Vec::new();
    for entry in entries {
        let entry = entry.context("listing roots")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(key) = name.strip_suffix(".lock") {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            // It has just been removed by another run.
            let Ok(modified) = modified else { continue };
            used.push((key.to_owned(), modified));
        }
    }
    for key in outdated(used, SystemTime::now()) {
        let path = roots.join(format!("{key}.lock"));
        // Not `lock`: this is no use. Who holds it builds.
        let Ok(file) = File::open(&path) else { continue };
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { continue };
        if !is_at(&lock, &path)? {
            continue;
        }
        eprintln!("removing the root {key}, which was not used for a while");
        let building = roots.join(format!("{key}.building"));
        remove_tree(&building)?;
        // Half a root must never have its name.
        if fs::rename(roots.join(&key), &building).is_ok() {
            remove_tree(&building)?;
        }
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// Which roots go, of these keys and when each was used last.
fn outdated(mut used: Vec<(String, SystemTime)>, now: SystemTime) -> Vec<String> {
    used.sort_by_key(|(_, last)| std::cmp::Reverse(*last));
    let mut seen: HashMap<String, usize> = HashMap::new();
    used.retain(|(key, last)| {
        let name = key.rsplit_once('-').map_or(key.as_str(), |(name, _)| name);
        let rank = seen.entry(name.to_owned()).or_default();
        *rank += 1;
        // A clock that was set back: used just now.
        let unused = now.duration_since(*last).unwrap_or_default();
        unused > FORGOTTEN || (*rank > KEPT_PER_NAME && unused > IN_USE)
    });
    used.into_iter().map(|(key, _)| key).collect()
}

fn build(recipe: &Recipe, into: &Path) -> Result<()> {
    let from_sid = recipe.from_sid.iter().map(|package| format!("{package}/sid"));
    let packages: Vec<String> =
        recipe.packages.iter().map(|&package| package.to_owned()).chain(from_sid).collect();
    let mut mmdebstrap = needs::command("mmdebstrap")?;
    mmdebstrap.args(["--variant=minbase", "--mode=root", "--quiet"]);
    let mut sources = sources_of(recipe.suite)?;
    if !recipe.from_sid.is_empty() {
        mmdebstrap.arg(format!("--aptopt=APT::Default-Release \"{}\"", recipe.suite));
        sources.push_str(&sources_of("sid")?);
    }
    let include = format!("--include={}", packages.join(","));
    let output = with_sources(mmdebstrap.args([&include, recipe.suite]).arg(into), &sources)?;
    if !output.status.success() {
        bail!("mmdebstrap: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    for file in &recipe.files {
        write_file(&into.join(file.path.trim_start_matches('/')), &file.content, file.mode)?;
    }
    run_in_root(into, &[], recipe.setup, SETUP_BOUND).context("setup script")?;
    Ok(())
}

/// Run mmdebstrap, which has everything but apt's sources in its arguments.
pub(super) fn with_sources(mmdebstrap: &mut Command, sources: &str) -> Result<Output> {
    let mut child = mmdebstrap
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("running mmdebstrap")?;
    let mut stdin = child.stdin.take().context("no pipe to mmdebstrap")?;
    let passed = stdin.write_all(sources.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().context("waiting for mmdebstrap")?;
    // It may have ended before it read them, and then says why.
    if output.status.success() {
        passed.context("passing apt's sources")?;
    }
    Ok(output)
}

/// Remove copies that runs left which did not end by themselves, and roots that were not used for
/// long. Kept copies stay.
///
/// # Errors
/// A directory cannot be read, or a copy or root cannot be removed.
pub fn sweep() -> Result<()> {
    prune(&Path::new(CACHE_DIR).join("roots"))?;
    let Ok(machines) = fs::read_dir(Path::new(CACHE_DIR).join("machines")) else {
        return Ok(());
    };
    for entry in machines {
        let entry = entry.context("listing copies of roots")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // nspawn's own lock of a copy, which it leaves when it is killed.
        let of_nspawn = name.strip_prefix(".#").and_then(|name| name.strip_suffix(".lck"));
        let pid = of_nspawn.unwrap_or(&name).rsplit('-').next().and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_none_or(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            continue;
        }
        match of_nspawn {
            // Another run may have been quicker.
            Some(_) => drop(fs::remove_file(entry.path())),
            None => remove_tree(&entry.path())?,
        }
    }
    Ok(())
}

/// A copy of a root that keeps what boots do to it, and is removed when dropped unless it is to be
/// kept.
///
/// A plain copy and not an overlay: fastboot compares inodes, and daemons see device and inode
/// numbers in /proc/PID/maps, which an overlay shows otherwise than a disk does. Copying costs 1.5
/// s for 480 MB.
#[derive(Debug)]
pub struct Scratch {
    dir: PathBuf,
    kept: bool,
}

impl Scratch {
    /// Copy `root`.
    ///
    /// # Errors
    /// No space; the copy fails.
    pub fn copy_of(root: &Path, name: &str) -> Result<Scratch> {
        let machines = Path::new(CACHE_DIR).join("machines");
        fs::create_dir_all(&machines).with_context(|| format!("making {}", machines.display()))?;
        static COPIES: AtomicU32 = AtomicU32::new(0);
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let dir = machines.join(format!("{name}-{number}-{}", std::process::id()));
        remove_tree(&dir)?;
        let scratch = Scratch { dir, kept: false };
        let status = needs::command("cp")?
            .args(["-a", "--reflink=auto"])
            .arg(root)
            .arg(&scratch.dir)
            .status()
            .context("running cp")?;
        if !status.success() {
            bail!("copying {} to {} failed", root.display(), scratch.dir.display());
        }
        Ok(scratch)
    }

    /// A copy that an earlier run has kept; it stays.
    pub fn kept(dir: PathBuf) -> Scratch {
        Scratch { dir, kept: true }
    }

    /// The copy.
    pub fn root(&self) -> &Path {
        &self.dir
    }

    /// A path inside the copy, from its absolute path there. Follows no symbolic links.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.join(inside.trim_start_matches('/'))
    }

    /// Write a file, with the directories that it needs.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, inside: &str, content: &str, mode: u32) -> Result<()> {
        write_file(&self.path(inside), content.as_bytes(), mode)
    }

    /// Leave the copy, under a name that [`sweep`] does not touch; returns where it is.
    ///
    /// # Errors
    /// Renaming fails.
    pub fn keep(mut self) -> Result<PathBuf> {
        if self.kept {
            return Ok(self.dir.clone());
        }
        let kept = PathBuf::from(format!("{}.kept", self.dir.display()));
        fs::rename(&self.dir, &kept).with_context(|| format!("renaming {}", self.dir.display()))?;
        self.kept = true;
        Ok(kept)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove_tree(&self.dir)
        {
            eprintln!("{error:#}");
        }
    }
}

fn write_file(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = path.parent().context("a file needs a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

pub(super) fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_that_were_not_used_for_long_go_unless_they_are_the_last_of_their_name() {
        let now = SystemTime::now();
        let used = |key: &str, days: u64| (key.to_owned(), now - Duration::from_secs(days * 86_400 + 60));
        let mut used = vec![
            used("demo-1", 3),
            used("demo-2", 0),
            used("demo-3", 2),
            used("bench-old-1", 29),
            used("gone-1", 30),
            used("busy-1", 0),
            used("busy-2", 0),
            used("busy-3", 0),
        ];
        used.push(("ahead-1".to_owned(), now + Duration::from_secs(60)));
        assert_eq!(outdated(used, now), ["demo-1", "gone-1"]);
    }

    #[test]
    fn a_root_goes_with_its_lock_unless_somebody_holds_that() {
        let dir = tempfile::tempdir().unwrap();
        let long_ago = SystemTime::now() - 2 * FORGOTTEN;
        for key in ["a-1", "b-1"] {
            fs::create_dir_all(dir.path().join(key).join("etc")).unwrap();
            let lock = File::create(dir.path().join(format!("{key}.lock"))).unwrap();
            lock.set_modified(long_ago).unwrap();
        }
        let held = File::open(dir.path().join("b-1.lock")).unwrap();
        let held = Flock::lock(held, FlockArg::LockExclusive).map_err(|(_, errno)| errno).unwrap();
        prune(dir.path()).unwrap();
        let mut left: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["b-1", "b-1.lock"]);
        drop(held);
        let lock_again = lock(&dir.path().join("b-1.lock")).unwrap();
        assert!(is_at(&lock_again, &dir.path().join("b-1.lock")).unwrap());
        prune(dir.path()).unwrap();
        assert!(dir.path().join("b-1").exists(), "it is in use again");
    }
}
