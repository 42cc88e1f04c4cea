//! The generator's core on trees of text files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use fastboot_runtime::{GeneratorRecord, RunDir, Trials, UnitDecision};
use image_store::evidence::{CpuEvidence, Scope};
use image_store::{
    BootMark, Catalogue, CatalogueEntry, Digest, Generation, ImageId, MachineEvidence, OnceGeneration,
    OnceImage, ReasonCode, ServiceRecord, SystemdEvidence, UnitEvidence,
};
use systemd_units::decide::{Inputs, decide, decide_once, for_trial, repeat};
use systemd_units::search::{NoText, UnitDirs, UnitFiles};
use systemd_units::soft_reboot::leave_alone;

/// A root file system with unit files.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Root {
        let root = Root(tempfile::tempdir().unwrap());
        root.write("/usr/sbin/d", "#!");
        fs::set_permissions(root.path("/usr/sbin/d"), fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        symlink(target, self.path(path)).unwrap();
    }

    fn locate(&self, unit: &str) -> Result<UnitFiles, NoText> {
        UnitDirs::read(self.0.path()).unwrap().locate(unit).unwrap()
    }

    fn drop_ins(&self, unit: &str) -> Vec<String> {
        let files = self.locate(unit).unwrap();
        files.drop_ins.iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    /// An image of the unit as it is now.
    fn image(&self, unit: &str) -> CatalogueEntry {
        let files = self.locate(unit).unwrap();
        CatalogueEntry {
            unit: unit.to_owned(),
            file: format!("images/1/{unit}.img"),
            len_bytes: 4096,
            image_id: ImageId([7; 16]),
            unit_evidence: UnitEvidence::collect(self.0.path(), &files.fragment, &files.drop_ins).unwrap(),
            machine: machine(),
            systemd: Some(systemd("257.9-1")),
            start: None,
            held_groups: Vec::new(),
            taken_unix_s: None,
            service: ServiceRecord {
                service_type: "simple".to_owned(),
                exec_start_raw: String::new(),
                pid_file: None,
                bus_name: None,
                notify_access: "none".to_owned(),
                main_pid: 300_000,
                pids: vec![300_000],
                page_bytes: 0,
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
        }
    }

    fn decide(&self, entry: &CatalogueEntry, machine: &MachineEvidence) -> GeneratorRecord {
        self.decide_under(entry, machine, Some(&systemd("257.9-1")))
    }

    fn decide_under(
        &self,
        entry: &CatalogueEntry,
        machine: &MachineEvidence,
        systemd: Option<&SystemdEvidence>,
    ) -> GeneratorRecord {
        let dirs = UnitDirs::read(self.0.path()).unwrap();
        let generation = Generation { id: 1, created_unix_s: 0, images: vec![entry.clone()] };
        let catalogue = Catalogue { generations: vec![generation], ..Catalogue::default() };
        decide(
            &Inputs {
                root: self.0.path(),
                dirs: &dirs,
                machine,
                systemd,
                shim: "/shim",
                has_apparmor: true,
                soft_reboots: 0,
            },
            &catalogue,
        )
    }

    /// In the place of a boot that came about by a soft reboot, and for a trial.
    fn decide_otherwise(&self, entry: &CatalogueEntry) -> (UnitDecision, String) {
        let (dirs, machine, systemd) =
            (UnitDirs::read(self.0.path()).unwrap(), machine(), systemd("257.9-1"));
        let inputs = |soft_reboots| {
            let (root, systemd) = (self.0.path(), Some(&systemd));
            Inputs {
                root,
                dirs: &dirs,
                machine: &machine,
                systemd,
                shim: "/shim",
                has_apparmor: true,
                soft_reboots,
            }
        };
        let generation = Generation { id: 1, created_unix_s: 0, images: vec![entry.clone()] };
        let catalogue = Catalogue { generations: vec![generation], ..Catalogue::default() };
        let record = decide(&inputs(1), &catalogue).units.remove(0);
        (record, for_trial(&inputs(0), std::slice::from_ref(entry)).drop_ins.remove(0).1)
    }

    /// With a golden image and one of the last shutdown.
    fn decide_with_both(&self, golden: &CatalogueEntry, of_shutdown: &CatalogueEntry) -> Vec<UnitDecision> {
        let (dirs, machine) = (UnitDirs::read(self.0.path()).unwrap(), machine());
        let systemd = systemd("257.9-1");
        let inputs = Inputs {
            root: self.0.path(),
            dirs: &dirs,
            machine: &machine,
            systemd: Some(&systemd),
            shim: "/shim",
            has_apparmor: true,
            soft_reboots: 0,
        };
        let mut record = self.decide(golden, &machine);
        let image = OnceImage { entry: of_shutdown.clone(), state: Digest::of(b"") };
        let boot = BootMark { number: 1, id: "a".to_owned() };
        decide_once(&inputs, &OnceGeneration::new(0, boot, Vec::new(), vec![image]), &mut record);
        record.units
    }

    fn decide_unit(&self, entry: &CatalogueEntry) -> UnitDecision {
        self.decide(entry, &machine()).units.remove(0)
    }

    fn repeated(&self, record: &GeneratorRecord) -> usize {
        self.repeat(&mut record.clone())
    }

    fn repeat(&self, record: &mut GeneratorRecord) -> usize {
        repeat(self.0.path(), &UnitDirs::read(self.0.path()).unwrap(), record).len()
    }
}

fn machine() -> MachineEvidence {
    MachineEvidence {
        kernel_release: "6.12.1".to_owned(),
        kernel_version: "#1 SMP".to_owned(),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        architecture: "x86_64".to_owned(),
        cpu: CpuEvidence {
            vendor: "v".to_owned(),
            family: "6".to_owned(),
            model: "1".to_owned(),
            flags_digest: Digest::of(b"flags"),
        },
    }
}

fn systemd(version: &str) -> SystemdEvidence {
    SystemdEvidence { version: Some(version.to_owned()), digest: Digest::of(version.as_bytes()) }
}

const FRAGMENT: &str = "/usr/lib/systemd/system/a-b.service";
const TEXT: &str = "[Service]\nExecStart=/usr/sbin/d -x\n";

#[test]
fn an_unchanged_unit_gets_the_shim_with_its_own_command_behind_it() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let unit = root.decide_unit(&root.image("a-b.service"));
    assert!(unit.armed, "{:?}", unit.reason);
    assert_eq!(unit.service_type.as_deref(), Some("simple"));
    let text = unit.drop_in.unwrap();
    assert!(text.contains(
        "\nExecStart=\nExecStart=/shim --unit a-b.service --limit-ms 8000 --no-notify -- /usr/sbin/d -x\n"
    ));
}

