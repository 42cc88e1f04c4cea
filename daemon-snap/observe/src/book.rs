//! Who did what: events in, a log per unit out. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;

use image_store::evidence::Gap;

/// A file in one state, as of the moment in which it was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub size: u64,
    pub mtime_ns: i64,
}

/// What was done with one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub opened: bool,
    pub executed: bool,
    /// A directory whose names were read.
    pub listed: bool,
    /// It was open for writing, and closed.
    pub written: bool,
    /// The youngest process that has written it, by its number.
    pub writer: i32,
    /// Every process that did it was gone before its control group could be read.
    pub by_number: bool,
    /// When it was opened first.
    pub first: Stamp,
}

/// What one unit did, by path as in its mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitLog {
    pub files: BTreeMap<PathBuf, Seen>,
    /// Device and inode of everything that it wrote: a path may lead to another file by now.
    pub written: BTreeSet<(u64, u64)>,
    /// What makes the log useless.
    pub gaps: BTreeSet<Gap>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub pid: i32,
    pub path: PathBuf,
    pub opened: bool,
    pub executed: bool,
    pub listed: bool,
    pub written: bool,
    pub stamp: Stamp,
}

/// Who a process belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Unit(usize),
    /// The manager itself, or a child of it that has not moved to its unit's group yet.
    Manager,
    Stranger,
}

/// Logs of the units that are watched.
#[derive(Debug, Default)]
pub(crate) struct Book {
    /// Control groups, as systemd names them, and their logs.
    units: Vec<(String, UnitLog)>,
    /// What is known of processes. A unit's stay known after their end.
    owners: HashMap<i32, Owner>,
    /// Numbers that nobody has but who was started since recording began.
    band: Range<i32>,
    /// The unit that starts now.
    starting: Option<usize>,
}

impl Book {
    pub fn new(band: Range<i32>) -> Self {
        Self { band, ..Self::default() }
    }

    /// The unit is watched from now on; what was recorded of it before is forgotten.
    pub fn begin(&mut self, control_group: &str) {
        let index = self.index(control_group);
        self.units[index].1 = UnitLog::default();
        self.starting = Some(index);
        // Its processes of before have ended, and the numbers may come again.
        self.owners.retain(|_, owner| *owner != Owner::Unit(index));
    }

    /// No unit starts any more.
    pub fn end_starts(&mut self) {
        self.starting = None;
    }

    pub fn watch(&mut self, control_group: &str) {
        self.index(control_group);
    }

    fn index(&mut self, control_group: &str) -> usize {
        let known = self.units.iter().position(|(group, _)| group == control_group);
        known.unwrap_or_else(|| {
            self.units.push((control_group.to_owned(), UnitLog::default()));
            self.units.len() - 1
        })
    }

    pub fn log(&self, control_group: &str) -> Option<&UnitLog> {
        self.units.iter().find(|(group, _)| group == control_group).map(|(_, log)| log)
    }

    /// What every log lacks.
    pub fn gap(&mut self, gap: &Gap) {
        for (_, log) in &mut self.units {
            log.gaps.insert(gap.clone());
        }
    }

    /// Units, by index, that something of this process belongs to, and whether only its number says
    /// so. `group` looks its control group up; `None` of one that is gone.
    pub fn owners(&mut self, pid: i32, group: impl FnOnce() -> Option<String>) -> (Vec<usize>, bool) {
        if let Some(&Owner::Unit(index)) = self.owners.get(&pid) {
            return (vec![index], false);
        }
        let owner = match group() {
            Some(group) => self.owner_of(&group),
            // It may have moved since it was looked at last.
            None => match self.owners.get(&pid) {
                Some(&Owner::Stranger) => Owner::Stranger,
                _ if self.band.contains(&pid) => return (self.by_number(), true),
                _ => Owner::Stranger,
            },
        };
        self.owners.insert(pid, owner);
        match owner {
            Owner::Unit(index) => (vec![index], false),
            Owner::Manager | Owner::Stranger => (Vec::new(), false),
        }
    }

