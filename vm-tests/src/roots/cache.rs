//! Built roots, by recipe, and copies of them that a test may change as it likes.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::{CACHE_DIR, Recipe};
use crate::container::run_in_root;

/// Longest that a setup script may take.
const SETUP_BOUND: Duration = Duration::from_secs(300);
/// Unlike those of a release, sid's lists are valid for a week only, which a mirror or a clock may miss.
const ADD_SID: &str = "--setup-hook=echo 'deb [check-valid-until=no] http://deb.debian.org/debian sid main' \
                       > \"$1\"/etc/apt/sources.list.d/sid.list";

/// The root that `recipe` describes; built now if it is not there yet. Not to be changed: boot a [`Scratch`].
///
/// # Errors
/// Building fails: no network, a package that does not exist, a setup script that fails.
pub fn cached(recipe: &Recipe) -> Result<PathBuf> {
    let roots = Path::new(CACHE_DIR).join("roots");
    fs::create_dir_all(&roots).with_context(|| format!("making {}", roots.display()))?;
    let root = roots.join(recipe.key());
    // Held while building, so that two runs build a root once; released with the process whatever happens.
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

fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("locking {}", path.display()))
}

fn build(recipe: &Recipe, into: &Path) -> Result<()> {
    let from_sid = recipe.from_sid.iter().map(|package| format!("{package}/sid"));
    let packages: Vec<String> =
        recipe.packages.iter().map(|&package| package.to_owned()).chain(from_sid).collect();
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap.args(["--variant=minbase", "--mode=root", "--quiet"]);
    if !recipe.from_sid.is_empty() {
        mmdebstrap.arg(format!("--aptopt=APT::Default-Release \"{}\"", recipe.suite)).arg(ADD_SID);
    }
    let output = mmdebstrap
        .arg(format!("--include={}", packages.join(",")))
        .arg(recipe.suite)
        .arg(into)
        .stdin(Stdio::null())
        .output()
        .context("running mmdebstrap")?;
    if !output.status.success() {
        bail!("mmdebstrap: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    for file in &recipe.files {
        write_file(&into.join(file.path.trim_start_matches('/')), &file.content, file.mode)?;
    }
    run_in_root(into, &[], recipe.setup, SETUP_BOUND).context("setup script")?;
    Ok(())
}

/// Remove copies that runs left which did not end by themselves. Kept ones stay.
///
/// # Errors
/// The directory cannot be read, or a copy cannot be removed.
pub fn sweep() -> Result<()> {
    let Ok(machines) = fs::read_dir(Path::new(CACHE_DIR).join("machines")) else {
        return Ok(());
    };
    for entry in machines {
        let entry = entry.context("listing copies of roots")?;
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.rsplit('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// A copy of a root that keeps what boots do to it, and is removed when dropped unless it is to be kept.
///
/// A plain copy and not an overlay: fastboot compares inodes, and daemons see device and inode numbers in
/// /proc/PID/maps, which an overlay shows otherwise than a disk does. Copying costs 1.5 s for 480 MB.
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
        let status = Command::new("cp")
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

fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}
