//! systemd over D-Bus (org.freedesktop.systemd1(5)).

use crate::error::{Error, Result};
use crate::state::Pid;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use zbus::blocking::{Connection, Proxy};
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

const SERVICE: &str = "org.freedesktop.systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// How long a start or stop job may take before we stop waiting for it; systemd has limits of its own.
const JOB_TIMEOUT: Duration = Duration::from_secs(300);

/// A connection to the service manager.
#[derive(Debug)]
pub struct Systemd {
    connection: Connection,
}

/// Properties of one service that matter here. Times in microseconds of CLOCK_MONOTONIC, 0 when it never happened.
#[derive(Clone, Debug, Default)]
pub struct UnitInfo {
    pub name: String,
    pub load_state: String,
    pub active_state: String,
    pub fragment: PathBuf,
    pub drop_ins: Vec<PathBuf>,
    pub service_type: String,
    pub main_pid: i32,
    pub control_group: String,
    pub exec_start_count: usize,
    pub exec_path: PathBuf,
    pub root_directory: String,
    pub root_image: String,
    pub runtime_directories: Vec<String>,
    pub private_tmp: bool,
    pub pid_file: Option<String>,
    pub notify_access: String,
    pub environment_files: Vec<PathBuf>,
    pub user: String,
    pub group: String,
    pub inactive_exit_us: u64,
    pub active_enter_us: u64,
    pub has_job: bool,
}

fn bus(step: &'static str) -> impl Fn(zbus::Error) -> Error {
    move |e| Error::Internal { step, message: e.to_string() }
}

type Properties = HashMap<String, OwnedValue>;

fn take<T: TryFrom<OwnedValue> + Default>(properties: &mut Properties, name: &str) -> T {
    properties.remove(name).and_then(|value| T::try_from(value).ok()).unwrap_or_default()
}

/// Arrays of structures are only counted or searched for their first string.
fn structures(properties: &mut Properties, name: &str) -> Vec<String> {
    let Some(value) = properties.remove(name) else { return Vec::new() };
    let Value::Array(array) = &*value else { return Vec::new() };
    let first = |item: &Value<'_>| match item {
        Value::Structure(fields) => match fields.fields().first() {
            Some(Value::Str(text)) => Some(text.to_string()),
            _ => None,
        },
        _ => None,
    };
    array.iter().filter_map(first).collect()
}

impl Systemd {
    /// Connects to the system bus.
    ///
    /// # Errors
    /// No bus, or no permission.
    pub fn connect() -> Result<Self> {
        Ok(Self { connection: Connection::system().map_err(bus("connecting to the system bus"))? })
    }

    fn manager(&self) -> Result<Proxy<'_>> {
        Proxy::new(&self.connection, SERVICE, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
            .map_err(bus("talking to systemd"))
    }

    /// Names of all services that run.
    ///
    /// # Errors
    /// D-Bus.
    pub fn running_services(&self) -> Result<Vec<String>> {
        type Row =
            (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);
        let rows: Vec<Row> = self
            .manager()?
            .call("ListUnitsByPatterns", &(vec!["active"], vec!["*.service"]))
            .map_err(bus("listing units"))?;
        Ok(rows.into_iter().filter(|row| row.4 == "running").map(|row| row.0).collect())
    }

