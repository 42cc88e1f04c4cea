//! Images that are read past the page cache and written into the processes by the worker.

use crate::compile::Toolchain;
use crate::fastboot::{Answer, Fastboot};
use crate::process;
use crate::running::{Outcome, Running, Subject};
use image_store::load::PageLoader;
use image_store::{Image, UncheckedImage};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{File, OpenOptions};
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_frame::{Need, Skip, Test};

/// 35 MB: a parent and workers that have most of it in common, each with pages of its own.
const FAMILY: Subject = Subject::new("prefork", "generations");
/// Each chunk takes so long that a test comes in between.
const SLOWLY: &str = "worker.load:sleep=100";

/// There is a processor that does nothing, whatever else runs on the machine.
const IDLE: &str = "worker.load.idle";

/// A subject that was dumped and is gone. Its image is on a disk: /tmp may be a tmpfs, which is
/// nothing but page cache.
struct Dumped {
    running: Running,
    image: PathBuf,
    _dir: TempDir,
}

impl Dumped {
    fn new(subject: Subject) -> Result<Dumped, Skip> {
        let mut running = Running::ready(subject)?;
        let dir = tempfile::tempdir_in("/var/tmp").expect("directory");
        let image = dir.path().join("image");
        running.dump(&image);
        Ok(Dumped { running, image, _dir: dir })
    }

    /// Nothing of it is in the page cache.
    fn evict(&self) {
        let file = File::open(&self.image).expect("image");
        file.sync_all().expect("fsync");
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("fadvise");
        assert!(!is_mostly_cached(&self.image), "the image stays in the page cache");
    }

    fn pages(&self) -> Range<u64> {
        open(&self.image).page_area()
    }

    fn flip(&self, offset: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.image).expect("image");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)
            .and_then(|()| file.write_all_at(&[byte[0] ^ 1], offset))
            .expect("flip");
    }

    /// Has a restore fail that reads slowly, and changes the image meanwhile.
    fn fails_while(&mut self, change: impl FnOnce(&File)) -> Answer {
        self.evict();
        let prefix = self.running.file("slow");
        let mut started = Fastboot::restore(&self.image).fault(SLOWLY).start(&prefix);
        self.await_members();
        change(&OpenOptions::new().read(true).write(true).open(&self.image).expect("image"));
        let status = started.child.wait().expect("wait for fastboot");
        let answer = started.answer(status);
        assert!(matches!(answer.code, Some(1 | 3)), "{answer:?}");
        self.running.assert_gone("after a restore whose image changed");
        answer
    }

    fn await_members(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.running.members.iter().all(|pid| process::exists(*pid)) {
            assert!(Instant::now() < deadline, "its processes do not come");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn comes_back(mut self) {
        self.evict();
        self.running.restore(&self.image);
        assert_eq!(self.running.finish("restored"), "pass");
    }
}

fn open(path: &Path) -> Image {
    UncheckedImage::open(path).and_then(UncheckedImage::check).expect("image")
}

fn is_mostly_cached(path: &Path) -> bool {
    let image = open(path);
    let direct = image.open_direct().expect("a file system with direct reads");
    PageLoader::new(&image, direct).expect("checksums").is_mostly_cached()
}

fn large_memory_comes_past_the_page_cache() -> Outcome {
    let mut dumped = Dumped::new(Subject::new("memory_256mib", ""))?;
    dumped.evict();
    dumped.running.restore(&dumped.image);
    assert!(!is_mostly_cached(&dumped.image), "it was read through the page cache");
    assert_eq!(dumped.running.finish("restored"), "pass");
    Ok(())
}

fn damage_in_a_cached_image_is_refused_whoever_reads_it() -> Outcome {
    let mut dumped = Dumped::new(Subject::new("memory_256mib", ""))?;
    let Range { start, end } = dumped.pages();
    // The process reads the first pages, the worker the last ones.
    for at in [start, (start + end) / 2, end - 1] {
        dumped.flip(at);
        assert!(is_mostly_cached(&dumped.image), "what was just written is in the page cache");
        let answer = dumped.running.run(Fastboot::restore(&dumped.image).fault(IDLE));
        assert!(matches!(answer.code, Some(1 | 3)), "byte {at}: {answer:?}");
        assert!(answer.stderr.contains("page checksum differs"), "byte {at}: {answer:?}");
        dumped.running.assert_gone("after the restore of a damaged image");
        dumped.flip(at);
    }
    dumped.running.restore(&dumped.image);
    assert_eq!(dumped.running.finish("restored"), "pass");
    Ok(())
}

fn worker_writes_part_of_a_cached_image() -> Outcome {
    if std::thread::available_parallelism().map_or(1, NonZero::get) < 2 {
        return Err(Skip::processor("a second processor"));
    }
    let mut dumped = Dumped::new(Subject::new("memory_256mib", ""))?;
    assert!(is_mostly_cached(&dumped.image), "what was just written is in the page cache");
    // A worker that only compares does not pass here.
    let answer = dumped.running.run(Fastboot::restore(&dumped.image).fault("worker.load.idle,worker.load"));
    assert!(matches!(answer.code, Some(1 | 3)), "{answer:?}");
    dumped.running.assert_gone("after a worker that could not go on");
    let answer = dumped.running.run(Fastboot::restore(&dumped.image).fault(IDLE));
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(dumped.running.finish("restored"), "pass");
    Ok(())
}

/// Memory that is read into is made by a fault for each page, or a hundredth of that where pages are
/// huge.
fn pages_are_put_in_place_without_faults() -> Outcome {
    let mut dumped = Dumped::new(Subject::new("memory_256mib", ""))?;
    let cached = |restore: Fastboot| restore;
    let with_worker = |restore: Fastboot| restore.fault(IDLE);
    for prepare in [cached, with_worker] {
        let answer = dumped.running.run(prepare(Fastboot::restore(&dumped.image)));
        assert_eq!(answer.code, Some(0), "{answer:?}");
        let faults = process::minor_faults(dumped.running.pid);
        assert!(faults < (64 << 20) / 4096, "{faults} faults");
        dumped.running.dump(&dumped.image);
    }
    dumped.comes_back();
    Ok(())
}

fn large_family_comes_past_the_page_cache() -> Outcome {
    Dumped::new(FAMILY)?.comes_back();
    Ok(())
}

fn damage_in_a_large_image_is_refused_wherever_it_is() -> Outcome {
    let mut dumped = Dumped::new(FAMILY)?;
    let Range { start, end } = dumped.pages();
    for at in [start, (start + end) / 2, end - 1] {
        dumped.flip(at);
        dumped.evict();
        let answer = dumped.running.run(Fastboot::restore(&dumped.image));
        assert!(matches!(answer.code, Some(1 | 3)), "byte {at}: {answer:?}");
        assert!(answer.stderr.contains("page checksum differs"), "byte {at}: {answer:?}");
        dumped.running.assert_gone("after the restore of a damaged image");
        dumped.flip(at);
    }
    dumped.comes_back();
    Ok(())
}

fn large_image_that_is_written_to_while_it_is_read_is_refused() -> Outcome {
    let mut dumped = Dumped::new(FAMILY)?;
    let last = dumped.pages().end - 1;
    let answer = dumped.fails_while(|file| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, last).and_then(|()| file.write_all_at(&byte, last)).expect("write");
    });
    assert!(answer.stderr.contains("written to"), "{answer:?}");
    Ok(())
}

