//! `vm-tests bench-engine`: dump and restore of single processes, fastboot beside CRIU.
//!
//! Both tools get the same: the same root, namespaces, file system and start state of the process,
//! and each the least options that it needs. Timed is the whole command line, from before fork
//! until the command has ended. Rounds alternate who comes first. Between the timed parts
//! everything is written out, so that neither pays for the other's pages; images stay in the page
//! cache unless asked otherwise. Each restored process must prove that it works; what does not is a
//! failure of its row.
//!
//! The runner calls itself once more inside the place ([`place`]); that one measures and leaves its
//! figures in a file.

mod child;
mod figures;
mod place;
mod report;
mod subject;
mod tool;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::needs::{self, Purpose};
use crate::roots::{CACHE_DIR, Scratch, cached, sweep};
use crate::{fastboot, host};
use figures::{Figures, Sample, ToolFigures};
use subject::Subject;
use tool::Tool;

pub(crate) use place::recipe;

/// Name of the file with the figures, in the work directory of the place.
const FIGURES: &str = "figures.json";

/// What the bench is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Write the figures here.
    pub json: Option<PathBuf>,
    /// Measured rounds, after one that does not count.
    pub rounds: u32,
    /// Only subjects whose name contains this.
    pub only: Option<String>,
    /// Drop the page cache before each restore.
    pub cold_cache: bool,
}

/// Run it; returns whether every dump and restore of both tools worked.
///
/// # Errors
/// The place cannot be built or entered, or the figures cannot be written.
pub fn run(options: &Options) -> Result<bool> {
    needs::install(&[Purpose::Roots])?;
    sweep()?;
    let release = fastboot::build().context("building fastboot")?;
    let scratch = Scratch::copy_of(&cached(&place::recipe()?)?, "bench")?;
    fastboot::install(&release, scratch.root())?;

    let runner = std::env::current_exe().context("finding this program")?;
    let mut inside = place::in_namespaces(&runner)?;
    inside.arg("bench-engine").arg("--inside").arg(scratch.root());
    inside.args(["--rounds", &options.rounds.to_string()]);
    if let Some(only) = &options.only {
        inside.args(["--only", only]);
    }
    if options.cold_cache {
        inside.arg("--cold-cache");
    }
    let status = inside.status().context("entering new namespaces")?;
    ensure!(status.success(), "the part inside of the namespaces failed: {status}");

    let path = scratch.path(place::WORK_DIR).join(FIGURES);
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let figures: Figures = serde_json::from_slice(&text).context("reading the figures")?;
    print!("{}", report::text(&figures));
    if let Some(path) = &options.json {
        report::write_json(&figures, path)?;
    }
    Ok(figures.failures().next().is_none())
}

/// The part inside: enter `root`, measure, leave the figures.
///
/// # Errors
/// Whatever is not a result of one of the tools.
pub fn run_inside(root: &Path, options: &Options) -> Result<bool> {
    place::enter(root).with_context(|| format!("entering {} (a root below {CACHE_DIR})", root.display()))?;
    let mut figures = Figures::new(options.rounds, options.cold_cache)?;
    figures.empty_command_ms = empty_command(options.rounds)?;
    for subject in Subject::ALL {
        if options.only.as_ref().is_some_and(|only| !subject.name().contains(only.as_str())) {
            continue;
        }
        figures.subjects.push(measure(subject, options)?);
    }
    figures.note_end()?;
    let path = Path::new(place::WORK_DIR).join(FIGURES);
    let text = serde_json::to_vec(&figures).context("encoding the figures")?;
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(true)
}

/// What starting and ending a program costs that does nothing: part of every other figure.
fn empty_command(rounds: u32) -> Result<Vec<f64>> {
    let log = Path::new(place::WORK_DIR).join("true.log");
    (0..=rounds)
        .map(|_| child::timed(&mut place::program("true"), &log))
        .skip(1)
        .collect::<Result<_>>()
        .context("running true")
}

fn measure(subject: Subject, options: &Options) -> Result<figures::SubjectFigures> {
    let mut row = figures::SubjectFigures::new(subject);
    for round in 0..=options.rounds {
        let mut order = Tool::BOTH;
        if round % 2 == 1 {
            order.reverse();
        }
        for tool in order {
            let figures = row.of(tool);
            if figures.failure.is_some() {
                continue;
            }
            let running = subject.start()?;
            let sample = once(tool, &running, options.cold_cache);
            child::end(running.pid)?;
            if round > 0 || sample.is_err() {
                figures.note(round, sample);
            }
            row.memory_kib = running.memory_kib();
        }
        let ToolFigures { dump_ms, restore_ms, .. } = row.of(Tool::Fastboot);
        let last = |values: &[f64]| values.last().map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"));
        let ours = format!("{} / {}", last(dump_ms), last(restore_ms));
        let ToolFigures { dump_ms, restore_ms, .. } = row.of(Tool::Criu);
        eprintln!(
            "{}, round {round} of {}: dump / restore ms: fastboot {ours}, criu {} / {}",
            subject.name(),
            options.rounds,
            last(dump_ms),
            last(restore_ms)
        );
    }
    tool::empty_image_dir()?;
    Ok(row)
}

/// Dump, wait until the process is gone, restore, have it prove itself.
fn once(tool: Tool, running: &subject::Running, cold_cache: bool) -> Result<Sample> {
    let log = |step: &str| Path::new(place::WORK_DIR).join(format!("{}-{step}.log", tool.name()));
    tool::empty_image_dir()?;
    settle();
    let dump_ms = child::timed(&mut tool.dump(running.pid), &log("dump")).context("dump")?;
    child::wait_until_gone(running.pid).context("after the dump")?;
    let count = running.final_count()?;
    let image_bytes = tool::image_bytes()?;
    settle();
    if cold_cache {
        host::drop_page_cache()?;
    }
    let restore_ms = child::timed(&mut tool.restore(), &log("restore")).context("restore")?;
    running.prove(count).context("after the restore")?;
    Ok(Sample { dump_ms, restore_ms, image_bytes })
}

/// Write out what is dirty, and let things get quiet.
fn settle() {
    nix::unistd::sync();
    std::thread::sleep(Duration::from_millis(100));
}
