//! Descriptor tables and the open file descriptions behind them.

use super::description::{Description, Open, Slot, node_of, own_number};
use super::epoll::Targets;
use super::inet::InetSockets;
use super::kinds::{self, Kinds, watches_files};
use super::lock::{Locks, collect_locks, inspect_leases};
use super::netlink::NetlinkSockets;
use super::packet::PacketSockets;
use super::pidfd::Tasks;
use super::pipe::Pipes;
use super::socket::Sockets;
use super::stored::find_stored;
use super::unix::UnixSockets;
use super::unix_queue::{Carrier, Queues};
use crate::blockers::{Blockers, Found, Trouble, failed, refused};
use crate::inode::Inodes;
use crate::member::Member;
use nix::sys::stat::stat;
use snap_error::obstacle::{DescriptorObstacle, FileObstacle};
use snap_error::{Error, Obstacle, Part, Result};
use snap_state::{FdV1, FileId, FileKindV1, FileV1, Pid, PidFdV1, PipeV1, StoredV1, ZombieV1};
use snap_sys::proc::{self, FdInfo};
use snap_sys::{fdquery, kcmp, pidfd};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

/// All descriptors of the tree.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// In the order of the members.
    pub tables: Vec<Vec<FdV1>>,
    pub locks: Locks,
    /// `None`: it has a blocker, so that nothing is written.
    pub files: Vec<Option<FileV1>>,
    pub pipes: Vec<PipeV1>,
    pub stored: Vec<StoredV1>,
}

/// Reads all tables, finds out which entries share a description, and asks each description what it
/// is.
pub(crate) fn collect_descriptors(
    members: &[Member],
    zombies: &[ZombieV1],
    inodes: &mut Inodes<'_>,
    blockers: &mut Blockers,
) -> Result<Descriptors> {
    let mut slots = read_tables(members)?;
    if inspect_leases(&slots, blockers) {
        return Err(Error::Refused(std::mem::take(blockers).into_list()));
    }
    if watches_files(&slots) {
        inodes.note_watchers();
    }
    let pidfds: HashMap<Pid, &OwnedFd> = members.iter().map(|m| (m.pid, &m.pidfd)).collect();
    let in_tables = slots.len();
    let stored = find_stored(&inodes.options().stored, &slots, blockers)?;
    let named: Vec<_> =
        stored.iter().map(|one| (own_number(&one.fd), one.name.clone(), one.polled)).collect();
    let queues = Queues::look(&mut slots, &pidfds, stored)?;
    let firsts = number_descriptions(&mut slots)?;
    let locks = collect_locks(&slots[..in_tables], members.len());
    let by_number = slots.iter().map(|s| ((s.description.pid, s.description.fd), s.description.id)).collect();
    let descriptions: Vec<Description> = firsts.iter().map(|&slot| slots[slot].description.clone()).collect();

    let duplicate = |file: &Description| -> Result<OwnedFd> {
        if queues.carrier(file).is_some() {
            return queues.duplicate(file.fd).map_err(failed("duplicate descriptor", file.pid, file.fd));
        }
        let Some(pidfd) = pidfds.get(&file.pid) else {
            return Err(Error::Internal {
                step: "duplicate descriptor",
                message: "of an unknown process".into(),
            });
        };
        pidfd::get_fd(pidfd.as_fd(), file.fd).map_err(failed("duplicate descriptor", file.pid, file.fd))
    };
    let mut kinds = Kinds {
        tasks: Tasks::new(members, zombies, inodes.options().unit),
        spaces: inodes.spaces(),
        targets: Targets { by_number: &by_number, files: &descriptions },
        pipes: Pipes::default(),
        sockets: Sockets {
            spaces: inodes.spaces(),
            unix: UnixSockets::new(&descriptions, &by_number, &queues, inodes.spaces(), inodes.options()),
            inet: InetSockets::new(inodes.spaces(), inodes.options()),
            netlink: NetlinkSockets::new(inodes.spaces(), inodes.options()),
            packet: PacketSockets::new(inodes.spaces()),
        },
    };
    let mut files = Vec::with_capacity(firsts.len());
    for &slot in &firsts {
        let slot = &slots[slot];
        let file = &slot.description;
        let fd = duplicate(file)?;
        let open = Open { file, fd: fd.as_fd(), info: &slot.info };
        let found = kinds.collect(open, inodes);
        let kind = match queues.carrier(file) {
            None => blockers.note(file.pid, file.part(), found)?,
            Some(carrier) => match in_flight(slot, found, inodes) {
                Ok(kind) => Some(kind),
                Err(Trouble::Refused(obstacle)) => {
                    refuse_carried(carrier, obstacle, blockers);
                    None
                }
                Err(Trouble::Failed(e)) => return Err(e),
            },
        };
        let Some(kind) = kind else {
            files.push(None);
            continue;
        };
        inspect_shared(&slots, file, &kind, inodes, blockers);
        let described = describe(open, kind)?;
        if described.owner.is_some_and(|owner| owner.pid.0 != 0) && inodes.is_directory(&described.kind) {
            // Nothing else makes a directory send signals, and no list shows what is watched for.
            blockers.add(file.pid, file.part(), FileObstacle::Dnotify);
        }
        files.push(Some(described));
    }
    inspect_spent_watches(&slots, &files, blockers);
    kinds.sockets.inet.connections.finish(&mut files, inodes.options().lost_peer, blockers)?;
    let pipes = kinds.pipes.collect(duplicate, members, blockers)?;

    let stored = named.into_iter().filter_map(|(own, name, polled)| {
        by_number.get(&own).map(|file| StoredV1 { name, file: *file, polled })
    });
    let stored = stored.collect();

    let mut tables = vec![Vec::new(); members.len()];
    slots.truncate(in_tables);
    slots.sort_by_key(|slot| (slot.owner, slot.description.fd));
    for slot in &slots {
        let (fd, file) = (slot.description.fd, slot.description.id);
        tables[slot.owner].push(FdV1 { fd, file, cloexec: slot.info.cloexec });
    }
    Ok(Descriptors { tables, locks, files, pipes, stored })
}