    /// Properties of a service.
    ///
    /// # Errors
    /// D-Bus; a unit that does not exist has load state `not-found`.
    pub fn unit(&self, name: &str) -> Result<UnitInfo> {
        let path: OwnedObjectPath =
            self.manager()?.call("LoadUnit", &(name,)).map_err(bus("loading the unit"))?;
        let proxy =
            Proxy::new(&self.connection, SERVICE, &path, PROPERTIES).map_err(bus("talking to systemd"))?;
        let all = |interface: &str| -> Result<Properties> {
            proxy.call("GetAll", &(interface,)).map_err(bus("reading properties of the unit"))
        };
        let mut unit = all("org.freedesktop.systemd1.Unit")?;
        let mut service = all("org.freedesktop.systemd1.Service")?;
        let exec = structures(&mut service, "ExecStart");
        let has_job = match unit.remove("Job").as_deref() {
            Some(Value::Structure(job)) => !matches!(job.fields().first(), Some(Value::U32(0))),
            _ => false,
        };
        let text = |properties: &mut Properties, key: &str| take::<String>(properties, key);
        let paths = |list: Vec<String>| list.into_iter().map(PathBuf::from).collect::<Vec<_>>();
        Ok(UnitInfo {
            name: text(&mut unit, "Id"),
            load_state: text(&mut unit, "LoadState"),
            active_state: text(&mut unit, "ActiveState"),
            fragment: text(&mut unit, "FragmentPath").into(),
            drop_ins: paths(take(&mut unit, "DropInPaths")),
            service_type: text(&mut service, "Type"),
            main_pid: take::<u32>(&mut service, "MainPID") as i32,
            control_group: text(&mut service, "ControlGroup"),
            exec_start_count: exec.len(),
            exec_path: exec.into_iter().next().unwrap_or_default().into(),
            root_directory: text(&mut service, "RootDirectory"),
            root_image: text(&mut service, "RootImage"),
            runtime_directories: take(&mut service, "RuntimeDirectory"),
            private_tmp: take(&mut service, "PrivateTmp"),
            pid_file: Some(text(&mut service, "PIDFile")).filter(|path| !path.is_empty()),
            notify_access: text(&mut service, "NotifyAccess"),
            environment_files: paths(structures(&mut service, "EnvironmentFiles")),
            user: text(&mut service, "User"),
            group: text(&mut service, "Group"),
            inactive_exit_us: take(&mut unit, "InactiveExitTimestampMonotonic"),
            active_enter_us: take(&mut unit, "ActiveEnterTimestampMonotonic"),
            has_job,
        })
    }

    /// Restarts a service and waits until systemd calls it started or failed.
    ///
    /// # Errors
    /// D-Bus, or no end in sight after five minutes.
    pub fn restart(&self, name: &str) -> Result<UnitInfo> {
        let _: OwnedObjectPath =
            self.manager()?.call("RestartUnit", &(name, "replace")).map_err(bus("restarting the unit"))?;
        let deadline = Instant::now() + JOB_TIMEOUT;
        loop {
            let info = self.unit(name)?;
            if !info.has_job
                && !matches!(info.active_state.as_str(), "activating" | "deactivating" | "reloading")
            {
                return Ok(info);
            }
            if Instant::now() > deadline {
                let message = format!("{name} is still {} after {JOB_TIMEOUT:?}", info.active_state);
                return Err(Error::Internal { step: "restarting the unit", message });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl UnitInfo {
    /// Directory of the unit's control group.
    ///
    /// # Errors
    /// Not there: the unit does not run.
    pub fn cgroup_dir(&self) -> Result<PathBuf> {
        let relative = self.control_group.trim_start_matches('/');
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .iter()
            .map(|mount| Path::new(mount).join(relative))
            .find(|dir| !relative.is_empty() && dir.join("cgroup.procs").exists())
            .ok_or_else(|| Error::Internal {
                step: "finding the control group",
                message: format!("{} has none", self.name),
            })
    }

    /// Reasons in the unit itself why it cannot be taken.
    pub fn reasons_against(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let mut unless = |good: bool, reason: String| {
            if !good {
                reasons.push(reason);
            }
        };
        if self.load_state != "loaded" {
            return vec![format!("the unit is {}", self.load_state)];
        }
        let known = ["simple", "exec", "notify", "notify-reload", "forking", "dbus", "idle"];
        unless(
            known.contains(&self.service_type.as_str()),
            format!("Type={} is not supported", self.service_type),
        );
        unless(self.active_state == "active", format!("the unit is {}", self.active_state));
        unless(self.main_pid > 0, "it has no main process".into());
        unless(self.exec_start_count == 1, format!("it has {} ExecStart= lines", self.exec_start_count));
        unless(self.root_directory.is_empty() || self.root_directory == "/", "RootDirectory= is set".into());
        unless(self.root_image.is_empty(), "RootImage= is set".into());
        reasons
    }

    /// Directories whose content a reboot takes away, as the unit sees them.
    pub fn volatile_roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> =
            self.runtime_directories.iter().map(|d| Path::new("/run").join(d)).collect();
        if self.private_tmp {
            roots.extend([PathBuf::from("/tmp"), PathBuf::from("/var/tmp")]);
        }
        roots
    }

    /// The tree's root as the engine names it.
    pub fn main(&self) -> Pid {
        Pid(self.main_pid)
    }

    /// Milliseconds from the start of the job to "active" as systemd saw it.
    pub fn start_ms(&self) -> Option<f64> {
        (self.active_enter_us >= self.inactive_exit_us && self.inactive_exit_us > 0)
            .then(|| (self.active_enter_us - self.inactive_exit_us) as f64 / 1e3)
    }
}
