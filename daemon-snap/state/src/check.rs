//! What has to hold in a [`TreeV1`] that was decoded.
//!
//! An image is untrusted until everything in it has been checked: a decoded tree has no id out of
//! range, no overlapping areas, and no page outside its area or outside the image.

use crate::bus_framing::are_whole_messages;
use crate::{
    BackingV1, CgroupV1, ContentRunV1, EpollWatchV1, FileId, FileKindV1, InodeId, InodeKindV1,
    MAX_PROFILE_BYTES, MAX_STORED, MAX_STORED_NAME_BYTES, PAGE_BYTES, Pid, PidFdV1, PipeEnd, ProcessV1,
    StoredV1, TargetFd, TreeV1, UnixStateV1, VmaV1, VolatileNodeKindV1, can_end_so, is_stored_name,
};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

/// IORING_MAX_CQ_ENTRIES
const MAX_RING_ENTRIES: u32 = 65536;
const MAX_RING_TURNS: u32 = 1 << 22;
const MAX_RING_BYTES: usize = 16 << 20;
/// User space ends here (47 bits).
const USER_END: u64 = 1 << 47;
/// Number of resource limits on x86-64.
const RLIMITS: usize = 16;
const SIGNALS: usize = 64;
const SIGINFO_BYTES: usize = 128;
const MAX_COMM_BYTES: usize = 15;
/// Entries of /proc/PID/ns.
const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
/// `struct sockaddr_storage`.
const ADDRESS_BYTES: usize = 128;
const FILTER_INSTRUCTION_BYTES: usize = 8;

/// Sections that are not a consistent tree; the text says what is wrong in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt(pub String);

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Corrupt {}

type Result<T> = std::result::Result<T, Corrupt>;

fn corrupt(what: impl Into<String>) -> Corrupt {
    Corrupt(what.into())
}

fn check(holds: bool, what: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(corrupt(what)) }
}

/// Whether every id, area and page of a tree is where it may be; `page_area` is where the image
/// holds pages.
///
/// # Errors
/// [`Corrupt`] with the first thing that is not.
pub fn check_tree(tree: &TreeV1, page_area: &Range<u64>) -> Result<()> {
    check(!tree.processes.is_empty(), "a tree without processes")?;
    let in_order = |ids: &mut dyn Iterator<Item = u32>| ids.enumerate().all(|(at, id)| at == id as usize);
    check(in_order(&mut tree.files.iter().map(|file| file.id.0)), "files out of order")?;
    check(in_order(&mut tree.inodes.iter().map(|inode| inode.id.0)), "inodes out of order")?;
    check_files(tree)?;
    check_inodes(tree, page_area)?;
    for filter in &tree.seccomp_filters {
        let len = filter.program.len();
        check(len > 0 && len.is_multiple_of(FILTER_INSTRUCTION_BYTES), "a seccomp filter of odd length")?;
    }
    check(tree.volatile_dirs.iter().all(|dir| is_path(&dir.path.0)), "a directory that is not a path")?;
    let is_mapped = |id: InodeId| {
        let vmas = tree.processes.iter().flat_map(|process| &process.mm.vmas);
        vmas.into_iter().any(|vma| matches!(vma.backing, BackingV1::Inode { inode, .. } if inode == id))
    };
    check(
        tree.mapped_locks.iter().all(|lock| is_mapped(lock.inode) && has_process(tree, lock.pid)),
        "a lock of a file that is not mapped",
    )?;
    check(tree.volatile_files.iter().all(|id| has_inode(tree, *id)), "a volatile file out of range")?;
    for node in &tree.volatile_nodes {
        let sound = match &node.kind {
            VolatileNodeKindV1::Symlink { target } => !target.is_empty() && !target.contains(&0),
            VolatileNodeKindV1::DeadSocket { .. } => true,
            VolatileNodeKindV1::Link { inode } => has_inode(tree, *inode),
        };
        check(sound && is_path(&node.path.0), "an odd entry of a volatile directory")?;
    }
    let sound = |name: &String| (1..=MAX_PROFILE_BYTES).contains(&name.len()) && !name.contains('\0');
    let mut profiles = tree.processes.iter().filter_map(|process| process.profile.as_ref());
    check(profiles.all(sound), "an odd name of an AppArmor profile")?;
    let names: usize = tree.stored.iter().map(|stored| stored.name.len()).sum();
    check(tree.stored.len() <= MAX_STORED && names <= MAX_STORED_NAME_BYTES, "too many stored descriptors")?;
    let sound = |stored: &StoredV1| has_file(tree, stored.file) && is_stored_name(&stored.name);
    check(tree.stored.iter().all(sound), "an odd stored descriptor")?;
    for group in &tree.cgroups {
        check_cgroup(group)?;
    }
    let (mut pids, mut tids) = (BTreeSet::new(), BTreeSet::new());
    for process in &tree.processes {
        check(process.parent.is_none_or(|parent| pids.contains(&parent)), "a child before its parent")?;
        check(pids.insert(process.pid) && process.pid.0 > 1, "a process number twice or out of range")?;
        check_process(tree, process)?;
        for thread in &process.threads {
            check(tids.insert(thread.tid) && thread.tid.0 > 1, "a thread number twice or out of range")?;
        }
        check_memory(tree, process, page_area)?;
    }
    for zombie in &tree.zombies {
        check(tids.insert(zombie.pid) && zombie.pid.0 > 1, "a process number twice or out of range")?;
        check(pids.contains(&zombie.parent), "a zombie of nobody")?;
        check(can_end_so(zombie.status), "a process that cannot have ended so")?;
        check(zombie.pgid.0 >= 0 && zombie.sid.0 >= 0, "a group or session out of range")?;
        check((0..=64).contains(&zombie.exit_signal), "a signal that does not exist")?;
        check(zombie.comm.len() <= MAX_COMM_BYTES, "a thread name too long")?;
    }
    let is_stopped_child = |parent: Pid, pid: Pid| {
        let child = tree.processes.iter().find(|process| process.pid == pid);
        child.is_some_and(|child| child.parent == Some(parent) && child.stopped)
    };
    for process in &tree.processes {
        let stops = process.told_stops.iter();
        check(
            stops.into_iter().all(|pid| is_stopped_child(process.pid, *pid)),
            "news of a stop that is none",
        )?;
    }
    Ok(())
}

