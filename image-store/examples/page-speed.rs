//! How fast pages are written, verified and read ahead: `cargo run --release -p image-store
//! --example page-speed -- DIR [MIB]`. Ratios are against plain reads of the same file in the same
//! run.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Instant;

use image_store::{Durability, ImageWriter, UncheckedImage};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    let mib: usize = arguments.next().map_or(Ok(512), |text| text.parse())?;
    let path = dir.join("page-speed.img");
    let mut word = 1u64;
    let chunk: Vec<u8> = std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.to_le_bytes()
    })
    .take(1 << 17)
    .flatten()
    .collect();

    let gib_per_s = |start: Instant| mib as f64 / 1024.0 / start.elapsed().as_secs_f64();
    let median = |mut speeds: Vec<f64>| {
        speeds.sort_by(f64::total_cmp);
        (speeds[speeds.len() / 2], speeds[0], speeds[speeds.len() - 1])
    };
    let measure = |what: &str,
                   peer: Option<f64>,
                   run: &dyn Fn() -> Result<f64, Box<dyn std::error::Error>>| {
        let speeds = (0..ROUNDS).map(|_| run()).collect::<Result<Vec<f64>, _>>()?;
        let (middle, least, most) = median(speeds);
        let ratio = peer.map_or(String::new(), |peer| format!("  {:.2} of the plain read", middle / peer));
        println!("{what:<34} {middle:6.2} GiB/s  ({least:.2}–{most:.2}){ratio}");
        Ok::<f64, Box<dyn std::error::Error>>(middle)
    };

    measure("write, no sync", None, &|| {
        let start = Instant::now();
        let mut writer = ImageWriter::create(&path)?;
        for _ in 0..mib {
            writer.append_pages(&chunk)?;
        }
        writer.finish(Durability::NoSync)?;
        Ok(gib_per_s(start))
    })?;
    File::open(&path)?.sync_all()?;
    let image = UncheckedImage::open(&path)?.check()?;
    let read_plain = || -> Result<f64, Box<dyn std::error::Error>> {
        let mut buffer = vec![0; 1 << 20];
        let start = Instant::now();
        for index in 0..mib as u64 {
            image.file().read_exact_at(&mut buffer, 4096 + (index << 20))?;
        }
        Ok(gib_per_s(start))
    };
    let evict = || posix_fadvise(image.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let verify = |threads: usize| -> Result<f64, Box<dyn std::error::Error>> {
        let start = Instant::now();
        image.verify_pages(threads)?;
        Ok(gib_per_s(start))
    };
    let cached = measure("plain read, cached", None, &read_plain)?;
    measure("verify, cached, 1 thread", Some(cached), &|| verify(1))?;
    measure("verify, cached, 2 threads", Some(cached), &|| verify(2))?;
    let cold = measure("plain read, evicted", None, &|| {
        evict()?;
        read_plain()
    })?;
    measure("verify alone, 2 threads, evicted", Some(cold), &|| {
        evict()?;
        verify(2)
    })?;
    measure("readahead + verify 2, evicted", Some(cold), &|| {
        evict()?;
        let start = Instant::now();
        image.readahead()?;
        image.verify_pages(2)?;
        Ok(gib_per_s(start))
    })?;
    measure("readahead alone, evicted", Some(cold), &|| {
        evict()?;
        let start = Instant::now();
        image.readahead()?;
        Ok(gib_per_s(start))
    })?;
    std::fs::remove_file(&path)?;
    Ok(())
}
