//! Address spaces: areas and layout. Their pages are read later (`pages`).

use crate::blockers::{Blockers, Found, refused};
use crate::inode::Inodes;
use crate::member::Member;
use crate::ring;
use snap_error::obstacle::{MemoryObstacle, ProcessObstacle};
use snap_error::{Part, Result};
use snap_state::{Addr, BackingV1, MmLayoutV1, Pid, VmaFlagsV1, VmaV1};
use snap_sys::proc::{self, MapsEntry, Stat, parse_smaps};

/// An address space as seen from outside.
#[derive(Debug)]
pub(crate) struct AddressSpace {
    /// Without `brk`, which only the process itself can tell.
    pub layout: MmLayoutV1,
    pub auxv: Vec<u8>,
    pub areas: Vec<Area>,
}

/// An area and what only the dump needs to know about it.
#[derive(Debug)]
pub(crate) struct Area {
    pub vma: VmaV1,
    /// The kernel counts anonymous pages in it.
    pub has_own_pages: bool,
}

impl Area {
    /// Whether pages of this area travel in the image.
    pub fn carries_pages(&self) -> bool {
        let flags = &self.vma.flags;
        let kind = matches!(self.vma.backing, BackingV1::Anon | BackingV1::Inode { .. });
        kind && !self.vma.shared && !flags.wipe_on_fork && !flags.droppable
    }
}

impl AddressSpace {
    /// Where the vDSO lies.
    pub fn vdso(&self) -> Option<&VmaV1> {
        self.areas.iter().map(|area| &area.vma).find(|vma| vma.backing == BackingV1::Vdso)
    }
}

/// Whether a mapping is what an earlier restore left behind: read-only, executable, anonymous, and
/// it says so itself.
fn is_left_behind(pid: Pid, entry: &MapsEntry) -> bool {
    let candidate = entry.name.is_empty() || entry.name == b"[anon:fastboot]";
    candidate && entry.prot == 5 && snap_sys::leftover::begins_at(pid, entry.start)
}

/// The address space of a process.
pub(crate) fn collect_address_space(
    member: &Member,
    inodes: &mut Inodes<'_>,
    blockers: &mut Blockers,
) -> Result<AddressSpace> {
    let pid = member.pid;
    let mut vvar_parts = 0;
    let mut areas = Vec::new();
    for entry in parse_smaps(&proc::read(pid, "smaps")?)? {
        // Ours from an earlier restore, and the one that every process has without asking.
        if entry.name == b"[vsyscall]" || is_left_behind(pid, &entry) {
            continue;
        }
        let part = Part::Mapping(entry.start);
        for obstacle in inspect_flags(&entry) {
            blockers.add(pid, part, obstacle);
        }
        let backing = backing(pid, &entry, &mut vvar_parts, inodes);
        let Some(backing) = blockers.note(pid, part, backing)? else { continue };
        areas.push(Area { vma: area(&entry, backing), has_own_pages: entry.own_kib > 0 });
    }
    if machine_has_nodes() {
        let text = proc::read(pid, "numa_maps")?;
        if let Some((at, policy)) = first_policy(&String::from_utf8_lossy(&text)) {
            let policy = policy.to_owned();
            blockers.add(pid, Part::Mapping(at), MemoryObstacle::NumaPolicy { policy });
        }
    }
    let space = AddressSpace { layout: layout(&member.stat), auxv: proc::read(pid, "auxv")?, areas };
    if space.vdso().is_none() {
        blockers.add(pid, Part::Process, ProcessObstacle::NoVdso);
    }
    Ok(space)
}

/// Whether memory lies in several nodes: with one, a policy says nothing, and the list of policies
/// costs as much as smaps.
fn machine_has_nodes() -> bool {
    let online = std::fs::read_to_string("/sys/devices/system/node/online");
    online.is_ok_and(|online| online.contains(['-', ',']))
}

/// The first line of numa_maps (numa(7)) with another policy than the default.
fn first_policy(text: &str) -> Option<(Addr, &str)> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let at = Addr(u64::from_str_radix(words.next()?, 16).ok()?);
        words.next().filter(|policy| *policy != "default").map(|policy| (at, policy))
    })
}

fn layout(stat: &Stat) -> MmLayoutV1 {
    MmLayoutV1 {
        start_code: stat.start_code,
        end_code: stat.end_code,
        start_data: stat.start_data,
        end_data: stat.end_data,
        start_brk: stat.start_brk,
        brk: Addr(0),
        start_stack: stat.start_stack,
        arg_start: stat.arg_start,
        arg_end: stat.arg_end,
        env_start: stat.env_start,
        env_end: stat.env_end,
    }
}

