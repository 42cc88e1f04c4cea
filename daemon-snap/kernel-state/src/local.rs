//! Block devices that were set up, and eBPF objects with a name in a file system.

use crate::view::{Kind, Thing, View};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const BLOCK: &str = "/sys/block";
/// What tells that a device of this kind is set up, and by whom or what.
const SET_UP: [&str; 4] = ["loop/backing_file", "dm/name", "md/uuid", "pid"];
const PINS: &str = "/sys/fs/bpf";
/// systemd's own, and as deep as anybody goes.
const OF_SYSTEMD: &str = "systemd";
const DEEPEST: u32 = 8;

pub(crate) fn look(view: &mut View) {
    devices(Path::new(BLOCK), view);
    if statfs(PINS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
        pins(Path::new(PINS), DEEPEST, view);
    }
}

fn devices(dir: &Path, view: &mut View) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let read =
            |name: &str| fs::read_to_string(entry.path().join(name)).map(|text| text.trim().to_owned());
        let Some(content) = SET_UP.iter().find_map(|name| read(name).ok().filter(|text| !text.is_empty()))
        else {
            continue;
        };
        // Counts up whenever something else is behind a device (since Linux 5.15).
        let identity = read("diskseq").unwrap_or_default().into_bytes();
        let name = entry.file_name().to_string_lossy().into_owned();
        view.add(
            Kind::BlockDevice,
            name,
            Thing { content: content.clone().into_bytes(), identity, detail: content },
        );
    }
}

fn pins(dir: &Path, deeper: u32, view: &mut View) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() && deeper > 0 {
            if entry.file_name() != OF_SYSTEMD {
                pins(&entry.path(), deeper - 1, view);
            }
            continue;
        }
        let identity = metadata.ino().to_ne_bytes().to_vec();
        let name = entry.path().display().to_string();
        view.add(Kind::BpfPin, name, Thing { identity, ..Thing::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_device_counts_when_something_is_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("loop0/size", "0"),
            ("loop1/loop/backing_file", "/srv/a.img\n"),
            ("loop1/diskseq", "7\n"),
            ("sda/size", "9"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut view = View::default();
        devices(dir.path(), &mut view);
        let keys = view.keys();
        assert_eq!(view.names(&keys), "loop1: /srv/a.img");
    }
}
