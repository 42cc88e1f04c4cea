//! The few calls to systemd that a snapshot needs, over the system bus. Every call is bounded in
//! time.
//!
//! Written against zbus itself: of the generated `org.freedesktop.systemd1` interfaces we would use
//! five methods, and properties are read in one go so that they belong together.

use super::UnitProperties;
use nix::errno::Errno;
use snap_collect::dump::StoredDescriptor;
use snap_error::{BusFault, Error, Result, ServiceFault};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use zbus::zvariant::{DynamicDeserialize, DynamicType, OwnedObjectPath, OwnedValue};

const DESTINATION: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

const UNKNOWN_METHOD: &str = "org.freedesktop.DBus.Error.UnknownMethod";

/// Longest for one answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest for a restart. systemd has its own limits per unit; this one is for units that switched
/// them off.
const RESTART_TIMEOUT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(10);

/// A connection to the system's service manager.
#[derive(Debug)]
pub struct Systemd {
    connection: zbus::blocking::Connection,
}

/// One line of `systemctl list-units`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUnit {
    pub name: String,
    pub load_state: String,
    pub active_state: String,
    pub sub_state: String,
}

/// As ListUnitsByPatterns returns it.
pub(super) type UnitTuple =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// As DumpUnitFileDescriptorStore returns it.
type StoredTuple = (String, u32, u32, u32, u64, u32, u32, String, u32);

impl Systemd {
    /// Connects to the system bus.
    ///
    /// # Errors
    /// Without a bus, or without permission.
    pub fn connect() -> Result<Self> {
        let connect = || zbus::blocking::connection::Builder::system()?.method_timeout(CALL_TIMEOUT).build();
        Ok(Self { connection: connect().map_err(|e| failed("connecting to the system bus", &e))? })
    }

    /// A property of systemd itself that is text, as `Version` or `Virtualization`.
    ///
    /// # Errors
    /// Those of the bus, and a property that is not there or no text.
    pub fn manager_text(&self, property: &'static str) -> Result<String> {
        self.manager_property(property)
    }

    /// A moment of systemd itself, microseconds of `CLOCK_MONOTONIC`; 0: not yet.
    ///
    /// # Errors
    /// Those of the bus.
    pub(super) fn manager_moment(&self, property: &'static str) -> Result<u64> {
        self.manager_property(property)
    }

