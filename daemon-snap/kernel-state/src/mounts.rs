//! File systems that are mounted where a service lives.

use crate::Place;
use crate::view::{Kind, Thing, View};
use std::path::Path;

/// systemd mounts these itself: for a start (credentials), for units with a sandbox, for sessions.
const OF_SYSTEMD: [&str; 3] = ["/run/credentials", "/run/systemd", "/run/user"];

pub(crate) fn look(place: &Place, view: &mut View) {
    let path = format!("/proc/{}/mountinfo", place.main());
    let text = std::fs::read(path).unwrap_or_default();
    add(&String::from_utf8_lossy(&text), place.is_in_our_mounts(), view);
}

/// Mounts of a namespace of its own are made at each start; only what they are tells anything.
fn add(text: &str, is_ours: bool, view: &mut View) {
    for line in text.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let before: Vec<&str> = before.split(' ').collect();
        let (Some(id), Some(point)) = (before.first(), before.get(4)) else { continue };
        let kind = after.split(' ').next().unwrap_or_default();
        if OF_SYSTEMD.iter().any(|dir| Path::new(point).starts_with(dir)) {
            continue;
        }
        // One may lie over another.
        let thing = view.thing(Kind::Mount, (*point).to_owned());
        thing.content.extend(format!("{kind} ").bytes());
        if is_ours {
            thing.identity.extend(format!("{id} ").bytes());
        }
        let source = after.split(' ').nth(1).unwrap_or_default();
        thing.detail = Thing::described(kind, source);
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

    const LINE: &str = "31 24 0:27 / /mnt/a rw,relatime shared:5 - tmpfs tmpfs rw,size=1024k";

    #[test]
    fn mounts_are_known_by_their_place_and_those_of_systemd_are_left_out() {
        let mut view = View::default();
        let text = [LINE, &LINE.replace("/mnt/a", "/run/credentials/a.service"), &LINE.replace("31 ", "40 ")];
        add(&text.join("\n"), true, &mut view);
        assert_eq!(view.keys().len(), 1);
        let key = view.keys().into_iter().next().unwrap();
        assert_eq!(view.names([&key]), "/mnt/a: tmpfs");
        assert_eq!(view.thing(Kind::Mount, "/mnt/a".to_owned()).content, b"tmpfs tmpfs ");
        assert_eq!(view.thing(Kind::Mount, "/mnt/a".to_owned()).identity, b"31 40 ");
    }
}
