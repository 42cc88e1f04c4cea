//! systemd generator: reads files, asks [`systemd_units::decide`], writes drop-ins. Always exits 0,
//! within five seconds.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::Duration;

use fastboot_runtime::{GeneratorRecord, RunDir, Trials, cmdline, open_store, soft_reboot as counter};
use image_store::evidence::OWN_DROP_IN;
use image_store::{DEFAULT_ROOT, MachineEvidence, SystemdEvidence};
use systemd_units::decide::{self, Inputs, OnTrial};
use systemd_units::search::{UnitDirs, is_executable};
use systemd_units::{INITD, SHIM, soft_reboot};

/// A boot does not wait longer for us than this, whatever a disk or a file system does.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// In place of directories: nothing is to be restored in this boot any more. For a package that is
/// installed while services run already; their next start is a restart, and who restarts a service
/// wants it fresh.
const SIT_OUT: &str = "--sit-out";

/// In place of directories: systemd is about to begin userspace anew
/// (`fastboot-soft-reboot.service`).
const SOFT_REBOOT: &str = "--soft-reboot";

fn main() {
    std::panic::set_hook(Box::new(|info| log(4, &format!("internal error: {info}; services start cold"))));
    let watchdog = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(TIME_LIMIT);
        log(4, "not done after 5 s; services start cold");
        exit(0);
    });
    // Without a watchdog nothing would bound us.
    if watchdog.is_ok() {
        let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
        // The hook has said everything there is to say.
        let _ = std::panic::catch_unwind(|| match arguments.as_slice() {
            [word] if word.as_os_str() == SIT_OUT => sit_out(),
            [word] if word.as_os_str() == SOFT_REBOOT => begin_anew(),
            _ => run(&arguments),
        });
    }
    exit(0);
}

/// The third directory is the weakest of all: an administrator's file of the same name wins from
/// anywhere. Among drop-ins of different names only the name decides, so nothing is lost by it.
fn run(arguments: &[PathBuf]) {
    let Some(late) = arguments.get(2).or(arguments.first()) else {
        return log(4, "called without directories; services start cold");
    };
    let root = Path::new("/");
    let in_initrd = std::env::var("SYSTEMD_IN_INITRD").is_ok_and(|value| value == "1");
    let for_users = std::env::var("SYSTEMD_SCOPE").is_ok_and(|value| value == "user");
    if in_initrd || for_users {
        return;
    }
    // A boot counts as one also where nothing is restored in it.
    if open_store(DEFAULT_ROOT).once().is_there()
        && let Err(error) = link(late, "sysinit.target", "fastboot-boot.service")
    {
        log(4, &format!("{error}; images of the last shutdown may not be used"));
    }
    if cmdline::is_off(&cmdline::read(root)) {
        return;
    }
    for program in [SHIM, INITD] {
        if !is_executable(Path::new(program)) {
            return log(4, &format!("{program} cannot be executed; services start cold"));
        }
    }
    if let Err(error) = generate(root, late) {
        log(4, &format!("{error}; services start cold"));
    }
}

fn sit_out() {
    let run_dir = RunDir::default();
    let record = GeneratorRecord {
        soft_reboots: counter::count(&run_dir),
        ..GeneratorRecord::undecided("fastboot was installed in this boot")
    };
    if let Err(error) = record.store(&run_dir) {
        log(4, &of_record(&run_dir, &error));
    }
}

fn begin_anew() {
    let run_dir = RunDir::default();
    if let Err(error) = counter::begin_anew(&run_dir) {
        let path = run_dir.path().display();
        log(4, &format!("{path}: {error}; services start cold after this soft reboot"));
    }
}

fn of_record(run_dir: &RunDir, error: &io::Error) -> String {
    format!("{}: {error}", GeneratorRecord::path(run_dir).display())
}

fn generate(root: &Path, late: &Path) -> Result<(), String> {
    let run_dir = &RunDir::default();
    let describe = |error: io::Error| of_record(run_dir, &error);
    link(late, "soft-reboot.target", "fastboot-soft-reboot.service")?;
    let soft_reboots = counter::count(run_dir);
    let earlier = GeneratorRecord::load(run_dir).map_err(describe)?;
    let is_new_userspace = earlier.as_ref().is_some_and(|record| record.soft_reboots != soft_reboots);
    if is_new_userspace {
        counter::forget_earlier(run_dir).map_err(describe)?;
    }
    if let Some(record) = earlier.filter(|_| !is_new_userspace) {
        return decide_again(root, late, run_dir, record);
    }
    let store = open_store(DEFAULT_ROOT);
    let once = store.once().load().unwrap_or_else(|error| {
        log(4, &format!("{error}; what was taken at the last shutdown starts cold"));
        None
    });
    let decided = store.load_early().map_err(|error| error.to_string()).and_then(|catalogue| {
        if catalogue.units().is_empty() && once.is_none() {
            return Ok(GeneratorRecord::new(Vec::new()));
        }
        let dirs = read_dirs(root)?;
        let machine = Machine::look(root)?;
        let inputs = machine.inputs(root, &dirs, soft_reboots);
        let mut record = decide::decide(&inputs, &catalogue);
        if let Some(generation) = &once {
            decide::decide_once(&inputs, generation, &mut record);
        }
        Ok(record)
    });
    // What could not be decided at boot stays undecided until the next one, so it is recorded too.
    let mut record = decided.as_ref().map_or_else(GeneratorRecord::undecided, GeneratorRecord::clone);
    record.soft_reboots = soft_reboots;
    if soft_reboots > 0 {
        soft_reboot::leave_alone(&mut record, &soft_reboot::survivors(&root.join("sys/fs/cgroup")));
    }
    log_decisions(&record);
    // Without the record a later run could not say the same, so it comes before the drop-ins.
    record.store(run_dir).map_err(describe)?;
    if decided?.units.is_empty() {
        return Ok(());
    }
    let armed = record.units.iter().filter_map(|unit| Some((unit.unit.as_str(), unit.drop_in.as_deref()?)));
    write_all(late, &armed.collect::<Vec<_>>())
}

