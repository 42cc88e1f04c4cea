//! A bare root with the work tree in it, and commands in there.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::fastboot::workspace;
use crate::needs;
use crate::roots::{Recipe, Scratch, cached};

/// Longest for one command; everything at once on a slow machine takes two hours.
const BOUND: Duration = Duration::from_secs(6 * 3600);
/// Where the work tree is in there.
const TREE: &str = "/root/fastboot";
/// Where Rust is.
const RUST: &str = "/opt/rust";
/// How much of the end of an output is kept.
const TAIL_BYTES: i64 = 4096;

/// The root.
pub(super) struct Place {
    scratch: Scratch,
}

/// How a command ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) took: Duration,
    /// The end of what it printed.
    pub(super) tail: String,
}

impl Place {
    pub(super) fn prepare(suite: &'static str) -> Result<Place> {
        let recipe = Recipe {
            name: "bare",
            suite,
            packages: vec!["gcc", "libc6-dev", "git"],
            from_sid: Vec::new(),
            files: Vec::new(),
            setup: "true",
        };
        let scratch = Scratch::copy_of(&cached(&recipe)?, &format!("bare-{suite}"))?;
        copy_tree(&workspace(), &scratch.path(TREE))?;
        // The crates of the host's Cargo; a bare root has no certificates to fetch them with.
        let registry = cargo_home()?.join("registry");
        for part in ["index", "cache"] {
            copy_tree(&registry.join(part), &scratch.path("/root/.cargo/registry").join(part))?;
        }
        fs::create_dir_all(scratch.path(RUST)).context("making a place for Rust")?;
        Ok(Place { scratch })
    }

    /// A root that was kept.
    pub(super) fn again(root: &Path) -> Place {
        Place { scratch: Scratch::kept(root.to_owned()) }
    }

    pub(super) fn keep(self) -> Result<PathBuf> {
        self.scratch.keep()
    }

    /// Run a command line in the work tree. Its output goes to `log`.
    ///
    /// nspawn around it has to leave what nspawn inside needs: a tree of control groups of its own,
    /// all capabilities, a writable /proc/sys, no filter. The network is the host's.
    pub(super) fn run(&self, command: &str, log: &Path) -> Result<Ended> {
        let output = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        // What nspawn itself says must not be taken for the command's last line.
        let of_nspawn = log.with_extension("nspawn.log");
        let errors = File::create(&of_nspawn).with_context(|| format!("creating {}", of_nspawn.display()))?;
        let started = Instant::now();
        let status = needs::command("timeout")?
            .args(["--kill-after=60", &BOUND.as_secs().to_string()])
            .arg(needs::path("systemd-nspawn")?)
            .args(["--quiet", "--register=no", "--keep-unit", "--as-pid2", "--pipe", "--capability=all"])
            .args([
                "--resolv-conf=bind-host",
                "--timezone=off",
                "--link-journal=no",
                "--machine=fastboot-bare",
            ])
            .arg(format!("--bind-ro={}:{RUST}", toolchain()?.display()))
            .args([&format!("--setenv=PATH={RUST}/bin:/usr/sbin:/usr/bin:/sbin:/bin"), "--setenv=HOME=/root"])
            .args(["--setenv=CARGO_NET_OFFLINE=true", "--setenv=CARGO_TERM_COLOR=never"])
            .arg(format!("--chdir={TREE}"))
            .arg("--directory")
            .arg(self.scratch.root())
            .args(["/bin/sh", "-c", &format!("exec 2>&1\n{command}")])
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "yes")
            .env("SYSTEMD_SECCOMP", "0")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .status()
            .context("running systemd-nspawn")?;
        Ok(Ended { status, took: started.elapsed(), tail: tail(log)? })
    }
}

/// The toolchain that has built this: its Cargo runs us.
fn toolchain() -> Result<PathBuf> {
    let cargo = needs::cargo();
    let dir = cargo.parent().and_then(Path::parent).unwrap_or(Path::new(""));
    ensure!(
        dir.join("bin/rustc").exists() && dir.join("lib/rustlib").exists(),
        "{} is in no toolchain: this is to be run by `cargo run`",
        cargo.display()
    );
    Ok(dir.to_owned())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

/// Files and directories, without what was built and without the history.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        let name = entry.file_name();
        if name == "target" || name == ".git" {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let kind = entry.file_type().with_context(|| format!("looking at {}", source.display()))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).with_context(|| format!("copying {}", source.display()))?;
        }
    }
    Ok(())
}

fn tail(log: &Path) -> Result<String> {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
        file.seek(SeekFrom::End(-length.min(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().with_context(|| format!("reading {}", log.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_and_the_history_stay_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a/b/c", "a/target/d", "a/.git/e", ".cargo/config.toml"] {
            let path = dir.path().join("from").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let to = dir.path().join("to");
        copy_tree(&dir.path().join("from"), &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/b/c")).unwrap(), "a/b/c");
        assert!(to.join(".cargo/config.toml").exists());
        assert!(!to.join("a/target").exists() && !to.join("a/.git").exists());
    }

    #[test]
    fn the_end_of_a_log_is_kept() {
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(log.path(), format!("{}end\n", "line\n".repeat(2000))).unwrap();
        let tail = tail(log.path()).unwrap();
        assert!(tail.ends_with("line\nend\n") && tail.len() == 4096, "{}", tail.len());
    }
}
