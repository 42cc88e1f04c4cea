//! A place of its own for one test: PID and mount namespaces in which the test is PID 1, a control
//! group with units, a store with an image, and the real initd with the real shim, or with somebody
//! whom it takes for the shim. Nothing of the machine is changed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fastboot_runtime::{BootStatus, GeneratorRecord, RunDir, UnitDecision};
use image_store::{
    CatalogueEntry, DEFAULT_ROOT, Durability, EvidenceV2, ImageInfo, ImageWriter, MachineEvidence,
    Observation, SectionKind, ServiceRecord, Store, UnitEvidence,
};
use initd::protocol::SOCKET_PATH;
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::Pid;

use crate::manager::Manager;

/// The shim, where initd looks for it.
pub const SHIM: &str = "/usr/lib/fastboot/fastboot-exec";
/// What the unit of a test depends on.
pub const RECORDED: &str = "/run/recorded.conf";
/// The user that services of the tests run as.
pub const USER: u32 = 61_111;
/// A unit whose image has a process of [`USER`] with [`GROUP`].
pub const OF_GROUP: &str = "of-group.service";
const GROUP: u32 = 61_112;
/// Names the test that runs inside.
const INSIDE: &str = "FASTBOOT_TEST_INSIDE";
/// Control group of the place.
const CGROUP: &str = "FASTBOOT_TEST_CGROUP";
const FRAGMENT: &str = "/run/fragment.service";
const LOG: &str = "/run/initd.log";
/// What each image says of its main process: a number that nobody has here.
const MAIN_PID: i32 = 3_000_001;
/// For a machine that does much else at the same time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The place, from inside.
pub struct Place {
    /// systemd's part.
    pub manager: Manager,
    /// initd.
    pub initd: Child,
    cgroup: PathBuf,
}

/// A process of a unit that waits for a word before it becomes its program.
pub struct Waiting(Child);

/// What is in a place.
pub struct Setting<'a> {
    /// These have an image and the shim in front of their command.
    pub units: &'a [&'a str],
    /// What is in the shim's place.
    pub shim: PathBuf,
    /// Numbers of the processes that are recorded in each image.
    pub pids: Vec<i32>,
}

/// Run the test `name` in a place of its own with the real shim.
pub fn inside(name: &str, units: &[&str], body: impl FnOnce(&mut Place)) {
    let shim = PathBuf::from(env!("CARGO_BIN_EXE_fastboot-exec"));
    inside_with(name, &Setting { units, shim, pids: vec![MAIN_PID] }, body);
}

/// The same with another setting. The outside is this program too; it only looks how the inside
/// ends.
pub fn inside_with(name: &str, setting: &Setting<'_>, body: impl FnOnce(&mut Place)) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        let mut place = Place::set_up(setting);
        body(&mut place);
        return;
    }
    let cgroup = unified_root().join(format!("fastboot-boundary-{name}-{}", std::process::id()));
    fs::create_dir_all(cgroup.join("init.scope")).unwrap();
    let inside = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env(CGROUP, &cgroup)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // The end of its PID 1 has ended all that was in it.
    remove(&cgroup);
    // Apart from what this harness says of its tests: the one inside says the like on the same
    // line.
    let said = [inside.stdout, inside.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(inside.status.success(), "inside: {}\n{}", inside.status, said.join("\n"));
}