fn is_of_kernel(entry: &MapsEntry) -> bool {
    entry.name == b"[vdso]" || entry.name.starts_with(b"[vvar") || entry.name == ring::LINK
}

/// Two-letter attributes of smaps (proc_pid_smaps(5)) that are carried, refused, or follow from
/// something else.
const KNOWN_FLAGS: [&[u8; 2]; 38] = [
    b"rd", b"wr", b"ex", b"sh", b"mr", b"mw", b"me", b"ms", b"gd", b"pf", b"lo", b"lf", b"io", b"sr", b"rr",
    b"dc", b"de", b"ac", b"nr", b"ht", b"sf", b"ar", b"wf", b"dd", b"sd", b"mm", b"hg", b"nh", b"mg", b"um",
    b"uw", b"ui", b"ss", b"sl", b"dp", b"gu", b"mt", b"bt",
];

/// Kinds of memory that mmap and madvise cannot make again.
fn inspect_flags(entry: &MapsEntry) -> Vec<MemoryObstacle> {
    let mut obstacles = Vec::new();
    let mut refuse = |flags: &[&[u8; 2]], obstacle: MemoryObstacle| {
        if flags.iter().any(|flag| entry.has(flag)) {
            obstacles.push(obstacle);
        }
    };
    refuse(&[b"ht"], MemoryObstacle::Hugetlb);
    refuse(&[b"um", b"uw", b"ui"], MemoryObstacle::UserfaultfdRegistered);
    refuse(&[b"ss"], MemoryObstacle::ShadowStack);
    if !is_of_kernel(entry) {
        refuse(&[b"io", b"pf"], MemoryObstacle::Device);
        refuse(&[b"sf"], MemoryObstacle::SynchronousFaults);
    }
    for flag in entry.flags.iter().filter(|flag| !KNOWN_FLAGS.contains(flag)) {
        let flag = String::from_utf8_lossy(flag.as_slice()).into_owned();
        obstacles.push(MemoryObstacle::UnknownFlag { flag });
    }
    if entry.protection_key != 0 {
        obstacles.push(MemoryObstacle::ProtectionKey { key: entry.protection_key });
    }
    obstacles
}

/// The device of memory without a file, as maps shows it.
const NO_DEVICE: &[u8] = b"00:00";

fn backing(pid: Pid, entry: &MapsEntry, vvar_parts: &mut u8, inodes: &mut Inodes<'_>) -> Found<BackingV1> {
    match entry.name.as_slice() {
        b"[vdso]" => Ok(BackingV1::Vdso),
        // Breakpoints (`[uprobes]`), or calls that replace them (`[uprobes-trampoline]`, since
        // Linux 6.18).
        name if name.starts_with(b"[uprobes") => refused(MemoryObstacle::Uprobes),
        name if name.starts_with(b"[vvar") => {
            let part = *vvar_parts;
            *vvar_parts += 1;
            Ok(BackingV1::Vvar { part })
        }
        // The first SysV segment of a namespace has the inode number 0, and a device.
        _ if entry.ino == 0 && entry.dev == NO_DEVICE => Ok(BackingV1::Anon),
        _ => {
            let inode = inodes.of_mapping(pid, entry)?;
            let may_write = entry.shared && entry.has(b"mw");
            Ok(BackingV1::Inode { inode, offset: entry.offset, may_write })
        }
    }
}

fn area(entry: &MapsEntry, backing: BackingV1) -> VmaV1 {
    let named = |prefix: &[u8]| Some(entry.name.strip_prefix(prefix)?.strip_suffix(b"]")?.to_vec());
    let has = |flag| entry.has(flag);
    VmaV1 {
        start: entry.start,
        end: entry.end,
        prot: entry.prot,
        shared: entry.shared,
        backing,
        flags: VmaFlagsV1 {
            grows_down: has(b"gd"),
            locked: has(b"lo"),
            lock_on_fault: has(b"lf"),
            sequential: has(b"sr"),
            random: has(b"rr"),
            dont_fork: has(b"dc"),
            dont_dump: has(b"dd"),
            wipe_on_fork: has(b"wf"),
            droppable: has(b"dp"),
            no_reserve: has(b"nr"),
            huge_page: has(b"hg"),
            no_huge_page: has(b"nh"),
            mergeable: has(b"mg"),
            sealed: has(b"sl"),
        },
        name: named(b"[anon:").or_else(|| named(b"[anon_shmem:")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numa_policies_are_found() {
        let text = "5614c7b0a000 default file=/bin/true mapped=1 N0=1\n7fe6097b3000 bind:0 anon=1 N0=1\n";
        assert_eq!(first_policy(text), Some((Addr(0x7fe6_097b_3000), "bind:0")));
        assert_eq!(first_policy("5614c7b0a000 default\n"), None);
    }
}
