//! How long the evidence of a service with many files takes to compare, as a boot does it.
//!
//!     cargo run --release -p image-store --example evidence-speed [FILES]
//!
//! As root also with cold inodes. Figures are medians of nine rounds.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use image_store::evidence::{Digests, EvidenceV2, Observation, TextEvidence};
use image_store::{CheckDepth, Digest, FileEvidence, FileItem, MachineEvidence, Source, UnitEvidence};

const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(2000), |word| word.parse())?;
    // Not below /tmp: that may be in memory.
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let mut files = Vec::new();
    for number in 0..count {
        let below = dir.path().join(format!("{}", number / 50));
        std::fs::create_dir_all(&below)?;
        let path = below.join(format!("module-{number}.py"));
        std::fs::write(&path, vec![b'x'; 4000 + number])?;
        files.push(FileItem::new(FileEvidence::collect(Path::new("/"), &path, true)?, Source::Observed));
    }
    let none = TextEvidence { path: "/none".into(), digest: Digest::of(b"") };
    let evidence = EvidenceV2 {
        machine: MachineEvidence::collect(Path::new("/"))?,
        unit: UnitEvidence { fragment: none, drop_ins: Vec::new() },
        observation: Observation::Recorded { not_observed: Vec::new() },
        files,
        accounts: Vec::new(),
        values: Vec::new(),
        left_out: Vec::new(),
        environment_files: Vec::new(),
        users: Vec::new(),
        groups: Vec::new(),
    };
    let bytes = evidence.encode(Path::new("evidence"))?.len();
    println!("{count} files, {bytes} bytes of evidence");
    println!("warm: {:.2} ms", median(&evidence, || Ok(()))?);
    match median(&evidence, drop_caches) {
        Ok(cold) => println!("cold: {cold:.2} ms"),
        Err(error) => println!("cold: not measured ({error})"),
    }
    Ok(())
}

fn drop_caches() -> std::io::Result<()> {
    std::fs::write("/proc/sys/vm/drop_caches", "3")
}

fn median(
    evidence: &EvidenceV2,
    before: impl Fn() -> std::io::Result<()>,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        before()?;
        let began = Instant::now();
        let mut changed = 0;
        let depth = CheckDepth::ContentIfStatDiffers;
        let _ = evidence.check_each(Path::new("/"), depth, &Digests::default(), &mut |_| {
            changed += 1;
            ControlFlow::Continue(())
        });
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if changed > 0 {
            return Err(format!("{changed} files are not what they were").into());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}
