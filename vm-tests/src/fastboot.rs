//! fastboot as its users have it: built binaries, their places in a root, and the JSON of the
//! commands.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::container::Container;
use crate::needs;

/// Binary and its place.
const PROGRAMS: &[(&str, &str)] = &[
    ("fastboot", "/usr/sbin/fastboot"),
    ("fastboot-initd", "/usr/lib/fastboot/fastboot-initd"),
    ("fastboot-exec", "/usr/lib/fastboot/fastboot-exec"),
    ("fastboot-generator", "/usr/lib/systemd/system-generators/fastboot-generator"),
];
/// Place of the unit files.
const UNIT_DIR: &str = "/usr/lib/systemd/system";
/// Place of the images and the catalogue.
pub const STORE_DIR: &str = "/var/lib/fastboot";
/// Longest for a snapshot of all units of a machine.
const SNAPSHOT_BOUND: Duration = Duration::from_secs(600);

/// What `fastboot snapshot --json` prints.
#[derive(Debug, Clone, Deserialize)]
pub struct SnapshotReport {
    /// How the command ended: 0 all stored, 3 something refused, 1 something failed.
    #[serde(skip)]
    pub exit_code: Option<i32>,
    /// The generation that was published.
    pub generation: Option<u64>,
    /// One per unit.
    pub units: Vec<SnapshotUnit>,
}

/// A unit in a [`SnapshotReport`].
#[derive(Debug, Clone, Deserialize)]
pub struct SnapshotUnit {
    /// Full name.
    pub unit: String,
    /// `stored`, `pointless`, `refused` or `failed`.
    pub outcome: String,
    /// Why not, one line each.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Their codes.
    #[serde(default)]
    pub obstacles: Vec<Obstacle>,
    /// What its owner should know all the same.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Length of the image.
    pub image_bytes: Option<u64>,
    /// Measured cold start.
    pub cold_start_ms: Option<f64>,
    /// Measured trial restore.
    pub restore_ms: Option<f64>,
}

/// One reason, as far as programs read it.
#[derive(Debug, Clone, Deserialize)]
pub struct Obstacle {
    /// One of `docs/reasons.md`.
    pub code: String,
}

/// What `fastboot status --json` prints.
#[derive(Debug, Clone, Deserialize)]
pub struct StatusReport {
    /// Why this boot looked at no image at all.
    #[serde(default)]
    pub error: Option<String>,
    /// One per unit with an image.
    pub units: Vec<StatusUnit>,
}

/// A unit in a [`StatusReport`].
#[derive(Debug, Clone, Deserialize)]
pub struct StatusUnit {
    /// Full name.
    pub unit: String,
    /// `restored` or `cold`.
    pub outcome: String,
    /// Stable code of the reason for a cold start.
    pub reason_code: Option<String>,
    /// Sentence for it.
    pub reason: Option<String>,
    /// Time of the restore.
    pub restore_ms: Option<f64>,
    /// Main PID of a restored unit.
    pub main_pid: Option<u32>,
    /// Where the time of its start went, by phase, in milliseconds.
    #[serde(default)]
    pub phases_ms: BTreeMap<String, f64>,
}

impl SnapshotReport {
    /// The unit's part.
    pub fn unit(&self, name: &str) -> Option<&SnapshotUnit> {
        self.units.iter().find(|unit| unit.unit == name)
    }
}

impl StatusReport {
    /// The unit's part.
    pub fn unit(&self, name: &str) -> Option<&StatusUnit> {
        self.units.iter().find(|unit| unit.unit == name)
    }
}

const PROGRAM_PACKAGES: [&str; 7] = ["--bins", "-p", "daemon-snap", "-p", "initd", "-p", "systemd-units"];

/// Build the release binaries of the workspace that this runner comes from.
///
/// # Errors
/// They do not build; the compiler's words are in the error.
pub fn build() -> Result<PathBuf> {
    cargo_build(&PROGRAM_PACKAGES)
}

/// Build the same for tests that switch faults on (`FASTBOOT_FAULT`), which a program that is
/// shipped does not know.
///
/// # Errors
/// As [`build`].
pub fn build_with_faults() -> Result<PathBuf> {
    cargo_build_as("verify", &PROGRAM_PACKAGES)
}

fn cargo_build(what: &[&str]) -> Result<PathBuf> {
    cargo_build_as("release", what)
}

