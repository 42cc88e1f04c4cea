//! Disks: built once per recipe, written to through throw-away overlays.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::needs;
use crate::roots::{CACHE_DIR, Recipe, Scratch, cached};

/// Room for the root, for images and for an upgrade. Sparse.
const ROOT_MIB: u32 = 4096;
/// The root is a partition, because drives and their namespaces are numbered as they are found, and
/// the kernel finds a partition by its id.
const ROOT_STARTS_MIB: u32 = 1;
const DISK_ID: u32 = 0xfa57_b007;
/// What the kernel is told.
pub(super) const ROOT_PARTITION: &str = "root=PARTUUID=fa57b007-01";
const SECTORS_PER_MIB: u32 = 2048;

/// Debian's kernel out of a built root. NVMe and ext4 are built into it, so it needs no initrd;
/// with its modules it boots the root of another suite as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The file.
    pub path: PathBuf,
    /// As `uname -r`.
    pub release: String,
    /// What Debian's initramfs-tools made for it, where they are installed.
    pub initrd: Option<PathBuf>,
    /// Its modules.
    modules: PathBuf,
}

impl Kernel {
    /// The kernel that is installed in the root of `recipe`.
    ///
    /// # Errors
    /// The root cannot be built, or has none.
    pub fn of(recipe: &Recipe) -> Result<Kernel> {
        let root = cached(recipe)?;
        let boot = root.join("boot");
        let entries = fs::read_dir(&boot).with_context(|| format!("listing {}", boot.display()))?;
        let mut kernels: Vec<Kernel> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let release = path.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
                let modules = root.join("usr/lib/modules").join(&release);
                let initrd = Some(boot.join(format!("initrd.img-{release}"))).filter(|path| path.exists());
                Some(Kernel { path, release, initrd, modules })
            })
            .collect();
        kernels.sort_by(|a, b| a.release.cmp(&b.release));
        kernels.pop().with_context(|| format!("no kernel in {}", boot.display()))
    }
}

/// An overlay of a disk that is not written to any more.
#[derive(Debug)]
pub struct Disk {
    pub(super) path: PathBuf,
}

impl Disk {
    /// A fresh overlay, at `path`, of the disk that has the root of `recipe`, and the modules of
    /// more kernels.
    ///
    /// # Errors
    /// The root or the disk cannot be built.
    pub fn of_root(recipe: &Recipe, kernels: &[Kernel], path: &Path) -> Result<Disk> {
        overlay(&built(recipe, kernels)?, "raw", path)
    }

    /// A fresh overlay, at `path`, of this one as it is now. This one must not be booted again.
    ///
    /// # Errors
    /// qemu-img fails.
    pub fn fork(&self, path: &Path) -> Result<Disk> {
        overlay(&self.path, "qcow2", path)
    }

    /// A disk with an empty ext4 of that label.
    ///
    /// # Errors
    /// mke2fs fails.
    pub fn empty(label: &str, size: &str, path: &Path) -> Result<Disk> {
        make_ext4(label, None, size, path)?;
        Ok(Disk { path: path.to_owned() })
    }

    /// A small disk with an ext4 that holds the files of `dir`.
    ///
    /// # Errors
    /// mke2fs fails.
    pub fn of_files(dir: &Path, path: &Path) -> Result<Disk> {
        make_ext4("parcel", Some(dir), "256M", path)?;
        Ok(Disk { path: path.to_owned() })
    }
}

fn with_modules(root: &Path, kernels: &[Kernel]) -> Result<Scratch> {
    let copy = Scratch::copy_of(root, "modules")?;
    for kernel in kernels {
        let mut command = needs::command("cp")?;
        command.arg("-a").arg(&kernel.modules).arg(copy.path("/usr/lib/modules/"));
        run(command)?;
    }
    Ok(copy)
}

fn overlay(base: &Path, format: &str, path: &Path) -> Result<Disk> {
    let mut command = needs::command("qemu-img")?;
    command.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(base).arg(path);
    run(command)?;
    Ok(Disk { path: path.to_owned() })
}

fn built(recipe: &Recipe, kernels: &[Kernel]) -> Result<PathBuf> {
    let root = cached(recipe)?;
    let key = kernels.iter().fold(recipe.key(), |key, kernel| format!("{key}+{}", kernel.release));
    let disks = Path::new(CACHE_DIR).join("disks");
    fs::create_dir_all(&disks).with_context(|| format!("making {}", disks.display()))?;
    let disk = disks.join(format!("{key}.disk"));
    let lock = disks.join(format!("{key}.lock"));
    let lock = File::create(&lock).with_context(|| format!("creating {}", lock.display()))?;
    // Two runs build a disk once; released with the process.
    let _lock =
        Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context("locking a disk")?;
    if !disk.exists() {
        let building = disk.with_extension("building");
        let copy = if kernels.is_empty() { None } else { Some(with_modules(&root, kernels)?) };
        let root = copy.as_ref().map_or(root.as_path(), Scratch::root);
        make_ext4_at("root", Some(root), ROOT_STARTS_MIB, &format!("{ROOT_MIB}M"), &building)?;
        write_partition_table(&building)?;
        fs::rename(&building, &disk).with_context(|| format!("renaming {}", building.display()))?;
    }
    Ok(disk)
}

fn make_ext4(label: &str, content: Option<&Path>, size: &str, path: &Path) -> Result<()> {
    make_ext4_at(label, content, 0, size, path)
}

fn make_ext4_at(label: &str, content: Option<&Path>, start_mib: u32, size: &str, path: &Path) -> Result<()> {
    let mut command = needs::command("mke2fs")?;
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-L",
        label,
        "-E",
        &format!("offset={}", u64::from(start_mib) << 20),
    ]);
    if let Some(content) = content {
        command.arg("-d").arg(content);
    }
    // mke2fs keeps the length of a file that is there.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", path.display()));
        }
        _ => {}
    }
    command.arg(path).arg(size);
    run(command)
}

/// One Linux partition in a table of the oldest kind.
fn write_partition_table(path: &Path) -> Result<()> {
    let mut sector = [0_u8; 512];
    sector[440..444].copy_from_slice(&DISK_ID.to_le_bytes());
    let entry = &mut sector[446..462];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&(ROOT_STARTS_MIB * SECTORS_PER_MIB).to_le_bytes());
    entry[12..16].copy_from_slice(&(ROOT_MIB * SECTORS_PER_MIB).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let write = || -> std::io::Result<()> {
        let disk = fs::OpenOptions::new().write(true).open(path)?;
        disk.set_len(u64::from(ROOT_STARTS_MIB + ROOT_MIB) << 20)?;
        disk.write_all_at(&sector, 0)
    };
    write().with_context(|| format!("partitioning {}", path.display()))
}

fn run(mut command: Command) -> Result<()> {
    let program = Path::new(command.get_program()).to_owned();
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("running {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
