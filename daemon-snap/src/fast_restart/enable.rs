//! Putting a unit into the mode, and out of it.

use crate::snapshot::observe::observe;
use crate::unit::Systemd;
use fastboot_runtime::boot;
use image_store::Store;
use snap_error::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the drop-in that says it.
pub const DROP_IN: &str = "50-fastboot-restart.conf";
const UNITS: &str = "/etc/systemd/system";
/// The unit that a plain `systemctl reboot` ends first has to find this one running.
const TEXT: &str = "# Written by `fastboot enable`.\n\
                    [Unit]\nBefore=fastboot-restart.service\n\n\
                    [X-Fastboot]\nMode=fast-restart\n";

fn drop_in(unit: &str) -> PathBuf {
    Path::new(UNITS).join(format!("{unit}.d")).join(DROP_IN)
}

/// Puts a unit into fast-restart mode. It is restarted once, to observe what it reads at its start.
/// Returns how many files that were.
///
/// # Errors
/// Everything that stands against it; the unit is as before then, and runs.
pub fn enable(store: &Store, unit: &str, settle: Duration) -> Result<usize> {
    let systemd = Systemd::connect()?;
    // There is such a unit.
    systemd.properties(unit)?;
    let once = store.once();
    once.create()?;
    once.note_boot(&boot::current_userspace())?;
    let path = drop_in(unit);
    let was_there = path.exists();
    let dir = path.parent().unwrap_or(Path::new(UNITS));
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, TEXT));
    written.map_err(|e| Error::io("write", path.display(), &e))?;
    let observed = systemd.reload().and_then(|()| {
        let evidence = observe(store, unit, settle)?;
        once.write_observed(unit, &evidence)?;
        Ok(evidence.files.len())
    });
    if observed.is_err() && !was_there {
        remove(&path)?;
        systemd.reload()?;
    }
    observed
}

/// Takes a unit out of the mode. Returns whether it was in it.
///
/// # Errors
/// When something cannot be removed.
pub fn disable(store: &Store, unit: &str) -> Result<bool> {
    let path = drop_in(unit);
    let was_there = path.exists();
    remove(&path)?;
    let had = store.once().forget(unit)?;
    if was_there {
        Systemd::connect()?.reload()?;
    }
    Ok(was_there || had)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", path.display(), &e)),
        _ => {}
    }
    // Others may have theirs in it.
    let _ = path.parent().map(std::fs::remove_dir);
    Ok(())
}
