//! What systemd says about a service, as plain values.

use snap_collect::dump::StoredDescriptor;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use zbus::zvariant::{OwnedObjectPath, OwnedValue, Value};

/// Properties that follow from defaults of systemd itself, or may have been set while it runs,
/// beside those of limits.
const START_SETTINGS: [&str; 10] = [
    "AmbientCapabilities",
    "CPUAffinity",
    "CapabilityBoundingSet",
    "Environment",
    "Nice",
    "NoNewPrivileges",
    "OOMScoreAdjust",
    "SupplementaryGroups",
    "UMask",
    "User",
];

/// Properties of one service, read at one time. A property that this systemd does not have is
/// empty, 0 or false.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitProperties {
    /// Its own name, whatever name it was asked for by.
    pub id: String,
    pub load_state: String,
    pub active_state: String,
    pub sub_state: String,
    /// `Result=` of the last run.
    pub result: String,
    pub fragment: Option<PathBuf>,
    /// In the order in which they apply.
    pub drop_ins: Vec<PathBuf>,
    /// Files on disk are newer than what systemd has loaded.
    pub needs_reload: bool,
    pub is_transient: bool,
    pub has_job: bool,
    pub can_restart: bool,
    /// `CLOCK_MONOTONIC` in microseconds; 0 when it never happened.
    pub inactive_exit_us: u64,
    pub active_enter_us: u64,
    /// `TimeoutStartSec=`; `None` for infinity.
    pub timeout_start_ms: Option<u64>,
    /// `Type=`.
    pub service_type: String,
    pub notify_access: String,
    pub pid_file: Option<String>,
    /// `BusName=`.
    pub bus_name: Option<String>,
    /// Units that have it started: those that want it, sockets, timers and the like.
    pub started_by: Vec<String>,
    /// `After=`, what systemd adds by itself included.
    pub after: Vec<String>,
    pub main_pid: i32,
    /// Below the root of the cgroup hierarchy; empty when nothing runs.
    pub control_group: String,
    pub exec_start_count: usize,
    /// First program of `ExecStart=`.
    pub program: Option<PathBuf>,
    /// Path or pattern, and whether it may be missing.
    pub environment_files: Vec<(String, bool)>,
    pub user: String,
    pub group: String,
    pub is_dynamic_user: bool,
    pub runtime_directories: Vec<String>,
    pub state_directories: Vec<String>,
    pub cache_directories: Vec<String>,
    pub logs_directories: Vec<String>,
    /// `ReadWritePaths=`, with their prefixes.
    pub writable_paths: Vec<String>,
    pub private_tmp: bool,
    pub pam_name: String,
    /// Directory or image that is the unit's root.
    pub root: Option<String>,
    pub has_own_pids: bool,
    /// How many descriptors systemd keeps for it.
    pub stored_fds: u32,
    /// Which they are, where systemd lists them (since 254).
    pub stored: Vec<StoredDescriptor>,
    /// `FileDescriptorStoreMax=`.
    pub most_stored: u32,
    /// `FileDescriptorStorePreserve=`; empty before systemd 254, which is `restart`.
    pub store_preserved: String,
    /// `STATUS=` of the service.
    pub status_text: String,
    /// Settings that say how systemd starts it, its own defaults included; only to be compared.
    pub start_settings: BTreeMap<String, String>,
}

