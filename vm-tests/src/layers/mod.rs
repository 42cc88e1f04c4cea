//! Who uses whom in the sources, against the table of docs/ARCHITECTURE.md; and circles of files.
//!
//! Cargo's manifests say which crate may use which at all; the sources say what is used, file by
//! file. Tests are left out: they may look at everything.

mod circles;
mod modules;
mod references;
mod table;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use test_frame::{Checks, Test};

use crate::fastboot::workspace;
use crate::needs;
use modules::Crate;
use references::Uses;
use table::{Layer, layer_of};

/// Files that may use each other in a circle: a type, what makes it, what shows it.
const LONGEST_CIRCLE: usize = 3;

/// A package of the workspace, as Cargo knows it.
#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// None for an ordinary one.
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    src_path: PathBuf,
}

/// The work tree is checked as one test.
pub fn tests() -> Vec<Test> {
    vec![Test::alone("layers/nobody_uses_what_the_table_does_not_allow", &[], check)]
}

fn check(checks: &mut Checks) -> Result<()> {
    let root = workspace();
    let document = root.join("docs/ARCHITECTURE.md");
    let document =
        std::fs::read_to_string(&document).with_context(|| format!("reading {}", document.display()))?;
    let layers = table::parse(&document)?;
    let packages = packages(&root)?;
    checks.note("every crate is in the table, and every row is there", complete(&root, &layers, &packages));
    checks
        .note("no manifest has an edge that the table does not allow", manifests(&root, &layers, &packages));
    let sources = sources(&packages)?;
    checks.note("no file uses what the table does not allow", files(&root, &layers, &packages, &sources));
    for (name, read, uses) in &sources {
        checks.note(
            format!("{name}: no circle of more than {LONGEST_CIRCLE} files"),
            no_circle(&root, read, uses),
        );
    }
    Ok(())
}

type Source = (String, Crate, Vec<Uses>);

fn packages(root: &Path) -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let output = needs::own(needs::cargo())
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("running cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    Ok(metadata.packages)
}

/// The libraries and programs of each package, parsed. A program is a crate of its own.
fn sources(packages: &[Package]) -> Result<Vec<Source>> {
    let crates: HashSet<String> = packages.iter().map(|package| package.name.replace('-', "_")).collect();
    let mut sources = Vec::new();
    for package in packages {
        for target in &package.targets {
            let is_ours =
                |kind: &String| ["lib", "bin", "rlib", "cdylib", "proc-macro"].contains(&kind.as_str());
            if !target.kind.iter().any(is_ours) {
                continue;
            }
            let read = Crate::read(&target.src_path)?;
            let uses = references::of(&read, &crates);
            sources.push((format!("{} of {}", target.name, package.name), read, uses));
        }
    }
    Ok(sources)
}

fn dir_of(package: &Package, root: &Path) -> String {
    let dir = package.manifest_path.parent().unwrap_or(root);
    dir.strip_prefix(root).unwrap_or(dir).to_string_lossy().into_owned()
}

fn shown(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

fn complete(root: &Path, layers: &[Layer], packages: &[Package]) -> Result<()> {
    let dirs: Vec<String> = packages.iter().map(|package| dir_of(package, root)).collect();
    let mut wrong: Vec<String> = dirs
        .iter()
        .filter(|dir| !layers.iter().any(|layer| layer.path == **dir))
        .map(|dir| format!("{dir} is not in the table"))
        .collect();
    let gone = layers.iter().filter(|layer| !root.join(&layer.path).is_dir());
    wrong.extend(gone.map(|layer| format!("{} is in the table and is no folder", layer.path)));
    none(wrong)
}

fn manifests(root: &Path, layers: &[Layer], packages: &[Package]) -> Result<()> {
    let dirs: BTreeMap<&str, String> =
        packages.iter().map(|package| (package.name.as_str(), dir_of(package, root))).collect();
    let mut wrong = BTreeSet::new();
    for package in packages {
        let from = &dirs[package.name.as_str()];
        let Some(layer) = layers.iter().find(|layer| layer.path == *from) else { continue };
        for dependency in &package.dependencies {
            let Some(to) = dirs.get(dependency.name.as_str()).filter(|to| *to != from) else { continue };
            let for_tests = dependency.kind.as_deref() == Some("dev");
            let allowed = if for_tests { &layer.tests_may_use } else { &layer.may_use };
            if !allowed.contains(to) {
                let whose = if for_tests { "for its tests " } else { "" };
                wrong.insert(format!("{from}/Cargo.toml has {whose}{to}"));
            }
        }
    }
    none(wrong)
}

fn files(root: &Path, layers: &[Layer], packages: &[Package], sources: &[Source]) -> Result<()> {
    let dirs: BTreeMap<String, String> =
        packages.iter().map(|package| (package.name.replace('-', "_"), dir_of(package, root))).collect();
    let mut wrong = BTreeSet::new();
    for (_, read, uses) in sources {
        for (from, used) in read.files.iter().zip(uses) {
            let from = shown(from, root);
            let Some(layer) = layer_of(layers, &from) else { continue };
            let other_files = used.files.iter().map(|&file| shown(&read.files[file], root));
            let other_crates = used.crates.iter().map(|name| format!("{}/", dirs[name]));
            for to in other_files.chain(other_crates) {
                let Some(other) = layer_of(layers, &to) else { continue };
                if other.path != layer.path && !layer.may_use.contains(&other.path) {
                    wrong.insert(format!("{from} uses {}", to.trim_end_matches('/')));
                }
            }
        }
    }
    none(wrong)
}

fn no_circle(root: &Path, read: &Crate, uses: &[Uses]) -> Result<()> {
    let edges: Vec<Vec<usize>> = uses.iter().map(|used| used.files.iter().copied().collect()).collect();
    let circles = circles::circles(&edges);
    none(circles.into_iter().filter(|circle| circle.len() > LONGEST_CIRCLE).map(|circle| {
        let files = circle.iter().map(|&file| {
            let within = edges[file].iter().filter(|to| circle.contains(to));
            let names: Vec<String> = within.map(|&to| name(&read.files[to])).collect();
            format!("    {} uses {}", shown(&read.files[file], root), names.join(", "))
        });
        format!("{} files in a circle:\n{}", circle.len(), files.collect::<Vec<_>>().join("\n"))
    }))
}

/// The end of a path that tells it from others of its crate.
fn name(file: &Path) -> String {
    let last = file.file_name().unwrap_or_default().to_string_lossy();
    match (last.as_ref(), file.parent().and_then(Path::file_name)) {
        ("mod.rs", Some(dir)) => format!("{}/mod.rs", dir.to_string_lossy()),
        _ => last.into_owned(),
    }
}

fn none(wrong: impl IntoIterator<Item = String>) -> Result<()> {
    let wrong: Vec<String> = wrong.into_iter().collect();
    ensure!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    Ok(())
}
