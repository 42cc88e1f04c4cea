//! `fastboot restore`: a tree from an image file.

use image_store::{CheckDepth, EvidenceV2, Image, MachineEvidence, SectionKind, UncheckedImage};
use nix::sys::wait::{WaitStatus, waitpid};
use snap_error::Error;
use snap_rebuild::restore::{self, Request};
use snap_state::Pid;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Highest signal number plus this is what a shell says of a process that was killed.
const SIGNALLED: i32 = 128;

/// Restore a tree, print the PID of its root, and wait for its end
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image to read
    #[arg(value_name = "FILE")]
    image: PathBuf,
    /// Do not wait for the end of the tree
    #[arg(long)]
    detach: bool,
    /// Give up after this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    deadline_ms: u64,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let deadline = Instant::now() + Duration::from_millis(args.deadline_ms);
    let image = UncheckedImage::open(&args.image)?.check()?;
    check_evidence(&image)?;
    let tree = snap_image::read_tree(&image)?;
    let restored = restore::restore(Request {
        image: &image,
        tree,
        unit: None,
        checked_chunks: 0,
        stamp: image.stamp(),
        deadline,
    })?;
    for (step, took) in restored.times.steps() {
        tracing::debug!("{step} {:.2} ms", took.as_secs_f64() * 1e3);
    }
    for root in &restored.roots {
        say!("{root}");
    }
    if args.detach {
        return Ok(0);
    }
    let mut code = 0;
    for root in restored.roots {
        code = wait_for(root)?;
    }
    Ok(code)
}

fn check_evidence(image: &Image) -> Result<(), Error> {
    let bytes = image.section(SectionKind::EVIDENCE, EvidenceV2::VERSION, EvidenceV2::MAX_LEN)?;
    let evidence = EvidenceV2::decode(&bytes, image.path())?;
    let now = MachineEvidence::collect(Path::new("/"))?;
    let checked = evidence
        .machine
        .check(&now)
        .and_then(|()| evidence.check_files(Path::new("/"), CheckDepth::ContentIfStatDiffers));
    checked.map_err(Error::Stale)
}

/// Exit status of the root, as a shell would say it.
fn wait_for(root: Pid) -> anyhow::Result<u8> {
    loop {
        match waitpid(nix::unistd::Pid::from_raw(root.0), None)? {
            WaitStatus::Exited(_, status) => return Ok(status as u8),
            WaitStatus::Signaled(_, signal, _) => return Ok((SIGNALLED + signal as i32) as u8),
            _ => {}
        }
    }
}
