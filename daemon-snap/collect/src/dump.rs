//! The dump path: `freeze → inspect → collect → write`, with the way back beside it.
//!
//! Until all blockers are known nothing of the tree is touched. Whatever fails afterwards, the tree
//! runs on: registers and masks are given back by their guards, and a [`Frozen`] tree that is
//! dropped is let go.

use crate::blockers::Blockers;
use crate::cgroup::collect_cgroups;
use crate::file::{Descriptors, collect_descriptors};
pub use crate::freeze::TreeSelector;
use crate::freeze::{Running, Stopped};
use crate::hidden_lock::collect_hidden_locks;
use crate::inode::{Inodes, Source};
use crate::inside::{Insides, collect_insides};
use crate::inspect::{inspect_sandbox, inspect_tree};
use crate::label::Labels;
use crate::member::{Member, inspect_members};
use crate::memory::{AddressSpace, collect_address_space};
use crate::objects::kind_of;
pub use crate::options::{ActivationSocket, CollectOptions, LostPeer, StoredDescriptor};
use crate::pages::{collect_content, collect_pages, count_own_pages};
use crate::posix_queue;
use crate::process::{Directories, collect_directories, collect_process};
use crate::seccomp::Filters;
use crate::sharing::Sharing;
pub use crate::sink::PageSink;
use crate::sysv::{collect_objects, list_objects};
use crate::sysv_owner::Makers;
use crate::sysv_semaphore::UndoSearch;
use crate::thread::{OutsideThread, collect_thread};
use crate::volatile::collect_volatile_files;
use crate::zombie::collect_zombies;
use nix::time::{ClockId, clock_gettime};
use snap_bus::BusAccess;
use snap_error::obstacle::{BusObstacle, MemoryObstacle, ProcessObstacle, RingObstacle, SandboxObstacle};
use snap_error::{Blocker, Error, Obstacle, Part, Result};
pub use snap_state::FIFO;
use snap_state::{
    BackingV1, ClocksV1, FdV1, FileKindV1, FileV1, InodeKindV1, OpenRingV1, Pid, ProcessV1, TargetFd, TreeV1,
    VdsoV1,
};
use snap_sys::label::has_labelled_sockets;
use snap_sys::{limits, proc, vmread};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const SECOND_NS: i64 = 1_000_000_000;
/// Longest for the threads of a tree that has just been restored to be where they were: they have
/// the go, but may not have run.
const RESTORE_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// A tree of which every thread is stopped. Dropped, it runs on.
#[derive(Debug)]
pub struct Frozen {
    stopped: Stopped,
}

/// What [`inspect`] found.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Why the tree cannot be dumped; empty when it can.
    pub blockers: Vec<Blocker>,
    /// Private pages that an image would have to carry at most.
    pub dirty_pages: u64,
    pub processes: usize,
    pub threads: usize,
    /// How long the tree stood still.
    pub frozen_for: Duration,
}

/// Stops every thread of a tree.
///
/// # Errors
/// [`Error::Gone`], [`Error::Refused`] when a thread does not stop, [`Error::Kernel`]. The tree
/// runs on then.
pub fn freeze(selector: TreeSelector) -> Result<Frozen> {
    let began = Instant::now();
    loop {
        let stopped = Running::new(selector.clone()).stop()?;
        let Some((pid, tid)) = stopped.being_restored() else { return Ok(Frozen { stopped }) };
        if began.elapsed() > RESTORE_PATIENCE {
            return Err(Blocker::new(pid, Part::Thread(tid), ProcessObstacle::RestoreUnfinished).into());
        }
        stopped.thaw()?;
        std::thread::sleep(PAUSE);
    }
}