impl UnitProperties {
    pub(super) fn from_values(values: HashMap<String, OwnedValue>) -> Self {
        let mut values = Values(values);
        let start_settings = values.start_settings();
        let path = |text: String| Some(text).filter(|text| !text.is_empty());
        let exec_start = values.exec_lines("ExecStart");
        let (root_directory, root_image) = (values.text("RootDirectory"), values.text("RootImage"));
        Self {
            id: values.text("Id"),
            load_state: values.text("LoadState"),
            active_state: values.text("ActiveState"),
            sub_state: values.text("SubState"),
            result: values.text("Result"),
            fragment: path(values.text("FragmentPath")).map(PathBuf::from),
            drop_ins: values.texts("DropInPaths").into_iter().map(PathBuf::from).collect(),
            needs_reload: values.flag("NeedDaemonReload"),
            is_transient: values.flag("Transient"),
            has_job: values.job() != 0,
            can_restart: values.flag("CanStart")
                && !values.flag("RefuseManualStart")
                && !values.flag("RefuseManualStop"),
            inactive_exit_us: values.number("InactiveExitTimestampMonotonic"),
            active_enter_us: values.number("ActiveEnterTimestampMonotonic"),
            timeout_start_ms: Some(values.number("TimeoutStartUSec"))
                .filter(|us| *us != u64::MAX)
                .map(|us| us / 1000),
            service_type: values.text("Type"),
            notify_access: values.text("NotifyAccess"),
            pid_file: path(values.text("PIDFile")),
            bus_name: path(values.text("BusName")),
            started_by: ["WantedBy", "RequiredBy", "RequisiteOf", "BoundBy", "UpheldBy", "TriggeredBy"]
                .iter()
                .flat_map(|key| values.texts(key))
                .collect(),
            after: values.texts("After"),
            main_pid: values.number("MainPID") as i32,
            control_group: values.text("ControlGroup"),
            exec_start_count: exec_start.len(),
            program: exec_start.into_iter().next().map(PathBuf::from),
            environment_files: values.pairs("EnvironmentFiles"),
            user: values.text("User"),
            group: values.text("Group"),
            is_dynamic_user: values.flag("DynamicUser"),
            runtime_directories: values.texts("RuntimeDirectory"),
            state_directories: values.texts("StateDirectory"),
            cache_directories: values.texts("CacheDirectory"),
            logs_directories: values.texts("LogsDirectory"),
            writable_paths: values.texts("ReadWritePaths"),
            private_tmp: values.flag("PrivateTmp"),
            pam_name: values.text("PAMName"),
            root: path(root_directory).or(path(root_image)),
            has_own_pids: !matches!(values.text("PrivatePIDs").as_str(), "" | "no"),
            stored_fds: values.number("NFileDescriptorStore") as u32,
            stored: Vec::new(),
            most_stored: values.number("FileDescriptorStoreMax") as u32,
            store_preserved: values.text("FileDescriptorStorePreserve"),
            status_text: values.text("StatusText"),
            start_settings,
        }
    }

    /// Whether systemd waits until the service says that it is ready; else "active" only means that
    /// it was executed.
    pub fn waits_for_word(&self) -> bool {
        !matches!(self.service_type.as_str(), "simple" | "exec" | "idle")
    }

    /// Whether systemd may keep descriptors for it.
    pub fn may_store(&self) -> bool {
        self.most_stored > 0 || self.stored_fds > 0
    }

    /// Whether a restart begins with an empty store, as a boot does. systemd before 254 never says
    /// so; what it keeps is refused.
    pub fn empties_store(&self) -> bool {
        !self.may_store() || matches!(self.store_preserved.as_str(), "no" | "")
    }

    /// Whether only the bus starts it, when somebody asks for its name. Most such services end by
    /// themselves when nobody has asked for a while.
    pub fn is_started_by_bus_alone(&self) -> bool {
        self.bus_name.is_some() && self.started_by.is_empty()
    }

