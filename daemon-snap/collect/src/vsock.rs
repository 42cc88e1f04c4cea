//! Sockets between virtual machine and host: listeners, and what is not connected.

use super::description::Description;
use super::socket_options::Defaults;
use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use nix::errno::Errno;
use snap_error::obstacle::SocketObstacle;
use snap_state::{FileKindV1, VsockSocketV1};
use snap_sys::fdquery;
use std::os::fd::BorrowedFd;

/// VMADDR_PORT_ANY.
const ANY_PORT: [u8; 4] = [0xff; 4];

/// One vsock socket.
pub(super) fn collect(file: &Description, fd: BorrowedFd<'_>, spaces: &Spaces) -> Found<FileKindV1> {
    let fail = |step| failed(step, file.pid, file.fd);
    let ask = |name| fdquery::socket_int(fd, libc::SOL_SOCKET, name).map_err(fail("getsockopt"));
    let (socket_type, listening) = (ask(libc::SO_TYPE)?, ask(libc::SO_ACCEPTCONN)? != 0);
    match fdquery::socket_address(fd, true) {
        Err(Errno::ENOTCONN) => {}
        Ok(_) => return refused(SocketObstacle::VsockConnection),
        Err(e) => return Err(fail("getpeername")(e).into()),
    }
    if fdquery::poll_now(fd, libc::POLLIN).map_err(fail("poll"))? & libc::POLLIN != 0 && listening {
        return refused(SocketObstacle::VsockPending);
    }
    let local = fdquery::socket_address(fd, false).map_err(fail("getsockname"))?;
    // struct sockaddr_vm: family, reserved, port, context id.
    let is_bound = local.get(4..8).is_some_and(|port| port != ANY_PORT);
    let options = Defaults::new(spaces).changed((file.pid, file.fd), fd, (libc::AF_VSOCK, socket_type, 0))?;
    let local = Some(local).filter(|_| is_bound);
    Ok(FileKindV1::Vsock(VsockSocketV1 { socket_type, local, listening, options }))
}