/// Stops a tree for a moment, lists all reasons why it cannot be dumped, and lets it run on.
///
/// # Errors
/// As [`freeze`], and when something cannot be read. Blockers are not errors here.
pub fn inspect(selector: TreeSelector, options: &CollectOptions) -> Result<Inspection> {
    let frozen = match freeze(selector) {
        Ok(frozen) => frozen,
        Err(Error::Refused(blockers)) => {
            let frozen_for = Duration::ZERO;
            return Ok(Inspection { blockers, dirty_pages: 0, processes: 0, threads: 0, frozen_for });
        }
        Err(e) => return Err(e),
    };
    let since = frozen.since();
    let members = inspect_members(&frozen.stopped)?;
    let (mut dirty_pages, mut blockers) = (0, frozen.stopped.blockers().to_vec());
    match frozen.look(&members, options) {
        Ok(seen) => {
            for one in &seen.processes {
                dirty_pages += count_own_pages(one.process.pid, &one.space)?;
            }
        }
        Err(Error::Refused(found)) => blockers = found,
        Err(e) => return Err(e),
    }
    let threads = members.iter().map(|member| member.threads.len()).sum();
    frozen.thaw()?;
    Ok(Inspection { blockers, dirty_pages, processes: members.len(), threads, frozen_for: since.elapsed() })
}

/// Everything that can be seen from outside.
struct Seen {
    processes: Vec<SeenProcess>,
    tree: TreeV1,
    /// Where the content of `tree.inodes` is read from.
    sources: Vec<Option<Source>>,
    undo: UndoSearch,
}

/// What came of a tree.
#[derive(Debug)]
pub struct Collected {
    pub tree: TreeV1,
    /// What its processes have and an image does not carry, although they can live without.
    pub lost: Vec<Blocker>,
}

struct SeenProcess {
    process: ProcessV1,
    space: AddressSpace,
    threads: Vec<OutsideThread>,
}

impl Frozen {
    /// When the first thread was stopped.
    pub fn since(&self) -> Instant {
        self.stopped.since()
    }

    /// Processes of the tree, parents before children.
    pub fn pids(&self) -> Vec<Pid> {
        self.stopped.processes().into_iter().map(|(pid, _)| pid).collect()
    }

    /// Reads the whole tree; pages go to `sink`.
    ///
    /// # Errors
    /// [`Error::Refused`] with all blockers, before anything has been written; others when reading
    /// or writing fails. The tree is as before and still frozen.
    pub fn collect(&mut self, sink: &mut dyn PageSink, options: &CollectOptions) -> Result<Collected> {
        if matches!(options.bus, BusAccess::Looked) {
            let message = "bus connections were to be looked at, not recorded".into();
            return Err(Error::Internal { step: "collect", message });
        }
        let mark = |phase| tracing::debug!(phase, since_us = self.since().elapsed().as_micros());
        mark("frozen");
        let members = inspect_members(&self.stopped)?;
        let Seen { processes, mut tree, sources, undo } = self.look(&members, options)?;
        mark("seen");
        let mut insides = Insides::new(undo);
        // A process alone has nobody to share with.
        let mut sharing = (processes.len() > 1).then(Sharing::default);
        let stopped: Vec<(Option<Pid>, Pid)> = processes
            .iter()
            .map(|seen| &seen.process)
            .filter(|process| process.stopped)
            .map(|process| (process.parent, process.pid))
            .collect();
        for SeenProcess { mut process, space, threads } in processes {
            let children = stopped.iter().filter(|(parent, _)| *parent == Some(process.pid));
            let children: Vec<Pid> = children.map(|(_, child)| *child).collect();
            let rings = rings_of(&process, &tree);
            collect_insides(&mut process, &threads, &space, &mut insides, &rings, &children)?;
            mark("insides");
            let pages = collect_pages(process.pid, &space, sink, sharing.as_mut())?;
            (process.mm.runs, process.mm.guards) = (pages.runs, pages.guards);
            tree.processes.push(process);
        }
        mark("pages");
        for (inode, source) in tree.inodes.iter_mut().zip(&sources) {
            let Some(source) = source else { continue };
            if let Some(complete) = kind_of(&inode.kind).collect_own(&source.file)? {
                inode.kind = complete;
                continue;
            }
            let name = format!("{:?}", inode.kind);
            inode.content = collect_content(source, &name, inode.len_bytes, sink)?;
        }
        mark("content");
        let lost;
        (tree.session_keyring, lost, tree.sysv.undo) = insides.into_parts();
        Ok(Collected { tree, lost })
    }

