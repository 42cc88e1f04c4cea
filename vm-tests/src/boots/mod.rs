//! `vm-tests bench-boot`: how long a machine takes until its services answer, started cold and
//! restored, beside the obvious alternatives, in containers and on virtual machines.
//!
//! Each kind of boot has a machine of its own that was provisioned in the same way; the kinds take
//! turns, so that all meet the same host. Cold is Debian as installed, without fastboot; its
//! services have run once.

mod contained;
mod criu;
mod emulated;
mod profile;
mod report;
mod sample;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::needs::{self, Purpose};
use crate::{container, package, roots};
pub use profile::Profile;
use report::{Report, Series};
use sample::{Kind, Sample};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// On virtual machines.
    pub machine: bool,
    /// In containers. Neither means both.
    pub container: bool,
    /// Boots of each kind.
    pub runs: u32,
    /// Only this set of services. Without: both in containers, and the light one where machines are
    /// emulated.
    pub profile: Option<Profile>,
    /// A package to install in place of this work tree's.
    pub package: Option<PathBuf>,
    /// Leave CRIU out.
    pub no_criu: bool,
    /// Write the figures here.
    pub json: Option<PathBuf>,
}

/// Run it; returns whether every service answered in every boot, and every image was used.
///
/// # Errors
/// A machine cannot be built or provisioned.
pub fn run(options: &Options) -> Result<bool> {
    needs::install(&[Purpose::Roots])?;
    container::end_left_over_machines()?;
    roots::sweep()?;
    let package = match &options.package {
        Some(package) => package.clone(),
        None => package::build()?,
    };
    let both = options.machine == options.container;
    let mut report = Report::begin(options.runs)?;
    if options.container || both {
        let profiles = options.profile.map_or_else(|| vec![Profile::Light, Profile::Heavy], |one| vec![one]);
        for profile in profiles {
            println!("\n== Containers, {} profile", profile.name());
            let mut place = contained::Contained::prepare(profile, &package, options.no_criu)?;
            let kinds = [Kind::Cold, Kind::Unusable, Kind::Restored, Kind::Criu];
            let title = "containers (systemd-nspawn, page cache dropped before each boot)".to_owned();
            let mut series = Series::new(title, profile, &kinds, place.notes.clone());
            take_turns(options.runs, &mut series, |kind, number| place.boot(kind, number))?;
            report.add(series);
        }
    }
    if options.machine || both {
        needs::install_for_machines()?;
        println!("\n== Virtual machines");
        for profile in emulated::profiles(options.profile)? {
            let mut place = emulated::Emulated::prepare(profile, &package, options.no_criu)?;
            let kinds = [Kind::Cold, Kind::Unusable, Kind::Restored, Kind::Criu, Kind::Loaded];
            let mut series = Series::new(place.title()?, profile, &kinds, place.notes.clone());
            take_turns(options.runs, &mut series, |kind, _| place.boot(kind))?;
            report.add(series);
        }
    }
    report.end()?;
    println!("\n{}", report.text());
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report.as_json()).context("encoding the figures")?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(report.is_whole())
}

fn take_turns(
    runs: u32,
    series: &mut Series,
    mut boot: impl FnMut(Kind, u32) -> Result<Option<Sample>>,
) -> Result<()> {
    for number in 1..=runs {
        // Who comes first meets another host than who comes last.
        let mut kinds = series.kinds();
        let first = number as usize % kinds.len();
        kinds.rotate_left(first);
        for kind in kinds {
            let booted = boot(kind, number).with_context(|| format!("boot {number}, {}", kind.name()));
            let sample = match booted {
                Ok(Some(sample)) => sample,
                Ok(None) => continue,
                // That the peer fails is a result, and must not cost all others.
                Err(error) if kind == Kind::Criu => {
                    println!("  {number} of {runs}, {}: {error:#}", kind.name());
                    series.note(format!("{error:#}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let all = sample.all_ms.map_or_else(|| "not all answer".to_owned(), |ms| format!("{ms:.0} ms"));
            println!("  {number} of {runs}, {}: {all}", kind.name());
            series.take(kind, sample);
        }
    }
    Ok(())
}
