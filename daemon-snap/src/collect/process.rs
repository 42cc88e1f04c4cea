//! Processes: what their threads share.

use super::inode::Handle;
use super::thread::{OutsideThread, call, collect_inside, pending};
use super::{AddressSpace, Blockers, Inodes, Trouble, failed, timers};
use crate::error::{Blocker, Error, Part, Result};
use crate::inspect::Member;
use crate::state::{
    Addr, FileId, FileKindV1, FileV1, InodeId, MmV1, PAGE_BYTES, Pid, ProcessV1, SigActionV1, ThreadV1,
};
use crate::sys::inject::Injector;
use crate::sys::{proc, vmread};

/// Highest signal number.
const SIGNALS: u64 = 64;
/// `struct kernel_sigaction`.
const SIGACTION_BYTES: usize = 32;

/// A page of the process that injected calls write their results to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch {
    pub at: Addr,
}

impl Scratch {
    /// The first words of the page.
    pub fn words<const N: usize>(self, pid: Pid) -> Result<[u64; N]> {
        let bytes = vmread::read(pid, self.at, N * 8).map_err(failed("read results", pid, self.at))?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Ok(words)
    }
}

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
    files: &mut Vec<FileV1>,
    blockers: &mut Blockers,
) -> Result<Option<Directories>> {
    let pid = member.pid;
    let mut directory = |name: &str, what: &str, inodes: &mut Inodes<'_>| -> Result<Option<(bool, FileId)>> {
        let link = proc::read_link(pid, name)?;
        let magic = format!("/proc/{pid}/{name}");
        let handle = Handle { magic: &magic, link: &link, by_name_only: true, writable: false };
        let found = inodes.intern(pid, handle).map_err(|trouble| match trouble {
            Trouble::Refused(kind) => Trouble::Refused(format!("as {what} {kind}")),
            failed @ Trouble::Failed(_) => failed,
        });
        let Some(inode) = blockers.note(pid, Part::Process, found)? else { return Ok(None) };
        let kind = FileKindV1::Inode { inode, pos: 0 };
        let known = files.iter().find(|file| file.kind == kind && file.flags & libc::O_PATH != 0);
        if let Some(file) = known {
            return Ok(Some((link == b"/", file.id)));
        }
        let id = FileId(files.len() as u32);
        files.push(FileV1 { id, flags: libc::O_PATH | libc::O_DIRECTORY, owner: None, kind });
        Ok(Some((link == b"/", id)))
    };
    let cwd = directory("cwd", "working directory", inodes)?;
    // Relative to the root of the mount namespace, which every process has unless it did a chroot.
    let root = match proc::read_link(pid, "root")?.as_slice() {
        b"/" => Some(None),
        _ => directory("root", "root directory", inodes)?.map(|(_, id)| Some(id)),
    };
    let exe = inodes.of_executable(pid, &proc::read_link(pid, "exe")?);
    let exe = blockers.note(
        pid,
        Part::Process,
        exe.map_err(|trouble| match trouble {
            Trouble::Refused(kind) => Trouble::Refused(format!("as executable {kind}")),
            failed @ Trouble::Failed(_) => failed,
        }),
    )?;
    Ok(match (exe, cwd, root) {
        (Some(exe), Some((_, cwd)), Some(root)) => Some(Directories { exe, cwd, root }),
        _ => None,
    })
}

/// A process as far as it can be seen from outside; pages, descriptors and what only it can tell are missing.
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
        coredump_filter: number("coredump_filter", 16).unwrap_or(0) as u32,
        rlimits: proc::limits(pid)?,
        mm: MmV1 {
            layout: space.layout,
            auxv: space.auxv.clone(),
            vmas: space.areas.iter().map(|area| area.vma.clone()).collect(),
            runs: Vec::new(),
        },
        sigactions: Vec::new(),
        pending: pending(pid, true).map_err(failed("read pending signals", pid, "process"))?,
        itimers: Default::default(),
        posix_timers: Vec::new(),
        fds: Vec::new(),
        threads,
    })
}

