//! What families of tests in containers share: a root to copy, fastboot to install in it, and a
//! machine that is booted again and again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::container::{BootOptions, Container, end_left_over_machines};
use crate::fastboot;
use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, Recipe, Scratch, cached, sweep};
use crate::service::install_fastboot;

/// A root and the binaries of fastboot, for all tests of a family.
#[derive(Debug)]
pub struct Lab {
    family: &'static str,
    root: PathBuf,
    release: PathBuf,
}

impl Lab {
    /// Build what is needed; end what an earlier run has left.
    ///
    /// # Errors
    /// The root or fastboot cannot be built.
    pub fn prepare(family: &'static str, recipe: fn() -> Result<Recipe>) -> Result<Lab> {
        Lab::with_programs(family, recipe, fastboot::build)
    }

    /// The same with programs that know of faults (`FASTBOOT_FAULT`).
    ///
    /// # Errors
    /// As [`prepare`](Lab::prepare).
    pub fn prepare_with_faults(family: &'static str, recipe: fn() -> Result<Recipe>) -> Result<Lab> {
        Lab::with_programs(family, recipe, fastboot::build_with_faults)
    }

    fn with_programs(
        family: &'static str,
        recipe: fn() -> Result<Recipe>,
        build: fn() -> Result<PathBuf>,
    ) -> Result<Lab> {
        needs::install(&[Purpose::Roots])?;
        end_left_over_machines()?;
        sweep()?;
        let release = build().context("building fastboot")?;
        Ok(Lab { family, root: cached(&recipe()?)?, release })
    }

    /// A machine of this name with fastboot installed that has not been booted yet.
    ///
    /// # Errors
    /// The root cannot be copied.
    pub fn site(&self, name: &str) -> Result<Site> {
        let site = Site::new(self.family, name, &self.root)?;
        install_fastboot(&self.release, &site.scratch)?;
        Ok(site)
    }
}

/// One machine: it keeps what happens to it from boot to boot.
#[derive(Debug)]
pub struct Site {
    /// Its root.
    pub scratch: Scratch,
    name: String,
    logs: PathBuf,
    boots: u32,
}

impl Site {
    /// A copy of `root`. The console of each boot goes to a file of its own among the logs of the
    /// family.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn new(family: &str, name: &str, root: &Path) -> Result<Site> {
        let logs = logs(family)?;
        Ok(Site { scratch: Scratch::copy_of(root, name)?, name: name.to_owned(), logs, boots: 0 })
    }

    /// Boot and wait for nothing.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, options: &BootOptions) -> Result<Container> {
        self.boots += 1;
        let console = self.log().with_extension("log");
        Container::boot(self.scratch.root(), &self.name, &console, options)
    }

    /// Boot, and wait until systemd is done.
    ///
    /// # Errors
    /// It does not start, or is not done within `bound`.
    pub fn boot(&mut self, bound: Duration) -> Result<Container> {
        let machine = self.start(&BootOptions::default())?;
        machine.wait_booted(bound)?;
        Ok(machine)
    }

    /// The number of this boot, from 1.
    pub fn boots(&self) -> u32 {
        self.boots
    }

    /// Path of what is kept of this boot, without an extension.
    pub fn log(&self) -> PathBuf {
        self.logs.join(format!("{}-boot-{}", self.name, self.boots))
    }
}

/// Directory of the logs of a family.
///
/// # Errors
/// It cannot be made.
pub fn logs(family: &str) -> Result<PathBuf> {
    let logs = Path::new(CACHE_DIR).join("logs").join(family);
    std::fs::create_dir_all(&logs).with_context(|| format!("making {}", logs.display()))?;
    Ok(logs)
}
