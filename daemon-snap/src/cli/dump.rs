//! `fastboot dump`: any process tree into one image file.

use image_store::evidence::TextEvidence;
use image_store::writer::Durability;
use image_store::{
    Digest, EvidenceV2, FileEvidence, FileItem, ImageWriter, MachineEvidence, Observation, SectionKind,
    Source, UnitEvidence,
};
use serde::Serialize;
use snap_collect::dump::{CollectOptions, Collected, LostPeer, TreeSelector, freeze};
use snap_error::{CodedReason, Error};
use snap_state::sections;
use snap_state::{InodeKindV1, Pid, TreeV1};
use std::path::{Path, PathBuf};

/// Longest file whose content is fingerprinted: the tree stands still meanwhile. Of longer ones
/// size and times decide.
const MAX_HASHED: u64 = 4 << 20;

/// Write a process and all its descendants to an image; the tree ends unless it is told to go on
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Root of the tree
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(2..))]
    pid: i32,
    /// Image to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Let the tree go on afterwards
    #[arg(long)]
    leave_running: bool,
    /// A directory that does not outlive a reboot: its content travels (may be given several times)
    #[arg(long, value_name = "DIR")]
    volatile: Vec<PathBuf>,
    /// Connections to others end, instead of keeping the tree from being dumped
    #[arg(long)]
    close_lost_peers: bool,
    /// Print sizes and times, or what stands against the dump
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    processes: usize,
    threads: usize,
    pages: u64,
    image_bytes: u64,
    state_bytes: usize,
    freeze_ms: f64,
}

/// Why there is no image.
#[derive(Serialize)]
struct Refusal {
    obstacles: Vec<CodedReason>,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let done = dump(args);
    if let Err(error) = &done
        && args.json
        && let Some(error) = error.downcast_ref::<Error>()
    {
        say!("{}", serde_json::to_string(&Refusal { obstacles: error.reasons() })?);
    }
    done
}

fn dump(args: &Args) -> anyhow::Result<u8> {
    // Everything that does not need the tree to stand still comes before.
    let machine = MachineEvidence::collect(Path::new("/"))?;
    let mut writer = ImageWriter::create(&args.output)?;

    let lost_peer = if args.close_lost_peers { LostPeer::Close } else { LostPeer::Refuse };
    let options =
        CollectOptions { volatile_roots: args.volatile.clone(), lost_peer, ..CollectOptions::default() };
    let mut frozen = freeze(TreeSelector::Root(Pid(args.pid)))?;
    let Collected { tree, lost } = frozen.collect(&mut writer, &options)?;
    lost.iter().for_each(|lost| tracing::warn!("{lost}"));
    let (state, evidence) = std::thread::scope(|scope| {
        let evidence = scope.spawn(|| evidence(machine, &tree).encode(&args.output));
        let state = sections::encode(&tree);
        (state, evidence.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (state, evidence) = (state.map_err(Error::from)?, evidence?);
    snap_image::write_sections(&mut writer, &state)?;
    writer.add_section(SectionKind::EVIDENCE, EvidenceV2::VERSION, &evidence)?;
    let written = writer.finish(Durability::NoSync)?;
    let freeze_ms = frozen.since().elapsed().as_secs_f64() * 1e3;
    let ended = if args.leave_running { frozen.thaw() } else { frozen.kill() };
    if let Err(e) = ended {
        remove(&args.output, &e);
        return Err(e.into());
    }

    if args.json {
        let report = Report {
            processes: tree.processes.len(),
            threads: tree.processes.iter().map(|process| process.threads.len()).sum(),
            pages: tree.page_count(),
            image_bytes: written.len_bytes,
            state_bytes: state.len(),
            freeze_ms,
        };
        say!("{}", serde_json::to_string(&report)?);
    }
    Ok(0)
}

/// A failed dump leaves no image that could be taken for a good one.
fn remove(image: &Path, because: &Error) {
    if let Err(e) = std::fs::remove_file(image) {
        tracing::warn!(image = %image.display(), "image of a dump that failed ({because}) could not be removed: {e}");
    }
}

/// The machine, and all programs and libraries that are mapped. A tree that is no unit has no unit
/// text.
fn evidence(machine: MachineEvidence, tree: &TreeV1) -> EvidenceV2 {
    let none = TextEvidence { path: PathBuf::new(), digest: Digest::of(b"") };
    EvidenceV2 {
        machine,
        unit: UnitEvidence { fragment: none, drop_ins: Vec::new() },
        observation: Observation::None { why: "fastboot dump takes processes as they are".to_owned() },
        files: mapped_files(tree).into_iter().map(|file| FileItem::new(file, Source::Held)).collect(),
        accounts: Vec::new(),
        values: Vec::new(),
        left_out: Vec::new(),
        environment_files: Vec::new(),
        users: Vec::new(),
        groups: Vec::new(),
    }
}

fn mapped_files(tree: &TreeV1) -> Vec<FileEvidence> {
    let mut mapped: Vec<_> = tree
        .processes
        .iter()
        .flat_map(|process| {
            let areas = process.mm.vmas.iter().filter_map(|vma| match vma.backing {
                snap_state::BackingV1::Inode { inode, .. } if !vma.shared => Some(inode),
                _ => None,
            });
            areas.chain([process.exe])
        })
        .collect();
    mapped.sort_unstable();
    mapped.dedup();
    let paths = mapped.into_iter().filter_map(|id| match &tree.inodes[id.index()].kind {
        InodeKindV1::Path(file) => Some(file.path.as_path().to_owned()),
        _ => None,
    });
    // A path that evidence cannot express (not UTF-8) is checked by the restore itself, by opening
    // it.
    paths
        .filter(|path| path.to_str().is_some())
        .filter_map(|path| {
            let is_small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_HASHED);
            FileEvidence::collect(Path::new("/"), &path, is_small).ok()
        })
        .collect()
}
