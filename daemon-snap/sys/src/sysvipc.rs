//! System V IPC objects of a namespace (sysvipc(7)).

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
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

/// A message queue or a set of semaphores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub id: i32,
    /// Who last sent and received, or last operated on each semaphore; 0: nobody yet.
    pub users: Vec<i32>,
    pub uid: u32,
    pub creator_uid: u32,
    /// Made, or last changed, seconds since 1970.
    pub changed: i64,
}

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub segments: Vec<Segment>,
    pub queues: Vec<Object>,
    pub semaphores: Vec<Object>,
}

/// The segment is removed when nobody has it attached any more.
pub const SHM_DEST: u32 = 0o1000;
/// The segment is locked into memory.
pub const SHM_LOCKED: u32 = 0o2000;

/// Lists the objects of an IPC namespace, ours when `None`. Empty where the kernel has no System V
/// IPC.
///
/// # Errors
/// The namespace cannot be entered, or the lists cannot be read.
pub fn list(namespace: Option<BorrowedFd<'_>>) -> io::Result<Objects> {
    match namespace {
        None => list_own(),
        Some(namespace) => std::thread::scope(|scope| {
            let job = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWIPC)?;
                list_own()
            });
            job.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        }),
    }
}

fn list_own() -> io::Result<Objects> {
    let read = |name: &str| match std::fs::read_to_string(format!("/proc/sysvipc/{name}")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    };
    let bad = || io::Error::other("/proc/sysvipc is not understood");
    let rows = |text: String| -> io::Result<Vec<Vec<i64>>> {
        let row = |(index, line): (usize, &str)| {
            let words = line.split_ascii_whitespace().enumerate();
            let number = |(column, word)| {
                // Keys and ids are decimal, permissions octal.
                if column == 2 { i64::from_str_radix(word, 8).ok() } else { word.parse().ok() }
            };
            if index == 0 {
                None
            } else {
                Some(words.map(number).collect::<Option<Vec<i64>>>().ok_or_else(bad))
            }
        };
        text.lines().enumerate().filter_map(row).collect()
    };
    let mut objects = Objects::default();
    for row in rows(read("shm")?)? {
        let at = |column: usize| row.get(column).copied().ok_or_else(bad);
        objects.segments.push(Segment {
            key: at(0)? as i32,
            id: at(1)? as i32,
            mode: at(2)? as u32,
            len_bytes: at(3)? as u64,
            creator: at(4)? as i32,
            attached: at(6)? as u64,
            uid: at(7)? as u32,
            gid: at(8)? as u32,
            creator_uid: at(9)? as u32,
            creator_gid: at(10)? as u32,
            changed: at(13)?,
        });
    }
    for row in rows(read("msg")?)? {
        let at = |column: usize| row.get(column).copied().ok_or_else(bad);
        objects.queues.push(Object {
            id: at(1)? as i32,
            users: vec![at(5)? as i32, at(6)? as i32],
            uid: at(7)? as u32,
            creator_uid: at(9)? as u32,
            changed: at(13)?,
        });
    }
    for row in rows(read("sem")?)? {
        let at = |column: usize| row.get(column).copied().ok_or_else(bad);
        let (id, count) = (at(1)? as i32, at(3)? as i32);
        // SAFETY: GETPID takes no argument.
        let pid = |index| unsafe { libc::semctl(id, index, libc::GETPID) };
        objects.semaphores.push(Object {
            id,
            users: (0..count).map(pid).collect(),
            uid: at(4)? as u32,
            creator_uid: at(6)? as u32,
            changed: at(9)?,
        });
    }
    Ok(objects)
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
