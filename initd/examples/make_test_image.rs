//! For container tests of the boot side: publishes a generation of images.
//!
//! `make_test_image UNIT=MAIN_PID… UNIT=dump…`, to be run on the machine that shall boot with them.
//! With a number, the image holds evidence and no process; with `dump` it is taken from the running
//! unit.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastboot_runtime::open_store;
use image_store::{
    CatalogueEntry, DEFAULT_ROOT, Durability, EvidenceV2, FileEvidence, FileItem, ImageWriter,
    MachineEvidence, Observation, SectionKind, ServiceRecord, Source, UnitEvidence,
};
use snap_collect::dump::{self, CollectOptions, TreeSelector};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new("/");
    let store = open_store(DEFAULT_ROOT);
    let _lock = store.lock()?;
    let generation = store.begin_generation()?;
    let machine = MachineEvidence::collect(root)?;
    let mut entries = Vec::new();
    for argument in std::env::args().skip(1) {
        let (unit, main_pid) = argument.split_once('=').ok_or("UNIT=MAIN_PID")?;
        let shown = |property: &str| -> Result<String, Box<dyn Error>> {
            let output =
                Command::new("systemctl").args(["show", "--value", "-p", property, "--", unit]).output()?;
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let is_dump = main_pid == "dump";
        let main_pid: i32 = if is_dump { shown("MainPID")?.parse()? } else { main_pid.parse()? };
        let drop_ins: Vec<PathBuf> = shown("DropInPaths")?.split_whitespace().map(PathBuf::from).collect();
        let evidence = EvidenceV2 {
            machine: machine.clone(),
            unit: UnitEvidence::collect(root, Path::new(&shown("FragmentPath")?), &drop_ins)?,
            observation: Observation::Recorded { not_observed: Vec::new() },
            files: FileEvidence::collect_chain(root, Path::new("/etc/hostname"), true)?
                .into_iter()
                .map(|file| FileItem::new(file, Source::Observed))
                .collect(),
            accounts: Vec::new(),
            values: Vec::new(),
            left_out: Vec::new(),
            environment_files: Vec::new(),
            users: vec![("root".to_owned(), 0)],
            groups: vec![("root".to_owned(), 0)],
        };
        let mut writer = ImageWriter::create(&generation.image_path(unit)?)?;
        let mut pids = vec![main_pid];
        if is_dump {
            let cgroup = format!("/sys/fs/cgroup{}", shown("ControlGroup")?);
            let mut frozen = dump::freeze(TreeSelector::Cgroup(cgroup.into()))?;
            let options = CollectOptions { unit: true, ..CollectOptions::default() };
            let tree = frozen.collect(&mut writer, &options)?.tree;
            frozen.thaw()?;
            pids = tree.processes.iter().flat_map(|p| p.threads.iter().map(|thread| thread.tid.0)).collect();
            snap_image::write_tree(&mut writer, &tree)?;
        } else {
            for page in 0..300u32 {
                writer.append_pages(&[page as u8; 4096])?;
            }
        }
        writer.add_section(SectionKind::EVIDENCE, EvidenceV2::VERSION, &evidence.encode(Path::new(unit))?)?;
        let info = writer.finish(Durability::Sync)?;
        entries.push(CatalogueEntry {
            unit: unit.to_owned(),
            file: generation.relative_path(unit)?,
            len_bytes: info.len_bytes,
            image_id: info.id,
            unit_evidence: evidence.unit,
            machine: evidence.machine,
            systemd: None,
            start: None,
            held_groups: Vec::new(),
            taken_unix_s: None,
            service: ServiceRecord {
                service_type: shown("Type")?,
                exec_start_raw: String::new(),
                pid_file: Some(shown("PIDFile")?).filter(|path| !path.is_empty()),
                bus_name: None,
                notify_access: shown("NotifyAccess")?,
                main_pid,
                pids,
                page_bytes: info.page_bytes,
                timeout_start_ms: None,
                cold_start_ms: None,
                cold_cpu_ms: None,
                dump_ms: None,
                restore_ms: None,
                max_age_s: None,
                status_text: String::new(),
                after_restore: Vec::new(),
                hook_channels: Vec::new(),
            },
        });
    }
    generation.commit(entries)?;
    Ok(())
}
