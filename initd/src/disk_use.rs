//! Watching the disks while the machine boots, for `fastboot chart`.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fastboot_runtime::RunDir;
use fastboot_runtime::disk_use::{DiskSample, DiskUse};
use procfs_core::{DiskStats, FromRead as _};

use crate::{boot, journal};

const EVERY: Duration = Duration::from_millis(100);
/// A boot that takes longer is drawn without the rest.
const LONGEST: Duration = Duration::from_secs(60);
/// Between two writings of the file.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Unit of the kernel's counters, whatever a disk's sectors are.
const SECTOR_BYTES: u64 = 512;
/// Of these, a disk below counts each byte once more.
const LAYERS: [&str; 5] = ["loop", "ram", "zram", "dm-", "md"];

/// Watch the disks for the first minute of this boot. Who comes later (initd was started again)
/// finds that somebody did.
pub fn watch(run_dir: &RunDir, boot_id: &str) {
    if !matches!(DiskUse::load(run_dir, boot_id), Ok(None)) {
        return;
    }
    let mut disk_use = DiskUse { boot_id: boot_id.to_owned(), samples: Vec::new() };
    let begun = Instant::now();
    let mut written = begun;
    while begun.elapsed() < LONGEST {
        let Some(sample) = sample() else { return };
        disk_use.samples.push(sample);
        if written.elapsed() >= WRITE_EVERY {
            written = Instant::now();
            if let Err(error) = disk_use.store(run_dir) {
                return journal::warning(format_args!(
                    "what the disks do is not recorded: {error}; `fastboot chart` will lack it"
                ));
            }
        }
        sleep(EVERY);
    }
    // The next boot's chart is not worse for it.
    let _ = disk_use.store(run_dir);
}

/// `None` where the kernel does not tell.
fn sample() -> Option<DiskSample> {
    let disks = DiskStats::from_file("/proc/diskstats").ok()?;
    let now = boot::monotonic_us();
    let mut by_name = BTreeMap::new();
    for disk in &disks.0 {
        by_name.insert(disk.name.as_str(), (disk.sectors_read, disk.sectors_written));
    }
    let whole = by_name.iter().filter(|(name, _)| is_whole_disk(name));
    let (read, written) =
        whole.fold((0, 0), |(read, written), (_, sectors)| (read + sectors.0, written + sectors.1));
    Some(DiskSample {
        monotonic_us: now,
        read_bytes: read * SECTOR_BYTES,
        written_bytes: written * SECTOR_BYTES,
    })
}

fn is_whole_disk(name: &str) -> bool {
    // Partitions are directories below their disk.
    !LAYERS.iter().any(|layer| name.starts_with(layer)) && Path::new("/sys/block").join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_layers_are_not_counted_twice() {
        assert!(!is_whole_disk("loop0") && !is_whole_disk("dm-0") && !is_whole_disk("no-such-disk"));
        let disks = std::fs::read_dir("/sys/block").unwrap();
        for disk in disks.map(|disk| disk.unwrap().file_name().into_string().unwrap()) {
            assert_eq!(is_whole_disk(&disk), !LAYERS.iter().any(|layer| disk.starts_with(layer)), "{disk}");
        }
    }

    #[test]
    fn what_is_read_is_counted() {
        if !Path::new("/proc/diskstats").exists() {
            return;
        }
        let (first, second) = (sample().unwrap(), sample().unwrap());
        assert!(first.monotonic_us <= second.monotonic_us && first.read_bytes <= second.read_bytes);
    }
}