    fn owner_of(&self, group: &str) -> Owner {
        let holds = |unit: &str| {
            group.strip_prefix(unit).is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        if let Some(index) = self.units.iter().position(|(unit, _)| holds(unit)) {
            return Owner::Unit(index);
        }
        match group {
            "/" | "/init.scope" => Owner::Manager,
            _ => Owner::Stranger,
        }
    }

    /// A helper of the unit that starts, or of whichever unit.
    fn by_number(&self) -> Vec<usize> {
        self.starting.map_or_else(|| (0..self.units.len()).collect(), |index| vec![index])
    }

    pub fn add(&mut self, index: usize, event: &Event, by_number: bool) {
        let Some((_, log)) = self.units.get_mut(index) else { return };
        if event.written {
            log.written.insert((event.stamp.dev, event.stamp.ino));
        }
        let fresh = Seen { by_number: true, first: event.stamp, ..Seen::default() };
        let seen = log.files.entry(event.path.clone()).or_insert(fresh);
        seen.opened |= event.opened;
        seen.executed |= event.executed;
        seen.listed |= event.listed;
        seen.written |= event.written;
        if event.written {
            seen.writer = seen.writer.max(event.pid);
        }
        seen.by_number &= by_number;
    }

    pub fn add_gap(&mut self, index: usize, gap: Gap) {
        if let Some((_, log)) = self.units.get_mut(index) {
            log.gaps.insert(gap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "/system.slice/web.service";
    const DNS: &str = "/system.slice/dns.service";

    fn book() -> Book {
        let mut book = Book::new(1_000_000..2_000_000);
        book.watch(WEB);
        book.watch(DNS);
        book
    }

    fn alive(group: &str) -> impl FnOnce() -> Option<String> {
        let group = group.to_owned();
        move || Some(group)
    }

    fn opens(path: &str) -> Event {
        let stamp = Stamp { dev: 1, ino: 2, ..Stamp::default() };
        Event {
            pid: 300,
            path: path.into(),
            opened: true,
            executed: false,
            listed: false,
            written: false,
            stamp,
        }
    }

    #[test]
    fn a_process_belongs_to_the_unit_whose_group_it_is_in_or_below() {
        let mut book = book();
        assert_eq!(book.owners(300, alive(WEB)), (vec![0], false));
        assert_eq!(book.owners(301, alive("/system.slice/web.service/worker")), (vec![0], false));
        assert_eq!(book.owners(302, alive("/system.slice/web.services")), (vec![], false));
        assert_eq!(book.owners(300, || None), (vec![0], false), "it is known after its end");
    }

    #[test]
    fn a_child_of_the_manager_is_looked_at_until_it_has_moved() {
        let mut book = book();
        assert_eq!(book.owners(1_000_010, alive("/init.scope")), (vec![], false));
        assert_eq!(book.owners(1_000_010, alive(WEB)), (vec![0], false));
    }

    #[test]
    fn a_helper_that_was_gone_belongs_to_the_unit_that_starts_or_to_all() {
        let mut book = book();
        assert_eq!(book.owners(1_000_020, || None), (vec![0, 1], true));
        book.begin(DNS);
        assert_eq!(book.owners(1_000_021, || None), (vec![1], true));
        assert_eq!(book.owners(1_000_022, alive("/init.scope")), (vec![], false));
        assert_eq!(book.owners(1_000_022, || None), (vec![1], true));
        book.end_starts();
        assert_eq!(book.owners(1_000_023, || None), (vec![0, 1], true));
        assert_eq!(book.owners(400, || None), (vec![], false), "no number of the band");
        assert_eq!(book.owners(1_000_024, alive("/user.slice")), (vec![], false));
        assert_eq!(book.owners(1_000_024, || None), (vec![], false), "it was seen elsewhere");
    }

    #[test]
    fn a_start_begins_with_an_empty_log() {
        let mut book = book();
        book.add(0, &opens("/etc/old.conf"), false);
        book.begin(WEB);
        assert!(book.log(WEB).unwrap().files.is_empty());
        book.add(0, &opens("/etc/web.conf"), true);
        assert!(book.log(WEB).unwrap().files[&PathBuf::from("/etc/web.conf")].by_number);
        book.add(0, &Event { written: true, ..opens("/etc/web.conf") }, false);
        let log = book.log(WEB).unwrap();
        let seen = log.files[&PathBuf::from("/etc/web.conf")];
        assert!(seen.opened && seen.written && !seen.by_number);
        assert_eq!(seen.writer, 300);
        assert!(log.written.contains(&(1, 2)));
        assert!(book.log(DNS).unwrap().files.is_empty());
    }
}