fn large_image_that_shrinks_while_it_is_read_is_refused() -> Outcome {
    // Its only process reads nothing itself.
    let mut dumped = Dumped::new(Subject::new("memory_256mib", ""))?;
    let len = dumped.pages().start + (8 << 20) + 100;
    let answer = dumped.fails_while(|file| file.set_len(len).expect("truncate"));
    assert!(answer.stderr.contains("file ends here"), "{answer:?}");
    Ok(())
}

fn worker_that_is_killed_while_it_reads_leaves_nothing() -> Outcome {
    let mut dumped = Dumped::new(FAMILY)?;
    for round in 0..3 {
        dumped.evict();
        let prefix = dumped.running.file(&format!("killed{round}"));
        let mut started = Fastboot::restore(&dumped.image).fault(SLOWLY).start(&prefix);
        dumped.await_members();
        std::thread::sleep(Duration::from_millis(round * 150));
        assert!(started.child.try_wait().expect("look at fastboot").is_none(), "it was done before");
        started.child.kill().expect("kill fastboot");
        started.child.wait().expect("wait for fastboot");
        dumped.running.assert_gone("after fastboot was killed");
    }
    dumped.comes_back();
    Ok(())
}

pub fn tests() -> Vec<Test> {
    test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        large_memory_comes_past_the_page_cache,
        damage_in_a_cached_image_is_refused_whoever_reads_it,
        worker_writes_part_of_a_cached_image,
        pages_are_put_in_place_without_faults,
        large_family_comes_past_the_page_cache,
        damage_in_a_large_image_is_refused_wherever_it_is,
        large_image_that_is_written_to_while_it_is_read_is_refused,
        large_image_that_shrinks_while_it_is_read_is_refused,
        worker_that_is_killed_while_it_reads_leaves_nothing,
    ]
}