    /// Lets the tree run on as if nothing had happened.
    ///
    /// # Errors
    /// When a thread cannot be let go.
    pub fn thaw(self) -> Result<()> {
        self.stopped.thaw()
    }

    /// Ends the tree.
    ///
    /// # Errors
    /// When a process cannot be killed.
    pub fn kill(self) -> Result<()> {
        self.stopped.kill()
    }

    /// Looks at everything from outside and gathers all blockers.
    fn look(&self, members: &[Member], options: &CollectOptions) -> Result<Seen> {
        let mut blockers = Blockers::from(self.stopped.blockers());
        if members.is_empty() {
            return Err(Error::Refused(blockers.into_list()));
        }
        inspect_sandbox(members)?;
        let spaces = inspect_tree(members, options, &mut blockers)?;
        let mark = |phase| tracing::debug!(phase, since_us = self.since().elapsed().as_micros());
        mark("tree");
        let mut inodes = Inodes::new(&spaces, options, list_objects(&spaces)?);
        let (mut filters, labels) = (Filters::new()?, Labels::new());

        let zombies = collect_zombies(&self.stopped, &mut blockers)?;
        let Descriptors { tables, locks, mut files, pipes, stored } =
            collect_descriptors(members, &zombies, &mut inodes, &mut blockers)?;
        mark("descriptors");
        let mut halves = Vec::with_capacity(members.len());
        for member in members {
            let space = collect_address_space(member, &mut inodes, &mut blockers)?;
            let directories = collect_directories(member, &mut inodes, &mut files, &mut blockers)?;
            let mut threads = Vec::with_capacity(member.threads.len());
            for (tid, status) in &member.threads {
                threads.extend(collect_thread(member, *tid, status, &mut filters, &mut blockers)?);
            }
            let profile = labels.profile_of(member);
            let profile = blockers.note(member.pid, Part::Process, profile)?.flatten();
            let first = threads.first().map(|outside| &outside.thread.seccomp);
            if let Some(other) = threads.iter().find(|outside| Some(&outside.thread.seccomp) != first) {
                let part = Part::Thread(other.thread.tid);
                blockers.add(member.pid, part, SandboxObstacle::SeccompDiffers);
            }
            halves.push((space, directories, threads, profile));
        }
        mark("outsides");
        let labelled =
            members.iter().zip(&tables).zip(&halves).filter(|(_, (.., profile))| profile.is_some());
        inspect_labelled_connections(
            labelled.map(|((member, fds), _)| (member.pid, fds)),
            &files,
            &mut blockers,
        )?;
        let whole_spaces: Vec<&AddressSpace> = halves.iter().map(|(space, ..)| space).collect();
        let all_threads: Vec<&[OutsideThread]> = halves.iter().map(|(_, _, threads, _)| &**threads).collect();
        let makers = Makers::new(members, &all_threads, &spaces, options.unit)?;
        let sysv = collect_objects(&makers, &whole_spaces, &mut inodes, &mut blockers)?;
        let sets = &inodes.ipc_objects().semaphore_sets;
        let undo = UndoSearch::begin(members, sets, &sysv.semaphore_sets, &mut blockers)?;
        posix_queue::inspect_holders(inodes.message_queues(), members, &mut blockers)?;
        let mapped_locks = collect_hidden_locks(&locks, members, &inodes, &mut blockers)?;
        let volatile = collect_volatile_files(&mut inodes, members, &mut blockers)?;
        let cgroups = match &options.cgroup {
            Some(dir) => collect_cgroups(dir, spaces.main, &mut blockers)?,
            None => Vec::new(),
        };
        inspect_numbers(members, &tables, files.len(), &mut blockers);
        let blockers = blockers.into_list();
        if !blockers.is_empty() {
            return Err(Error::Refused(blockers));
        }
        let files = files.into_iter().collect::<Option<Vec<FileV1>>>().ok_or_else(unlisted)?;

        let mut processes = Vec::with_capacity(members.len());
        let tables = tables.into_iter().zip(locks.tables);
        for ((member, (space, directories, threads, profile)), (fds, locks)) in
            members.iter().zip(halves).zip(tables)
        {
            let mut process = whole(member, members, &space, directories, &threads)?;
            process.stopped = self.stopped.is_stopped(process.pid);
            (process.fds, process.locks, process.profile) = (fds, locks, profile);
            processes.push(SeenProcess { process, space, threads });
        }
        inspect_ring_mappings(&processes, &inodes)?;
        let vdso = read_vdso(&processes)?;
        let clocks = read_clocks(spaces.main)?;
        let (inodes, sources, dirs) = inodes.into_parts();
        let tree = TreeV1 {
            clocks,
            vdso,
            processes: Vec::new(),
            files,
            inodes,
            pipes,
            seccomp_filters: filters.into_list(),
            volatile_dirs: dirs.into_list(),
            volatile_files: volatile.files,
            mapped_locks,
            volatile_nodes: volatile.nodes,
            zombies,
            cgroups,
            session_keyring: None,
            confinement: None,
            stored,
            sysv,
        };
        Ok(Seen { processes, tree, sources, undo })
    }
}