/// Nothing but names below the unit's own group.
fn check_cgroup(group: &CgroupV1) -> Result<()> {
    let is_name = |name: &[u8]| {
        !name.is_empty() && name != b"." && name != b".." && !name.contains(&0) && !name.contains(&b'/')
    };
    let path = &group.path.0;
    check(
        path.is_empty() || path.split(|byte| *byte == b'/').all(is_name),
        "an odd path of a control group",
    )?;
    let files = group.owners.iter().map(|(name, ..)| name).chain(group.settings.iter().map(|(name, _)| name));
    check(files.into_iter().all(|name| is_name(name.as_bytes())), "an odd file of a control group")
}

fn has_file(tree: &TreeV1, id: FileId) -> bool {
    (id.0 as usize) < tree.files.len()
}

fn has_inode(tree: &TreeV1, id: InodeId) -> bool {
    (id.0 as usize) < tree.inodes.len()
}

fn has_process(tree: &TreeV1, pid: Pid) -> bool {
    tree.processes.iter().any(|process| process.pid == pid)
}

fn has_task(tree: &TreeV1, pid: Pid, of_thread: bool) -> bool {
    let threads = tree.processes.iter().flat_map(|process| &process.threads);
    has_process(tree, pid)
        || tree.zombies.iter().any(|zombie| zombie.pid == pid)
        || of_thread && threads.into_iter().any(|thread| thread.tid == pid)
}

/// A descriptor number, with room above it for ours.
fn is_number(fd: TargetFd) -> bool {
    (0..1 << 30).contains(&fd.0)
}

/// Absolute, and one that a system call takes.
fn is_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && path.len() < libc::PATH_MAX as usize && !path.contains(&0)
}

