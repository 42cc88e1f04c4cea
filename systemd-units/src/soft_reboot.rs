//! `systemctl soft-reboot` (systemd-soft-reboot.service(8), since systemd 254): all of userspace begins anew, while the kernel,
//! its boot id and /run go on. For services it is a boot.
//!
//! Generators are not told in the run that matters: systemd 257 has `SYSTEMD_SOFT_REBOOTS_COUNT` for them, but reads the number
//! back only after they have run. So a unit of ours counts, the last thing before systemd executes itself.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use image_store::ReasonCode;

use crate::record::{FILE_NAME, Record};

/// File in the run directory: how often userspace has begun anew since the kernel was booted.
const COUNT_FILE: &str = "soft-reboots";
/// Slices in slices that are looked into.
const DEEPEST: usize = 16;

/// How often userspace has begun anew; zero also when that cannot be read.
pub fn count(run_dir: &Path) -> u64 {
    let text = fs::read_to_string(run_dir.join(COUNT_FILE)).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// The userspace that ends now has been the last but one.
///
/// # Errors
/// It cannot be noted: all services start cold after this soft reboot.
pub fn begin_anew(run_dir: &Path) -> io::Result<()> {
    let temporary = run_dir.join(format!(".{COUNT_FILE}"));
    fs::write(&temporary, (count(run_dir) + 1).to_string())?;
    fs::rename(&temporary, run_dir.join(COUNT_FILE))?;
    forget_earlier(run_dir)
}

/// Forget what earlier userspaces have left: who was started, what became of it, trials. The record goes last: as long as it is
/// there, it is seen to be of another userspace, and this is done again.
///
/// # Errors
/// Something could not be removed. Nothing may be restored then.
pub fn forget_earlier(run_dir: &Path) -> io::Result<()> {
    for dir in ["asked", "trial"] {
        unless_missing(fs::remove_dir_all(run_dir.join(dir)))?;
    }
    for file in ["status.json", FILE_NAME] {
        unless_missing(fs::remove_file(run_dir.join(file)))?;
    }
    Ok(())
}

fn unless_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

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

/// Leave units alone that go on running: their next start is a restart, and who restarts a service wants it fresh.
pub fn leave_alone(record: &mut Record, survivors: &BTreeSet<String>) {
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

    #[test]
    fn userspaces_are_counted_and_nothing_of_an_earlier_one_is_left() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(count(dir.path()), 0);
        begin_anew(dir.path()).unwrap();
        assert_eq!(count(dir.path()), 1);
        fs::create_dir_all(dir.path().join("asked")).unwrap();
        for file in ["asked/a.service", "status.json", FILE_NAME, "other"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        begin_anew(dir.path()).unwrap();
        assert_eq!(count(dir.path()), 2);
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", COUNT_FILE]);
    }
}