fn cargo_build_as(profile: &str, what: &[&str]) -> Result<PathBuf> {
    let workspace = workspace();
    let output = needs::own(needs::cargo())
        .args(["build", "--profile", profile, "--quiet"])
        .args(what)
        .current_dir(&workspace)
        .stdin(Stdio::null())
        .output()
        .context("running cargo build")?;
    if !output.status.success() {
        bail!("cargo build: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(target_dir().join(profile))
}

/// Where cargo builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// Build one more program of the workspace; its path.
///
/// # Errors
/// As [`build`].
pub fn build_program(package: &str, program: &str) -> Result<PathBuf> {
    Ok(cargo_build(&["-p", package, "--bin", program])?.join(program))
}

/// Build the library that is preloaded for fresh randomness; its path.
///
/// # Errors
/// As [`build`].
pub fn build_reseed() -> Result<PathBuf> {
    Ok(cargo_build(&["-p", "fastboot-reseed", "--lib"])?.join("libfastboot_reseed.so"))
}

/// Where that library is installed.
pub const RESEED: &str = "/usr/lib/fastboot/libfastboot-reseed.so";

/// Build an example of the workspace; its path.
///
/// # Errors
/// As [`build`].
pub fn build_example(package: &str, example: &str) -> Result<PathBuf> {
    Ok(cargo_build(&["-p", package, "--example", example])?.join("examples").join(example))
}

/// The work tree.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Put the binaries of `release` and the unit files into a root that is not running. There is
/// nothing to enable: the generator pulls the daemon in where there are images.
///
/// # Errors
/// A binary was not built; a file cannot be written.
pub fn install(release: &Path, root: &Path) -> Result<()> {
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    for (program, place) in PROGRAMS {
        copy(&release.join(program), &inside(place), 0o755)?;
    }
    let units = workspace().join("systemd-units/units");
    let mut count = 0;
    for entry in fs::read_dir(&units).with_context(|| format!("listing {}", units.display()))? {
        let entry = entry.context("listing unit files")?;
        copy(&entry.path(), &inside(UNIT_DIR).join(entry.file_name()), 0o644)?;
        count += 1;
    }
    ensure!(count > 0, "no unit files in {}", units.display());
    let catalogue = "systemd-units/catalog/fastboot.catalog";
    copy(&workspace().join(catalogue), &inside("/usr/lib/systemd/catalog/fastboot.catalog"), 0o644)
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let parent = to.parent().context("a file needs a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", to.display()))
}

/// `fastboot snapshot UNIT… --no-trial --json` with more arguments, run as a unit of the
/// container's systemd, as a login would. Without a trial restore everything is kept, also what
/// gains nothing.
///
/// # Errors
/// The command does not run or prints something else. What was refused or failed is in the report.
pub fn snapshot(machine: &Container, units: &[&str], more: &[&str]) -> Result<SnapshotReport> {
    snapshot_with_trial(machine, units, &[&["--no-trial"], more].concat())
}

/// The same as an operator gets it: each image is used once, and what gains nothing is not kept.
///
/// # Errors
/// As [`snapshot`].
pub fn snapshot_with_trial(machine: &Container, units: &[&str], more: &[&str]) -> Result<SnapshotReport> {
    let mut arguments =
        vec!["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "fastboot", "snapshot"];
    arguments.extend(units);
    arguments.push("--json");
    arguments.extend(more);
    let output = machine.run_for(&arguments, SNAPSHOT_BOUND)?;
    match parse::<SnapshotReport>(&output.stdout) {
        Ok(report) => Ok(SnapshotReport { exit_code: output.code, ..report }),
        Err(_) => bail!("fastboot snapshot: exit code {:?}: {}{}", output.code, output.stdout, output.stderr),
    }
}

/// `fastboot status --json`.
///
/// # Errors
/// The command fails or prints something else.
pub fn status(machine: &Container) -> Result<StatusReport> {
    parse(&machine.run(&["fastboot", "status", "--json"])?.success()?)
}

pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("not the JSON that was agreed on: {text:?}"))
}

/// The image of a unit in the newest generation, in a root that is not running.
///
/// # Errors
/// There is none.
pub fn image_path(root: &Path, unit: &str) -> Result<PathBuf> {
    let images = root.join(STORE_DIR.trim_start_matches('/')).join("images");
    let entries = fs::read_dir(&images).with_context(|| format!("listing {}", images.display()))?;
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u64>().ok();
    let mut generations: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    generations.sort_by_key(|path| number(path));
    let image =
        generations.iter().rev().map(|dir| dir.join(format!("{unit}.img"))).find(|path| path.exists());
    image.with_context(|| format!("no image of {unit} in {}", images.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_with_fields_that_we_do_not_know() {
        let text = r#"{"generation":3,"units":[
            {"unit":"a.service","outcome":"stored","reasons":[],"image_bytes":4096,"pages":1,"freeze_ms":0.5},
            {"unit":"b.service","outcome":"refused","reasons":["pid 812 fd 7 is an io_uring ring"]}]}"#;
        let report: SnapshotReport = parse(text).unwrap();
        assert_eq!(report.unit("a.service").unwrap().image_bytes, Some(4096));
        assert_eq!(report.unit("b.service").unwrap().reasons.len(), 1);
        assert!(report.unit("c.service").is_none());

        let text = r#"{"boot_id":"x","units":[{"unit":"a.service","outcome":"cold","reason_code":"file-changed",
            "reason":"/etc/a changed","restore_ms":null,"main_pid":null}]}"#;
        let report: StatusReport = parse(text).unwrap();
        assert_eq!(report.unit("a.service").unwrap().reason_code.as_deref(), Some("file-changed"));
    }

    #[test]
    fn the_newest_image_is_found_by_number() {
        let root = tempfile::tempdir().unwrap();
        for generation in ["9", "10"] {
            let dir = root.path().join("var/lib/fastboot/images").join(generation);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("a.service.img"), "").unwrap();
        }
        assert!(image_path(root.path(), "a.service").unwrap().ends_with("10/a.service.img"));
        image_path(root.path(), "b.service").unwrap_err();
    }
}