fn check_files(tree: &TreeV1) -> Result<()> {
    for file in &tree.files {
        match &file.kind {
            FileKindV1::Inode { inode, .. } => check(has_inode(tree, *inode), "a file without inode")?,
            FileKindV1::Ring { ring } => {
                let kind = tree.inodes.get(ring.0 as usize).map(|inode| &inode.kind);
                check(matches!(kind, Some(InodeKindV1::Ring(_))), "a ring that is none")?;
            }
            FileKindV1::Pipe { pipe, end } => {
                check((pipe.0 as usize) < tree.pipes.len(), "a pipe end without pipe")?;
                let fits = match file.flags & libc::O_ACCMODE {
                    libc::O_RDONLY => *end == PipeEnd::Read,
                    libc::O_WRONLY => *end == PipeEnd::Write,
                    _ => *end == PipeEnd::Both,
                };
                check(fits, "a pipe end with flags of another")?;
            }
            FileKindV1::Epoll { watches, .. } => {
                let whole = |watch: &EpollWatchV1| has_file(tree, watch.file) && is_number(watch.fd);
                check(watches.iter().all(whole), "an epoll watch out of range")?;
            }
            FileKindV1::Inotify { watches } => {
                check(watches.iter().all(|watch| is_path(&watch.path.0)), "a watch on what is not a path")?;
            }
            FileKindV1::Fanotify(group) => {
                check(group.marks.iter().all(|mark| is_path(&mark.path.0)), "a mark on what is not a path")?;
            }
            FileKindV1::Unix(socket) => {
                let begins = socket.directory.iter().all(|directory| is_path(&directory.0));
                check(begins, "a socket whose path begins nowhere")?;
                let files = socket.queue.iter().flat_map(|message| &message.files);
                check(files.into_iter().all(|id| has_file(tree, *id)), "a message with what is not there")?;
                if let UnixStateV1::Pair { peer } = socket.state {
                    let peer = tree.files.get(peer.0 as usize).map(|peer| &peer.kind);
                    let mutual = |kind: &FileKindV1| match kind {
                        FileKindV1::Unix(other) => other.state == UnixStateV1::Pair { peer: file.id },
                        _ => false,
                    };
                    check(peer.is_some_and(mutual), "a socket pair of one")?;
                }
            }
            FileKindV1::Inet(socket) => {
                let fits = |address: &Vec<u8>| (16..=ADDRESS_BYTES).contains(&address.len());
                let memberships = &socket.memberships;
                let whole = memberships.iter().all(|m| fits(&m.group) && m.sources.iter().all(fits));
                check(whole, "a multicast group of odd length")?;
            }
            FileKindV1::Bus(connection) => {
                check(has_process(tree, connection.connector), "a bus connection of nobody")?;
                check(is_path(&connection.address), "a bus at what is not a path")?;
                check(are_whole_messages(&connection.unread), "unread bytes that are no bus messages")?;
            }
            FileKindV1::PressureTrigger { inode, text } => {
                check(
                    has_inode(tree, *inode) && !text.is_empty() && text.len() <= 64,
                    "an odd pressure trigger",
                )?;
            }
            FileKindV1::Namespace { name, .. } => {
                check(NAMESPACES.contains(&name.as_str()), "a namespace that does not exist")?;
            }
            FileKindV1::PidFd(PidFdV1::Task { pid }) => {
                let of_thread = file.flags & libc::O_EXCL != 0;
                check(has_task(tree, *pid, of_thread), "a pidfd of nobody")?;
            }
            FileKindV1::PidFd(PidFdV1::Reaped { status }) => {
                check(status.is_none_or(can_end_so), "a process that cannot have ended so")?;
            }
            FileKindV1::Inhibitor(inhibitor) => {
                check(has_process(tree, inhibitor.pid), "an inhibitor of nobody")?;
                // What a D-Bus string may not hold.
                let texts = [&inhibitor.what, &inhibitor.who, &inhibitor.why, &inhibitor.mode];
                check(texts.iter().all(|text| !text.contains('\0')), "an inhibitor with an odd text")?;
            }
            FileKindV1::EventFd { .. }
            | FileKindV1::TimerFd(_)
            | FileKindV1::SignalFd { .. }
            | FileKindV1::Tcp(_)
            | FileKindV1::LostTcp(_)
            | FileKindV1::Netlink(_)
            | FileKindV1::Packet(_)
            | FileKindV1::Vsock(_)
            | FileKindV1::Rebind(_) => {}
        }
    }
    let fits = |pipe: &crate::PipeV1| {
        let packets = pipe.packets.iter().map(|len| *len as usize).sum::<usize>();
        let whole = pipe.packets.is_empty() || packets == pipe.data.len() && !pipe.packets.contains(&0);
        whole
            && pipe.data.len() <= pipe.capacity_bytes as usize
            && pipe.fifo.is_none_or(|id| has_inode(tree, id))
    };
    check(tree.pipes.iter().all(fits), "a pipe with more than it holds")
}

