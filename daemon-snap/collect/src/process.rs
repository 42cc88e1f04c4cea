//! Processes: what their threads share.

use super::handle::Handle;
use super::thread::pending;
use crate::blockers::{Blockers, failed};
use crate::inode::Inodes;
use crate::member::Member;
use crate::memory::AddressSpace;
use snap_error::obstacle::Role;
use snap_error::{Part, Result};
use snap_state::{FileId, FileKindV1, FileV1, InodeId, MmV1, OpenInodeV1, Pid, ProcessV1, ThreadV1};
use snap_sys::proc;

/// Executable, working directory and root of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Directories {
    pub exe: InodeId,
    pub cwd: FileId,
    pub root: Option<FileId>,
}

/// Interns executable, working directory and root; `None` when one of them is refused.
pub(crate) fn collect_directories(
    member: &Member,
    inodes: &mut Inodes<'_>,
    files: &mut Vec<Option<FileV1>>,
    blockers: &mut Blockers,
) -> Result<Option<Directories>> {
    let pid = member.pid;
    let mut directory = |name: &str, role: Role, inodes: &mut Inodes<'_>| -> Result<Option<(bool, FileId)>> {
        let link = proc::read_link(pid, name)?;
        let magic = format!("/proc/{pid}/{name}");
        let handle = Handle {
            magic: &magic,
            link: &link,
            by_name_only: true,
            writable: false,
            open: false,
            duplicate: None,
        };
        let found = inodes.intern(pid, handle).map_err(|trouble| trouble.of(role));
        let Some(inode) = blockers.note(pid, Part::Process, found)? else { return Ok(None) };
        let kind = FileKindV1::Inode(OpenInodeV1 { inode, pos: 0 });
        let known = files.iter().flatten().find(|file| file.kind == kind && file.flags & libc::O_PATH != 0);
        if let Some(file) = known {
            return Ok(Some((link == b"/", file.id)));
        }
        let id = FileId(files.len() as u32);
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        files.push(Some(FileV1 { id, flags, owner: None, node: None, kind }));
        Ok(Some((link == b"/", id)))
    };
    let cwd = directory("cwd", Role::WorkingDirectory, inodes)?;
    // Relative to the root of the mount namespace, which every process has unless it did a chroot.
    let root = match proc::read_link(pid, "root")?.as_slice() {
        b"/" => Some(None),
        _ => directory("root", Role::RootDirectory, inodes)?.map(|(_, id)| Some(id)),
    };
    let exe = inodes.of_executable(pid, &proc::read_link(pid, "exe")?);
    let exe = blockers.note(pid, Part::Process, exe.map_err(|trouble| trouble.of(Role::Executable)))?;
    Ok(match (exe, cwd, root) {
        (Some(exe), Some((_, cwd)), Some(root)) => Some(Directories { exe, cwd, root }),
        _ => None,
    })
}

/// A process as far as it can be seen from outside; pages, descriptors and what only it can tell
/// are missing.
pub(crate) fn collect_process(
    member: &Member,
    parent: Option<Pid>,
    space: &AddressSpace,
    directories: Directories,
    threads: Vec<ThreadV1>,
) -> Result<ProcessV1> {
    let pid = member.pid;
    let number = |name: &str, radix: u32| -> Result<i64> {
        let text = proc::read(pid, name)?;
        let text = String::from_utf8_lossy(&text);
        let unreadable = |_| proc::unreadable("read /proc", format!("/proc/{pid}/{name}"));
        i64::from_str_radix(text.trim(), radix).map_err(unreadable)
    };
    Ok(ProcessV1 {
        pid,
        parent,
        pgid: member.stat.pgid,
        sid: member.stat.sid,
        exit_signal: member.stat.exit_signal,
        exe: directories.exe,
        cwd: directories.cwd,
        root: directories.root,
        umask: member.threads.first().map_or(0, |(_, status)| status.umask),
        personality: number("personality", 16)? as u32,
        dumpable: 0,
        child_subreaper: false,
        thp_disable: false,
        mdwe: 0,
        oom_score_adj: number("oom_score_adj", 10)? as i32,
        coredump_filter: number("coredump_filter", 16)? as u32,
        membarrier: 0,
        tiles: false,
        rlimits: proc::limits(pid)?,
        mm: MmV1 {
            layout: space.layout,
            auxv: space.auxv.clone(),
            vmas: space.areas.iter().map(|area| area.vma.clone()).collect(),
            runs: Vec::new(),
            guards: Vec::new(),
            lock_future: Default::default(),
            merge_all: false,
        },
        sigactions: Vec::new(),
        pending: pending(pid, true).map_err(failed("read pending signals", pid, "process"))?,
        itimers: Default::default(),
        posix_timers: Vec::new(),
        fds: Vec::new(),
        locks: Vec::new(),
        threads,
        stopped: false,
        told_stops: Vec::new(),
        profile: None,
    })
}
