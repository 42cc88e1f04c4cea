//! Sockets and FIFOs that systemd made for the unit and still holds: at the next boot systemd makes them again.

use super::Cgroup;
use crate::dump::{ActivationFifo, ActivationSocket};
use crate::error::{Error, Result};
use crate::state::{Pid, RawPath, TargetFd};
use crate::sys::{fdquery, kcmp, pidfd, proc};
use nix::errno::Errno;
use nix::sys::stat::SFlag;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;

/// asm-generic/socket.h.
const SO_PROTOCOL: i32 = 38;
/// First descriptor of sd_listen_fds(3).
const LISTEN_FDS_START: i32 = 3;

/// Sockets of the unit's processes that PID 1 holds too, each once.
///
/// # Errors
/// When descriptors of PID 1 cannot be read.
pub fn activation_sockets(cgroup: &Cgroup, main_pid: i32) -> Result<Vec<ActivationSocket>> {
    let of_systemd: HashSet<Vec<u8>> = sockets(Pid(1)).into_iter().map(|(_, link)| link).collect();
    let names = listen_names(Pid(main_pid));
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for pid in cgroup.processes()? {
        for (fd, link) in sockets(pid) {
            if !of_systemd.contains(&link) || !seen.insert(link) {
                continue;
            }
            let index = (fd.0 - LISTEN_FDS_START) as usize;
            let name = names.get(index).filter(|_| pid.0 == main_pid).cloned();
            found.extend(describe(pid, fd, name)?);
        }
    }
    Ok(found)
}

/// FIFOs that PID 1 and a process of the unit have from the same open(2).
///
/// # Errors
/// When processes of the unit cannot be listed.
pub fn activation_fifos(cgroup: &Cgroup) -> Result<Vec<ActivationFifo>> {
    let of_systemd = fifos(Pid(1));
    let mut found = Vec::new();
    if of_systemd.is_empty() {
        return Ok(found);
    }
    for pid in cgroup.processes()? {
        for fifo in fifos(pid) {
            let same = |other: &&Fifo| {
                (other.dev, other.ino) == (fifo.dev, fifo.ino)
                    && kcmp::compare_files((pid, fifo.fd), (Pid(1), other.fd))
                        .is_ok_and(|order| order.is_eq())
            };
            let Some(given) = of_systemd.iter().find(same) else { continue };
            let entry = ActivationFifo { path: given.path.clone(), init_fd: given.fd };
            if !found.contains(&entry) {
                found.push(entry);
            }
        }
    }
    Ok(found)
}

/// A descriptor of a FIFO that has a name.
struct Fifo {
    fd: TargetFd,
    path: RawPath,
    dev: u64,
    ino: u64,
}

/// What has ended has none.
fn fifos(pid: Pid) -> Vec<Fifo> {
    let described = |fd: TargetFd| {
        let path = proc::read_link(pid, &format!("fd/{fd}")).ok().filter(|link| link.starts_with(b"/"))?;
        let seen = std::fs::metadata(format!("/proc/{pid}/fd/{fd}")).ok()?;
        let is_fifo = SFlag::from_bits_truncate(seen.mode()) & SFlag::S_IFMT == SFlag::S_IFIFO;
        is_fifo.then(|| Fifo { fd, path: RawPath(path), dev: seen.dev(), ino: seen.ino() })
    };
    proc::fds(pid).unwrap_or_default().into_iter().filter_map(described).collect()
}

/// Descriptors that are sockets, with the kernel's name for each. What has ended has none.
fn sockets(pid: Pid) -> Vec<(TargetFd, Vec<u8>)> {
    let fds = proc::fds(pid).unwrap_or_default().into_iter();
    let linked = fds.filter_map(|fd| Some((fd, proc::read_link(pid, &format!("fd/{fd}")).ok()?)));
    linked.filter(|(_, link)| link.starts_with(b"socket:[")).collect()
}

/// `LISTEN_FDNAMES` as the main process got it.
fn listen_names(main: Pid) -> Vec<String> {
    let environment = proc::read(main, "environ").unwrap_or_default();
    let names = environment.split(|&b| b == 0).find_map(|entry| entry.strip_prefix(b"LISTEN_FDNAMES="));
    let text = names.map(String::from_utf8_lossy).unwrap_or_default();
    text.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn describe(pid: Pid, fd: TargetFd, name: Option<String>) -> Result<Option<ActivationSocket>> {
    let fail = |errno| Error::kernel("look at", format!("socket of pid {pid} fd {fd}"), errno);
    let socket = match pidfd::open(pid).and_then(|process| pidfd::get_fd(process.as_fd(), fd)) {
        Ok(socket) => socket,
        // Ended or closed meanwhile.
        Err(Errno::ESRCH | Errno::EBADF) => return Ok(None),
        Err(errno) => return Err(fail(errno)),
    };
    let socket_type = fdquery::socket_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TYPE).map_err(fail)?;
    let protocol = fdquery::socket_int(socket.as_fd(), libc::SOL_SOCKET, SO_PROTOCOL).map_err(fail)?;
    let address = fdquery::socket_address(socket.as_fd(), false).map_err(fail)?;
    let family = address.get(..2).map_or(0, |bytes| i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])));
    let address = if family == libc::AF_UNIX { unix_name(&address) } else { address };
    Ok(Some(ActivationSocket { address, socket_type, protocol, name }))
}

/// `sun_path`: abstract names as they are, paths without the NUL at the end.
fn unix_name(address: &[u8]) -> Vec<u8> {
    let name = address.get(2..).unwrap_or_default();
    match name.first() {
        None | Some(0) => name.to_vec(),
        Some(_) => name.split(|&b| b == 0).next().unwrap_or_default().to_vec(),
    }
}