#[test]
fn a_trial_begins_with_an_empty_store_and_what_outlives_a_soft_reboot_leaves_a_unit_cold() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let (record, trial) = root.decide_otherwise(&root.image("a-b.service"));
    assert!(record.armed && !trial.contains("FileDescriptorStore"), "{trial}");
    root.write(FRAGMENT, &format!("{TEXT}FileDescriptorStoreMax=7\n"));
    let (record, trial) = root.decide_otherwise(&root.image("a-b.service"));
    assert!(record.armed && !record.drop_in.unwrap().contains("FileDescriptorStore"));
    assert!(trial.ends_with("\nFileDescriptorStorePreserve=no\n"), "{trial}");
    root.write(FRAGMENT, &format!("{TEXT}FileDescriptorStoreMax=7\nFileDescriptorStorePreserve=yes\n"));
    let (record, _) = root.decide_otherwise(&root.image("a-b.service"));
    assert!(!record.armed && record.reason.unwrap().contains("over the soft reboot"));
    assert!(root.decide_unit(&root.image("a-b.service")).armed);
}

#[test]
fn drop_ins_come_from_all_directories_of_all_names_sorted_by_file_name() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    root.link("/etc/systemd/system/other.service", FRAGMENT);
    root.write("/usr/lib/systemd/system/a-b.service.d/50.conf", "");
    root.write("/etc/systemd/system/a-b.service.d/40.conf", "");
    root.write("/etc/systemd/system/a-.service.d/60.conf", "");
    root.write("/run/systemd/system/service.d/10.conf", "");
    root.write("/etc/systemd/system/other.service.d/20.conf", "");
    root.write("/etc/systemd/system.control/a-b.service.d/50-MemoryMax.conf", "");
    root.write("/etc/systemd/system/a-b.service.d/ignored.txt", "");
    root.write("/etc/systemd/system/a.service.d/ignored.conf", "");
    root.write("/run/systemd/generator.late/a-b.service.d/zzzz-fastboot.conf", "");
    let expected = [
        "/run/systemd/system/service.d/10.conf",
        "/etc/systemd/system/other.service.d/20.conf",
        "/etc/systemd/system/a-b.service.d/40.conf",
        "/etc/systemd/system.control/a-b.service.d/50-MemoryMax.conf",
        "/usr/lib/systemd/system/a-b.service.d/50.conf",
        "/etc/systemd/system/a-.service.d/60.conf",
    ];
    assert_eq!(root.drop_ins("a-b.service"), expected);
}

