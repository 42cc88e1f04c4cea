//! What an internet socket has and getsockopt(2) does not tell, found out by calls that do nothing.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{mem, ptr};

/// A header and a value that fits into eight bytes.
const CONTROL_BYTES: usize = 24;
const IPV6_DONTFRAG: i32 = 62;
const UDP_SEGMENT: i32 = 103;
/// Headers of IPv6 and UDP.
const HEADERS_BYTES: u32 = 48;

/// The packet size above which a bound UDP socket over IPv6 divides what it sends to this machine:
/// that of the loopback interface, or what IPV6_MTU has set. `None`: it cannot send there.
/// `extra_bytes`: extension headers that it puts into each packet.
///
/// Datagrams are offered that must not be divided and whose bytes lie nowhere. The kernel compares
/// their length first and then fails to copy them: nothing is sent. A socket with IPV6_RECVERR gets
/// the error into its queue; it is taken out again, so the queue has to be empty before.
///
/// # Errors
/// None in practice.
pub fn fragment_size(socket: BorrowedFd<'_>, extra_bytes: u32) -> Result<Option<u32>, Errno> {
    // The kernel does not take less for IPV6_MTU than every link has to carry.
    const LEAST: u32 = 1280;
    const MOST: u32 = 65_536;
    let payload = |packet: u32| packet.saturating_sub(HEADERS_BYTES + extra_bytes);
    if fits(socket, payload(LEAST))? != Some(true) {
        return Ok(None);
    }
    let (mut fitting, mut too_long) = (LEAST, MOST + 1);
    while too_long - fitting > 1 {
        let middle = fitting.midpoint(too_long);
        match fits(socket, payload(middle))? {
            Some(true) => fitting = middle,
            Some(false) => too_long = middle,
            None => return Ok(None),
        }
    }
    Ok(Some(fitting))
}

/// Whether so many bytes would go into one packet.
fn fits(socket: BorrowedFd<'_>, len_bytes: u32) -> Result<Option<bool>, Errno> {
    // The discard service; nothing arrives there.
    let mut address = [0u8; size_of::<libc::sockaddr_in6>()];
    address[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
    address[2..4].copy_from_slice(&9u16.to_be_bytes());
    address[23] = 1;
    let mut bytes = libc::iovec { iov_base: ptr::null_mut(), iov_len: len_bytes as usize };
    let mut control = [0u64; 2 * CONTROL_BYTES / 8];
    // SAFETY: msghdr is plain data; zero is a valid value for every field.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = address.as_mut_ptr().cast();
    header.msg_namelen = size_of_val(&address) as libc::socklen_t;
    header.msg_iov = &raw mut bytes;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: control has room for two headers with eight bytes each; values are at most four
    // bytes long.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        put(first, (libc::IPPROTO_IPV6, IPV6_DONTFRAG), &1i32.to_ne_bytes());
        let second = libc::CMSG_NXTHDR(&raw const header, first);
        // The socket may divide long datagrams itself, which would be no measure.
        put(second, (libc::IPPROTO_UDP, UDP_SEGMENT), &0u16.to_ne_bytes());
    }
    // SAFETY: header points at live buffers; the bytes to send lie at no address of ours, which
    // is what the kernel is to find.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    match Errno::result(sent) {
        Err(Errno::EFAULT) => Ok(Some(true)),
        Err(Errno::EMSGSIZE) => {
            take_error(socket);
            Ok(Some(false))
        }
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Fills a control message.
///
/// # Safety
/// `message` has room for the value behind its header.
unsafe fn put(message: *mut libc::cmsghdr, (level, kind): (i32, i32), value: &[u8]) {
    // SAFETY: by the caller.
    unsafe {
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(value.len() as u32) as usize;
        ptr::copy_nonoverlapping(value.as_ptr(), libc::CMSG_DATA(message), value.len());
    }
}

/// Takes an error out of the queue of errors, if there is one.
fn take_error(socket: BorrowedFd<'_>) {
    let mut control = [0u64; 32];
    // SAFETY: msghdr is plain data; zero is a valid value for every field.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: header points at a live buffer. What comes is an error or nothing.
    unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
}

/// Whether a socket has leased this flow label of IPv6 (IPV6_FLOWLABEL_MGR): renewed for the
/// shortest time, which shortens nothing.
pub fn has_flow_label(socket: BorrowedFd<'_>, label: u32) -> bool {
    const IPV6_FLOWLABEL_MGR: i32 = 32;
    const LABEL_AT: usize = 16;
    const RENEW: u8 = 2;
    // What is nobody's own would be renewed for whoever asks.
    const SHARED_WITH_ALL: u8 = 255;
    // struct in6_flowlabel_req: address, label, action, share, flags, expiry, linger, pad.
    let mut request = [0u8; 32];
    request[LABEL_AT..LABEL_AT + 4].copy_from_slice(&label.to_be_bytes());
    request[LABEL_AT + 4..LABEL_AT + 6].copy_from_slice(&[RENEW, SHARED_WITH_ALL]);
    crate::rebuild::set_socket_option(socket, libc::IPPROTO_IPV6, IPV6_FLOWLABEL_MGR, &request).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    const IPV6_MTU: i32 = 24;
    const IPV6_RECVERR: i32 = 25;

    fn set(socket: &UdpSocket, name: i32, value: i32) {
        crate::rebuild::set_socket_option(socket.as_fd(), libc::IPPROTO_IPV6, name, &value.to_ne_bytes())
            .unwrap();
    }

    #[test]
    fn the_size_of_fragments_is_found_and_no_error_is_left() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let untouched = fragment_size(socket.as_fd(), 0).unwrap().unwrap();
        assert!(untouched > 1500, "{untouched}");
        set(&socket, IPV6_RECVERR, 1);
        for wanted in [1280, 1281, 1473, 9000] {
            set(&socket, IPV6_MTU, wanted);
            assert_eq!(fragment_size(socket.as_fd(), 0).unwrap(), Some(wanted as u32));
        }
        assert_eq!(crate::fdquery::poll_now(socket.as_fd(), libc::POLLIN).unwrap(), 0);
        assert!(socket.take_error().unwrap().is_none());
    }

    #[test]
    fn a_socket_over_ipv4_has_no_such_size() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(fragment_size(socket.as_fd(), 0).unwrap(), None);
    }
}
