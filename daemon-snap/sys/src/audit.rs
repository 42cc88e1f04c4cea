//! The audit daemon, by NETLINK_AUDIT (linux/audit.h).

use nix::errno::Errno;
use snap_state::Pid;
use std::os::fd::{AsRawFd, BorrowedFd};

const AUDIT_GET: u16 = 1000;
const NLM_F_REQUEST: u16 = 1;
const HEADER_BYTES: usize = 16;
/// `pid` of `struct audit_status`, behind the header.
const PID_AT: usize = HEADER_BYTES + 12;

/// The process that has registered as audit daemon; 0 for none.
///
/// # Errors
/// `EPERM`, `ECONNREFUSED` outside the first user and PID namespaces; `EAGAIN` when no answer
/// comes.
pub fn daemon(netlink: BorrowedFd<'_>) -> Result<Pid, Errno> {
    let limit = libc::timeval { tv_sec: 0, tv_usec: 200_000 };
    let limit = [limit.tv_sec.to_ne_bytes(), limit.tv_usec.to_ne_bytes()].concat();
    super::rebuild::set_socket_option(netlink, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &limit)?;
    let mut request = (HEADER_BYTES as u32).to_ne_bytes().to_vec();
    request.extend_from_slice(&AUDIT_GET.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    let mut answer = [0u8; 512];
    // SAFETY: request is readable for its length.
    Errno::result(unsafe { libc::send(netlink.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) })?;
    // SAFETY: answer is writable for its length.
    let got = unsafe { libc::recv(netlink.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    let got = Errno::result(got)? as usize;
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    if kind != AUDIT_GET || got < PID_AT + 4 {
        return Err(Errno::EPERM);
    }
    let pid = answer[PID_AT..PID_AT + 4].try_into().map_or(0, i32::from_ne_bytes);
    Ok(Pid(pid))
}