#[test]
fn of_drop_ins_with_one_name_the_strongest_directory_wins() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    root.write("/usr/lib/systemd/system/a-b.service.d/x.conf", "");
    root.write("/run/systemd/system/a-b.service.d/x.conf", "");
    root.write("/etc/systemd/system/service.d/x.conf", "");
    assert_eq!(root.drop_ins("a-b.service"), ["/run/systemd/system/a-b.service.d/x.conf"]);
}

#[test]
fn an_instance_takes_fragment_and_drop_ins_of_its_template() {
    let root = Root::new();
    root.write("/usr/lib/systemd/system/t-x@.service", TEXT);
    root.write("/etc/systemd/system/t-x@.service.d/2.conf", "");
    root.write("/etc/systemd/system/t-x@i.service.d/1.conf", "");
    root.write("/etc/systemd/system/t-@.service.d/3.conf", "");
    let files = root.locate("t-x@i.service").unwrap();
    assert_eq!(files.fragment, Path::new("/usr/lib/systemd/system/t-x@.service"));
    assert_eq!(files.drop_ins.len(), 3);
    let unit = root.decide_unit(&root.image("t-x@i.service"));
    assert!(unit.drop_in.unwrap().contains("--unit t-x@i.service "));
}

#[test]
fn masked_missing_and_renamed_units_have_no_text() {
    let root = Root::new();
    for unit in ["masked", "empty", "target"] {
        root.write(&format!("/usr/lib/systemd/system/{unit}.service"), TEXT);
    }
    root.link("/etc/systemd/system/masked.service", "/dev/null");
    root.write("/etc/systemd/system/empty.service", "");
    root.link("/etc/systemd/system/alias.service", "../../../usr/lib/systemd/system/target.service");
    assert!(matches!(root.locate("masked.service"), Err(NoText::Masked(_))));
    assert!(matches!(root.locate("empty.service"), Err(NoText::Masked(_))));
    assert_eq!(root.locate("missing.service"), Err(NoText::Missing));
    assert_eq!(root.locate("alias.service"), Err(NoText::AliasOf("target.service".to_owned())));
}

