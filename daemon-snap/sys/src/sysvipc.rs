//! System V IPC objects of a namespace (sysvipc(7)).

use crate::sysv_semaphore;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use snap_state::IpcIdentityV1;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;

/// A shared memory segment as `/proc/sysvipc/shm` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub key: i32,
    pub id: i32,
    /// Permissions and SHM_DEST, SHM_LOCKED.
    pub mode: u32,
    pub len_bytes: u64,
    pub creator: i32,
    pub attached: u64,
    pub uid: u32,
    pub gid: u32,
    pub creator_uid: u32,
    pub creator_gid: u32,
    /// Made, or last changed, seconds since 1970.
    pub changed: i64,
}

/// A message queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub identity: IpcIdentityV1,
    /// Who last sent and received; 0: nobody yet.
    pub users: [i32; 2],
}

/// A set of semaphores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreSet {
    pub identity: IpcIdentityV1,
    pub values: Vec<u16>,
    /// Who last operated on each; 0: nobody yet.
    pub users: Vec<i32>,
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub segments: Vec<Segment>,
    pub queues: Vec<Queue>,
    pub semaphore_sets: Vec<SemaphoreSet>,
}

/// The segment is removed when nobody has it attached any more.
pub const SHM_DEST: u32 = 0o1000;
/// The segment is locked into memory.
pub const SHM_LOCKED: u32 = 0o2000;

/// Does something in an IPC namespace, ours when `None`: in a thread of its own, which has no
/// semaphores to undo.
///
/// # Errors
/// The namespace cannot be entered, and those of `job`.
pub fn within<T: Send>(
    namespace: Option<BorrowedFd<'_>>,
    job: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let Some(namespace) = namespace else { return job() };
    std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWIPC)?;
            job()
        });
        job.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

/// Lists the objects of an IPC namespace, ours when `None`. Empty where the kernel has no System V
/// IPC.
///
/// # Errors
/// The namespace cannot be entered, or the lists cannot be read.
pub fn list(namespace: Option<BorrowedFd<'_>>) -> io::Result<Objects> {
    within(namespace, list_own)
}

fn list_own() -> io::Result<Objects> {
    let mut objects = Objects::default();
    for row in rows("shm")? {
        objects.segments.push(Segment {
            key: row.at(0)? as i32,
            id: row.at(1)? as i32,
            mode: row.at(2)? as u32,
            len_bytes: row.at(3)? as u64,
            creator: row.at(4)? as i32,
            attached: row.at(6)? as u64,
            uid: row.at(7)? as u32,
            gid: row.at(8)? as u32,
            creator_uid: row.at(9)? as u32,
            creator_gid: row.at(10)? as u32,
            changed: row.at(13)?,
        });
    }
    for row in rows("msg")? {
        let users = [row.at(5)? as i32, row.at(6)? as i32];
        objects.queues.push(Queue { identity: row.identity(7, 13)?, users });
    }
    for row in rows("sem")? {
        let (identity, count) = (row.identity(4, 9)?, row.at(3)? as i32);
        // One that has been removed meanwhile is not there.
        let Ok(values) = sysv_semaphore::values(identity.id, count) else { continue };
        let users = (0..count).map(|index| sysv_semaphore::last_user(identity.id, index).unwrap_or_default());
        objects.semaphore_sets.push(SemaphoreSet { identity, values, users: users.collect() });
    }
    Ok(objects)
}

/// A line of a list.
struct Row(Vec<i64>);

impl Row {
    fn at(&self, column: usize) -> io::Result<i64> {
        self.0.get(column).copied().ok_or_else(not_understood)
    }

    /// Keys, ids and permissions stand first; `owner`: the column of the first of four ids.
    fn identity(&self, owner: usize, changed: usize) -> io::Result<IpcIdentityV1> {
        Ok(IpcIdentityV1 {
            key: self.at(0)? as i32,
            id: self.at(1)? as i32,
            mode: self.at(2)? as u32 & 0o777,
            uid: self.at(owner)? as u32,
            gid: self.at(owner + 1)? as u32,
            creator_uid: self.at(owner + 2)? as u32,
            creator_gid: self.at(owner + 3)? as u32,
            changed_s: self.at(changed)?,
        })
    }
}

fn rows(name: &str) -> io::Result<Vec<Row>> {
    let text = match std::fs::read_to_string(format!("/proc/sysvipc/{name}")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let row = |line: &str| {
        let words = line.split_ascii_whitespace().enumerate();
        let number = |(column, word)| {
            // Keys and ids are decimal, permissions octal.
            if column == 2 { i64::from_str_radix(word, 8).ok() } else { word.parse().ok() }
        };
        words.map(number).collect::<Option<Vec<i64>>>().map(Row).ok_or_else(not_understood)
    };
    text.lines().skip(1).map(row).collect()
}

fn not_understood() -> io::Error {
    io::Error::other("/proc/sysvipc is not understood")
}

/// Content of a segment of this thread's IPC namespace, which is attached for a moment.
///
/// # Errors
/// As shmat(2), or when it cannot be opened.
pub fn open_segment(id: i32, len_bytes: u64) -> io::Result<File> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY) };
    if at as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    let end = at as u64 + len_bytes.next_multiple_of(snap_state::PAGE_BYTES);
    let opened = File::open(format!("/proc/self/map_files/{:x}-{end:x}", at as u64));
    detach(at as u64);
    opened
}

/// `shmget(2)`; `EEXIST` when the key is taken.
///
/// # Errors
/// As shmget(2).
pub fn create_segment(key: i32, len_bytes: u64, mode: u32) -> Result<i32, Errno> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | (mode & 0o777) as i32;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::shmget(key, len_bytes as usize, flags) })
}

/// Owner and permissions of a segment (IPC_SET).
///
/// # Errors
/// As shmctl(2).
pub fn set_owner(id: i32, uid: u32, gid: u32, mode: u32) -> Result<(), Errno> {
    // SAFETY: shmid_ds is plain data that IPC_STAT fills.
    let mut info: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: info is writable.
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut info) })?;
    info.shm_perm.uid = uid;
    info.shm_perm.gid = gid;
    info.shm_perm.mode = (mode & 0o777) as _;
    // SAFETY: info is live.
    Errno::result(unsafe { libc::shmctl(id, libc::IPC_SET, &raw mut info) }).map(drop)
}

/// `shmctl(2)` with a command that takes no argument (IPC_RMID, SHM_LOCK).
///
/// # Errors
/// As shmctl(2).
pub fn control(id: i32, command: i32) -> Result<(), Errno> {
    // SAFETY: used for commands without an argument only.
    Errno::result(unsafe { libc::shmctl(id, command, std::ptr::null_mut()) }).map(drop)
}

/// Attaches a segment where the kernel likes.
///
/// # Errors
/// As shmat(2).
pub fn attach(id: i32) -> Result<u64, Errno> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    if at as isize == -1 { Err(Errno::last()) } else { Ok(at as u64) }
}

/// Detaches what [`attach`] attached.
pub fn detach(at: u64) {
    // SAFETY: the address came from `attach`; no reference into the segment was ever made.
    unsafe { libc::shmdt(at as *const _) };
}
