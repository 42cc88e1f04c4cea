//! Test programs: building them, asking what is in them, running them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::output::{Ended, parse};
use crate::fastboot::workspace;
use crate::needs::{self, Purpose};

/// Longest for all tests of a program: one that hangs must not hang CI.
const BOUND_S: &str = "2400";
/// Optimised but with debug assertions: the shim's tests need a socket of their own, which a shim
/// that is shipped does not listen to.
const PROFILE: [&str; 2] = ["--profile", "verify"];
/// Lines of what a program says at its end that go into messages.
const TAIL: usize = 30;

/// Which programs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    All,
    /// The integration test of this name.
    Test(&'static str),
}

/// A built test program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) package: String,
    /// `lib`, or the name of the binary or the integration test.
    pub(super) target: String,
    executable: PathBuf,
    /// Where cargo runs it.
    dir: PathBuf,
}

/// What a program said of its tests, and how it ended itself.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) ends: BTreeMap<String, Ended>,
    pub(super) end: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    id: String,
    manifest_path: PathBuf,
}

/// A line of what cargo says of a build.
#[derive(Deserialize)]
struct Artifact {
    reason: String,
    package_id: Option<String>,
    target: Option<ArtifactTarget>,
    profile: Option<ArtifactProfile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct ArtifactProfile {
    test: bool,
}

fn cargo(arguments: &[&str]) -> Result<Output> {
    let output = needs::own(needs::cargo())
        .args(arguments)
        .current_dir(workspace())
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running cargo {}", arguments.join(" ")))?;
    if !output.status.success() {
        bail!("cargo {}: {}", arguments.join(" "), tail(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output)
}

fn metadata() -> Result<Vec<Package>> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"])?;
    let Metadata { packages } = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    Ok(packages)
}

/// Names of all packages of the workspace.
pub(super) fn packages() -> Result<Vec<String>> {
    Ok(metadata()?.into_iter().map(|package| package.name).collect())
}

/// Build test programs, always with the features that the whole workspace gives its dependencies:
/// nothing is built twice.
pub(super) fn build(target: Target) -> Result<Vec<Program>> {
    eprintln!("building test programs");
    let mut arguments =
        vec!["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"];
    arguments.extend(PROFILE);
    if let Target::Test(name) = target {
        arguments.extend(["--test", name]);
    }
    let packages = metadata()?;
    let output = cargo(&arguments)?;
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let artifact: Artifact = serde_json::from_str(line).context("reading what cargo has built")?;
        let is_test = artifact.reason == "compiler-artifact" && artifact.profile.is_some_and(|p| p.test);
        let (true, Some(target), Some(executable)) = (is_test, artifact.target, artifact.executable) else {
            continue;
        };
        let id = artifact.package_id.unwrap_or_default();
        let package = packages.iter().find(|package| package.id == id).context("cargo built a stranger")?;
        let is_lib = target.kind.iter().any(|kind| kind.ends_with("lib"));
        programs.push(Program {
            package: package.name.clone(),
            target: if is_lib { "lib".to_owned() } else { target.name },
            executable,
            dir: package.manifest_path.parent().context("a manifest without directory")?.to_owned(),
        });
    }
    ensure!(!programs.is_empty(), "cargo built no test programs");
    programs.sort_by(|one, other| (&one.package, &one.target).cmp(&(&other.package, &other.target)));
    Ok(programs)
}

impl Program {
    /// Names of its tests.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let output = self.command(&["--list", "--format", "terse"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{} --list: {}", self.executable.display(), output.status);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test").map(str::to_owned)).collect())
    }

    /// Run those of these names: all of them at once where the program has no others, else one
    /// after the other. Not every harness takes more than one name.
    pub(super) fn run(&self, names: &[String]) -> Result<Said> {
        needs::install(&[Purpose::Tests])?;
        if names.len() == self.names()?.len() {
            return self.said(&["--color", "never"]);
        }
        let mut said = Said { ends: BTreeMap::new(), end: String::new() };
        for name in names {
            let one = self.said(&["--color", "never", "--exact", name])?;
            said.ends.extend(one.ends);
            said.end = one.end;
        }
        Ok(said)
    }

    fn said(&self, arguments: &[&str]) -> Result<Said> {
        let output = self.command(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let end = format!("{}\n{}", output.status, tail(&String::from_utf8_lossy(&output.stderr)));
        Ok(Said { ends: parse(&text), end })
    }

    fn command(&self, arguments: &[&str]) -> Result<Output> {
        needs::command("timeout")?
            .args(["--kill-after=10", BOUND_S])
            .arg(&self.executable)
            .args(arguments)
            .current_dir(&self.dir)
            .env("CARGO_MANIFEST_DIR", &self.dir)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("running {}", self.executable.display()))
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}