#[test]
fn an_edited_unit_and_an_added_drop_in_leave_it_cold() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let entry = root.image("a-b.service");
    root.write("/etc/systemd/system/a-b.service.d/override.conf", "[Service]\nNice=1\n");
    let unit = root.decide_unit(&entry);
    assert_eq!((unit.armed, unit.reason_code), (false, Some(ReasonCode::UnitChanged)));
    assert!(unit.reason.unwrap().contains("override.conf"));
    fs::remove_file(root.path("/etc/systemd/system/a-b.service.d/override.conf")).unwrap();
    assert!(root.decide_unit(&entry).armed);
    root.write(FRAGMENT, "[Service]\nExecStart=/usr/sbin/d -y\n");
    assert_eq!(root.decide_unit(&entry).reason_code, Some(ReasonCode::UnitChanged));
}

#[test]
fn an_administrators_later_exec_start_wins() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    root.write(
        "/etc/systemd/system/a-b.service.d/zzzzz.conf",
        "[Service]\nExecStart=\nExecStart=/usr/sbin/d\n",
    );
    let unit = root.decide_unit(&root.image("a-b.service"));
    assert_eq!((unit.armed, unit.reason_code), (false, Some(ReasonCode::Disabled)));
}

#[test]
fn an_earlier_exec_start_of_the_administrator_is_what_the_shim_gets() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    root.write(
        "/etc/systemd/system/a-b.service.d/override.conf",
        "[Service]\nExecStart=\nExecStart=-/usr/sbin/d -z\n",
    );
    let unit = root.decide_unit(&root.image("a-b.service"));
    assert!(
        unit.drop_in
            .unwrap()
            .contains("ExecStart=-/shim --unit a-b.service --limit-ms 8000 --no-notify -- /usr/sbin/d -z\n")
    );
}

#[test]
fn a_file_of_our_name_in_etc_switches_a_unit_off() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    root.link("/etc/systemd/system/a-b.service.d/zzzz-fastboot.conf", "/dev/null");
    let unit = root.decide_unit(&root.image("a-b.service"));
    assert_eq!((unit.armed, unit.reason_code), (false, Some(ReasonCode::Disabled)));
}

#[test]
fn a_golden_image_never_takes_the_place_of_one_of_the_last_shutdown() {
    let root = Root::new();
    root.write(FRAGMENT, &format!("{TEXT}[X-Fastboot]\nMode=fast-restart\n"));
    let golden = root.image("a-b.service");
    let of_shutdown = CatalogueEntry { image_id: ImageId([8; 16]), ..golden.clone() };
    let unit = root.decide_unit(&golden);
    assert_eq!((unit.armed, unit.reason_code), (false, Some(ReasonCode::FastRestart)));
    let units = root.decide_with_both(&golden, &of_shutdown);
    assert_eq!(units.len(), 1);
    assert_eq!((units[0].armed, units[0].image_id), (true, ImageId([8; 16])));
    // Nor the other way round.
    root.write(FRAGMENT, TEXT);
    let plain = root.image("a-b.service");
    let units =
        root.decide_with_both(&plain, &CatalogueEntry { image_id: ImageId([8; 16]), ..plain.clone() });
    assert_eq!((units[0].armed, units[0].reason_code), (false, Some(ReasonCode::FastRestart)));
}

#[test]
fn another_kernel_machine_or_processor_leaves_everything_cold() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let entry = root.image("a-b.service");
    let mut kernel = machine();
    kernel.kernel_version = "#2 SMP".to_owned();
    let mut id = machine();
    id.machine_id = "f".repeat(32);
    let mut cpu = machine();
    cpu.cpu.flags_digest = Digest::of(b"fewer");
    let cases = [
        (kernel, ReasonCode::KernelChanged),
        (id, ReasonCode::MachineChanged),
        (cpu, ReasonCode::CpuChanged),
    ];
    for (machine, code) in cases {
        assert_eq!(root.decide(&entry, &machine).units[0].reason_code, Some(code));
    }
}

#[test]
fn an_image_for_equal_machines_is_used_whatever_the_machine_id() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let mut entry = root.image("a-b.service");
    entry.machine = entry.machine.in_scope(Scope::EqualMachines);
    let mut other = machine();
    for id in ["f".repeat(32), String::new()] {
        other.machine_id = id;
        assert!(root.decide(&entry, &other).units[0].armed, "{other:?}");
    }
    other.cpu.flags_digest = Digest::of(b"fewer");
    assert_eq!(root.decide(&entry, &other).units[0].reason_code, Some(ReasonCode::CpuChanged));
}