    /// Variables that systemd gives to every service.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn environment(&self) -> Result<Vec<String>> {
        self.manager_property("Environment")
    }

    fn manager_property<T>(&self, property: &'static str) -> Result<T>
    where
        T: TryFrom<OwnedValue>,
        T::Error: Into<zbus::Error>,
    {
        let proxy = zbus::blocking::Proxy::new(&self.connection, DESTINATION, MANAGER_PATH, MANAGER);
        proxy.and_then(|proxy| proxy.get_property(property)).map_err(|e| failed(property, &e))
    }

    /// By which settings systemd would start a service now. Only to be compared.
    ///
    /// # Errors
    /// As [`properties`](Self::properties).
    pub fn start_settings(&self, unit: &str) -> Result<BTreeMap<String, String>> {
        let mut settings = self.properties(unit)?.start_settings;
        settings.insert("DefaultEnvironment".to_owned(), self.environment()?.join("\n"));
        Ok(settings)
    }

    /// All services that run.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn running_services(&self) -> Result<Vec<ListedUnit>> {
        let patterns = (vec!["active"], vec!["*.service"]);
        let list: Vec<UnitTuple> = self.manager("ListUnitsByPatterns", &patterns)?;
        let units = list.into_iter().map(|(name, _, load_state, active_state, sub_state, ..)| ListedUnit {
            name,
            load_state,
            active_state,
            sub_state,
        });
        let mut units: Vec<ListedUnit> = units.filter(|unit| unit.sub_state == "running").collect();
        units.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(units)
    }

    /// All units that are active and match one of the patterns, as far as all kinds of units are
    /// alike.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn active_units(&self, patterns: &[&str]) -> Result<Vec<UnitProperties>> {
        let listed: Vec<UnitTuple> = self.manager("ListUnitsByPatterns", &(vec!["active"], patterns))?;
        let paths = listed.into_iter().map(|(_, _, _, _, _, _, path, ..)| path);
        // One may have gone since.
        let read = paths.filter_map(|path| self.all_properties(&path, UNIT).ok());
        Ok(read.map(UnitProperties::from_values).collect())
    }

    /// Everything about a service, loaded if it is not.
    ///
    /// # Errors
    /// When there is no such unit; those of the bus.
    pub fn properties(&self, unit: &str) -> Result<UnitProperties> {
        let path = self.unit_path(unit)?;
        let mut all = self.all_properties(&path, UNIT)?;
        all.extend(self.all_properties(&path, SERVICE)?);
        let mut properties = UnitProperties::from_values(all);
        if properties.load_state == "not-found" {
            return Err(no_unit(unit));
        }
        if properties.stored_fds > 0 {
            properties.stored = self.stored_descriptors(&properties.id)?.unwrap_or_default();
            // Of one moment. Where there is no list their number is all that is known.
            if !properties.stored.is_empty() {
                properties.stored_fds = properties.stored.len() as u32;
            }
        }
        Ok(properties)
    }

    /// What systemd keeps for a unit, last stored first; `None` where it does not tell (before
    /// 254).
    ///
    /// # Errors
    /// Those of the bus.
    fn stored_descriptors(&self, unit: &str) -> Result<Option<Vec<StoredDescriptor>>> {
        const METHOD: &str = "DumpUnitFileDescriptorStore";
        let answer: zbus::Result<Vec<StoredTuple>> = self.try_call(MANAGER_PATH, MANAGER, METHOD, &(unit,));
        let listed = match answer {
            Err(zbus::Error::MethodError(name, ..)) if name.as_str() == UNKNOWN_METHOD => return Ok(None),
            answer => answer.map_err(|error| failed(METHOD, &error))?,
        };
        let device = |major: u32, minor: u32| nix::sys::stat::makedev(major.into(), minor.into());
        let described = |(name, mode, major, minor, inode, of_major, of_minor, path, flags): StoredTuple| {
            let (device, special_device) = (device(major, minor), device(of_major, of_minor));
            let (path, flags) = (path.into_bytes(), flags as i32);
            StoredDescriptor { name, mode, device, inode, special_device, path, flags }
        };
        Ok(Some(listed.into_iter().map(described).collect()))
    }

    /// Restarts a unit and waits until the job is done and the unit is active.
    ///
    /// # Errors
    /// When it ends up in another state or takes longer than ten minutes; those of the bus.
    pub fn restart(&self, unit: &str) -> Result<UnitProperties> {
        let path = self.unit_path(unit)?;
        let since = self.properties(unit)?.inactive_exit_us;
        // Our restarts are not the ones that `StartLimitBurst=` counts.
        self.reset_failed(unit)?;
        let _job: OwnedObjectPath = self.manager("RestartUnit", &(unit, "replace"))?;
        let deadline = Instant::now() + RESTART_TIMEOUT;
        loop {
            let values = self.all_properties(&path, UNIT)?;
            let now = UnitProperties::from_values(values);
            let is_new = now.inactive_exit_us != since;
            if !now.has_job && is_new && now.active_state == "active" {
                return self.properties(unit);
            }
            let gave_up = matches!(now.active_state.as_str(), "failed" | "inactive")
                || now.sub_state.starts_with("auto-restart");
            if !now.has_job && gave_up {
                let result = self.properties(unit)?.result;
                let (unit, state) = (unit.to_owned(), now.active_state);
                return Err(ServiceFault::NotComeBack { unit, state, result }.into());
            }
            if Instant::now() >= deadline {
                let (unit, after_s) = (unit.to_owned(), RESTART_TIMEOUT.as_secs());
                return Err(ServiceFault::NotReady { unit, after_s }.into());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether the machine is about to go down for good, not only userspace.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn goes_down(&self) -> Result<bool> {
        const ENDS: [&str; 4] = ["reboot.target", "poweroff.target", "halt.target", "kexec.target"];
        let jobs: Vec<(u32, String, String, String, OwnedObjectPath, OwnedObjectPath)> =
            self.manager("ListJobs", &())?;
        Ok(jobs.iter().any(|(_, unit, kind, ..)| kind == "start" && ENDS.contains(&unit.as_str())))
    }

    /// Who keeps the machine from going down, and why, as logind knows; nobody where there is none.
    pub fn shutdown_inhibitors(&self) -> Vec<String> {
        type Inhibitor = (String, String, String, String, u32, u32);
        const LOGIND: &str = "org.freedesktop.login1";
        let asked = self.connection.call_method(
            Some(LOGIND),
            "/org/freedesktop/login1",
            Some("org.freedesktop.login1.Manager"),
            "ListInhibitors",
            &(),
        );
        let listed = asked.and_then(|answer| answer.body().deserialize::<Vec<Inhibitor>>());
        let blocks = |one: &Inhibitor| one.3 == "block" && one.0.split(':').any(|what| what == "shutdown");
        let all = listed.unwrap_or_default().into_iter().filter(blocks);
        all.map(|(_, who, why, ..)| format!("{who} ({why})")).collect()
    }

    /// Has systemd read all units again, and run its generators.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn reload(&self) -> Result<()> {
        self.manager("Reload", &())
    }

    /// Forgets earlier failures of a unit, and how often it was started lately.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn reset_failed(&self, unit: &str) -> Result<()> {
        self.manager("ResetFailedUnit", &(unit,))
    }

    /// `ActiveState` of a unit of any kind.
    ///
    /// # Errors
    /// When there is no such unit; those of the bus.
    pub fn active_state(&self, unit: &str) -> Result<String> {
        let path = self.unit_path(unit)?;
        Ok(UnitProperties::from_values(self.all_properties(&path, UNIT)?).active_state)
    }

    /// Starts a unit of any kind and waits until it is active.
    ///
    /// # Errors
    /// When it does not become active; those of the bus.
    pub fn start(&self, unit: &str) -> Result<()> {
        self.change(unit, "StartUnit", "active")
    }

    /// Stops a unit of any kind and waits until it is inactive.
    ///
    /// # Errors
    /// When it does not; those of the bus.
    pub fn stop(&self, unit: &str) -> Result<()> {
        self.change(unit, "StopUnit", "inactive")
    }

    fn change(&self, unit: &str, method: &'static str, wanted: &str) -> Result<()> {
        let path = self.unit_path(unit)?;
        let _job: OwnedObjectPath = self.manager(method, &(unit, "replace"))?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let now = UnitProperties::from_values(self.all_properties(&path, UNIT)?);
            if !now.has_job && now.active_state == wanted {
                return Ok(());
            }
            if (!now.has_job && now.active_state == "failed") || Instant::now() >= deadline {
                let (unit, state, wanted) = (unit.to_owned(), now.active_state, wanted.to_owned());
                return Err(ServiceFault::NotInState { job: method, unit, state, wanted }.into());
            }
            std::thread::sleep(POLL);
        }
    }

    fn unit_path(&self, unit: &str) -> Result<OwnedObjectPath> {
        let answer = self.try_call(MANAGER_PATH, MANAGER, "LoadUnit", &(unit,));
        answer
            .map_err(|error| if is_unknown_unit(&error) { no_unit(unit) } else { failed("LoadUnit", &error) })
    }

    pub(super) fn all_properties(
        &self,
        path: &OwnedObjectPath,
        interface: &str,
    ) -> Result<HashMap<String, OwnedValue>> {
        self.call(path.as_str(), PROPERTIES, "GetAll", &(interface,))
    }

    pub(super) fn manager<B, R>(&self, method: &'static str, body: &B) -> Result<R>
    where
        B: serde::Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.call(MANAGER_PATH, MANAGER, method, body)
    }

    fn call<B, R>(&self, path: &str, interface: &str, method: &'static str, body: &B) -> Result<R>
    where
        B: serde::Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.try_call(path, interface, method, body).map_err(|error| failed(method, &error))
    }

    fn try_call<B, R>(&self, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<R>
    where
        B: serde::Serialize + DynamicType,
        R: for<'d> DynamicDeserialize<'d>,
    {
        self.connection
            .call_method(Some(DESTINATION), path, Some(interface), method, body)?
            .body()
            .deserialize()
    }
}

fn failed(step: &'static str, error: &zbus::Error) -> Error {
    let fault = match error {
        zbus::Error::MethodError(name, text, _) => {
            BusFault::Refused { name: name.to_string(), text: text.clone().unwrap_or_default() }
        }
        zbus::Error::InputOutput(error) => {
            BusFault::Connection(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        }
        other => BusFault::NotUnderstood { found: other.to_string() },
    };
    Error::Bus { step, fault }
}

fn no_unit(unit: &str) -> Error {
    Error::NoUnit(unit.to_owned())
}

/// Names that systemd refuses outright.
fn is_unknown_unit(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::MethodError(name, ..) => {
            ["org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.InvalidArgs"]
                .contains(&name.as_str())
        }
        _ => false,
    }
}

/// `nginx` is `nginx.service`.
pub fn full_name(name: &str) -> String {
    match name.ends_with(".service") {
        true => name.to_owned(),
        false => format!("{name}.service"),
    }
}
