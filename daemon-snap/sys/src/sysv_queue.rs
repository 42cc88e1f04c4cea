//! System V message queues (msgget(2), msgop(2), msgctl(2)) of this thread's IPC namespace.

use nix::errno::Errno;
use snap_state::{IpcIdentityV1, QueuedMessageV1};

/// What msgsnd(2) and msgrcv(2) take: the type, and the bytes behind it.
const KIND_BYTES: usize = size_of::<i64>();

/// `msgget(2)`; `EEXIST` when the key is taken.
///
/// # Errors
/// As msgget(2).
pub fn create(key: i32, mode: u32) -> Result<i32, Errno> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | (mode & 0o777) as i32;
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::msgget(key, flags) })
}

fn stat(id: i32) -> Result<libc::msqid_ds, Errno> {
    // SAFETY: plain data that IPC_STAT fills.
    let mut info: libc::msqid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: info is writable.
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_STAT, &raw mut info) })?;
    Ok(info)
}

/// Most bytes that it takes.
///
/// # Errors
/// As msgctl(2).
pub fn max_bytes(id: i32) -> Result<u64, Errno> {
    stat(id).map(|info| info.msg_qbytes)
}

/// Owner, permissions and length.
///
/// # Errors
/// As msgctl(2).
pub fn set(identity: &IpcIdentityV1, max_bytes: u64) -> Result<(), Errno> {
    let mut info = stat(identity.id)?;
    info.msg_perm.uid = identity.uid;
    info.msg_perm.gid = identity.gid;
    info.msg_perm.mode = identity.mode as _;
    info.msg_qbytes = max_bytes;
    // SAFETY: info is live.
    Errno::result(unsafe { libc::msgctl(identity.id, libc::IPC_SET, &raw mut info) }).map(drop)
}

/// Removes it.
///
/// # Errors
/// As msgctl(2).
pub fn remove(id: i32) -> Result<(), Errno> {
    // SAFETY: IPC_RMID takes no argument.
    Errno::result(unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
}

/// The messages that wait in it, which stay there (MSG_COPY, since Linux 3.8).
///
/// # Errors
/// `ENOSYS` where the kernel does not tell them; as msgrcv(2).
pub fn messages(id: i32) -> Result<Vec<QueuedMessageV1>, Errno> {
    let len_bytes = stat(id)?.__msg_cbytes as usize;
    let mut messages = Vec::new();
    loop {
        let flags = libc::MSG_COPY | libc::IPC_NOWAIT;
        match take(id, messages.len() as i64, len_bytes, flags) {
            Ok(message) => messages.push(message),
            Err(Errno::ENOMSG) => return Ok(messages),
            Err(e) => return Err(e),
        }
    }
}

/// Takes all messages out.
///
/// # Errors
/// As msgrcv(2).
pub fn drain(id: i32) -> Result<(), Errno> {
    loop {
        match take(id, 0, 0, libc::IPC_NOWAIT | libc::MSG_NOERROR) {
            Ok(_) => {}
            Err(Errno::ENOMSG) => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

fn take(id: i32, which: i64, len_bytes: usize, flags: i32) -> Result<QueuedMessageV1, Errno> {
    let mut buffer = vec![0u64; 1 + len_bytes.div_ceil(KIND_BYTES)];
    // SAFETY: the buffer has room for the type and `len_bytes` behind it.
    let got = unsafe { libc::msgrcv(id, buffer.as_mut_ptr().cast(), len_bytes, which, flags) };
    let got = Errno::result(got)? as usize;
    let data = buffer[1..].iter().flat_map(|word| word.to_ne_bytes()).take(got).collect();
    Ok(QueuedMessageV1 { kind: buffer[0] as i64, data })
}

/// Sends a message, which has to fit.
///
/// # Errors
/// As msgsnd(2).
pub fn send(id: i32, message: &QueuedMessageV1) -> Result<(), Errno> {
    let bytes = [&message.kind.to_ne_bytes()[..], &message.data].concat();
    // SAFETY: the bytes are the type and `data` behind it.
    let sent = unsafe { libc::msgsnd(id, bytes.as_ptr().cast(), message.data.len(), libc::IPC_NOWAIT) };
    Errno::result(sent).map(drop)
}
