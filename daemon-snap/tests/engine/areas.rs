//! Areas of an address space, from /proc/PID/smaps.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt as _;

/// How the memory begins that stays behind.
const LEFT_HEAD: &[u8; 13] = b"fastboot tape";

/// One area, or several that differ in nothing.
pub struct Area {
    pub start: u64,
    pub end: u64,
    offset: u64,
    is_file: bool,
    what: String,
}

impl Area {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let permissions = words.next()?;
        let offset = u64::from_str_radix(words.next()?, 16).ok()?;
        let (device, inode) = (words.next()?, words.next()?);
        let path = words.collect::<Vec<_>>().join(" ");
        let shown = if is_lasting(&path) { inode } else { "-" };
        let what = format!("{permissions} {device} {shown} {}", without_deleted_name(&path));
        Some(Self { start, end, offset, is_file: inode != "0", what })
    }

    /// Everything but its place.
    pub fn shown(&self) -> String {
        format!("{:x} {}", self.offset, self.what)
    }

    fn continues(&self, next: &Self) -> bool {
        let follows = !self.is_file || self.offset + (self.end - self.start) == next.offset;
        self.end == next.start && self.what == next.what && follows
    }
}

/// Areas with all attributes, and how much stays behind of a restore, in KiB. Neighbours that
/// differ in nothing are one: the kernel merges them or not, as it can.
pub fn areas_of(pid: i32) -> (Vec<Area>, u64) {
    let smaps = fs::read(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let smaps = String::from_utf8_lossy(&smaps);
    let mut areas: Vec<Area> = Vec::new();
    for line in smaps.lines() {
        if let Some(area) = Area::parse(line) {
            areas.push(area);
        } else if let (Some(last), Some((name, value))) = (areas.last_mut(), line.split_once(':')) {
            if ["KernelPageSize", "ProtectionKey"].contains(&name) {
                let _ = write!(last.what, " {name} {}", value.trim());
            } else if name == "VmFlags" {
                let flags: Vec<&str> = value.split_whitespace().collect();
                let read_only = !flags.contains(&"mw");
                let unwritable = !flags.contains(&"wr");
                let counts = |flag: &&str| match *flag {
                    // bookkeeping of who looks at pages
                    "sd" => false,
                    // memory is accounted for once it has been writable
                    "ac" => !unwritable,
                    // whether what can never be written counts as shared depends on how the file
                    // was opened; the permissions say what was asked for
                    "sh" => !read_only,
                    _ => true,
                };
                let flags = flags.into_iter().filter(counts);
                last.what.push_str(&flags.fold(String::from(" flags"), |all, flag| all + " " + flag));
            }
        }
    }
    let mut merged: Vec<Area> = Vec::new();
    for area in areas {
        match merged.last_mut() {
            Some(last) if last.continues(&area) => last.end = area.end,
            _ => merged.push(area),
        }
    }
    let memory = fs::File::open(format!("/proc/{pid}/mem"));
    let mut left_kib = 0;
    merged.retain(|area| {
        let mut head = [0; LEFT_HEAD.len()];
        let read = memory.as_ref().is_ok_and(|memory| memory.read_exact_at(&mut head, area.start).is_ok());
        let left = read && head == *LEFT_HEAD;
        left_kib += if left { (area.end - area.start) >> 10 } else { 0 };
        !left
    });
    (merged, left_kib)
}

/// Whether an inode number means the same after a restore: that of a file on disk. What is deleted
/// is made again, what is on a tmpfs is after a reboot, and /proc numbers its files as they are
/// met.
pub fn is_lasting(path: &str) -> bool {
    let elsewhere = ["/dev/shm/", "/proc/"].iter().any(|dir| path.starts_with(dir));
    path.starts_with('/') && !path.ends_with(" (deleted)") && !elsewhere
}

/// A deleted file comes back without a name.
pub fn without_deleted_name(path: &str) -> String {
    let has_own = ["/memfd:", "/dev/zero", "/SYSV"].iter().any(|prefix| path.starts_with(prefix));
    if path.ends_with(" (deleted)") && !has_own { "(deleted)".to_owned() } else { path.to_owned() }
}
