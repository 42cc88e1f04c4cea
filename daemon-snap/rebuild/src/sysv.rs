//! System V shared memory segments, with the ids that the daemon knows them by.

use super::desk::Desk;
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Gid, Uid, setegid, seteuid};
use snap_error::{Error, RestoreFault, Result};
use snap_state::{InodeV1, SegmentV1};
use snap_sys as sys;
use snap_sys::sysvipc;
use std::fs::File;

/// The id that the next object gets (since Linux 3.9).
const NEXT_ID: &str = "sys/kernel/shm_next_id";

/// Makes a segment and attaches it, so that it stays while nobody else has it. Returns its content
/// as a file, and where it is attached.
///
/// # Errors
/// `Stale`: key or id belong to somebody else.
pub fn rebuild_segment(desk: &Desk, inode: &InodeV1, segment: &SegmentV1) -> Result<(File, u64)> {
    let failed = |step| move |e| Error::kernel(step, format!("shmid {}", segment.id), e);
    if !left_behind(inode, segment)? {
        create(desk, inode, segment)?;
    }
    let id = segment.id;
    sysvipc::set_owner(id, segment.uid, segment.gid, segment.mode).map_err(failed("IPC_SET"))?;
    if segment.locked {
        sysvipc::control(id, libc::SHM_LOCK).map_err(failed("SHM_LOCK"))?;
    }
    let at = sysvipc::attach(id).map_err(failed("shmat"))?;
    if segment.removed {
        sysvipc::control(id, libc::IPC_RMID).map_err(failed("IPC_RMID"))?;
    }
    let len = inode.len_bytes.next_multiple_of(snap_state::PAGE_BYTES);
    let path = format!("self/map_files/{at:x}-{:x}", at + len);
    let file = desk.proc.open(&path, OFlag::O_RDWR).map_err(failed("opening a segment"))?;
    Ok((File::from(file), at))
}

/// In the same boot the daemon's own segment may still be there: nobody has attached it, and all
/// that identifies it agrees.
fn left_behind(inode: &InodeV1, segment: &SegmentV1) -> Result<bool> {
    let objects = sysvipc::list(None).map_err(|e| Error::io("list", "System V IPC objects", &e))?;
    let Some(there) = objects.segments.iter().find(|there| there.id == segment.id) else { return Ok(false) };
    let same = there.key == segment.key
        && there.len_bytes == inode.len_bytes
        && (there.creator_uid, there.creator_gid) == (segment.creator_uid, segment.creator_gid);
    if same && there.attached == 0 {
        return Ok(true);
    }
    Err(Error::stale(
        ReasonCode::AddressTaken,
        format!("SysV shared memory id {} belongs to somebody else", segment.id),
    ))
}

fn create(desk: &Desk, inode: &InodeV1, segment: &SegmentV1) -> Result<()> {
    // A removed segment has lost its key.
    let key = if segment.removed { libc::IPC_PRIVATE } else { segment.key };
    desk.proc.write(NEXT_ID, &segment.id.to_string()).map_err(|e| Error::kernel("writing", NEXT_ID, e))?;
    // The creator stays noted for ever, and a change of ids has side effects: another process does
    // it.
    let done = match sys::fork::fork(None, 0, None).map_err(|e| Error::kernel("clone3", "creator", e))? {
        sys::fork::Side::Child => {
            let made = setegid(Gid::from_raw(segment.creator_gid))
                .and_then(|()| seteuid(Uid::from_raw(segment.creator_uid)))
                .and_then(|()| sysvipc::create_segment(key, inode.len_bytes, segment.mode));
            sys::fork::exit_now(match made {
                Ok(id) if id == segment.id => 0,
                Ok(id) => {
                    let _ = sysvipc::control(id, libc::IPC_RMID);
                    libc::EEXIST
                }
                Err(e) => e as i32,
            })
        }
        sys::fork::Side::Parent { child } => {
            waitpid(nix::unistd::Pid::from_raw(child), Some(WaitPidFlag::__WALL))
                .map_err(|e| Error::kernel("waitpid", child, e))?
        }
    };
    match done {
        nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
        nix::sys::wait::WaitStatus::Exited(_, libc::EEXIST) => Err(Error::stale(
            ReasonCode::AddressTaken,
            format!("SysV shared memory id {} or its key is taken", segment.id),
        )),
        nix::sys::wait::WaitStatus::Exited(_, errno) => {
            Err(Error::kernel("shmget", format!("shmid {}", segment.id), Errno::from_raw(errno)))
        }
        _ => Err(RestoreFault::CreatorDied.into()),
    }
}
