//! A unit that is ended without its stop path: systemd must neither run its stop commands, nor count
//! a failure, nor start it again before the machine is down.

use crate::unit::Systemd;
use fastboot_runtime::RunDir;
use snap_error::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where drop-ins lie that do not outlive a boot.
const UNITS: &str = "/run/systemd/system";
/// Behind all others.
const NAME: &str = "zzzz-fastboot-going-down.conf";
/// There from the moment in which the units are ended.
const FLAG: &str = "going-down";
const TEXT: &str = "# Written by fastboot, which ends the service with the machine.\n\
                    [Unit]\nConditionPathExists=!/run/fastboot/going-down\nOnFailure=\nOnSuccess=\n\
                    FailureAction=none\nSuccessAction=none\n\n\
                    [Service]\nRestart=no\nExecStop=\nExecStopPost=\nSuccessExitStatus=SIGKILL\n";

/// Units that may be ended so, as long as this lives.
#[derive(Debug)]
pub struct GoingDown<'a> {
    systemd: &'a Systemd,
    paths: Vec<PathBuf>,
    is_kept: bool,
}

fn flag() -> PathBuf {
    RunDir::default().path().join(FLAG)
}

/// Whether units have been ended for this shutdown before.
pub fn is_going_down() -> bool {
    flag().exists()
}

impl<'a> GoingDown<'a> {
    /// For these units. Dropped, it is as if nothing had happened.
    ///
    /// # Errors
    /// When it cannot be written, or systemd does not read it.
    pub fn begin(systemd: &'a Systemd, units: &[&str]) -> Result<Self> {
        clear();
        let mut going = Self { systemd, paths: Vec::new(), is_kept: false };
        for unit in units {
            let dir = Path::new(UNITS).join(format!("{unit}.d"));
            let path = dir.join(NAME);
            let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, TEXT));
            going.paths.push(path);
            written.map_err(|e| Error::io("write", dir.display(), &e))?;
        }
        systemd.reload()?;
        Ok(going)
    }

    /// There is no way back: from here on systemd does not start them either. Whoever is killed
    /// before this leaves services that start as ever.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn keep(&mut self) -> Result<()> {
        let made = RunDir::default().create().and_then(|()| std::fs::write(flag(), ""));
        made.map_err(|e| Error::io("write", flag().display(), &e))?;
        self.is_kept = true;
        Ok(())
    }

    /// There is one after all: the machine does not go down.
    pub fn take_back(&mut self) {
        self.is_kept = false;
    }
}

impl Drop for GoingDown<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        remove(&flag());
        self.paths.iter().for_each(|path| remove(path));
        if let Err(error) = self.systemd.reload() {
            tracing::warn!(%error, "systemd does not restart these services until it reads its units again");
        }
    }
}

/// What somebody has left who was killed just then.
fn clear() {
    let dirs = std::fs::read_dir(UNITS).into_iter().flatten().flatten();
    dirs.map(|dir| dir.path().join(NAME)).filter(|path| path.exists()).for_each(|path| remove(&path));
}

fn remove(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "not removed");
        }
        _ => {}
    }
    if path.starts_with(UNITS) {
        // Others may have theirs in it.
        let _ = path.parent().map(std::fs::remove_dir);
    }
}
