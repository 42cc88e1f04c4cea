//! What is known of this boot: systemd's times, the restore daemon's record, the catalogue, and
//! what the disks did.

use super::{Boot, DiskRate, How, Phase, Service};
use crate::unit::{BootTimes, Systemd, UnitTimes};
use fastboot_runtime::disk_use::DiskUse;
use fastboot_runtime::{BootStatus, Outcome, UnitStatus};
use image_store::Catalogue;
use snap_error::Result;

/// What comes after the boot is drawn when it belongs to it: a restore that was asked for just
/// before its end.
const AFTER_THE_END_US: u64 = 200_000;

/// The sources that are not systemd.
#[derive(Debug)]
pub struct Recorded {
    /// What became of the units.
    pub status: BootStatus,
    /// What the disks did.
    pub disk_use: Option<DiskUse>,
    /// The images.
    pub catalogue: Catalogue,
    /// Host name, kernel and systemd.
    pub machine: String,
}

/// Everything about this boot. `now_us`: `CLOCK_MONOTONIC`.
///
/// # Errors
/// Those of the bus.
pub fn gather(systemd: &Systemd, recorded: &Recorded, now_us: u64) -> Result<Boot> {
    Ok(put_together(systemd.boot_times()?, &systemd.service_times()?, recorded, now_us))
}

fn put_together(times: BootTimes, units: &[UnitTimes], recorded: &Recorded, now_us: u64) -> Boot {
    let asked = recorded.status.units.iter().filter(|row| row.requested_monotonic_us.is_some());
    let last_answer = asked.filter_map(|row| row.done_monotonic_us);
    let finished = times.finished_us;
    // A service that was first started long after the boot is none of its.
    let last_answer = last_answer.filter(|us| finished.is_none_or(|end| *us <= end + AFTER_THE_END_US)).max();
    let end_us = finished.unwrap_or(now_us).max(last_answer.unwrap_or(0));
    let mut services: Vec<Service> = units
        .iter()
        .filter_map(|unit| {
            let row = recorded.status.units.iter().find(|row| row.unit == unit.name);
            service(unit, row, &recorded.catalogue)
        })
        .filter(|service| service.start_us >= times.userspace_us && service.start_us <= end_us)
        .collect();
    services.sort_by(|a, b| (a.start_us, &a.unit).cmp(&(b.start_us, &b.unit)));
    let disk = recorded.disk_use.iter().flat_map(rates);
    let disk = disk.filter(|rate| rate.to_us > times.userspace_us && rate.from_us < end_us).collect();
    let machine = recorded.machine.clone();
    Boot { machine, userspace_us: times.userspace_us, finished_us: finished, end_us, services, disk }
}

fn service(unit: &UnitTimes, row: Option<&UnitStatus>, catalogue: &Catalogue) -> Option<Service> {
    let name = unit.name.clone();
    let asked_us = row.and_then(|row| row.requested_monotonic_us);
    // systemd knows the last start, and it may not be the one of the boot.
    let was_restarted = asked_us.is_some_and(|asked_us| unit.start_us > asked_us);
    let start_us = if was_restarted { asked_us? } else { unit.start_us };
    if start_us == 0 {
        return None;
    }
    let ready_us = unit.ready_us.filter(|us| *us >= start_us && !was_restarted);
    let Some(row) = row else { return Some(Service { unit: name, start_us, ready_us, how: How::Other }) };
    let how = match row.outcome {
        Outcome::Waiting => return None,
        Outcome::Cold => How::Cold { reason: row.reason.clone().unwrap_or_default() },
        Outcome::Restored => {
            let before = asked_us.map(|us| us.saturating_sub(start_us) as f64 / 1e3).unwrap_or_default();
            let first = [Phase { name: "systemd".to_owned(), ms: before }];
            let rest = row.phases_ms.0.iter().map(|(name, ms)| Phase { name: name.clone(), ms: *ms });
            let phases_ms = first.into_iter().chain(rest).collect();
            let entry = catalogue.newest(&row.unit).map(|(_, entry)| entry);
            let entry = entry.filter(|entry| Some(entry.image_id) == row.image_id);
            How::Restored { phases_ms, cold_start_ms: entry.and_then(|entry| entry.service.cold_start_ms) }
        }
    };
    let ready_us = match how {
        How::Restored { .. } => row.done_monotonic_us,
        _ => ready_us,
    };
    Some(Service { unit: name, start_us, ready_us, how })
}

