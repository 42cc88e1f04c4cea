//! From the work tree to a .deb, by `debian/rules`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::fastboot::{target_dir, workspace};
use crate::needs::{self, Purpose};

/// Build the package; installs Debian's packaging tools where they are missing. Returns the .deb.
///
/// # Errors
/// Not Debian or not root; the workspace does not build.
pub fn build() -> Result<PathBuf> {
    needs::install(&[Purpose::Package])?;
    let workspace = workspace();
    let output = target_dir().join("package");
    fs::create_dir_all(&output).with_context(|| format!("making {}", output.display()))?;
    remove_packages(&output)?;
    // debhelper works beside the files that it reads, so they are copied out of the work tree.
    let tree = tempfile::tempdir_in(&output).context("making a directory to build in")?;
    copy_files(&workspace.join("systemd-units/debian"), &tree.path().join("debian"))?;
    let result = needs::own("debian/rules")
        .arg("binary")
        .current_dir(tree.path())
        .env("SOURCE", &workspace)
        .env("OUTPUT", &output)
        .env("CARGO_TARGET_DIR", target_dir())
        .stdin(Stdio::null())
        .output()
        .context("running debian/rules")?;
    if !result.status.success() {
        let stdout = String::from_utf8_lossy(&result.stdout);
        let lines: Vec<&str> = stdout.lines().collect();
        let tail = lines[lines.len().saturating_sub(5)..].join("\n");
        bail!("debian/rules: {tail}\n{}", String::from_utf8_lossy(&result.stderr).trim());
    }
    packages(&output)?.pop().with_context(|| format!("no package in {}", output.display()))
}

/// A package of an earlier version must not be taken for this one.
fn remove_packages(dir: &Path) -> Result<()> {
    for package in packages(dir)? {
        fs::remove_file(&package).with_context(|| format!("removing {}", package.display()))?;
    }
    Ok(())
}

fn packages(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.with_context(|| format!("listing {}", dir.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Ok(paths)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("listing {}", from.display()))? {
        let entry = entry.with_context(|| format!("listing {}", from.display()))?;
        let target = to.join(entry.file_name());
        match entry.file_type().context("looking at a file")?.is_dir() {
            true => copy_files(&entry.path(), &target)?,
            false => {
                fs::copy(entry.path(), &target)
                    .with_context(|| format!("copying {}", entry.path().display()))?;
            }
        }
    }
    Ok(())
}
