//! When systemd did what in this boot.

use super::systemd::{Systemd, UnitTuple};
use snap_error::Result;
use zbus::zvariant::OwnedValue;

const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// Moments of the boot, microseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootTimes {
    /// systemd began.
    pub userspace_us: u64,
    /// It had nothing more to start; `None`: it still has.
    pub finished_us: Option<u64>,
}

/// The last start of a unit; microseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitTimes {
    /// The unit.
    pub name: String,
    /// It began; 0: never.
    pub start_us: u64,
    /// It was active, or had done what it does and was inactive again.
    pub ready_us: Option<u64>,
}

impl Systemd {
    /// Of systemd itself.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn boot_times(&self) -> Result<BootTimes> {
        let finished_us = self.manager_moment("FinishTimestampMonotonic")?;
        Ok(BootTimes {
            userspace_us: self.manager_moment("UserspaceTimestampMonotonic")?,
            finished_us: Some(finished_us).filter(|us| *us > 0),
        })
    }

    /// Of every service that systemd has in memory, those that have ended too.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn service_times(&self) -> Result<Vec<UnitTimes>> {
        let patterns = (Vec::<&str>::new(), vec!["*.service"]);
        let list: Vec<UnitTuple> = self.manager("ListUnitsByPatterns", &patterns)?;
        let times = list.into_iter().map(|(name, _, _, _, _, _, path, ..)| {
            let values = self.all_properties(&path, UNIT)?;
            let moment = |name: &str| values.get(name).map_or(0, number);
            let start_us = moment("InactiveExitTimestampMonotonic");
            let ends = ["ActiveEnterTimestampMonotonic", "InactiveEnterTimestampMonotonic"].map(moment);
            let ready_us = ends.into_iter().find(|us| *us >= start_us && start_us > 0);
            Ok(UnitTimes { name, start_us, ready_us })
        });
        times.collect()
    }
}

fn number(value: &OwnedValue) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