fn rates(disk_use: &DiskUse) -> Vec<DiskRate> {
    let pairs = disk_use.samples.windows(2).filter(|pair| pair[1].monotonic_us > pair[0].monotonic_us);
    pairs
        .map(|pair| {
            let seconds = (pair[1].monotonic_us - pair[0].monotonic_us) as f64 / 1e6;
            let rate = |of: fn(&fastboot_runtime::disk_use::DiskSample) -> u64| {
                of(&pair[1]).saturating_sub(of(&pair[0])) as f64 / seconds
            };
            DiskRate {
                from_us: pair[0].monotonic_us,
                to_us: pair[1].monotonic_us,
                read: rate(|sample| sample.read_bytes),
                written: rate(|sample| sample.written_bytes),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastboot_runtime::disk_use::DiskSample;
    use fastboot_runtime::status::Phases;
    use image_store::ReasonCode;

    fn times(name: &str, start_us: u64, ready_us: Option<u64>) -> UnitTimes {
        UnitTimes { name: name.to_owned(), start_us, ready_us }
    }

    fn restored(unit: &str, asked_us: u64, done_us: u64) -> UnitStatus {
        UnitStatus {
            outcome: Outcome::Restored,
            reason_code: None,
            reason: None,
            phases_ms: Phases(vec![("queue".to_owned(), 1.0), ("restore".to_owned(), 4.0)]),
            requested_monotonic_us: Some(asked_us),
            done_monotonic_us: Some(done_us),
            ..UnitStatus::cold(unit, ReasonCode::Disabled, "")
        }
    }

    fn picture(units: &[UnitTimes], status: Vec<UnitStatus>) -> Boot {
        let times = BootTimes { userspace_us: 1_000_000, finished_us: Some(3_000_000) };
        let status = BootStatus { units: status, ..BootStatus::default() };
        let catalogue = Catalogue::default();
        let recorded = Recorded { status, disk_use: None, catalogue, machine: String::new() };
        put_together(times, units, &recorded, 9_000_000)
    }

    #[test]
    fn services_of_the_boot_are_there_in_their_order_and_no_others() {
        let units = [
            times("late.service", 3_500_000, Some(3_600_000)),
            times("b.service", 1_500_000, Some(1_900_000)),
            times("a.service", 1_200_000, None),
            times("never.service", 0, None),
            times("before.service", 900_000, Some(950_000)),
        ];
        let boot = picture(&units, Vec::new());
        let shown: Vec<_> = boot.services.iter().map(|s| (s.unit.as_str(), s.ready_us)).collect();
        assert_eq!(shown, [("a.service", None), ("b.service", Some(1_900_000))]);
        assert_eq!(
            boot.sentence(),
            "2000 ms of userspace; 0 services restored, 0 with an image started cold, 2 others"
        );
    }

    #[test]
    fn a_restored_service_shows_what_systemd_took_before_it_was_asked_for() {
        let units = [times("a.service", 1_200_000, Some(1_290_000))];
        let boot = picture(&units, vec![restored("a.service", 1_250_000, 1_255_000)]);
        let How::Restored { phases_ms, .. } = &boot.services[0].how else { panic!("{boot:?}") };
        let phases: Vec<_> = phases_ms.iter().map(|phase| (phase.name.as_str(), phase.ms)).collect();
        assert_eq!(phases, [("systemd", 50.0), ("queue", 1.0), ("restore", 4.0)]);
        assert_eq!(boot.services[0].ready_us, Some(1_255_000));
    }

    #[test]
    fn a_restart_after_the_boot_does_not_move_the_start_of_the_boot() {
        let units = [times("a.service", 8_000_000, Some(8_100_000))];
        let boot = picture(&units, vec![restored("a.service", 1_250_000, 1_255_000)]);
        assert_eq!((boot.services[0].start_us, boot.services[0].ready_us), (1_250_000, Some(1_255_000)));
    }

    #[test]
    fn rates_are_differences_by_time() {
        let sample = |monotonic_us, read_bytes| DiskSample { monotonic_us, read_bytes, written_bytes: 0 };
        let samples = vec![sample(1_000_000, 500), sample(1_500_000, 1500), sample(1_500_000, 1500)];
        let rates = rates(&DiskUse { boot_id: String::new(), samples });
        assert_eq!(rates.len(), 1);
        assert!((rates[0].read - 2000.0).abs() < 1e-9 && rates[0].written == 0.0);
    }
}
