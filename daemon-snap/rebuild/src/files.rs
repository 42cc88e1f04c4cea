//! Open file descriptions: dispatch by kind, status flags, owners of SIGIO.

use super::desk::Desk;
use super::{
    bus, epoll, events, fanotify, inet, inode, kernel_file, low_port, netlink, node, packet, pidfd, pipe,
    tcp, unix, vsock,
};
use crate::context::UnitContext;
use crate::rights::Whose;
use crate::status_flags::{STATUS_FLAGS, set_status_flags};
use image_store::ReasonCode;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use nix::unistd::{Whence, lseek};
use snap_error::{Error, Result};
use snap_state::FIFO;
use snap_state::{
    EventFdV1, FileKindV1, FileV1, InodeId, InotifyV1, NamespaceV1, OpenInodeV1, OpenRingV1, Pid, PidFdV1,
    PressureTriggerV1, RebindV1, SignalFdV1, TreeV1,
};
use snap_sys as sys;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const F_SETSIG: i32 = 10;
/// Flags that only mean something at the moment of opening, or that are set later.
const OPENING_FLAGS: i32 =
    libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_ASYNC;
/// Also refused by our own link in /proc, through which objects are opened once more.
const NOT_BY_LINK: i32 = libc::O_NOFOLLOW;

/// Makes every recorded description. `unit` gives what is taken over from systemd.
///
/// # Errors
/// `Stale` where today's world does not have what the daemon held, kernel errors otherwise.
pub fn rebuild_files(
    desk: &mut Desk,
    tree: &TreeV1,
    unit: Option<&UnitContext>,
    realtime_ns: i64,
) -> Result<()> {
    if let Some(unit) = unit {
        low_port::check_low_ports(desk, tree, unit)?;
    }
    pipe::rebuild_pipes(desk, tree)?;
    let unfinished = unix::rebuild_unix(desk, tree)?;
    epoll::rebuild_epolls(desk, tree)?;
    for file in &tree.files {
        let _maker = file.node.map(node::Maker::begin);
        let fd = match &file.kind {
            FileKindV1::Pipe(_) | FileKindV1::Unix(_) | FileKindV1::Tcp(_) | FileKindV1::Epoll(_) => {
                continue;
            }
            // Made when the processes exist.
            FileKindV1::PidFd(PidFdV1::Task { .. }) => continue,
            // Its process asks for it.
            FileKindV1::Inhibitor(_) => continue,
            // Its process opens it.
            FileKindV1::Inode(_) if kernel_file::own_path(tree, file.id).is_some() => continue,
            FileKindV1::Inode(OpenInodeV1 { pos, .. }) if desk.has_file(file.id) => {
                let fd = desk.file(file.id)?;
                lseek(fd, *pos as i64, Whence::SeekSet).map_err(|e| Error::kernel("lseek", file.id, e))?;
                set_status_flags(&fd, file)?;
                continue;
            }
            FileKindV1::Inode(OpenInodeV1 { inode, pos }) => {
                open_description(desk, tree, file, *inode, *pos)?
            }
            FileKindV1::PressureTrigger(PressureTriggerV1 { inode, text }) => {
                let inode = tree.inodes.get(inode.0 as usize);
                let inode = inode.ok_or_else(|| Error::Corrupt(format!("no object of file {}", file.id)))?;
                kernel_file::rebuild_trigger(desk, file, inode, text)?
            }
            FileKindV1::Ring(OpenRingV1 { ring }) => {
                let made = desk.object(*ring).ok_or_else(|| Error::Corrupt(format!("no ring {ring}")))?;
                made.try_clone_to_owned().map_err(|e| Error::io("dup", ring, &e))?
            }
            FileKindV1::Namespace(NamespaceV1 { name, of }) => kernel_file::open_namespace(desk, name, *of)?,
            FileKindV1::EventFd(EventFdV1 { count, semaphore }) => {
                events::rebuild_eventfd(file.id, *count, *semaphore)?
            }
            FileKindV1::TimerFd(timer) => events::rebuild_timerfd(file.id, timer, realtime_ns)?,
            FileKindV1::SignalFd(SignalFdV1 { mask }) => events::rebuild_signalfd(file.id, *mask)?,
            FileKindV1::Inotify(_) => events::rebuild_inotify(file.id)?,
            FileKindV1::Fanotify(group) => fanotify::rebuild_fanotify(file.id, group)?,
            FileKindV1::Inet(socket) => inet::rebuild_inet(file.id, socket)?,
            FileKindV1::LostTcp(lost) => tcp::rebuild_lost(file.id, lost)?,
            FileKindV1::Netlink(socket) => netlink::rebuild_netlink(file.id, socket)?,
            FileKindV1::Packet(socket) => packet::rebuild_packet(file.id, socket)?,
            FileKindV1::Vsock(socket) => vsock::rebuild_vsock(file.id, socket)?,
            FileKindV1::PidFd(PidFdV1::Reaped { status }) => pidfd::rebuild_reaped(file, *status)?,
            FileKindV1::Rebind(what) => rebind(what, file, unit)?,
            FileKindV1::Bus(connection) => bus::rebuild_socket(file.id, connection)?,
        };
        if !matches!(
            file.kind,
            FileKindV1::Inode(_)
                | FileKindV1::PressureTrigger(_)
                | FileKindV1::Namespace(_)
                | FileKindV1::PidFd(_)
                | FileKindV1::Rebind(RebindV1::Init)
        ) {
            set_status_flags(&fd, file)?;
        }
        desk.put_file(file.id, fd)?;
    }
    tcp::rebuild_connections(desk, tree)?;
    unix::finish_unix(desk, tree, unfinished)?;
    node::rebuild_nodes(desk, tree)?;
    inode::rebuild_seals(desk, tree, inode::SealWhen::BeforeMapping)?;
    desk.close_files_on_disk(tree);
    for file in &tree.files {
        if let FileKindV1::Inotify(InotifyV1 { watches }) = &file.kind {
            events::rebuild_watches(desk, file.id, desk.file(file.id)?, watches)?;
        }
    }
    epoll::rebuild_watches(desk, tree)
}

