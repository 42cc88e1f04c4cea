//! Sockets and FIFOs that systemd made for the unit and still holds: at the next boot systemd makes
//! them again.

use super::Cgroup;
use nix::errno::Errno;
use snap_collect::dump::{ActivationSocket, FIFO, StoredDescriptor};
use snap_error::{Error, Result};
use snap_state::{Pid, TargetFd};
use snap_sys::{fdquery, pidfd, proc};
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

/// First descriptor of sd_listen_fds(3).
const LISTEN_FDS_START: i32 = 3;

/// Sockets of the unit's processes that PID 1 holds too, each once. What is only in its store does
/// not count.
///
/// # Errors
/// When descriptors of PID 1 cannot be read.
pub fn activation_sockets(
    cgroup: &Cgroup,
    main_pid: i32,
    stored: &[StoredDescriptor],
) -> Result<Vec<ActivationSocket>> {
    let mut of_systemd: HashMap<Vec<u8>, usize> = HashMap::new();
    for (_, link) in passable(Pid(1)) {
        *of_systemd.entry(link).or_default() += 1;
    }
    for one in stored {
        if let Some(count) = of_systemd.get_mut(&one.path) {
            *count = count.saturating_sub(1);
        }
    }
    of_systemd.retain(|_, count| *count > 0);
    let names = listen_names(Pid(main_pid));
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for pid in cgroup.processes()? {
        for (fd, link) in passable(pid) {
            if !of_systemd.contains_key(&link) || !seen.insert(link.clone()) {
                continue;
            }
            let index = (fd.0 - LISTEN_FDS_START) as usize;
            let name = names.get(index).filter(|_| pid.0 == main_pid).cloned();
            match link.strip_prefix(b"/") {
                Some(_) => found.push(ActivationSocket { address: link, socket_type: FIFO, name }),
                None => found.extend(describe(pid, fd, name)?),
            }
        }
    }
    Ok(found)
}

/// Descriptors that are sockets or named FIFOs, with the kernel's name for each. What has ended has
/// none.
fn passable(pid: Pid) -> Vec<(TargetFd, Vec<u8>)> {
    let fds = proc::fds(pid).unwrap_or_default().into_iter();
    let linked = fds.filter_map(|fd| Some((fd, proc::read_link(pid, &format!("fd/{fd}")).ok()?)));
    let is_fifo = |fd: TargetFd| {
        let found = nix::sys::stat::stat(format!("/proc/{pid}/fd/{fd}").as_str());
        found.is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFIFO)
    };
    linked
        .filter(|(fd, link)| link.starts_with(b"socket:[") || link.starts_with(b"/run/") && is_fifo(*fd))
        .collect()
}

/// `LISTEN_FDNAMES` as the main process got it.
fn listen_names(main: Pid) -> Vec<String> {
    let environment = proc::read(main, "environ").unwrap_or_default();
    let names = proc::variable(&environment, b"LISTEN_FDNAMES");
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
    let address = fdquery::socket_address(socket.as_fd(), false).map_err(fail)?;
    let family = address.get(..2).map_or(0, |bytes| i32::from(u16::from_ne_bytes([bytes[0], bytes[1]])));
    let address = if family == libc::AF_UNIX { unix_name(&address) } else { address };
    Ok(Some(ActivationSocket { address, socket_type, name }))
}

/// `sun_path`: abstract names as they are, paths without the NUL at the end.
fn unix_name(address: &[u8]) -> Vec<u8> {
    let name = address.get(2..).unwrap_or_default();
    match name.first() {
        None | Some(0) => name.to_vec(),
        Some(_) => name.split(|&b| b == 0).next().unwrap_or_default().to_vec(),
    }
}