/// A restore has every description open above all numbers of the tree, before it is placed.
fn inspect_numbers(members: &[Member], tables: &[Vec<FdV1>], files: usize, blockers: &mut Blockers) {
    /// What is open beside them.
    const OWN: u64 = 128;
    const OWN_OF_PROCESS: u64 = 2;
    /// What anybody may have: asked for nothing below.
    const FEW: u64 = 1024;
    let highest = |table: &Vec<FdV1>| table.iter().map(|entry| entry.fd.0).max().unwrap_or_default();
    let most = members.iter().zip(tables).max_by_key(|(_, table)| highest(table));
    let Some((member, table)) = most else { return };
    let needed = highest(table) as u64 + files as u64 + members.len() as u64 * OWN_OF_PROCESS + OWN;
    let most = if needed > FEW { limits::most_open_files() } else { FEW };
    if needed > most {
        let obstacle = ProcessObstacle::TooManyDescriptors { needed, most };
        blockers.add(member.pid, Part::Process, obstacle);
    }
}

/// A descriptor of each io_uring ring that a process has open.
fn rings_of(process: &ProcessV1, tree: &TreeV1) -> Vec<TargetFd> {
    let mut seen = HashSet::new();
    let ring = |entry: &&FdV1| match tree.files.get(entry.file.index()).map(|file| &file.kind) {
        Some(FileKindV1::Ring(OpenRingV1 { ring })) => seen.insert(*ring),
        _ => false,
    };
    process.fds.iter().filter(ring).map(|entry| entry.fd).collect()
}

/// Rings are mapped as they are, and while all other addresses are taken, which a limit on them
/// forbids.
fn inspect_ring_mappings(processes: &[SeenProcess], inodes: &Inodes<'_>) -> Result<()> {
    const RLIMIT_AS: usize = libc::RLIMIT_AS as usize;
    let mut blockers = Vec::new();
    for SeenProcess { process, space, .. } in processes {
        let limit = process.rlimits.get(RLIMIT_AS).map_or(u64::MAX, |limit| limit.0);
        for vma in space.areas.iter().map(|area| &area.vma) {
            let BackingV1::Inode { inode, offset, .. } = vma.backing else { continue };
            let Some(InodeKindV1::Ring(ring)) = inodes.get(inode).map(|inode| &inode.kind) else { continue };
            let obstacle: Obstacle = if !ring.has_room(offset, vma.len_bytes()) {
                RingObstacle::LongEntries.into()
            } else if limit != u64::MAX {
                MemoryObstacle::RingUnderLimit.into()
            } else {
                continue;
            };
            blockers.push(Blocker::new(process.pid, Part::Mapping(vma.start), obstacle));
        }
    }
    if blockers.is_empty() { Ok(()) } else { Err(Error::Refused(blockers)) }
}