#[test]
fn another_systemd_leaves_everything_cold_unless_the_image_is_older_than_this_question() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let mut entry = root.image("a-b.service");
    let unit = root.decide_under(&entry, &machine(), Some(&systemd("258.1-1"))).units.remove(0);
    assert_eq!((unit.armed, unit.reason_code), (false, Some(ReasonCode::SystemdChanged)));
    assert_eq!(unit.reason.unwrap(), "systemd is 258.1-1, was 257.9-1 at the snapshot");
    assert!(!root.decide_under(&entry, &machine(), None).units[0].armed, "nothing is known of today's");
    entry.systemd = None;
    assert!(root.decide_under(&entry, &machine(), Some(&systemd("258.1-1"))).units[0].armed);
}

#[test]
fn a_unit_that_could_not_speak_through_the_shim_is_left_alone() {
    let root = Root::new();
    for text in
        ["[Service]\nType=oneshot\nExecStart=/usr/sbin/d\n", "[Service]\nExecStart=/usr/sbin/d\nPAMName=x\n"]
    {
        root.write(FRAGMENT, text);
        assert_eq!(
            root.decide_unit(&root.image("a-b.service")).reason_code,
            Some(ReasonCode::HostUnsupported)
        );
    }
    root.write(FRAGMENT, "[Service]\nExecStart=/usr/sbin/gone\n");
    assert_eq!(root.decide_unit(&root.image("a-b.service")).reason_code, Some(ReasonCode::FileMissing));
}

#[test]
fn a_unit_that_is_left_alone_has_every_reason_in_the_record() {
    let root = Root::new();
    root.write(FRAGMENT, "[Service]\nType=oneshot\nExecStart=/usr/sbin/d\nPAMName=x\n");
    let mut entry = root.image("a-b.service");
    entry.service.timeout_start_ms = Some(500);
    let unit = root.decide_unit(&entry);
    let codes: Vec<&str> = unit.obstacles.iter().map(|obstacle| obstacle.code.as_str()).collect();
    assert_eq!(codes, ["service-type", "pam-session", "start-timeout"]);
    let reason = unit.reason.unwrap();
    assert!(unit.obstacles.iter().all(|obstacle| reason.contains(&obstacle.reason)), "{reason}");
    root.write(FRAGMENT, TEXT);
    let changed = root.decide_unit(&entry);
    assert_eq!((changed.reason_code, changed.obstacles.len()), (Some(ReasonCode::UnitChanged), 0));
}

#[test]
fn a_trial_of_a_unit_that_is_left_alone_is_told_why() {
    let root = Root::new();
    root.write(FRAGMENT, "[Service]\nExecStart=/usr/sbin/d\nPAMName=x\n");
    let entry = root.image("a-b.service");
    let (dirs, machine, systemd) = (UnitDirs::read(root.0.path()).unwrap(), machine(), systemd("257.9-1"));
    let inputs = Inputs {
        root: root.0.path(),
        dirs: &dirs,
        machine: &machine,
        systemd: Some(&systemd),
        shim: "/shim",
        has_apparmor: true,
        soft_reboots: 0,
    };
    let on_trial = for_trial(&inputs, std::slice::from_ref(&entry));
    assert!(on_trial.drop_ins.is_empty());
    let told = &on_trial.left_alone[0];
    assert_eq!((told.unit.as_str(), told.image_id), ("a-b.service", Some(entry.image_id)));
    assert_eq!(told.reason.as_deref(), Some("it opens a PAM session (PAMName=x)"));
    // Where the snapshot looks for the restore daemon's word.
    let trials = Trials::open(&RunDir::below(root.0.path()));
    trials.allow(&entry).unwrap();
    assert_eq!(trials.all().len(), 1);
    trials.report(told).unwrap();
    assert_eq!(trials.outcome("a-b.service").unwrap().as_ref(), Some(told));
    assert_eq!(trials.claim("a-b.service"), Some(entry));
    assert_eq!(trials.claim("a-b.service"), None);
    assert!(trials.all().is_empty());
}

