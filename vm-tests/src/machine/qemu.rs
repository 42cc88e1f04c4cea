//! QEMU's command line. Pure.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::accelerator::Accelerator;
use crate::needs::{self, NeedError};

/// The agent's port, as the guest finds it below /dev/virtio-ports.
const PORT: &str = "fastboot-tests";
const MEMORY_MIB: u32 = 1024;
/// A multiple of the 16 MiB that ndctl aligns name spaces to; the label area comes on top.
pub(super) const PMEM_MIB: u32 = 512;
pub(super) const PMEM_LABEL_MIB: u32 = 2;

/// What the images are stored on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The root's own file system.
    OnRoot,
    /// A second namespace of the NVMe drive.
    Nvme,
    /// A virtio disk.
    VirtioBlk,
    /// An NVDIMM.
    Pmem,
}

/// Everything that a command line is made of.
pub(super) struct Plan<'a> {
    pub(super) qemu: &'a Path,
    pub(super) accelerator: &'a Accelerator,
    pub(super) kernel: &'a Path,
    pub(super) arguments: &'a str,
    /// Then the root is a virtio disk, whose driver is in there.
    pub(super) initrd: Option<&'a Path>,
    /// State of the whole machine to go on from.
    pub(super) load: Option<&'a str>,
    pub(super) root: &'a Path,
    /// None: the disk is missing, whatever `store` says.
    pub(super) store_disk: Option<&'a Path>,
    pub(super) store: Store,
    pub(super) parcel: Option<&'a Path>,
    pub(super) console: &'a Path,
    pub(super) dir: &'a Path,
}

pub(super) fn agent_socket(dir: &Path) -> PathBuf {
    dir.join("agent.sock")
}

pub(super) fn control_socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// The command. `setpriv` ends QEMU with the runner, however that ends.
pub(super) fn command(plan: &Plan<'_>) -> Result<Command, NeedError> {
    let nvdimm = if plan.store == Store::Pmem { "q35,nvdimm=on" } else { "q35" };
    let memory = match plan.store {
        Store::Pmem => format!("{MEMORY_MIB}M,slots=2,maxmem={}M", MEMORY_MIB + 2 * PMEM_MIB),
        _ => format!("{MEMORY_MIB}M"),
    };
    let mut command = needs::command("setpriv")?;
    command.args(["--pdeathsig", "KILL", "--"]).arg(plan.qemu);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(plan.accelerator.options()).args(["-machine", nvdimm, "-smp", "2", "-m", &memory]);
    command.arg("-kernel").arg(plan.kernel).args(["-append", plan.arguments]);
    command.arg("-serial").arg(format!("file:{}", plan.console.display()));
    let drive = |id: &str, path: &Path, format: &str| {
        format!("if=none,id={id},format={format},discard=unmap,file={}", path.display())
    };
    // QEMU saves no state of a machine that has an NVMe drive.
    if plan.initrd.is_none() {
        command.args(["-device", "nvme,id=nvme0,serial=fastboot-tests"]);
    }
    command.args(["-drive", &drive("root", plan.root, "qcow2"), "-device"]);
    match plan.initrd {
        None => command.arg("nvme-ns,drive=root,bus=nvme0,nsid=1"),
        Some(initrd) => command.arg("virtio-blk-pci,drive=root").arg("-initrd").arg(initrd),
    };
    if let Some(state) = plan.load {
        command.args(["-loadvm", state]);
    }
    if let Some(disk) = plan.store_disk {
        match plan.store {
            Store::OnRoot => {}
            Store::Nvme => {
                command.args(["-drive", &drive("store", disk, "raw")]);
                command.args(["-device", "nvme-ns,drive=store,bus=nvme0,nsid=2"]);
            }
            Store::VirtioBlk => {
                command.args([
                    "-drive",
                    &drive("store", disk, "raw"),
                    "-device",
                    "virtio-blk-pci,drive=store",
                ]);
            }
            Store::Pmem => {
                let size = PMEM_MIB + PMEM_LABEL_MIB;
                let object =
                    format!("memory-backend-file,id=pmem,share=on,size={size}M,mem-path={}", disk.display());
                command.args(["-object", &object]);
                command.args(["-device", "nvdimm,id=nvdimm0,memdev=pmem,label-size=2M"]);
            }
        }
    }
    if let Some(parcel) = plan.parcel.filter(|_| plan.initrd.is_none()) {
        command.args(["-drive", &format!("{},readonly=on", drive("parcel", parcel, "raw"))]);
        command.args(["-device", "nvme-ns,drive=parcel,bus=nvme0,nsid=3"]);
    }
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    let socket =
        |id: &str, path: PathBuf| format!("socket,id={id},path={},server=on,wait=off", path.display());
    command.args(["-chardev", &socket("agent", agent_socket(plan.dir))]);
    command.args(["-device", &format!("virtserialport,chardev=agent,name={PORT}")]);
    command.args(["-chardev", &socket("control", control_socket(plan.dir)), "-mon", "control,mode=control"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(store: Store, disk: Option<&Path>) -> String {
        let accelerator = Accelerator::Tcg("no /dev/kvm".to_owned());
        let path = Path::new("/x");
        let command = command(&Plan {
            qemu: path,
            accelerator: &accelerator,
            kernel: path,
            arguments: "quiet",
            initrd: None,
            load: None,
            root: path,
            store_disk: disk,
            store,
            parcel: None,
            console: path,
            dir: path,
        })
        .unwrap();
        command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_store_is_the_device_that_it_is_called() {
        let disk = Some(Path::new("/store"));
        assert!(line(Store::Nvme, disk).contains("nvme-ns,drive=store"));
        assert!(line(Store::VirtioBlk, disk).contains("virtio-blk-pci,drive=store"));
        assert!(line(Store::Pmem, disk).contains("-device nvdimm"));
        assert!(!line(Store::VirtioBlk, None).contains("virtio-blk"));
    }
}
