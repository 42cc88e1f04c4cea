//! What the host must have: every program that a test, the demo or a benchmark executes on it,
//! asked for in one place.
//!
//! [`TABLE`] names each program with the Debian package that has it and with what it is for.
//! [`install`] installs what is missing for a purpose; [`command`] and [`path`] are the only way
//! from a name to a program that runs. Programs of a guest or of a root are not the host's: their
//! packages stand in the root's recipe.

mod install;
#[cfg(test)]
mod sources;
mod table;

pub use install::{install, install_all, install_for_machines, update_lists};
pub use table::{Need, Purpose, TABLE};

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Searched behind PATH, which for an ordinary user lacks the first.
const SYSTEM_DIRS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NeedError {
    /// It is in the table and not on this machine.
    #[error("{name} is needed and is not installed; the Debian package {package} has it")]
    Missing {
        /// Program or file.
        name: &'static str,
        /// Where it is from.
        package: &'static str,
    },
    /// Nobody has asked for it.
    #[error(
        "{name} does not stand in vm-tests/src/needs/table.rs, where each program of the host is asked for"
    )]
    Unknown {
        /// Program or file.
        name: String,
    },
    /// Building roots, booting them and installing is for root.
    #[error("this needs root: {what}")]
    NotRoot {
        /// What for.
        what: String,
    },
    /// apt-get failed.
    #[error("apt-get {arguments}{names}: {said}")]
    AptGet {
        /// Each program that this is for, with its package.
        names: String,
        /// Arguments of apt-get.
        arguments: String,
        /// The end of what it printed.
        said: String,
    },
    /// The backports of this release cannot be added to apt's sources.
    #[error("adding backports to apt's sources: {why}")]
    Backports {
        /// What is in the way.
        why: String,
    },
    /// QEMU is there, but too old.
    #[error("QEMU {found} is too old for new kernels; {needed} is needed")]
    OldQemu {
        /// Its major version.
        found: u32,
        /// The least that does.
        needed: u32,
    },
}

/// A command that executes a program of the host.
///
/// # Errors
/// [`NeedError::Missing`], [`NeedError::Unknown`].
pub fn command(name: &str) -> Result<Command, NeedError> {
    path(name).map(Command::new)
}

/// The same for a shell script of which `runs` are all programs that it executes.
///
/// # Errors
/// As [`command`], for each of them.
pub fn shell(script: &str, runs: &[&str]) -> Result<Command, NeedError> {
    for name in runs {
        path(name)?;
    }
    let mut shell = command("sh")?;
    shell.args(["-c", script]);
    Ok(shell)
}

/// Where a program of the host is.
///
/// # Errors
/// [`NeedError::Missing`], [`NeedError::Unknown`].
pub fn path(name: &str) -> Result<PathBuf, NeedError> {
    let need = TABLE.iter().find(|need| need.name == name);
    let need = need.ok_or_else(|| NeedError::Unknown { name: name.to_owned() })?;
    need.find().ok_or(NeedError::Missing { name: need.name, package: need.package })
}

/// Cargo, as the one that runs us or as it is on the host.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into()
}

/// A command that executes something of our own: what was just built, or Cargo, which builds it.
pub fn own(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// A command of a root that this process has moved into: the packages of that root's recipe have
/// it.
pub fn of_entered_root(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

impl Need {
    fn find(&self) -> Option<PathBuf> {
        if self.name.starts_with('/') {
            return Some(PathBuf::from(self.name)).filter(|file| file.exists());
        }
        let searched = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&searched).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
        dirs.map(|dir| dir.join(self.name)).find(|file| is_executable(file))
    }
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        let need = Need { name: "no-such-program", package: "some-package", purposes: &[] };
        assert!(need.find().is_none());
        let error = NeedError::Missing { name: need.name, package: need.package }.to_string();
        assert!(error.contains("no-such-program") && error.contains("some-package"), "{error}");
        let error = command("no-such-program").unwrap_err().to_string();
        assert!(error.starts_with("no-such-program does not stand in "), "{error}");
    }

    #[test]
    fn a_script_needs_all_programs_that_it_runs() {
        let output = shell("echo $0", &["sh"]).unwrap().arg("word").output().unwrap();
        assert_eq!(output.stdout, b"word\n");
        assert!(shell("true", &["no-such-program"]).is_err());
    }

    #[test]
    fn nothing_is_asked_for_twice_and_everything_is_for_something() {
        for (at, need) in TABLE.iter().enumerate() {
            assert!(!need.purposes.is_empty(), "{}", need.name);
            assert!(TABLE[..at].iter().all(|other| other.name != need.name), "{}", need.name);
        }
    }
}
