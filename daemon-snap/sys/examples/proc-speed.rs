//! How our parsers of /proc compare with those of procfs: time, and what comes out of odd input.
//!
//!     cargo run --release -p snap-sys --example proc-speed
//!
//! Both parse the same text, which has been read before. Figures are medians, the peer's times in
//! ours. What follows from them: docs/decisions/0025-proc-by-procfs-or-by-hand.md.

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use procfs_core::process::{Limits, MemoryMaps, MountInfos, Stat, Status};
use procfs_core::{FromRead as _, Locks};
use snap_sys::proc;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::panic::catch_unwind;
use std::time::Instant;

const ROUNDS: usize = 15;
const AREAS: usize = 10_000;
const PAGE: usize = 4096;

fn main() {
    make_areas();
    let read = |name: &str| std::fs::read(format!("/proc/self/{name}")).expect("a file of /proc");
    println!("{:<26} {:>10} {:>12} {:>12} {:>7}", "", "bytes", "ours", "procfs", "ratio");
    let smaps = read("smaps");
    row(
        "smaps, 10,000 areas",
        &smaps,
        |text| proc::parse_smaps(text).expect("ours").len(),
        |text| MemoryMaps::from_read(text).expect("procfs").len(),
    );
    row("stat", &read("stat"), own_stat, |text| Stat::from_read(text).expect("procfs").starttime as usize);
    row(
        "status",
        &read("status"),
        |text| proc::Status::parse(text).expect("ours").groups.len(),
        |text| Status::from_read(text).expect("procfs").groups.len(),
    );
    row("limits", &read("limits"), own_limits, |text| {
        black_box(Limits::from_read(text).expect("procfs"));
        16
    });
    row("mountinfo", &read("mountinfo"), own_mounts, |text| {
        MountInfos::from_read(text).expect("procfs").0.len()
    });
    odd_input();
}

/// Neighbours of different protection are areas of their own.
fn make_areas() {
    let len = NonZeroUsize::new(AREAS * PAGE).expect("not zero");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: new anonymous memory at an address that the kernel chooses.
    let start = unsafe { mmap_anonymous(None, len, protection, MapFlags::MAP_PRIVATE) }.expect("mmap");
    for page in (0..AREAS).step_by(2) {
        // SAFETY: a page of the mapping above, which nobody uses.
        unsafe { mprotect(start.byte_add(page * PAGE), PAGE, ProtFlags::PROT_READ) }.expect("mprotect");
    }
}

fn row(name: &str, text: &[u8], ours: impl Fn(&[u8]) -> usize, theirs: impl Fn(&[u8]) -> usize) {
    let (ours, theirs) = (median(text, ours), median(text, theirs));
    println!("{name:<26} {:>10} {ours:>9.1} µs {theirs:>9.1} µs {:>7.1}", text.len(), theirs / ours);
}