fn whole(
    member: &Member,
    members: &[Member],
    space: &AddressSpace,
    directories: Option<Directories>,
    threads: &[OutsideThread],
) -> Result<ProcessV1> {
    let parent = Some(member.stat.ppid).filter(|ppid| members.iter().any(|other| other.pid == *ppid));
    let directories = directories.ok_or_else(unlisted)?;
    let threads = threads.iter().map(|outside| outside.thread.clone()).collect();
    collect_process(member, parent, space, directories, threads)
}

/// What would be missing has a blocker, and with a blocker nothing is collected.
fn unlisted() -> Error {
    Error::Internal { step: "collect", message: "a blocker that is not listed".into() }
}

/// A bus may judge by the label of who connects, and that is the worker.
fn inspect_labelled_connections<'a>(
    tables: impl Iterator<Item = (Pid, &'a Vec<FdV1>)>,
    files: &[Option<FileV1>],
    blockers: &mut Blockers,
) -> Result<()> {
    for (pid, fds) in tables {
        let is_bus = |fd: &&FdV1| {
            let file = files[fd.file.index()].as_ref();
            matches!(file.map(|file| &file.kind), Some(FileKindV1::Bus(_)))
        };
        let Some(connection) = fds.iter().find(is_bus) else { continue };
        if has_labelled_sockets().map_err(|e| Error::kernel("SO_PEERSEC", "a socket", e))? {
            blockers.add(pid, Part::Fd(connection.fd), BusObstacle::UnderAppArmor);
        }
    }
    Ok(())
}

/// The vDSO of the tree. The kernel gives all processes the same one, though at different
/// addresses.
fn read_vdso(processes: &[SeenProcess]) -> Result<VdsoV1> {
    let first = processes.first().and_then(|one| Some((one.process.pid, one.space.vdso()?)));
    let Some((pid, area)) = first else {
        return Err(Error::Internal { step: "collect", message: "no vDSO".into() });
    };
    let bytes = vmread::read(pid, area.start, area.len_bytes() as usize)
        .map_err(|e| Error::kernel("read vDSO", format!("pid {pid}"), e))?;
    Ok(VdsoV1 { digest: *blake3::hash(&bytes).as_bytes(), len_bytes: area.len_bytes() })
}

/// Clocks as the tree sees them: ours, moved by the difference of the time namespaces.
fn read_clocks(main: Pid) -> Result<ClocksV1> {
    let own = Pid(std::process::id() as i32);
    let now = |clock| -> Result<i64> {
        let time = clock_gettime(clock).map_err(|e| Error::kernel("clock_gettime", clock, e))?;
        Ok(time.tv_sec() * SECOND_NS + time.tv_nsec())
    };
    let (theirs, ours) = (clock_offsets(main)?, clock_offsets(own)?);
    Ok(ClocksV1 {
        monotonic_ns: now(ClockId::CLOCK_MONOTONIC)? + theirs.0 - ours.0,
        boottime_ns: now(ClockId::CLOCK_BOOTTIME)? + theirs.1 - ours.1,
        realtime_ns: now(ClockId::CLOCK_REALTIME)?,
    })
}

/// Offsets of the monotonic and boottime clocks in the time namespace of a process.
fn clock_offsets(pid: Pid) -> Result<(i64, i64)> {
    // Without time namespaces in the kernel there are no offsets.
    let Ok(text) = proc::read(pid, "timens_offsets") else { return Ok((0, 0)) };
    let text = String::from_utf8_lossy(&text);
    let offset = |name: &str| -> Option<i64> {
        let mut words = text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
        Some(words.next()?.parse::<i64>().ok()? * SECOND_NS + words.next()?.parse::<i64>().ok()?)
    };
    Ok((offset("monotonic").unwrap_or_default(), offset("boottime").unwrap_or_default()))
}
