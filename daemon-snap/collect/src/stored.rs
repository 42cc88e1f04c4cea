//! Descriptors that systemd keeps for the unit.
//!
//! systemd lists them by what fstat(2) says and by name, not by number
//! (DumpUnitFileDescriptorStore, since systemd 254). So they are looked for among all that PID 1
//! has open. Most are one of a kind there: a socket, a memfd, a file. Of those without an inode of
//! their own (eventfd, timerfd and the like) there may be more than the unit's; what cannot be told
//! apart is refused.

use super::description::own_number;
use crate::blockers::{Blockers, failed};
use crate::description::Slot;
use crate::options::StoredDescriptor;
use nix::sys::stat::stat;
use snap_error::obstacle::DescriptorObstacle;
use snap_error::{Part, Result};
use snap_state::{MAX_STORED, MAX_STORED_NAME_BYTES, Pid, RawPath, TargetFd, is_stored_name};
use snap_sys::proc::{self, FdInfo};
use snap_sys::{kcmp, pidfd};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

const INIT: Pid = Pid(1);
const EPOLL_LINK: &[u8] = b"anon_inode:[eventpoll]";
/// What systemd waits for on a stored descriptor; the kernel adds it to every watch.
const HANG_UP: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// The kernel's own, which libc gives as 0 here. systemd leaves it out.
const O_LARGEFILE: i32 = 0o100000;

/// A stored descriptor, found.
#[derive(Debug)]
pub(super) struct Kept {
    pub name: String,
    /// Its number in PID 1.
    pub number: TargetFd,
    /// Ours.
    pub fd: OwnedFd,
    pub polled: bool,
}