/// In microseconds, of so many repetitions that the clock does not matter.
fn median(text: &[u8], parse: impl Fn(&[u8]) -> usize) -> f64 {
    let repeat = (2_000_000 / text.len()).max(1);
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..repeat {
                black_box(parse(black_box(text)));
            }
            began.elapsed().as_secs_f64() * 1e6 / repeat as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

/// The parser that was ours until it gave way to the peer's.
fn own_stat(text: &[u8]) -> usize {
    let after_name = text.iter().rposition(|&b| b == b')').expect("a name") + 2;
    let words: Vec<&str> =
        std::str::from_utf8(&text[after_name..]).expect("ASCII").split_ascii_whitespace().collect();
    let field = |number: usize| words[number - 3].parse::<i64>().expect("a number");
    [4, 5, 6, 7, 22, 26, 27, 28, 38, 45, 46, 47, 48, 49, 50, 51, 52]
        .map(field)
        .iter()
        .max()
        .map_or(0, |n| *n as usize)
}

/// The same of limits.
fn own_limits(text: &[u8]) -> usize {
    let text = String::from_utf8_lossy(text);
    let value = |word: &str| if word == "unlimited" { u64::MAX } else { word.parse().expect("a number") };
    let limits = text.lines().skip(1).map(|line| {
        let mut words = line[26..].split_ascii_whitespace();
        (value(words.next().expect("soft")), value(words.next().expect("hard")))
    });
    limits.collect::<Vec<_>>().len()
}

fn own_mounts(text: &[u8]) -> usize {
    image_store::mountinfo::parse(text).len()
}

fn odd_input() {
    std::panic::set_hook(Box::new(|_| {}));
    println!();
    let area = |path: &[u8]| [b"7f0000000000-7f0000001000 r--s 00000000 08:02 77 ", path, b"\n"].concat();
    let path = |text: Vec<u8>| {
        let ours = proc::parse_smaps(&text).map(|areas| String::from_utf8_lossy(&areas[0].name).into_owned());
        let theirs = catch_unwind(|| {
            MemoryMaps::from_read(text.as_slice()).map(|maps| format!("{:?}", maps.0[0].pathname))
        });
        println!("  ours: {ours:?}\n  procfs: {}", said(theirs));
    };
    println!("an area of a file with a newline in its name");
    path(area(b"/srv/a\\012b (deleted)"));
    println!("an area of a file that is not UTF-8");
    path(area(b"/srv/a\xff"));
    println!("an area of a file with a blank at the end of its name");
    path(area(b"/srv/a "));
    println!("an area of a file called /SYSVa");
    path(area(b"/SYSVa"));
    println!("areas with flags dp (MAP_DROPPABLE), lf (MLOCK_ONFAULT), sl (mseal)");
    let text = [area(b"").as_slice(), b"VmFlags: rd dp lf sl \n"].concat();
    let theirs = MemoryMaps::from_read(text.as_slice()).map(|maps| maps.0[0].extension.vm_flags);
    println!(
        "  ours: {:?}\n  procfs: {theirs:?}",
        proc::parse_smaps(&text).map(|areas| areas[0].flags.clone())
    );

    let status = String::from_utf8(std::fs::read("/proc/self/status").expect("status")).expect("UTF-8");
    let (_, lines) = status.split_once('\n').expect("a name");
    for (what, name) in
        [("a colon", &b"a:b"[..]), ("a byte that is not UTF-8", b"a\xff"), ("a blank at its end", b"a ")]
    {
        println!("a thread whose name has {what}");
        let text = [b"Name:\t", name, b"\n", lines.as_bytes()].concat();
        let ours =
            proc::Status::parse(&text).map(|status| String::from_utf8_lossy(&status.comm).into_owned());
        let theirs =
            catch_unwind(|| Status::from_read(text.as_slice()).map(|status| format!("{:?}", status.name)));
        println!("  ours: {ours:?}\n  procfs: {}", said(theirs));
    }
    println!("a mount point with a blank in its name, and a table in which one is not UTF-8");
    let blank = MountInfos::from_read(&b"21 1 254:0 / /srv/my\\040site rw - ext4 /dev/vda rw\n"[..]);
    let bytes =
        MountInfos::from_read(&b"21 1 254:0 / / rw - ext4 a rw\n22 21 0:5 / /\xff rw - ext4 b rw\n"[..]);
    println!(
        "  procfs: {:?}, {:?}",
        blank.map(|mounts| mounts.0[0].mount_point.clone()),
        bytes.map(|m| m.0.len()).map_err(|e| e.to_string())
    );
    println!("a lock, and one that is waited for");
    let locks = Locks::from_read(
        &b"1: POSIX  ADVISORY  WRITE 7 fe:00:1 0 EOF\n1: -> POSIX  ADVISORY  WRITE 8 fe:00:1 0 EOF\n"[..],
    );
    println!("  procfs: {:?}", locks.map(|locks| locks.0.iter().map(|lock| lock.pid).collect::<Vec<_>>()));
}

fn said<T: std::fmt::Debug>(answer: std::thread::Result<procfs_core::ProcResult<T>>) -> String {
    match answer {
        Ok(Ok(value)) => format!("{value:?}"),
        Ok(Err(error)) => format!("error: {error}"),
        Err(_) => "panics".to_owned(),
    }
}
