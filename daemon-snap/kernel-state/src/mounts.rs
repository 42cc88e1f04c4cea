//! File systems that are mounted where a service lives.

use crate::Place;
use crate::view::{Kind, Thing, View};
use image_store::mountinfo::{self, Mount};
use std::collections::BTreeSet;
use std::path::Path;

/// systemd mounts these itself: for a start (credentials), for units with a sandbox, for sessions.
const OF_SYSTEMD: [&str; 3] = ["/run/credentials", "/run/systemd", "/run/user"];

/// The file system type of an automount point (autofs(5), systemd.automount(5)).
const AUTOMOUNT: &str = "autofs";

pub(crate) fn look(place: &Place, view: &mut View) {
    let path = format!("/proc/{}/mountinfo", place.main());
    let text = std::fs::read(path).unwrap_or_default();
    add(&mountinfo::parse(&text), place.is_in_our_mounts(), view);
}

/// Mounts of a namespace of its own are made at each start; only what they are tells anything.
fn add(mounts: &[Mount], is_ours: bool, view: &mut View) {
    let automounted: BTreeSet<&Path> =
        mounts.iter().filter(|mount| mount.kind == AUTOMOUNT).map(|mount| mount.point.as_path()).collect();
    for Mount { id, point, kind, source, .. } in mounts {
        // Whoever walks into an automount point has the file system mounted, in the next boot too:
        // that is nobody's making.
        let came_by_itself = kind != AUTOMOUNT && automounted.contains(point.as_path());
        if came_by_itself || OF_SYSTEMD.iter().any(|dir| point.starts_with(dir)) {
            continue;
        }
        // One may lie over another.
        let thing = view.thing(Kind::Mount, point.to_string_lossy().into_owned());
        thing.content.extend(format!("{kind} ").bytes());
        if is_ours {
            thing.identity.extend(format!("{id} ").bytes());
        }
        thing.detail = Thing::described(kind, &source.to_string_lossy());
    }
}

impl Thing {
    fn described(kind: &str, source: &str) -> String {
        if source == kind || source == "none" { kind.to_owned() } else { format!("{kind} of {source}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Vec<Mount> {
        mountinfo::parse(text.as_bytes())
    }

    const LINE: &str = "31 24 0:27 / /mnt/a rw,relatime shared:5 - tmpfs tmpfs rw,size=1024k";

    #[test]
    fn mounts_are_known_by_their_place_and_those_of_systemd_are_left_out() {
        let mut view = View::default();
        let text = [LINE, &LINE.replace("/mnt/a", "/run/credentials/a.service"), &LINE.replace("31 ", "40 ")];
        add(&parse(&text.join("\n")), true, &mut view);
        assert_eq!(view.keys().len(), 1);
        let key = view.keys().into_iter().next().unwrap();
        assert_eq!(view.names([&key]), "/mnt/a: tmpfs");
        assert_eq!(view.thing(Kind::Mount, "/mnt/a".to_owned()).content, b"tmpfs tmpfs ");
        assert_eq!(view.thing(Kind::Mount, "/mnt/a".to_owned()).identity, b"31 40 ");
    }

    #[test]
    fn what_an_automount_point_has_mounted_is_nobodys() {
        let mut view = View::default();
        let point = "36 24 0:31 / /mnt/a rw,relatime shared:15 - autofs systemd-1 rw,fd=32";
        add(&parse(point), true, &mut view);
        let before = view.thing(Kind::Mount, "/mnt/a".to_owned()).clone();
        let mut view = View::default();
        add(&parse(&[point, LINE].join("\n")), true, &mut view);
        let after = view.thing(Kind::Mount, "/mnt/a".to_owned());
        assert_eq!((&after.content, &after.identity), (&before.content, &before.identity));
        // Who makes automount points has made something.
        assert_eq!(after.content, b"autofs ");
    }
}
