//! What a unit may draw again when its image is restored again (docs/randomness.md): libraries that
//! are known for it, which is noted, and random devices that are held open, which refuses the unit.

use super::Cgroup;
use snap_error::{Result, UnitObstacle};
use snap_policy::{Mode, Options};
use snap_rebuild::reseed;
use snap_state::{BackingV1, FileKindV1, InodeV1, OpenInodeV1, Pid, ProcessV1, RawPath, TreeV1, VmaV1};
use snap_sys::proc::{self, FdInfo};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Preloaded, it helps those that the restore can help.
const RESEED: &str = "libfastboot-reseed.so";
/// Beginnings of the names of libraries that neither can help. Java's usual generator draws afresh;
/// those that are asked for by name (SHA1PRNG, by Tomcat for its session ids; DRBG) do not.
const REPEATING: [&str; 2] = ["libgnutls.so", "libjvm.so"];
/// Beginning of the file name of what draws the same on machines that share an image, unless a
/// preloaded library helps it (`true`).
const SHARED: [(&str, bool); 3] = [("libcrypto.so", true), ("libgcrypt.so", true), ("libgnutls.so", false)];
/// Beginning of the file name of what may have drawn secrets before the image was taken, or keeps
/// a generator that nobody helps: libssl draws the keys of session tickets when a service prepares
/// to listen, Java has generators that are asked for by name (Tomcat's session ids come from
/// SHA1PRNG), Node draws ahead.
const SHARES: [&str; 3] = ["libssl.so", "libjvm.so", "libnode.so"];
/// The program that has OpenSSL within.
const NODE: &str = "node";
/// Numbers of /dev/random and /dev/urandom.
const RANDOM_DEVICES: [(u32, u32); 2] = [(1, 8), (1, 9)];
/// Java reads ahead, throws away what is older than a tenth of a second, and mixes the rest with
/// what it has not shown: measured to be fresh (`vm-tests run randomness`).
const JAVA: &str = "libjvm.so";

/// A note for each library that some process of the tree has mapped and that may draw the same
/// again. The processes of the tree exist.
pub(super) fn notes(tree: &TreeV1) -> Vec<String> {
    notes_of(reseed::unreached(tree, open_mapped), &mapped_names(tree))
}

/// Libraries and programs by which machines with one image would share secrets. What they have
/// drawn before is on every machine: that a restore has some of them seed themselves again does not
/// count here.
pub(super) fn repeated_elsewhere(tree: &TreeV1) -> Vec<String> {
    shared_of(&mapped_names(tree))
}

fn shared_of(mapped: &BTreeSet<String>) -> Vec<String> {
    let is_preloaded = mapped.contains(RESEED);
    let repeats = |name: &&String| {
        SHARED.iter().any(|(library, helped)| name.starts_with(library) && !(is_preloaded && *helped))
    };
    let shares =
        |name: &&String| name.as_str() == NODE || SHARES.iter().any(|beginning| name.starts_with(beginning));
    mapped.iter().filter(repeats).chain(mapped.iter().filter(shares)).cloned().collect()
}

/// File names of what processes of the tree have mapped.
fn mapped_names(tree: &TreeV1) -> BTreeSet<String> {
    let paths = tree.processes.iter().flat_map(|process| mapped(tree, process));
    paths.filter_map(|path| Some(path.as_path().file_name()?.to_string_lossy().into_owned())).collect()
}

/// `unreached`: what the restore cannot help.
fn notes_of(unreached: BTreeSet<String>, mapped: &BTreeSet<String>) -> Vec<String> {
    let mut names = if mapped.contains(RESEED) { BTreeSet::new() } else { unreached };
    let repeats = |name: &&String| REPEATING.iter().any(|library| name.starts_with(library));
    names.extend(mapped.iter().filter(repeats).cloned());
    let note = |name: String| {
        format!("{name} may draw the same random numbers after each restore; fastboot.unit(5), RANDOMNESS")
    };
    names.into_iter().map(note).collect()
}

/// The file itself, whatever its name leads to by now.
fn open_mapped(process: &ProcessV1, vma: &VmaV1) -> Option<File> {
    let (start, end) = (vma.start.0, vma.end.0);
    File::open(format!("/proc/{}/map_files/{start:x}-{end:x}", process.pid)).ok()
}

/// A reason for each random device that a process has open for reading: bytes that it has read
/// ahead are in its memory, and nobody outside can tell whether there are any.
/// An image of a shutdown is used once: its process goes on, and draws nothing again.
pub(super) fn held(options: &Options, tree: &TreeV1) -> Vec<UnitObstacle> {
    if options.mode == Mode::FastRestart {
        return Vec::new();
    }
    let device = |file: u32| -> Option<&RawPath> {
        let file = tree.files.get(file as usize)?;
        let FileKindV1::Inode(OpenInodeV1 { inode, .. }) = file.kind else { return None };
        let inode = tree.inodes.get(inode.0 as usize)?;
        (reads(file.flags) && is_random(inode.mode, inode.rdev)).then(|| path_of(inode)).flatten()
    };
    let mut found = Vec::new();
    for process in &tree.processes {
        let devices: BTreeSet<&Path> =
            process.fds.iter().filter_map(|fd| device(fd.file.0)).map(RawPath::as_path).collect();
        let is_java = || mapped(tree, process).any(|path| path.as_path().ends_with(JAVA));
        if !devices.is_empty() && !is_java() {
            found.extend(devices.into_iter().map(|path| obstacle(process.pid, path)));
        }
    }
    found
}

