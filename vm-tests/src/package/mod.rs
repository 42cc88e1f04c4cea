//! The Debian package: building it, and that it does what a package must.

mod build;
mod life;
mod tree;
mod tutorial;
mod upgrade;

pub use build::build;

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Need, Once, Test};

use crate::needs::{self, Purpose};

/// Debian suites that the package is for.
const SUITES: [&str; 2] = ["trixie", "bookworm"];

/// Of the package that is built from this work tree: lintian, then installation, use, removal and
/// purge on each suite.
pub fn tests() -> Vec<Test> {
    let package = Once::new(|| {
        needs::install(&[Purpose::Roots, Purpose::Package])?;
        build()
    });
    let of_package = |name: &str, needs: &[Need], run: fn(&Path) -> Result<()>| {
        let package = package.clone();
        Test::alone(format!("package/{name}"), needs, move |_| run(package.get()?))
    };
    let mut tests = vec![
        of_package("lintian_finds_no_errors_and_no_warnings", &[Need::Root], lintian),
        of_package("every_document_that_is_named_is_there", &[Need::Root], documents),
        of_package("a_second_build_is_the_same_byte_for_byte", &[Need::Root], build_again),
    ];
    tests.push(of_package(
        "the_tutorial_is_followed_word_for_word",
        &[Need::Root, Need::Container],
        tutorial::run,
    ));
    tests.extend(SUITES.map(|suite| {
        let package = package.clone();
        let name = format!("package/life_on_{suite}");
        Test::alone(name, &[Need::Root, Need::Container], move |checks| {
            life::run(suite, package.get()?, checks)
        })
    }));
    tests
}

fn lintian(package: &Path) -> Result<()> {
    let output = needs::command("lintian")?
        .args(["--allow-root", "--fail-on=error,warning"])
        .arg(package)
        .stdin(Stdio::null())
        .output()
        .context("running lintian")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}{}", text.trim(), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Those that the manual names, and those that README.md and the pages lead to.
fn documents(package: &Path) -> Result<()> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let extracted = needs::command("dpkg-deb")?.arg("--extract").arg(package).arg(dir.path()).status();
    ensure!(extracted.context("running dpkg-deb")?.success(), "dpkg-deb failed");
    let look = include_str!("../../roots/package/documents.sh");
    let output = needs::command("sh")?.args(["-c", look]).current_dir(dir.path()).output();
    let output = output.context("looking for documents")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let looked = text.lines().filter(|line| line.starts_with("looked for ")).count();
    let missing: Vec<&str> = text.lines().filter(|line| !line.starts_with("looked for ")).collect();
    ensure!(looked > 20, "only {looked} names were found");
    ensure!(missing.is_empty(), "{}", missing.join("; "));
    Ok(())
}

fn build_again(package: &Path) -> Result<()> {
    let read = || std::fs::read(package).with_context(|| format!("reading {}", package.display()));
    let first = read()?;
    build()?;
    ensure!(first == read()?, "the two differ");
    Ok(())
}