fn open_description(desk: &Desk, tree: &TreeV1, file: &FileV1, id: InodeId, pos: u64) -> Result<OwnedFd> {
    let inode = tree.inodes.get(id.0 as usize).ok_or_else(|| Error::Corrupt(format!("no object {id}")))?;
    let mut flags = file.flags & !OPENING_FLAGS;
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        flags &= !libc::O_TMPFILE;
    }
    if desk.object(id).is_some() {
        flags &= !NOT_BY_LINK;
    }
    let fd = inode::open_inode(desk, inode, Whose::File(file.id), OFlag::from_bits_retain(flags))?;
    if pos != 0 && flags & libc::O_PATH == 0 {
        lseek(&fd, pos as i64, Whence::SeekSet).map_err(|e| Error::kernel("lseek", file.id, e))?;
    }
    Ok(fd)
}

/// Receivers of SIGIO; the processes must exist.
///
/// # Errors
/// fcntl(2).
pub fn rebuild_owners(desk: &Desk, tree: &TreeV1) -> Result<()> {
    for file in &tree.files {
        let Some(owner) = file.owner else { continue };
        let fd = desk.file(file.id)?;
        let failed = |e| Error::kernel("F_SETOWN_EX", file.id, e);
        sys::rebuild::set_owner(fd, owner.kind, owner.pid.0).map_err(failed)?;
        sys::rebuild::fcntl_number(fd, F_SETSIG, owner.signal).map_err(failed)?;
    }
    Ok(())
}

/// O_ASYNC under the daemon's own number, which the signal will name (`si_fd`). The receiver comes
/// later, so nothing is sent.
///
/// # Errors
/// fcntl(2).
pub fn set_async(fd: BorrowedFd<'_>, file: &FileV1) -> Result<()> {
    if file.flags & libc::O_ASYNC == 0 {
        return Ok(());
    }
    sys::rebuild::fcntl_number(fd, libc::F_SETFL, file.flags & (STATUS_FLAGS | libc::O_ASYNC))
        .map(drop)
        .map_err(|e| Error::kernel("O_ASYNC", file.id, e))
}

fn rebind(what: &RebindV1, file: &FileV1, unit: Option<&UnitContext>) -> Result<OwnedFd> {
    let Some(unit) = unit else {
        return Err(Error::stale(
            ReasonCode::HostUnsupported,
            "the image belongs to a systemd unit and can only be restored by it",
        ));
    };
    match what {
        RebindV1::JournalStream { stdio } => {
            let fd = unit.stdio.get(*stdio as usize);
            let fd = fd.ok_or_else(|| Error::Corrupt(format!("standard descriptor {stdio}")))?;
            fd.try_clone().map_err(|e| Error::io("dup", "standard output", &e))
        }
        RebindV1::Init => sys::pidfd::open_with(Pid(1), file.flags & sys::pidfd::OPEN_FLAGS)
            .map_err(|e| Error::kernel("pidfd_open", "PID 1", e)),
        RebindV1::Activation { address, socket_type, name } => {
            let own = |fd: &OwnedFd| sys::rebuild::own_address(fd.as_fd()).unwrap_or_default();
            let family = family_of(address);
            let wanted = match i32::from(family) {
                libc::AF_UNIX => sys::rebuild::unix_address(address),
                _ => address.clone(),
            };
            let by_address = unit.listen_fds.iter().find(|(_, fd)| own(fd) == wanted);
            // A port that the kernel chose, of netlink too, is another one in each boot.
            let is_fifo =
                |fd: &OwnedFd| fstat(fd).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFIFO);
            let alike = |fd: &OwnedFd| {
                if *socket_type == FIFO {
                    return is_fifo(fd);
                }
                let kind = sys::fdquery::socket_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE);
                own(fd).starts_with(&family.to_ne_bytes()) && kind == Ok(*socket_type)
            };
            let by_name = |(n, fd): &&(String, OwnedFd)| Some(n) == name.as_ref() && alike(fd);
            let found = by_address.or_else(|| unit.listen_fds.iter().find(by_name));
            let (_, fd) = found.ok_or_else(|| {
                Error::stale(
                    ReasonCode::AddressMissing,
                    format!("no activation socket for {}", name.as_deref().unwrap_or("an address")),
                )
            })?;
            fd.try_clone().map_err(|e| Error::io("dup", "activation socket", &e))
        }
    }
}

/// The family of an address as it was recorded: a name of a unix socket, or `sockaddr` bytes.
fn family_of(address: &[u8]) -> u16 {
    let known = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_VSOCK].map(|family| family as u16);
    let family = address.first_chunk::<2>().map(|family| u16::from_ne_bytes(*family));
    family.filter(|family| known.contains(family)).unwrap_or(libc::AF_UNIX as u16)
}