/// A later run in the same boot: what was decided is repeated, and images of a snapshot that are on
/// trial are decided on.
fn decide_again(
    root: &Path,
    late: &Path,
    run_dir: &RunDir,
    mut record: GeneratorRecord,
) -> Result<(), String> {
    let trials = Trials::open(run_dir);
    let permits = trials.all();
    if record.units.is_empty() && permits.is_empty() {
        return Ok(());
    }
    let dirs = read_dirs(root)?;
    let on_trial = match permits.is_empty() {
        true => OnTrial::default(),
        false => decide::for_trial(&Machine::look(root)?.inputs(root, &dirs, 0), &permits),
    };
    // The snapshot waits for it. If it cannot be told, it waits until it has waited long enough.
    for status in &on_trial.left_alone {
        if let Err(error) = trials.report(status) {
            log(4, &format!("{}: {error}", trials.path().display()));
        }
    }
    let before = record.clone();
    let mut drop_ins = decide::repeat(root, &dirs, &mut record);
    drop_ins.retain(|(unit, _)| !permits.iter().any(|permit| permit.unit == *unit));
    drop_ins.extend(on_trial.drop_ins.iter().map(|(unit, text)| (unit.as_str(), text.as_str())));
    write_all(late, &drop_ins)?;
    if record != before {
        record.store(run_dir).map_err(|error| of_record(run_dir, &error))?;
    }
    Ok(())
}

fn read_dirs(root: &Path) -> Result<UnitDirs, String> {
    UnitDirs::read(root).map_err(|error| format!("unit directories cannot be read: {error}"))
}

/// What images are compared with.
struct Machine {
    machine: MachineEvidence,
    systemd: Option<SystemdEvidence>,
    has_apparmor: bool,
}

impl Machine {
    fn look(root: &Path) -> Result<Machine, String> {
        let enabled = fs::read_to_string(root.join("sys/module/apparmor/parameters/enabled"));
        Ok(Machine {
            machine: MachineEvidence::collect(root).map_err(|error| error.to_string())?,
            systemd: SystemdEvidence::collect(root),
            has_apparmor: enabled.is_ok_and(|enabled| enabled.trim() == "Y"),
        })
    }

    fn inputs<'a>(&'a self, root: &'a Path, dirs: &'a UnitDirs, soft_reboots: u64) -> Inputs<'a> {
        let (machine, systemd) = (&self.machine, self.systemd.as_ref());
        Inputs { root, dirs, machine, systemd, shim: SHIM, has_apparmor: self.has_apparmor, soft_reboots }
    }
}

/// The drop-ins, and the links that make the restore daemon part of this boot.
fn write_all(late: &Path, drop_ins: &[(&str, &str)]) -> Result<(), String> {
    let write = |path: &Path, text: &str| -> io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(late))?;
        fs::write(path, text)
    };
    for (unit, text) in drop_ins {
        let path = late.join(format!("{unit}.d")).join(OWN_DROP_IN);
        write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for unit in ["fastboot-initd.socket", "fastboot-initd.service"] {
        link(late, "sysinit.target", unit)?;
    }
    link(late, "multi-user.target", "fastboot-report.service")
}

/// Have a target pull in a unit of ours.
fn link(late: &Path, by: &str, unit: &str) -> Result<(), String> {
    let wants = late.join(format!("{by}.wants"));
    let target = Path::new("/usr/lib/systemd/system").join(unit);
    let linked = fs::create_dir_all(&wants)
        .and_then(|()| std::os::unix::fs::symlink(&target, wants.join(unit)))
        .or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) });
    linked.map_err(|error| format!("{}: {error}", wants.join(unit).display()))
}

/// In the kernel log, where containers cannot write: initd says the same to the journal, if it comes
/// to that.
fn log_decisions(record: &GeneratorRecord) {
    for unit in record.units.iter().filter(|unit| !unit.armed) {
        let reason = unit.reason.as_deref().unwrap_or_default();
        let _ = log_to_kernel(5, &format!("{}: image not used: {reason}; starting it cold", unit.unit));
    }
}

/// One line into the kernel log, as there is no journal yet; to stderr where that is not possible
/// (containers).
fn log(level: u8, text: &str) {
    if log_to_kernel(level, text).is_err() {
        // Nowhere else to say it.
        let _ = io::stderr().write_all(format!("fastboot-generator: {text}\n").as_bytes());
    }
}

fn log_to_kernel(level: u8, text: &str) -> io::Result<()> {
    let line = format!("<{level}>fastboot-generator[{}]: {}\n", std::process::id(), text.replace('\n', " "));
    OpenOptions::new().write(true).open("/dev/kmsg")?.write_all(line.as_bytes())
}