/// Finds what systemd has listed, in that order. `slots`: descriptors of the tree.
pub(super) fn find_stored(
    listed: &[StoredDescriptor],
    slots: &[Slot],
    blockers: &mut Blockers,
) -> Result<Vec<Kept>> {
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let mut refuse = |obstacle: DescriptorObstacle| blockers.add(INIT, Part::Process, obstacle);
    let name_bytes: usize = listed.iter().map(|one| one.name.len()).sum();
    if listed.len() > MAX_STORED || name_bytes > MAX_STORED_NAME_BYTES {
        refuse(DescriptorObstacle::StoreTooLarge { count: listed.len() });
        return Ok(Vec::new());
    }
    let table = Table::read()?;
    let mut found: Vec<Option<Kept>> = listed.iter().map(|_| None).collect();
    for alike in groups(listed) {
        let Some(first) = alike.first().map(|&at| &listed[at]) else { continue };
        let names: HashSet<&str> = alike.iter().map(|&at| listed[at].name.as_str()).collect();
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        let (path, joined) = (RawPath(first.path.clone()), names.join(", "));
        if let Some(odd) = names.iter().find(|name| !is_stored_name(name)) {
            refuse(DescriptorObstacle::StoreOddName { names: joined, path, odd: (*odd).to_owned() });
            continue;
        }
        if names.len() > 1 {
            refuse(DescriptorObstacle::StoreNamesAmbiguous { names: joined, path });
            continue;
        }
        let mut copies = table.find(first)?;
        if copies.len() > alike.len() {
            copies.retain(|copy| slots.iter().any(|slot| is_same(copy, slot)));
        }
        if copies.len() != alike.len() {
            refuse(DescriptorObstacle::StoreAmbiguous { names: joined, path });
            continue;
        }
        for (&at, copy) in alike.iter().zip(copies) {
            let Copy { number, fd, polled } = copy;
            found[at] = Some(Kept { name: listed[at].name.clone(), number, fd, polled });
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Indices of those that differ in nothing but their name.
fn groups(listed: &[StoredDescriptor]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (at, one) in listed.iter().enumerate() {
        let same = |other: &usize| listed[*other].is_alike(one);
        match groups.iter_mut().find(|group| group.first().is_some_and(same)) {
            Some(group) => group.push(at),
            None => groups.push(vec![at]),
        }
    }
    groups
}

/// One open file description of PID 1.
struct Copy {
    number: TargetFd,
    fd: OwnedFd,
    polled: bool,
}

/// A description that systemd and the tree have in common was stored by somebody of the unit: where
/// all that could be meant are such, those are meant.
fn is_same(copy: &Copy, slot: &Slot) -> bool {
    let other = &slot.description;
    kcmp::compare_files(own_number(&copy.fd), (other.pid, other.fd)).is_ok_and(|order| order.is_eq())
}

/// What PID 1 has open, by the kernel's name for it.
struct Table {
    init: OwnedFd,
    numbers: HashMap<Vec<u8>, Vec<TargetFd>>,
    /// What it waits for.
    watched: HashMap<TargetFd, u32>,
}

impl Table {
    /// PID 1 runs on: what it closes meanwhile was none of the unit's, which stands still.
    fn read() -> Result<Self> {
        let init = pidfd::open(INIT).map_err(failed("pidfd_open", INIT, ""))?;
        let (mut numbers, mut watched) = (HashMap::<_, Vec<_>>::new(), HashMap::new());
        for number in proc::fds(INIT)? {
            let Ok(link) = proc::read_link(INIT, &format!("fd/{number}")) else { continue };
            if link == EPOLL_LINK
                && let Ok(info) = FdInfo::of(INIT, number)
            {
                let targets = info.epoll_targets().unwrap_or_default();
                watched.extend(targets.into_iter().map(|target| (target.fd, target.events)));
            }
            numbers.entry(link).or_default().push(number);
        }
        Ok(Self { init, numbers, watched })
    }

    /// Each description that fits, once; the newest number first, as systemd lists what it was
    /// given last.
    fn find(&self, wanted: &StoredDescriptor) -> Result<Vec<Copy>> {
        let mut copies: Vec<Copy> = Vec::new();
        let numbers = self.numbers.get(&wanted.path).map_or(&[][..], Vec::as_slice);
        for &number in numbers.iter().rev() {
            let events = self.watched.get(&number);
            // What it waits for something else of is its own.
            if events.is_some_and(|events| events & !HANG_UP != 0) || !fits(wanted, number) {
                continue;
            }
            let fd = match pidfd::get_fd(self.init.as_fd(), number) {
                Err(nix::errno::Errno::EBADF) => continue,
                taken => taken.map_err(failed("duplicate descriptor", INIT, number))?,
            };
            let mut same = None;
            for copy in &mut copies {
                let order = kcmp::compare_files(own_number(&copy.fd), own_number(&fd));
                if order.map_err(failed("kcmp", INIT, number))?.is_eq() {
                    same = Some(copy);
                    break;
                }
            }
            match same {
                Some(copy) => copy.polled |= events.is_some(),
                None => copies.push(Copy { number, fd, polled: events.is_some() }),
            }
        }
        Ok(copies)
    }
}

fn fits(wanted: &StoredDescriptor, number: TargetFd) -> bool {
    let Ok(seen) = stat(format!("/proc/{INIT}/fd/{number}").as_str()) else { return false };
    let Ok(info) = FdInfo::of(INIT, number) else { return false };
    (seen.st_mode, seen.st_dev, seen.st_ino, seen.st_rdev)
        == (wanted.mode, wanted.device, wanted.inode, wanted.special_device)
        && (info.flags ^ wanted.flags) & !(O_LARGEFILE | libc::O_CLOEXEC) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, inode: u64) -> StoredDescriptor {
        StoredDescriptor { name: name.into(), inode, ..StoredDescriptor::default() }
    }

    #[test]
    fn more_stored_descriptors_than_travel_in_one_message_are_refused() {
        let all: Vec<_> = (0..=MAX_STORED as u64).map(|inode| listed("a", inode)).collect();
        let long = [listed(&"n".repeat(MAX_STORED_NAME_BYTES + 1), 1)];
        for listed in [&all[..], &long[..]] {
            let mut blockers = Blockers::default();
            assert!(find_stored(listed, &[], &mut blockers).unwrap().is_empty());
            assert!(blockers.into_list()[0].to_string().ends_with("which are too many"));
        }
    }

    #[test]
    fn stored_descriptors_that_differ_in_their_name_only_are_alike() {
        let all = [listed("a", 7), listed("b", 8), listed("c", 7), listed("a", 7)];
        assert_eq!(groups(&all), [vec![0, 2, 3], vec![1]]);
    }
}