    /// Names of the stored descriptors, for people.
    pub fn stored_names(&self) -> String {
        self.stored.iter().map(|stored| stored.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Directories whose content does not outlive a reboot, as the unit sees them.
    pub fn volatile_roots(&self) -> Vec<PathBuf> {
        let mut roots: Vec<PathBuf> = Vec::new();
        for name in &self.runtime_directories {
            // With DynamicUser= the name below /run is a link, and the kernel shows where it leads.
            let shown = PathBuf::from("/run").join(name);
            let inside = PathBuf::from(format!("/proc/{}/root/run/{name}", self.main_pid));
            let is_link = std::fs::symlink_metadata(inside).is_ok_and(|metadata| metadata.is_symlink());
            roots.push(if is_link { PathBuf::from("/run/private").join(name) } else { shown });
        }
        if self.private_tmp {
            roots.extend(["/tmp", "/var/tmp"].map(PathBuf::from));
        }
        roots
    }
}

/// Properties by name; each is taken once.
struct Values(HashMap<String, OwnedValue>);

impl Values {
    fn take<T: TryFrom<Value<'static>>>(&mut self, name: &str) -> Option<T> {
        T::try_from(Value::from(self.0.remove(name)?)).ok()
    }

    fn text(&mut self, name: &str) -> String {
        self.take(name).unwrap_or_default()
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        self.take(name).unwrap_or_default()
    }

    fn flag(&mut self, name: &str) -> bool {
        self.take(name).unwrap_or_default()
    }

    fn number(&mut self, name: &str) -> u64 {
        match self.0.remove(name).map(Value::from) {
            Some(Value::U64(number)) => number,
            Some(Value::U32(number)) => u64::from(number),
            _ => 0,
        }
    }

    fn start_settings(&self) -> BTreeMap<String, String> {
        let is_one = |name: &&String| name.starts_with("Limit") || START_SETTINGS.contains(&name.as_str());
        let names = self.0.keys().filter(is_one);
        names.map(|name| (name.clone(), format!("{:?}", self.0[name]))).collect()
    }

    fn pairs(&mut self, name: &str) -> Vec<(String, bool)> {
        self.take(name).unwrap_or_default()
    }

    fn job(&mut self) -> u32 {
        self.take::<(u32, OwnedObjectPath)>("Job").map_or(0, |(id, _)| id)
    }

    /// Programs of a list of commands (a structure whose first field is the path).
    fn exec_lines(&mut self, name: &str) -> Vec<String> {
        let Some(Value::Array(lines)) = self.0.remove(name).map(Value::from) else { return Vec::new() };
        let program = |line: &Value<'_>| match line {
            Value::Structure(fields) => match fields.fields().first() {
                Some(Value::Str(path)) => path.as_str().to_owned(),
                _ => String::new(),
            },
            _ => String::new(),
        };
        lines.iter().map(program).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_by_name_and_missing_ones_are_empty() {
        let owned = |value: Value<'static>| OwnedValue::try_from(value).unwrap();
        let values = HashMap::from([
            ("Id".to_owned(), owned(Value::from("a.service"))),
            ("MainPID".to_owned(), owned(Value::from(812u32))),
            ("ActiveEnterTimestampMonotonic".to_owned(), owned(Value::from(5_000_000u64))),
            ("PrivateTmp".to_owned(), owned(Value::from(true))),
            ("RuntimeDirectory".to_owned(), owned(Value::from(vec!["redis".to_owned()]))),
            ("EnvironmentFiles".to_owned(), owned(Value::from(vec![("/etc/a".to_owned(), true)]))),
        ]);
        let properties = UnitProperties::from_values(values);
        assert_eq!(properties.id, "a.service");
        assert_eq!((properties.main_pid, properties.active_enter_us), (812, 5_000_000));
        assert_eq!(properties.environment_files, [("/etc/a".to_owned(), true)]);
        assert_eq!(properties.fragment, None);
        let on_bus =
            UnitProperties { bus_name: Some("org.example.A".to_owned()), ..UnitProperties::default() };
        let wanted = UnitProperties { started_by: vec!["multi-user.target".to_owned()], ..on_bus.clone() };
        assert!(on_bus.is_started_by_bus_alone() && !wanted.is_started_by_bus_alone());
        assert!(!properties.is_started_by_bus_alone(), "it has no name");
        let roots = properties.volatile_roots();
        assert_eq!(roots, ["/run/redis", "/tmp", "/var/tmp"].map(PathBuf::from));
    }
}