fn check_inodes(tree: &TreeV1, page_area: &Range<u64>) -> Result<()> {
    for inode in &tree.inodes {
        match &inode.kind {
            InodeKindV1::Path { path } => {
                check(is_path(&path.0), "an inode that is not a path")?;
                check(inode.content.is_empty(), "content of a file that does not travel")?;
            }
            InodeKindV1::OfProcess { path } => {
                check(is_path(&path.0), "an inode that is not a path")?;
                check(inode.content.is_empty(), "content of a file that does not travel")?;
            }
            InodeKindV1::Renamed { was, path } => {
                check(is_path(&was.0) && is_path(&path.0), "an inode that is not a path")?;
                check(inode.content.is_empty(), "content of a file that does not travel")?;
            }
            InodeKindV1::Volatile { path } | InodeKindV1::Deleted { path } => {
                check(is_path(&path.0), "an inode that is not a path")?;
            }
            InodeKindV1::Memfd { name, .. } => check(!name.contains(&0), "a memfd name with NUL")?,
            InodeKindV1::SharedAnon => {}
            InodeKindV1::Ring(ring) => {
                let entries = [ring.sq_entries, ring.cq_entries];
                let sized = entries.iter().all(|count| count.is_power_of_two() && *count <= MAX_RING_ENTRIES);
                check(sized && ring.turns <= MAX_RING_TURNS, "an io_uring ring of odd size")?;
                let bytes = ring.queues.len() <= MAX_RING_BYTES && ring.requests.len() <= MAX_RING_BYTES;
                check(bytes && inode.content.is_empty(), "an io_uring ring with more than it holds")?;
            }
            InodeKindV1::Segment(segment) => {
                check(segment.id >= 0 && inode.len_bytes > 0, "an empty segment")?
            }
        }
        check(inode.len_bytes <= i64::MAX as u64, "a file too long")?;
        let end = inode.len_bytes.next_multiple_of(PAGE_BYTES);
        let mut at = 0;
        for run in &inode.content {
            let within = run.file_offset >= at && run.file_offset.is_multiple_of(PAGE_BYTES);
            check(within && run.pages > 0, "content out of order")?;
            at = run.file_offset.saturating_add(u64::from(run.pages) * PAGE_BYTES);
            check(at <= end, "content behind the end of its file")?;
            check_content(run, page_area)?;
        }
    }
    Ok(())
}

fn check_content(run: &ContentRunV1, page_area: &Range<u64>) -> Result<()> {
    check(in_image(run.image_offset, run.pages, page_area), "content outside the image")
}

fn in_image(offset: u64, pages: u32, page_area: &Range<u64>) -> bool {
    let len = u64::from(pages) * PAGE_BYTES;
    let aligned = offset.is_multiple_of(PAGE_BYTES) && offset >= page_area.start;
    aligned && offset.checked_add(len).is_some_and(|end| end <= page_area.end)
}