/// What a description has beside its kind.
fn describe(open: Open<'_>, kind: FileKindV1) -> Result<FileV1> {
    let Open { file, fd, info } = open;
    let fail = |step| failed(step, file.pid, file.fd);
    let opath = info.flags & libc::O_PATH != 0;
    let owner = if opath { None } else { fdquery::owner(fd).map_err(fail("F_GETOWN_EX"))? };
    let flags = fdquery::status_flags(fd).map_err(fail("F_GETFL"))?;
    // What others hand to us is theirs.
    let is_made = file.link.starts_with(b"socket:[") && !matches!(kind, FileKindV1::Rebind(_));
    let node = if is_made { Some(node_of(fd).map_err(fail("stat"))?) } else { None };
    Ok(FileV1 { id: file.id, flags, owner, node, kind })
}

fn refuse_carried(carrier: &Carrier, obstacle: Obstacle, blockers: &mut Blockers) {
    let obstacle = Box::new(obstacle);
    match carrier {
        Carrier::Socket(pid, fd) => blockers.add(*pid, Part::Fd(*fd), Obstacle::Unread(obstacle)),
        Carrier::Store(name, fd) => {
            blockers.add(Pid(1), Part::Fd(*fd), Obstacle::OnlyStored { obstacle, name: name.clone() });
        }
    }
}

/// What can be sent before there are processes, and has nothing that belongs to the process that
/// has it open.
fn in_flight(slot: &Slot, kind: Found<FileKindV1>, inodes: &Inodes<'_>) -> Found<FileKindV1> {
    let kind = kind?;
    match kinds::in_flight(&slot.description, &kind, inodes) {
        Some(obstacle) => refused(obstacle),
        None if !slot.info.locks.is_empty() => refused(DescriptorObstacle::LockedInFlight),
        None => Ok(kind),
    }
}