#[test]
fn a_unit_that_loses_its_drop_in_at_a_daemon_reload_has_the_reason_in_the_record() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let decided = root.decide(&root.image("a-b.service"), &machine());
    let mut record = decided.clone();
    root.write("/etc/systemd/system/a-b.service.d/x.conf", "[Service]\nNice=1\n");
    assert_eq!(root.repeat(&mut record), 0);
    let withheld = record.units[0].withheld.clone().unwrap();
    assert_eq!(withheld.code, ReasonCode::UnitChanged);
    assert!(withheld.sentence.contains("x.conf"), "{withheld}");
    fs::remove_file(root.path("/etc/systemd/system/a-b.service.d/x.conf")).unwrap();
    assert_eq!(root.repeat(&mut record), 1);
    assert_eq!(record, decided);
}

#[test]
fn a_unit_recorded_below_lib_is_found_below_usr_lib() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    root.link("/lib", "usr/lib");
    let mut entry = root.image("a-b.service");
    entry.unit_evidence.fragment.path = PathBuf::from("/lib/systemd/system/a-b.service");
    assert!(root.decide_unit(&entry).armed);
}

#[test]
fn a_daemon_reload_repeats_the_decision_until_the_text_changes() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let record = root.decide(&root.image("a-b.service"), &machine());
    let run_dir = RunDir::below(root.0.path());
    record.store(&run_dir).unwrap();
    let record = GeneratorRecord::load(&run_dir).unwrap().unwrap();
    assert_eq!(root.repeated(&record), 1);
    root.write("/etc/systemd/system/a-b.service.d/x.conf", "[Service]\nExecStart=\nExecStart=/usr/sbin/d\n");
    assert_eq!(root.repeated(&record), 0);
    fs::remove_file(root.path("/etc/systemd/system/a-b.service.d/x.conf")).unwrap();
    assert_eq!(root.repeated(&record), 1);
}

#[test]
fn a_unit_that_was_cold_at_boot_stays_cold_at_a_daemon_reload() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let entry = root.image("a-b.service");
    root.write(FRAGMENT, "[Service]\nExecStart=/usr/sbin/d -y\n");
    let record = root.decide(&entry, &machine());
    root.write(FRAGMENT, TEXT);
    assert_eq!(root.repeated(&record), 0);
}

#[test]
fn a_unit_that_goes_on_running_over_a_soft_reboot_is_left_alone() {
    let root = Root::new();
    root.write(FRAGMENT, TEXT);
    let decided = root.decide(&root.image("a-b.service"), &machine());
    let mut record = decided.clone();
    leave_alone(&mut record, &["other.service".to_owned()].into());
    assert_eq!(record, decided);
    leave_alone(&mut record, &["a-b.service".to_owned()].into());
    assert!(!record.units[0].armed);
    assert_eq!(record.units[0].reason_code, Some(ReasonCode::NotFirstStart));
    assert_eq!(root.repeated(&record), 0);
}

#[test]
fn a_damaged_record_is_an_error_and_a_missing_one_is_none() {
    let root = Root::new();
    let run_dir = RunDir::below(root.0.path());
    assert_eq!(GeneratorRecord::load(&run_dir).unwrap(), None);
    root.write("/run/fastboot/generator.json", "{\"version\":1,\"uni");
    GeneratorRecord::load(&run_dir).unwrap_err();
    root.write("/run/fastboot/generator.json", "{\"version\":9,\"units\":[]}");
    GeneratorRecord::load(&run_dir).unwrap_err();
}
