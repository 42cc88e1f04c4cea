//! The two tools, by their command lines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::place::{WORK_DIR, program};
use crate::needs;

/// Who dumps and restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tool {
    Fastboot,
    Criu,
}

impl Tool {
    pub(super) const BOTH: [Tool; 2] = [Tool::Fastboot, Tool::Criu];

    pub(super) fn name(self) -> &'static str {
        match self {
            Tool::Fastboot => "fastboot",
            Tool::Criu => "criu",
        }
    }

    /// Name and version.
    ///
    /// # Errors
    /// The program does not run.
    pub(super) fn version(self) -> Result<String> {
        let output = needs::of_entered_root(self.name())
            .arg("--version")
            .output()
            .with_context(|| format!("running {}", self.name()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("?");
        Ok(format!("{} {version}", self.name()))
    }

    /// Dump the process and end it.
    pub(super) fn dump(self, pid: Pid) -> Command {
        let mut command = program(self.name());
        match self {
            Tool::Fastboot => {
                command.args(["dump", "--pid", &pid.to_string(), "--output"]).arg(image_dir().join("image"))
            }
            Tool::Criu => command.args(["dump", "-t", &pid.to_string(), "-D"]).arg(image_dir()),
        };
        command
    }

    /// Restore it and leave it running.
    pub(super) fn restore(self) -> Command {
        let mut command = program(self.name());
        match self {
            Tool::Fastboot => command.arg("restore").arg(image_dir().join("image")).arg("--detach"),
            Tool::Criu => command.args(["restore", "-d", "-D"]).arg(image_dir()),
        };
        command
    }

    /// The two command lines, for people.
    pub(super) fn lines(self) -> [String; 2] {
        [self.dump(Pid::from_raw(20_000)), self.restore()].map(|command| {
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        })
    }
}

/// Where the image of the moment is.
pub(super) fn image_dir() -> PathBuf {
    Path::new(WORK_DIR).join("image")
}

/// Make the image directory anew, empty.
///
/// # Errors
/// Removing or making it fails.
pub(super) fn empty_image_dir() -> Result<()> {
    let dir = image_dir();
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", dir.display()));
        }
        _ => {}
    }
    fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))
}

/// Sum of the lengths of all files of the image.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn image_bytes() -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(image_dir()).context("listing the image")? {
        sum += entry.context("listing the image")?.metadata().context("looking at the image")?.len();
    }
    Ok(sum)
}
