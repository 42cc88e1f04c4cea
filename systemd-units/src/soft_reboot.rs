//! `systemctl soft-reboot` (systemd-soft-reboot.service(8), since systemd 254): all of userspace
//! begins anew, while the kernel, its boot id and /run go on. For services it is a boot.
//!
//! Which services go on running over it, and are left alone. How often it has happened is counted
//! in `fastboot_runtime::soft_reboot`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fastboot_runtime::GeneratorRecord;
use image_store::ReasonCode;

/// Slices in slices that are looked into.
const DEEPEST: usize = 16;

/// Services that have processes now, before systemd has started anything: they were told to survive
/// (`SurviveFinalKillSignal=`). `cgroups` is `/sys/fs/cgroup`.
pub fn survivors(cgroups: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    look_into(cgroups, DEEPEST, &mut found);
    found
}

fn look_into(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.ends_with(".slice") && depth > 0 {
            look_into(&entry.path(), depth - 1, found);
        } else if name.ends_with(".service") {
            let events = fs::read_to_string(entry.path().join("cgroup.events")).unwrap_or_default();
            if events.lines().any(|line| line == "populated 1") {
                found.insert(name);
            }
        }
    }
}

/// Leave units alone that go on running: their next start is a restart, and who restarts a service
/// wants it fresh.
pub fn leave_alone(record: &mut GeneratorRecord, survivors: &BTreeSet<String>) {
    for unit in record.units.iter_mut().filter(|unit| survivors.contains(&unit.unit)) {
        unit.armed = false;
        unit.drop_in = None;
        unit.service_type = None;
        unit.reason_code = Some(ReasonCode::NotFirstStart);
        unit.reason = Some("it has gone on running over a soft reboot".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_with_processes_is_found_in_whatever_slice_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for (cgroup, events) in [
            ("init.scope", "populated 1\nfrozen 0\n"),
            ("system.slice/a.service", "populated 1\nfrozen 0\n"),
            ("system.slice/b.service", "populated 0\nfrozen 0\n"),
            ("system.slice/system-c.slice/c@1.service", "populated 1\n"),
        ] {
            fs::create_dir_all(dir.path().join(cgroup)).unwrap();
            fs::write(dir.path().join(cgroup).join("cgroup.events"), events).unwrap();
        }
        let expected = ["a.service", "c@1.service"].map(str::to_owned);
        assert_eq!(survivors(dir.path()), BTreeSet::from(expected));
        assert_eq!(survivors(&dir.path().join("nowhere")), BTreeSet::new());
    }
}