fn unified_root() -> PathBuf {
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let found = mounts.into_iter().find(|mount| mount.join("cgroup.procs").exists());
    found.expect("a unified cgroup hierarchy").to_owned()
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while fs::remove_dir(dir).is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Place {
    fn set_up(setting: &Setting<'_>) -> Place {
        let cgroup = PathBuf::from(std::env::var(CGROUP).unwrap());
        fs::write(cgroup.join("init.scope/cgroup.procs"), "0").unwrap();
        let none = None::<&str>;
        let tmpfs =
            |at: &str| mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        tmpfs("/run");
        tmpfs("/var/lib");
        for dir in ["/run/over", "/run/work"] {
            fs::create_dir(dir).unwrap();
        }
        let layers = Some("lowerdir=/usr/lib,upperdir=/run/over,workdir=/run/work");
        mount(Some("overlay"), "/usr/lib", Some("overlay"), MsFlags::empty(), layers).unwrap();
        mount(none, "/usr/lib", none, MsFlags::MS_PRIVATE, none).unwrap();
        fs::create_dir_all(Path::new(SHIM).parent().unwrap()).unwrap();
        fs::copy(&setting.shim, SHIM).unwrap();
        fs::write(RECORDED, "as it was\n").unwrap();
        fs::write(FRAGMENT, "[Service]\nExecStart=/bin/d\n").unwrap();
        // For what services write.
        fs::create_dir("/run/out").unwrap();
        fs::set_permissions("/run/out", fs::Permissions::from_mode(0o1777)).unwrap();
        let entries = publish(setting);
        decisions(&entries).store(&RunDir::default()).unwrap();
        let manager = Manager::start();
        Place { manager, initd: start_initd(), cgroup }
    }

    /// A process in the control group of `unit`, as `uid`, that becomes `program` when it is told
    /// to.
    pub fn process(&self, unit: &str, uid: u32, program: &str) -> Waiting {
        let dir = self.cgroup.join("system.slice").join(unit);
        fs::create_dir_all(&dir).unwrap();
        let script = format!(
            "echo 0 > {}/cgroup.procs; read go; exec setpriv --reuid={uid} --regid={uid} --clear-groups {program} < /dev/null",
            dir.display()
        );
        let mut command = Command::new("/bin/sh");
        // Only that there is one counts.
        command.args(["-c", &script]).env("NOTIFY_SOCKET", "/run/nobody-listens").env_remove(INSIDE);
        Waiting(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    /// The main process of a unit, as systemd starts it: the shim in front of a command that notes
    /// that it was started.
    pub fn main_process(&self, unit: &str) -> Started {
        let process = self.process(
            unit,
            USER,
            &format!("{SHIM} --unit {unit} -- /bin/sh -c 'echo cold >> /run/out/{unit}'"),
        );
        self.manager.say(unit, "MainPID", process.pid().into());
        process.go()
    }

    /// What is known of the first start of a unit: code and sentence.
    pub fn status(&self, unit: &str) -> Option<(String, String)> {
        let status = BootStatus::load(&RunDir::default(), &initd::boot::boot_id()).unwrap();
        let of = status.units.into_iter().find(|of| of.unit == unit)?;
        let code = of.reason_code.map(|code| code.as_str().to_owned());
        Some((code.unwrap_or_default(), of.reason.unwrap_or_default()))
    }

    /// The same, as soon as it is known.
    pub fn wait_for_status(&self, unit: &str) -> (String, String) {
        wait_until(&format!("a word about {unit}"), || self.status(unit))
    }

    /// What initd has said.
    pub fn log(&self) -> String {
        fs::read_to_string(LOG).unwrap()
    }

    /// Wait until initd has said this.
    pub fn wait_for_log(&self, words: &str) {
        wait_until(words, || self.log().contains(words).then_some(()));
    }

    /// How often the command of a unit was started.
    pub fn cold_starts(&self, unit: &str) -> usize {
        fs::read_to_string(format!("/run/out/{unit}")).map_or(0, |text| text.lines().count())
    }

    /// Wait until the command of a unit has been started so often.
    pub fn wait_for_cold_starts(&self, unit: &str, count: usize) {
        wait_until(&format!("{count} cold starts of {unit}"), || {
            (self.cold_starts(unit) >= count).then_some(())
        });
    }

    /// Processes of a unit.
    pub fn members(&self, unit: &str) -> Vec<u32> {
        let path = self.cgroup.join("system.slice").join(unit).join("cgroup.procs");
        fs::read_to_string(path).unwrap().lines().map(|pid| pid.parse().unwrap()).collect()
    }

    /// initd and, if there is one, its zygote, in this order.
    pub fn signal(&self, signal: Signal, also_zygote: bool) {
        let initd = self.initd.id() as i32;
        kill(Pid::from_raw(initd), signal).unwrap();
        if also_zygote {
            let children = fs::read_to_string(format!("/proc/{initd}/task/{initd}/children")).unwrap();
            for child in children.split_whitespace() {
                kill(Pid::from_raw(child.parse().unwrap()), signal).unwrap();
            }
        }
    }
}

impl Waiting {
    /// Its number, which stays.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Now.
    pub fn go(mut self) -> Started {
        self.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Started(self.0)
    }
}

/// A process of a unit. The end of the place ends it.
pub struct Started(Child);

impl Started {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// End it.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// How it has ended.
    pub fn wait(mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

/// Wait for something; fails with its name.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        let log = fs::read_to_string(LOG).unwrap_or_default();
        assert!(Instant::now() < deadline, "no {what}; initd said: {log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn start_initd() -> Child {
    let listener = listen_at(SOCKET_PATH);
    let script = "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_fastboot-initd")]);
    command.stdin(Stdio::from(listener)).stderr(File::create(LOG).unwrap()).env_remove(INSIDE);
    command.spawn().unwrap()
}

fn listen_at(path: &str) -> OwnedFd {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    listen(&listener, Backlog::new(4096).unwrap()).unwrap();
    listener
}

/// An image per unit that is whole, except that no process is in it: a restore that gets as far as
/// the image fails there.
fn publish(setting: &Setting<'_>) -> Vec<CatalogueEntry> {
    let store = Store::open(DEFAULT_ROOT).with_early_copy("/run/early/catalogue.json");
    let _lock = store.lock().unwrap();
    let pending = store.begin_generation().unwrap();
    let mut entries = Vec::new();
    for unit in setting.units {
        let evidence = evidence();
        let path = pending.image_path(unit).unwrap();
        let mut writer = ImageWriter::create(&path).unwrap();
        writer.append_pages(&[7; 4096]).unwrap();
        let bytes = evidence.encode(&path).unwrap();
        writer.add_section(SectionKind::EVIDENCE, EvidenceV2::VERSION, &bytes).unwrap();
        let info = writer.finish(Durability::NoSync).unwrap();
        let mut entry = entry(unit, pending.relative_path(unit).unwrap(), &info, evidence);
        entry.service.pids.clone_from(&setting.pids);
        entries.push(entry);
    }
    pending.commit(entries.clone()).unwrap();
    entries
}

fn evidence() -> EvidenceV2 {
    let root = Path::new("/");
    EvidenceV2 {
        machine: MachineEvidence::collect(root).unwrap(),
        unit: UnitEvidence::collect(root, Path::new(FRAGMENT), &[]).unwrap(),
        observation: Observation::Recorded { not_observed: Vec::new() },
        files: Vec::new(),
        accounts: Vec::new(),
        values: Vec::new(),
        left_out: Vec::new(),
        environment_files: Vec::new(),
        users: Vec::new(),
        groups: Vec::new(),
    }
}

fn entry(unit: &str, file: String, info: &ImageInfo, evidence: EvidenceV2) -> CatalogueEntry {
    CatalogueEntry {
        unit: unit.to_owned(),
        file,
        len_bytes: info.len_bytes,
        image_id: info.id,
        unit_evidence: evidence.unit,
        machine: evidence.machine,
        systemd: None,
        start: None,
        held_groups: if unit == OF_GROUP { vec![(USER, GROUP)] } else { Vec::new() },
        taken_unix_s: None,
        service: ServiceRecord {
            service_type: "simple".to_owned(),
            exec_start_raw: "/bin/d".to_owned(),
            pid_file: None,
            bus_name: None,
            notify_access: "main".to_owned(),
            main_pid: MAIN_PID,
            pids: Vec::new(),
            page_bytes: info.page_bytes,
            timeout_start_ms: None,
            cold_start_ms: Some(100.0),
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

fn decisions(entries: &[CatalogueEntry]) -> GeneratorRecord {
    let unit = |entry: &CatalogueEntry| UnitDecision {
        unit: entry.unit.clone(),
        image_id: entry.image_id,
        armed: true,
        reason_code: None,
        reason: None,
        obstacles: Vec::new(),
        withheld: None,
        service_type: Some(entry.service.service_type.clone()),
        drop_in: None,
        unit_evidence: entry.unit_evidence.clone(),
    };
    GeneratorRecord::new(entries.iter().map(unit).collect())
}