/// The same of a unit as it runs now, before anything is touched.
///
/// # Errors
/// When its control group cannot be read. What ends meanwhile is left out.
pub fn inspect_random(options: &Options, cgroup: &Cgroup) -> Result<Vec<UnitObstacle>> {
    if options.allow_repeated_random || options.mode == Mode::FastRestart {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for pid in cgroup.processes()? {
        let mut devices = BTreeSet::new();
        for fd in proc::fds(pid).unwrap_or_default() {
            let link = proc::read_link(pid, &format!("fd/{}", fd.0)).unwrap_or_default();
            if !link.ends_with(b"random") || !FdInfo::of(pid, fd).is_ok_and(|info| reads(info.flags)) {
                continue;
            }
            let metadata = std::fs::metadata(format!("/proc/{pid}/fd/{}", fd.0));
            if metadata.is_ok_and(|metadata| is_random(metadata.mode(), metadata.rdev())) {
                devices.insert(OsString::from_vec(link));
            }
        }
        let maps = || proc::read(pid, "maps").unwrap_or_default();
        if !devices.is_empty() && !maps().windows(JAVA.len()).any(|window| window == JAVA.as_bytes()) {
            found.extend(devices.iter().map(|path| obstacle(pid, Path::new(path))));
        }
    }
    Ok(found)
}

fn obstacle(process: Pid, path: &Path) -> UnitObstacle {
    UnitObstacle::RandomHeld { process, path: RawPath::from_path(path) }
}

fn reads(flags: i32) -> bool {
    flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_WRONLY
}

fn is_random(mode: u32, rdev: u64) -> bool {
    let is = |(major, minor): (u32, u32)| rdev == libc::makedev(major, minor);
    mode & libc::S_IFMT == libc::S_IFCHR && RANDOM_DEVICES.into_iter().any(is)
}

/// Paths of what a process has mapped.
fn mapped<'a>(tree: &'a TreeV1, process: &'a ProcessV1) -> impl Iterator<Item = &'a RawPath> {
    process.mm.vmas.iter().filter_map(|vma| match vma.backing {
        BackingV1::Inode { inode, .. } => path_of(tree.inodes.get(inode.0 as usize)?),
        _ => None,
    })
}

fn path_of(inode: &InodeV1) -> Option<&RawPath> {
    inode.kind.found_at()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preloaded_library_helps_machines_only_with_what_is_drawn_later() {
        let shared =
            |names: &[&str]| shared_of(&names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>());
        assert_eq!(shared(&["libcrypto.so.3", "libc.so.6"]), ["libcrypto.so.3"]);
        assert!(shared(&["libcrypto.so.3", RESEED]).is_empty());
        assert_eq!(shared(&["libcrypto.so.3", "libssl.so.3", RESEED]), ["libssl.so.3"]);
        assert_eq!(shared(&["java", "libjvm.so"]), ["libjvm.so"]);
        assert_eq!(shared(&["node", "nodelay"]), ["node"]);
        assert!(shared(&["python3.13", "libc.so.6"]).is_empty());
    }

    #[test]
    fn libraries_that_repeat_are_named_unless_they_are_helped() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mapped = names(&["libc.so.6", "libcrypto.so.3", "libgnutls.so.30"]);
        let all = notes_of(names(&["libcrypto.so.3"]), &mapped);
        assert_eq!(all.len(), 2, "{all:?}");
        let reached = notes_of(BTreeSet::new(), &mapped);
        assert!(reached.len() == 1 && reached[0].starts_with("libgnutls"), "{reached:?}");
        let preloaded = names(&["libcrypto.so.3", "libgnutls.so.30", RESEED]);
        let helped = notes_of(names(&["libcrypto.so.3"]), &preloaded);
        assert!(helped.len() == 1 && helped[0].starts_with("libgnutls"), "{helped:?}");
        assert!(notes_of(BTreeSet::new(), &names(&["libc.so.6", "libssl.so.3"])).is_empty());
        assert_eq!(notes_of(BTreeSet::new(), &names(&["java", "libjvm.so"])).len(), 1);
    }

    #[test]
    fn random_devices_are_known_by_their_numbers_and_only_for_who_reads() {
        let device = libc::S_IFCHR | 0o666;
        assert!(is_random(device, libc::makedev(1, 8)) && is_random(device, libc::makedev(1, 9)));
        assert!(!is_random(device, libc::makedev(1, 3)), "/dev/null");
        assert!(!is_random(libc::S_IFREG | 0o644, libc::makedev(1, 9)), "a file");
        assert!(reads(libc::O_RDONLY) && reads(libc::O_RDWR | libc::O_CLOEXEC));
        assert!(!reads(libc::O_WRONLY) && !reads(libc::O_PATH));
    }
}