fn check_process(tree: &TreeV1, process: &ProcessV1) -> Result<()> {
    check(process.pgid.0 >= 0 && process.sid.0 >= 0, "a group or session out of range")?;
    check(has_inode(tree, process.exe), "an executable out of range")?;
    let directories = [Some(process.cwd), process.root];
    let is_inode = |id: &FileId| {
        let kind = tree.files.get(id.0 as usize).map(|file| &file.kind);
        matches!(kind, Some(FileKindV1::Inode { .. }))
    };
    check(directories.iter().flatten().all(is_inode), "a working or root directory that is none")?;
    check(process.rlimits.len() == RLIMITS, "a wrong number of limits")?;
    check(process.sigactions.len() == SIGNALS, "a wrong number of signal handlers")?;
    let mut last = -1;
    for entry in &process.fds {
        check(has_file(tree, entry.file), "a descriptor out of range")?;
        check(entry.fd.0 > last && is_number(entry.fd), "descriptors out of order or out of range")?;
        last = entry.fd.0;
    }
    for lock in &process.locks {
        let has = process.fds.binary_search_by_key(&lock.fd, |entry| entry.fd).is_ok();
        check(has, "a lock on a descriptor that is not there")?;
        let last = lock.last.unwrap_or(i64::MAX as u64);
        check(lock.start <= last && last <= i64::MAX as u64, "a lock of no bytes")?;
    }
    check(
        process.threads.first().is_some_and(|leader| leader.tid == process.pid),
        "a process without leader",
    )?;
    let mut numbered = process.threads.iter().flat_map(|thread| &thread.ring_numbers);
    let has = |fd: &TargetFd| process.fds.binary_search_by_key(fd, |entry| entry.fd).is_ok();
    check(numbered.all(|(_, fd)| has(fd)), "a number of a ring that is not there")?;
    let queues = process.threads.iter().map(|thread| &thread.pending).chain([&process.pending]);
    check(queues.flatten().all(|signal| signal.0.len() == SIGINFO_BYTES), "a signal of wrong length")?;
    for thread in &process.threads {
        let known = thread.seccomp.iter().all(|(id, _)| (id.0 as usize) < tree.seccomp_filters.len());
        check(known, "a seccomp filter out of range")?;
        check(thread.comm.len() <= MAX_COMM_BYTES, "a thread name too long")?;
        // Nothing of the kernel's half may come out of an image.
        check(thread.regs.rip < USER_END && thread.regs.fs_base < USER_END, "registers outside user space")?;
    }
    Ok(())
}

fn check_memory(tree: &TreeV1, process: &ProcessV1, page_area: &Range<u64>) -> Result<()> {
    let mut end = 0;
    for vma in &process.mm.vmas {
        let aligned = vma.start.0.is_multiple_of(PAGE_BYTES) && vma.end.0.is_multiple_of(PAGE_BYTES);
        check(aligned && vma.start.0 >= end && vma.start < vma.end, "areas out of order")?;
        end = vma.end.0;
        check(end <= USER_END && vma.prot <= 7, "an area outside user space")?;
        if let BackingV1::Inode { inode, offset, .. } = vma.backing {
            check(has_inode(tree, inode), "an area without inode")?;
            check(offset.is_multiple_of(PAGE_BYTES), "an area with an odd offset")?;
            let inode = &tree.inodes[inode.0 as usize];
            let whole =
                vma.shared && offset == 0 && vma.len_bytes() == inode.len_bytes.next_multiple_of(PAGE_BYTES);
            check(whole || !matches!(inode.kind, InodeKindV1::Segment(_)), "a part of a segment")?;
            if let InodeKindV1::Ring(ring) = &inode.kind {
                let fits = vma.shared && ring.has_room(offset, vma.len_bytes());
                check(fits, "more of an io_uring ring than there is")?;
            }
        }
    }
    let mut at = 0;
    for guard in &process.mm.guards {
        let aligned = guard.start.0.is_multiple_of(PAGE_BYTES) && guard.end.0.is_multiple_of(PAGE_BYTES);
        check(
            aligned && guard.start.0 >= at && guard.start < guard.end && guard.end.0 <= USER_END,
            "guard pages out of order",
        )?;
        at = guard.end.0;
    }
    let mut areas = process.mm.vmas.iter().peekable();
    let mut at = 0;
    for run in &process.mm.runs {
        let len = u64::from(run.pages) * PAGE_BYTES;
        let run_end = run.addr.0.checked_add(len).ok_or_else(|| corrupt("pages outside user space"))?;
        check(run.addr.0 >= at && run.addr.0.is_multiple_of(PAGE_BYTES) && len > 0, "pages out of order")?;
        check(in_image(run.image_offset, run.pages, page_area), "pages outside the image")?;
        // A run may go on from one area to the next one behind it.
        let mut covered = run.addr.0;
        while covered < run_end {
            while areas.next_if(|vma| vma.end.0 <= covered).is_some() {}
            let area = areas.peek().filter(|vma| vma.start.0 <= covered && carries_pages(vma));
            covered = area.ok_or_else(|| corrupt("pages outside their area"))?.end.0;
        }
        at = run_end;
    }
    Ok(())
}

fn carries_pages(vma: &VmaV1) -> bool {
    let own = matches!(vma.backing, BackingV1::Anon | BackingV1::Inode { .. });
    own && !vma.shared && !vma.flags.wipe_on_fork && !vma.flags.droppable
}
