//! Packages to install in a machine that has no network.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::CACHE_DIR;
use super::archive::sources_of;
use super::cache::{lock, remove_tree, with_sources};
use crate::needs;

/// The newest `packages` of a suite, without what they depend on, in a directory of their own.
/// Fetched once.
///
/// # Errors
/// No network; a package that the suite does not have.
pub fn downloaded(suite: &str, packages: &[&str]) -> Result<PathBuf> {
    let debs = Path::new(CACHE_DIR).join("debs");
    fs::create_dir_all(&debs).with_context(|| format!("making {}", debs.display()))?;
    let hash = blake3::hash(packages.join(",").as_bytes()).to_hex();
    let key = format!("{suite}-{}", &hash[..16]);
    let dir = debs.join(&key);
    let _lock = lock(&debs.join(format!("{key}.lock")))?;
    if dir.exists() {
        return Ok(dir);
    }
    let building = debs.join(format!("{key}.building"));
    remove_tree(&building)?;
    fs::create_dir_all(&building).with_context(|| format!("making {}", building.display()))?;
    // A root without a single package, thrown away at once: mmdebstrap has apt set up for another
    // suite than the host's.
    let fetch = format!(
        "--customize-hook=cd '{}' && APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get --quiet download {}",
        building.display(),
        packages.join(" ")
    );
    let mut mmdebstrap = needs::command("mmdebstrap")?;
    mmdebstrap.args(["--variant=custom", "--mode=root", "--quiet", "--format=null", &fetch, suite, "-"]);
    let output = with_sources(&mut mmdebstrap, &sources_of(suite)?)?;
    if !output.status.success() {
        bail!("fetching packages of {suite}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let entries = fs::read_dir(&building).with_context(|| format!("listing {}", building.display()))?;
    let count = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "deb"))
        .count();
    ensure!(count == packages.len(), "{count} of {} packages of {suite} were fetched", packages.len());
    fs::rename(&building, &dir).with_context(|| format!("renaming {}", building.display()))?;
    Ok(dir)
}
