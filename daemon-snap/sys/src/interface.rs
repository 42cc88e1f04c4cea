//! Names and indices of network interfaces, in the network namespace of a socket (netdevice(7)).

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct ifreq`, as far as it is used here.
#[repr(C)]
struct Request {
    name: [u8; NAME_BYTES],
    index: i32,
    rest: [u8; 20],
}
const NAME_BYTES: usize = 16;
const _: () = assert!(size_of::<Request>() == 40);

/// SIOCGIFNAME.
///
/// # Errors
/// `ENODEV`: no such interface.
pub fn name_of(socket: BorrowedFd<'_>, index: u32) -> Result<Vec<u8>, Errno> {
    let mut request = Request { name: [0; NAME_BYTES], index: index as i32, rest: [0; 20] };
    // SAFETY: the request is live and has the layout of struct ifreq.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME, &raw mut request) })?;
    Ok(request.name.iter().copied().take_while(|&byte| byte != 0).collect())
}

/// SIOCGIFINDEX.
///
/// # Errors
/// `ENODEV`: no such interface.
pub fn index_of(socket: BorrowedFd<'_>, name: &[u8]) -> Result<u32, Errno> {
    let mut request = Request { name: [0; NAME_BYTES], index: 0, rest: [0; 20] };
    if name.is_empty() || name.len() >= NAME_BYTES {
        return Err(Errno::ENODEV);
    }
    request.name[..name.len()].copy_from_slice(name);
    // SAFETY: as above.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX, &raw mut request) })?;
    Ok(request.index as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn loopback_has_name_and_index() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let index = index_of(socket.as_fd(), b"lo").unwrap();
        assert_eq!(name_of(socket.as_fd(), index).unwrap(), b"lo");
        assert_eq!(index_of(socket.as_fd(), b"no such one"), Err(Errno::ENODEV));
    }
}
