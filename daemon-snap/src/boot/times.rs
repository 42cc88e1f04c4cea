//! What a boot is made of, as systemd tells it.

use super::chain::Link;
use crate::unit::Systemd;
use snap_error::Result;

/// A boot that is over; `CLOCK_MONOTONIC` in microseconds.
#[derive(Clone, Debug)]
pub struct Chains {
    /// systemd itself began.
    pub userspace_us: u64,
    /// It had nothing more to start.
    pub finished_us: u64,
    /// All units that were started by then and are active.
    pub links: Vec<Link>,
}

impl Chains {
    /// Asks systemd; `None` while the boot is not over.
    ///
    /// # Errors
    /// Those of the bus.
    pub fn read(systemd: &Systemd) -> Result<Option<Self>> {
        let times = systemd.boot_times()?;
        let Some(finished_us) = times.finished_us else { return Ok(None) };
        let of_boot = |us: u64| (times.userspace_us..=finished_us).contains(&us);
        let units = systemd.active_units(&["*.service", "*.target", "*.socket", "*.mount"])?.into_iter();
        let links = units.filter(|unit| of_boot(unit.inactive_exit_us)).map(|unit| {
            let (start_us, done_us) =
                (unit.inactive_exit_us, unit.active_enter_us.max(unit.inactive_exit_us));
            Link { name: unit.id, start_us, done_us, ready_us: done_us, after: unit.after }
        });
        Ok(Some(Self { userspace_us: times.userspace_us, finished_us, links: links.collect() }))
    }
}
