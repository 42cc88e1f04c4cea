//! A machine that is switched off, and how it is switched on.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::accelerator::Accelerator;
use super::agent::Agent;
use super::disk::{Disk, Kernel, ROOT_PARTITION};
use super::qemu::{self, PMEM_LABEL_MIB, PMEM_MIB, Plan, Store, agent_socket, control_socket};
use super::running::{BOOT_BOUND, Running, console_tail};
use crate::needs;
use crate::roots::{CACHE_DIR, Recipe};

/// What every kernel is told. `panic=30`: the console has been written when a panic ends in a
/// reset.
const ARGUMENTS: &str = "rw rootwait console=ttyS0 panic=30 quiet loglevel=5 audit=0 mitigations=off";
/// Label of the file system for the images.
const STORE_LABEL: &str = "store";

/// How a machine is switched on.
#[derive(Debug, Clone, Default)]
pub struct Boot {
    /// More words for the kernel.
    pub arguments: Vec<&'static str>,
    /// Another kernel than the root's own.
    pub kernel: Option<Kernel>,
    /// As if the store's disk had been pulled out.
    pub without_store: bool,
    /// The root on a virtio disk and no NVMe drive: QEMU can save such a machine's state. Needs the
    /// root's initrd.
    pub savable: bool,
    /// Do not boot, but go on from this saved state.
    pub load: Option<&'static str>,
    /// Longest until its agent answers; five minutes where nothing is said.
    pub bound: Option<Duration>,
}

/// A machine: its disks, in a directory that goes with it.
#[derive(Debug)]
pub struct Machine {
    name: String,
    dir: PathBuf,
    root: Disk,
    store: Store,
    store_disk: Option<Disk>,
    parcel: Option<Disk>,
    kernel: Kernel,
    boots: u32,
}

impl Machine {
    /// A machine that has never been booted: the root of `recipe`, which `kernels` may boot too,
    /// and the files of `parcel` on a disk with that label.
    ///
    /// # Errors
    /// A disk cannot be made.
    pub fn new(
        name: &str,
        recipe: &Recipe,
        kernels: &[Kernel],
        store: Store,
        parcel: Option<&Path>,
    ) -> Result<Machine> {
        let dir = machine_dir(name)?;
        let root = Disk::of_root(recipe, kernels, &dir.join("root.qcow2"))?;
        let kernel = Kernel::of(recipe)?;
        let path = dir.join("store.raw");
        let store_disk = match store {
            Store::OnRoot => None,
            Store::Nvme | Store::VirtioBlk => Some(Disk::empty(STORE_LABEL, &format!("{PMEM_MIB}M"), &path)?),
            Store::Pmem => {
                let file = fs::File::create(&path).context("making a file for the NVDIMM")?;
                file.set_len(u64::from(PMEM_MIB + PMEM_LABEL_MIB) << 20)
                    .context("making a file for the NVDIMM")?;
                Some(Disk { path })
            }
        };
        let parcel = parcel.map(|files| Disk::of_files(files, &dir.join("parcel.raw"))).transpose()?;
        Ok(Machine { name: name.to_owned(), dir, root, store, store_disk, parcel, kernel, boots: 0 })
    }

    /// Another machine with the same disks as they are now. This one must not be booted any more.
    ///
    /// # Errors
    /// A disk cannot be copied.
    pub fn fork(&self, name: &str) -> Result<Machine> {
        let dir = machine_dir(name)?;
        let root = self.root.fork(&dir.join("root.qcow2"))?;
        let copy = |disk: &Disk, file: &str| -> Result<Disk> {
            let path = dir.join(file);
            fs::copy(&disk.path, &path).with_context(|| format!("copying {}", disk.path.display()))?;
            Ok(Disk { path })
        };
        let store_disk = self.store_disk.as_ref().map(|disk| copy(disk, "store.raw")).transpose()?;
        let parcel = self.parcel.as_ref().map(|disk| copy(disk, "parcel.raw")).transpose()?;
        let kernel = self.kernel.clone();
        Ok(Machine {
            name: name.to_owned(),
            dir,
            root,
            store: self.store,
            store_disk,
            parcel,
            kernel,
            boots: 0,
        })
    }

    /// What it runs on.
    ///
    /// # Errors
    /// QEMU cannot be started.
    pub fn accelerator(&self) -> Result<Accelerator> {
        Accelerator::probe(&self.kernel)
    }

    /// Whether a QEMU of this machine runs.
    pub fn is_on(&self) -> bool {
        UnixStream::connect(control_socket(&self.dir)).is_ok()
    }

    /// The kernel of its root.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Switch on; returns when its agent answers, which is early in the boot. The console goes to a
    /// file of its own.
    ///
    /// # Errors
    /// The agent does not answer in time; the console's end is in the error.
    pub fn boot(&mut self, boot: &Boot) -> Result<Running> {
        self.boots += 1;
        let logs = Path::new(CACHE_DIR).join("logs/machines");
        fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
        let console = logs.join(format!("{}-boot-{}.log", self.name, self.boots));
        for left in [agent_socket(&self.dir), control_socket(&self.dir), console.clone()] {
            // Of the boot before.
            let _ = fs::remove_file(left);
        }
        let arguments = [&[ROOT_PARTITION, ARGUMENTS][..], &boot.arguments].concat().join(" ");
        let store_disk = self.store_disk.as_ref().filter(|_| !boot.without_store);
        let program = needs::path("qemu-system-x86_64")?;
        let mut command = qemu::command(&Plan {
            qemu: &program,
            accelerator: &self.accelerator()?,
            kernel: &boot.kernel.as_ref().unwrap_or(&self.kernel).path,
            arguments: &arguments,
            initrd: self.kernel.initrd.as_deref().filter(|_| boot.savable),
            load: boot.load,
            root: &self.root.path,
            store_disk: store_disk.map(|disk| disk.path.as_path()),
            store: self.store,
            parcel: self.parcel.as_ref().map(|disk| disk.path.as_path()),
            console: &console,
            dir: &self.dir,
        })?;
        let errors = fs::File::create(self.dir.join("qemu.log")).context("making QEMU's log")?;
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .context("starting QEMU")?;
        match Agent::connect(&agent_socket(&self.dir), boot.bound.unwrap_or(BOOT_BOUND)) {
            Ok(agent) => Ok(Running { qemu, agent, console, dir: self.dir.clone() }),
            Err(error) => {
                // It may have ended by itself.
                let _ = qemu.kill();
                let _ = qemu.wait();
                let said = fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default();
                Err(error.context(format!("{}{}", console_tail(&console), said)))
            }
        }
    }
}

fn machine_dir(name: &str) -> Result<PathBuf> {
    // The name ends in the runner's PID: what a killed runner leaves is swept up by the next one.
    let dir = Path::new(CACHE_DIR).join("machines").join(format!("vm-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("removing {}: {error}", self.dir.display());
        }
    }
}
