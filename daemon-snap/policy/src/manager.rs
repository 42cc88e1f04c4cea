//! What systemd tells of a service that it has loaded, as far as it matters here.

use std::path::{Path, PathBuf};

use crate::reason::Reason;
use crate::settings::ServiceType;
use crate::unit::{Unit, add};

/// Properties of one service. A property that this systemd does not have is empty, 0 or false.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagerView {
    /// `LoadState`.
    pub load_state: String,
    /// `ActiveState`.
    pub active_state: String,
    /// `SubState`.
    pub sub_state: String,
    /// `MainPID`; 0 for none.
    pub main_pid: i32,
    /// `Type`.
    pub service_type: String,
    /// How many commands `ExecStart` has.
    pub exec_start_count: usize,
    /// `FragmentPath`.
    pub fragment: Option<PathBuf>,
    /// `DropInPaths` in the order in which they apply, without ours.
    pub drop_ins: Vec<PathBuf>,
    /// `Transient`.
    pub is_transient: bool,
    /// `NeedDaemonReload`.
    pub needs_reload: bool,
    /// It may be started and stopped by hand.
    pub can_restart: bool,
    /// `RootDirectory`, else `RootImage`.
    pub root: Option<String>,
    /// `PAMName`.
    pub pam_name: String,
    /// `PrivatePIDs`.
    pub has_own_pids: bool,
    /// `NotifyAccess`.
    pub notify_access: String,
    /// How many descriptors systemd keeps for it.
    pub stored_count: u32,
    /// How many of them it lists (since systemd 254).
    pub listed_count: usize,
}

impl ManagerView {
    /// What systemd's word has against the unit. The text of the unit may say the same once more.
    pub(crate) fn inspect(&self, unit: &Unit, reasons: &mut Vec<Reason>) {
        if self.load_state != "loaded" {
            add(reasons, Reason::NotLoaded { state: self.load_state.clone() });
        }
        let is_running = self.active_state == "active" && self.sub_state == "running";
        if !is_running {
            let (active, sub) = (self.active_state.clone(), self.sub_state.clone());
            add(reasons, Reason::NotRunning { active, sub });
        }
        if is_running && self.main_pid <= 0 {
            add(reasons, Reason::NoMainProcess);
        }
        if ServiceType::parse(&self.service_type).is_none() {
            add(reasons, Reason::ServiceType { value: self.service_type.clone() });
        }
        match self.exec_start_count {
            0 => add(reasons, Reason::NoExecStart),
            1 => {}
            count => add(reasons, Reason::SeveralExecStarts { count }),
        }
        self.inspect_files(unit, reasons);
        if self.needs_reload {
            add(reasons, Reason::NeedsReload);
        }
        if !self.can_restart {
            add(reasons, Reason::NoManualRestart);
        }
        if let Some(root) = &self.root {
            let is_said = reasons.iter().any(|reason| matches!(reason, Reason::OwnRoot { .. }));
            if !is_said {
                add(reasons, Reason::OwnRoot { key: "RootDirectory", value: root.clone() });
            }
        }
        if !self.pam_name.is_empty() {
            add(reasons, Reason::PamSession { name: self.pam_name.clone() });
        }
        if self.has_own_pids {
            add(reasons, Reason::OwnPids);
        }
        self.inspect_store(reasons);
    }

    /// Its files have to be there at the next boot, and to be those that the generator will find.
    fn inspect_files(&self, unit: &Unit, reasons: &mut Vec<Reason>) {
        match &self.fragment {
            None => add(reasons, Reason::NoUnitFile),
            Some(path) if self.is_transient || is_volatile(path) => {
                add(reasons, Reason::VolatileUnitFile { path: path.clone() });
            }
            Some(path) if unit.fragment.as_ref() != Some(path) => {
                add(reasons, Reason::OtherFiles { path: path.clone() });
            }
            Some(_) => {}
        }
        let (volatile, lasting): (Vec<&PathBuf>, Vec<&PathBuf>) =
            self.drop_ins.iter().partition(|path| is_volatile(path));
        volatile.into_iter().for_each(|path| add(reasons, Reason::VolatileDropIn { path: path.clone() }));
        let found: Vec<&PathBuf> =
            unit.drop_ins.iter().map(|drop_in| &drop_in.path).filter(|path| !is_volatile(path)).collect();
        let differs = lasting.iter().zip(&found).find(|(read, found)| read != found).map(|(read, _)| *read);
        let further = || lasting.get(found.len()).or_else(|| found.get(lasting.len())).copied();
        if let Some(path) = differs.or_else(further) {
            add(reasons, Reason::OtherFiles { path: path.clone() });
        }
    }

    fn inspect_store(&self, reasons: &mut Vec<Reason>) {
        let count = self.stored_count;
        if self.listed_count != count as usize {
            add(reasons, Reason::StoreUnlisted { count });
        }
        // systemd hears the shim of such a service only as one of several that may speak.
        let is_heard =
            self.service_type != "forking" || matches!(self.notify_access.as_str(), "exec" | "all");
        if count > 0 && !is_heard {
            add(reasons, Reason::StoreUnheard { count, notify_access: self.notify_access.clone() });
        }
    }
}

/// Whether what lies there is made anew at each boot.
pub(crate) fn is_volatile(path: &Path) -> bool {
    path.starts_with("/run")
}
