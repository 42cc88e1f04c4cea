//! The judgement.

use std::ffi::OsStr;

use crate::exec_line::ExecLine;
use crate::manager::is_volatile;
use crate::options::Options;
use crate::reason::Reason;
use crate::sandbox;
use crate::settings::{ServiceType, Settings};
use crate::standing::Standing;
use crate::unit::{Unit, add};

/// What is the same for all units.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Path of the shim.
    pub shim: &'a str,
    /// File name of the generator's drop-in.
    pub own_drop_in: &'a str,
    /// The kernel has AppArmor; without it systemd passes over profiles.
    pub has_apparmor: bool,
    /// Userspace has begun anew since the kernel was booted.
    pub is_after_soft_reboot: bool,
}

/// A unit that nothing stands against, and what was found out on the way.
#[derive(Clone, Debug)]
pub struct Restorable<'u> {
    unit: &'u Unit,
    service_type: ServiceType,
    line: ExecLine<'u>,
}

impl<'u> Restorable<'u> {
    /// Name of the unit.
    pub fn name(&self) -> &'u str {
        &self.unit.name
    }

    /// How systemd learns that it has started.
    pub fn service_type(&self) -> ServiceType {
        self.service_type
    }

    /// Its one command.
    pub fn line(&self) -> &ExecLine<'u> {
        &self.line
    }

    /// The rest of its text.
    pub fn settings(&self) -> &'u Settings {
        &self.unit.settings
    }

    /// What its text asks of us.
    pub fn options(&self) -> &'u Options {
        &self.unit.options
    }
}

/// Whether a unit can be restored. That its program exists and that there is time for it
/// ([`StartBudget`](crate::StartBudget)) are questions of their own.
///
/// # Errors
/// Every reason against it.
pub fn judge<'u>(unit: &'u Unit, around: &Surroundings<'_>) -> Result<Restorable<'u>, Vec<Reason>> {
    let mut reasons = Vec::new();
    if matches!(Standing::of(&unit.name), Standing::Never(_)) {
        add(&mut reasons, Reason::Hub);
    }
    inspect_files(unit, around, &mut reasons);
    let settings = &unit.settings;
    let service_type = settings.service_type().map_err(|reason| add(&mut reasons, reason)).ok();
    let line = match settings.exec_start().and_then(ExecLine::parse) {
        Ok(line) => Some(line),
        // Without a file it has no command either.
        Err(_) if unit.fragment.is_none() => None,
        Err(reason) => {
            add(&mut reasons, reason);
            None
        }
    };
    if let Some(line) = &line
        && !line.path.starts_with('/')
        && settings.last("ExecSearchPath").is_some_and(|path| !path.is_empty())
    {
        add(&mut reasons, Reason::SearchPath);
    }
    sandbox::inspect(settings, around, &mut reasons);
    if around.is_after_soft_reboot && settings.keeps_store() {
        add(&mut reasons, Reason::StoreOverSoftReboot);
    }
    if let Some(view) = &unit.manager {
        view.inspect(unit, &mut reasons);
    }
    unit.option_reasons.iter().for_each(|reason| add(&mut reasons, reason.clone()));
    match (service_type, line) {
        (Some(service_type), Some(line)) if reasons.is_empty() => Ok(Restorable { unit, service_type, line }),
        _ => Err(reasons),
    }
}

/// Where its text lies, and whether ours would have the last word.
fn inspect_files(unit: &Unit, around: &Surroundings<'_>, reasons: &mut Vec<Reason>) {
    let is_known_to_manager = unit.manager.as_ref().is_some_and(|view| view.fragment.is_some());
    match &unit.fragment {
        // systemd has one that lies elsewhere; that is said there.
        None if is_known_to_manager => {}
        None => add(reasons, Reason::NoUnitFile),
        Some(path) if is_volatile(path) => add(reasons, Reason::VolatileUnitFile { path: path.clone() }),
        Some(_) => {}
    }
    for drop_in in &unit.drop_ins {
        let path = &drop_in.path;
        if is_volatile(path) {
            add(reasons, Reason::VolatileDropIn { path: path.clone() });
        }
        let name = path.file_name().unwrap_or_default();
        if name == OsStr::new(around.own_drop_in) {
            add(reasons, Reason::SwitchedOff { path: path.clone() });
        }
        // Then ours must not be there at all.
        let decides = |key: &str| ["ExecStart", "ExecStartPre", "NotifyAccess", "Type"].contains(&key);
        let mut service = drop_in.assignments.iter().filter(|a| a.section == "Service");
        if name.as_encoded_bytes() > around.own_drop_in.as_bytes()
            && let Some(assignment) = service.find(|a| decides(&a.key))
        {
            add(reasons, Reason::LaterDropIn { path: path.clone(), key: assignment.key.clone() });
        }
    }
}
