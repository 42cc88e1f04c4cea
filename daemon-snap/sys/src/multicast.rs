//! Multicast groups of a socket by interface index (MCAST_*, RFC 3678; ip(7), ipv6(7)).

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

const MCAST_JOIN_GROUP: i32 = 42;
const MCAST_BLOCK_SOURCE: i32 = 43;
const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
const MCAST_MSFILTER: i32 = 48;
/// `struct sockaddr_storage`.
const ADDRESS_BYTES: usize = 128;
/// `struct group_filter`: interface (padded to 8), group, mode, number of sources, sources.
const FILTER_BYTES: usize = 8 + ADDRESS_BYTES + 8;
/// More than the kernel lets anybody name (`igmp_max_msf`, `mld_max_msf`) without being asked to.
const MAX_SOURCES: usize = 1024;

/// Mode and sources of a membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFilter {
    /// MCAST_EXCLUDE: all but these; else only these.
    pub exclude: bool,
    /// `sockaddr_in` or `sockaddr_in6`.
    pub sources: Vec<Vec<u8>>,
}

/// Whether the socket has joined `group` (a `sockaddr_in` or `sockaddr_in6`) on an interface.
///
/// # Errors
/// `ENOPROTOOPT` and others for sockets that know no groups; `E2BIG` for more sources than can be
/// read.
pub fn membership(
    fd: BorrowedFd<'_>,
    level: i32,
    interface: u32,
    group: &[u8],
) -> Result<Option<SourceFilter>, Errno> {
    let mut filter = vec![0u8; FILTER_BYTES + MAX_SOURCES * ADDRESS_BYTES];
    filter[..4].copy_from_slice(&interface.to_ne_bytes());
    filter[8..8 + group.len()].copy_from_slice(group);
    filter[140..144].copy_from_slice(&(MAX_SOURCES as u32).to_ne_bytes());
    let mut len = filter.len() as libc::socklen_t;
    // SAFETY: filter is writable for len bytes and holds room for as many sources as it says.
    let got = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, MCAST_MSFILTER, filter.as_mut_ptr().cast(), &raw mut len)
    };
    match Errno::result(got) {
        Err(Errno::EADDRNOTAVAIL) => return Ok(None),
        done => done?,
    };
    let word = |at: usize| u32::from_ne_bytes([filter[at], filter[at + 1], filter[at + 2], filter[at + 3]]);
    let (mode, count) = (word(136), word(140) as usize);
    if count > MAX_SOURCES {
        return Err(Errno::E2BIG);
    }
    let sources = filter[FILTER_BYTES..].chunks_exact(ADDRESS_BYTES).take(count);
    let sources = sources.map(|source| source[..group.len()].to_vec()).collect();
    Ok(Some(SourceFilter { exclude: mode == 0, sources }))
}

/// Joins a group.
///
/// # Errors
/// `ENODEV`: no such interface; those of setsockopt(2).
pub fn join(
    fd: BorrowedFd<'_>,
    level: i32,
    interface: u32,
    group: &[u8],
    filter: &SourceFilter,
) -> Result<(), Errno> {
    let request = |addresses: &[&[u8]]| {
        let mut bytes = interface.to_ne_bytes().to_vec();
        bytes.resize(8, 0);
        for address in addresses {
            let end = bytes.len() + ADDRESS_BYTES;
            bytes.extend_from_slice(address);
            bytes.resize(end, 0);
        }
        bytes
    };
    let set = |name, bytes: &[u8]| super::rebuild::set_socket_option(fd, level, name, bytes);
    if filter.exclude {
        set(MCAST_JOIN_GROUP, &request(&[group]))?;
    }
    let name = if filter.exclude { MCAST_BLOCK_SOURCE } else { MCAST_JOIN_SOURCE_GROUP };
    filter.sources.iter().try_for_each(|source| set(name, &request(&[group, source])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn v4(ip: [u8; 4]) -> Vec<u8> {
        let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&ip);
        bytes.resize(16, 0);
        bytes
    }

    #[test]
    fn memberships_are_told_with_their_sources() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let lo = crate::interface::index_of(socket.as_fd(), b"lo").unwrap();
        let ask = |group| membership(socket.as_fd(), libc::IPPROTO_IP, lo, &v4(group)).unwrap();
        for (group, exclude) in [([239, 7, 7, 1], true), ([232, 7, 7, 2], false)] {
            let filter = SourceFilter { exclude, sources: vec![v4([127, 0, 0, 9])] };
            assert_eq!(ask(group), None);
            join(socket.as_fd(), libc::IPPROTO_IP, lo, &v4(group), &filter).unwrap();
            assert_eq!(ask(group), Some(filter));
        }
    }
}