/// Lets the process tell what only it can. Every thread is given its registers and signal mask back, whatever happens.
pub(crate) fn collect_insides(process: &mut ProcessV1, outsides: &[OutsideThread], gate: Addr) -> Result<()> {
    let pid = process.pid;
    let begin = |outside: &OutsideThread| {
        let thread = &outside.thread;
        Injector::begin(pid, thread.tid, gate, outside.resume, thread.sigmask).map_err(failed(
            "take over",
            pid,
            format_args!("thread {}", thread.tid),
        ))
    };
    let Some((leader, others)) = outsides.split_first() else { return Ok(()) };
    let mut injector = begin(leader)?;
    let scratch = map_scratch(pid, &mut injector)?;
    let collected = (|| {
        collect_by_leader(process, &mut injector, scratch)?;
        collect_inside(pid, &mut process.threads[0], &mut injector, scratch)?;
        for (outside, thread) in others.iter().zip(&mut process.threads[1..]) {
            let mut injector = begin(outside)?;
            collect_inside(pid, thread, &mut injector, scratch)?;
            let tid = thread.tid;
            injector.finish().map_err(failed("give back", pid, format_args!("thread {tid}")))?;
        }
        Ok(())
    })();
    let unmapped =
        call(pid, &mut injector, "munmap", libc::SYS_munmap, [scratch.at.0, PAGE_BYTES, 0, 0, 0, 0]);
    injector.finish().map_err(failed("give back", pid, "leader"))?;
    collected.and(unmapped.map(drop))
}

fn map_scratch(pid: Pid, injector: &mut Injector) -> Result<Scratch> {
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let at = call(pid, injector, "mmap", libc::SYS_mmap, [0, PAGE_BYTES, prot, flags, u64::MAX, 0])?;
    Ok(Scratch { at: Addr(at) })
}

fn collect_by_leader(process: &mut ProcessV1, injector: &mut Injector, scratch: Scratch) -> Result<()> {
    const PR_GET_MDWE: u64 = 66;
    let pid = process.pid;
    process.sigactions = collect_sigactions(pid, injector, scratch)?;
    process.itimers = timers::collect_itimers(pid, injector, scratch)?;
    process.posix_timers = timers::collect_posix_timers(pid, injector, scratch)?;
    let mut prctl =
        |step, option: u64, arg: u64| call(pid, injector, step, libc::SYS_prctl, [option, arg, 0, 0, 0, 0]);
    process.dumpable = prctl("PR_GET_DUMPABLE", libc::PR_GET_DUMPABLE as u64, 0)? as i32;
    prctl("PR_GET_CHILD_SUBREAPER", libc::PR_GET_CHILD_SUBREAPER as u64, scratch.at.0)?;
    let thp = prctl("PR_GET_THP_DISABLE", libc::PR_GET_THP_DISABLE as u64, 0)?;
    // Before Linux 6.3 there is none.
    process.mdwe = prctl("PR_GET_MDWE", PR_GET_MDWE, 0).unwrap_or_default() as u32;
    process.child_subreaper = scratch.words::<1>(pid)?[0] as u32 != 0;
    if thp > 1 {
        let kind = "transparent huge pages restricted to advised areas (PR_SET_THP_DISABLE)".to_owned();
        return Err(Error::Refused(vec![Blocker { pid, part: Part::Process, kind }]));
    }
    process.thp_disable = thp == 1;
    process.mm.layout.brk = Addr(call(pid, injector, "brk", libc::SYS_brk, [0; 6])?);
    Ok(())
}

fn collect_sigactions(
    pid: Pid,
    injector: &mut Injector,
    scratch: Scratch,
) -> Result<Vec<Option<SigActionV1>>> {
    for signal in 1..=SIGNALS {
        let slot = scratch.at.0 + (signal - 1) * SIGACTION_BYTES as u64;
        call(pid, injector, "rt_sigaction", libc::SYS_rt_sigaction, [signal, 0, slot, 8, 0, 0])?;
    }
    let bytes = vmread::read(pid, scratch.at, SIGNALS as usize * SIGACTION_BYTES).map_err(failed(
        "read results",
        pid,
        scratch.at,
    ))?;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let action = |words: &[u64]| {
        let action = SigActionV1 {
            handler: Addr(words[0]),
            flags: words[1],
            restorer: Addr(words[2]),
            mask: words[3],
        };
        (action.handler.0 != 0 || action.flags != 0).then_some(action)
    };
    Ok(words.chunks_exact(4).map(action).collect())
}