/// What only one process can make or ask for, nobody else can have.
fn inspect_shared(
    slots: &[Slot],
    file: &Description,
    kind: &FileKindV1,
    inodes: &Inodes<'_>,
    blockers: &mut Blockers,
) {
    let shared = slots.iter().any(|slot| slot.description.id == file.id && slot.description.pid != file.pid);
    if let Some(obstacle) = kinds::shared(file, kind, inodes).filter(|_| shared) {
        blockers.add(file.pid, file.part(), obstacle);
    }
}

/// Watches on pidfds are added when the sets are in use already, and one that has had its only
/// event is made by letting it have one.
fn inspect_spent_watches(slots: &[Slot], files: &[Option<FileV1>], blockers: &mut Blockers) {
    let kind = |id: FileId| files[id.index()].as_ref().map(|file| &file.kind);
    for slot in slots {
        let Some(watches) = kind(slot.description.id).map(FileKindV1::watches) else { continue };
        let is_late = |id| matches!(kind(id), Some(FileKindV1::PidFd(PidFdV1::Task { .. })));
        if watches.iter().any(|watch| watch.is_spent() && is_late(watch.file)) {
            let Description { pid, fd, .. } = slot.description;
            blockers.add(pid, Part::Fd(fd), DescriptorObstacle::EpollSpentWatch);
        }
    }
}

fn read_tables(members: &[Member]) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    for (owner, member) in members.iter().enumerate() {
        let pid = member.pid;
        for fd in proc::fds(pid)? {
            let link = proc::read_link(pid, &format!("fd/{fd}"))?;
            let info = FdInfo::of(pid, fd)?;
            let stat = stat(format!("/proc/{pid}/fd/{fd}").as_str()).map_err(failed("stat", pid, fd))?;
            let (dev, ino) = (stat.st_dev, stat.st_ino);
            slots.push(Slot {
                owner,
                description: Description { id: FileId(0), pid, fd, dev, ino, link },
                info,
            });
        }
    }
    Ok(slots)
}

/// Gives equal descriptions equal ids, in the order of first appearance. Returns the first slot of
/// each.
///
/// Comparing each with each would be quadratic: whatever differs in something cheap is not compared
/// at all, the rest is sorted by the order that the kernel defines.
fn number_descriptions(slots: &mut [Slot]) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..slots.len()).collect();
    let key = |slot: &Slot| {
        let d = &slot.description;
        (d.dev, d.ino, slot.info.pos, slot.info.flags, d.link.clone())
    };
    order.sort_by_cached_key(|&at| key(&slots[at]));
    let mut trouble = None;
    let mut same = |slots: &[Slot], a: usize, b: usize| -> Ordering {
        let (x, y) = (&slots[a].description, &slots[b].description);
        kcmp::compare_files((x.pid, x.fd), (y.pid, y.fd)).unwrap_or_else(|e| {
            trouble.get_or_insert(failed("kcmp", x.pid, x.fd)(e));
            Ordering::Equal
        })
    };
    let mut first_of = vec![0; slots.len()];
    for group in order.chunk_by_mut(|&a, &b| key(&slots[a]) == key(&slots[b])) {
        group.sort_by(|&a, &b| same(slots, a, b));
        for equal in group.chunk_by(|&a, &b| same(slots, a, b).is_eq()) {
            let first = equal.iter().copied().min().unwrap_or_default();
            for &at in equal {
                first_of[at] = first;
            }
        }
    }
    if let Some(e) = trouble {
        return Err(e);
    }
    let mut firsts = Vec::new();
    for at in 0..slots.len() {
        slots[at].description.id = if first_of[at] == at {
            firsts.push(at);
            FileId(firsts.len() as u32 - 1)
        } else {
            slots[first_of[at]].description.id
        };
    }
    Ok(firsts)
}
