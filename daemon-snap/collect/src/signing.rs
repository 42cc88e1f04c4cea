//! Keys that segments of TCP sockets are signed with (TCP_MD5SIG, TCP-AO). Without them everybody
//! gets in.

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use nix::errno::Errno;
use nix::sys::stat::fstat;
use snap_error::obstacle::SocketObstacle;
use snap_state::SocketOptionV1;
use snap_sys::sock_diag::{SigningKey, TcpSockets, signing_keys};
use snap_sys::{fdquery, netns};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, BorrowedFd};

const TCP_MD5SIG_EXT: i32 = 32;
const TCP_AO_INFO: i32 = 40;

type KeysByInode = HashMap<u32, Vec<SigningKey>>;

/// Keys of the sockets of the tree's network namespace, asked for once per family and kind of
/// sockets.
#[derive(Debug)]
pub(super) struct SigningKeys<'a> {
    spaces: &'a Spaces,
    known: HashMap<(i32, bool), KeysByInode>,
}

impl<'a> SigningKeys<'a> {
    pub fn new(spaces: &'a Spaces) -> Self {
        Self { spaces, known: HashMap::new() }
    }

    /// The keys of a socket as options that set them again.
    pub fn options_of(
        &mut self,
        file: &Description,
        fd: BorrowedFd<'_>,
        family: i32,
        which: TcpSockets,
    ) -> Found<Vec<SocketOptionV1>> {
        let fail = |step| failed(step, file.pid, file.fd);
        inspect_authentication(file, fd)?;
        let known = match self.known.entry((family, which == TcpSockets::Connected)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let netlink = netns::socket(
                    self.spaces.net(),
                    libc::AF_NETLINK,
                    libc::SOCK_RAW,
                    libc::NETLINK_SOCK_DIAG,
                )
                .map_err(fail("make a socket"))?;
                place.insert(signing_keys(netlink.as_fd(), family, which).map_err(fail("list TCP sockets"))?)
            }
        };
        let inode = fstat(fd).map_err(fail("stat"))?.st_ino as u32;
        let keys = known.get(&inode).map(Vec::as_slice).unwrap_or_default();
        let place = |key: &SigningKey| (key.family, key.prefix_len, key.address);
        if (1..keys.len()).any(|at| keys[..at].iter().any(|key| place(key) == place(&keys[at]))) {
            // What else tells them apart is the routing domain, which the kernel does not show.
            return refused(SocketObstacle::TcpKeys);
        }
        let option = |key: &SigningKey| SocketOptionV1 {
            level: libc::IPPROTO_TCP,
            name: TCP_MD5SIG_EXT,
            value: key.option(family),
        };
        Ok(keys.iter().map(option).collect())
    }
}

/// Keys of TCP-AO (since Linux 6.7) are in no list, but each socket tells that it has some.
pub(super) fn inspect_authentication(file: &Description, fd: BorrowedFd<'_>) -> Found<()> {
    match fdquery::socket_option(fd, libc::IPPROTO_TCP, TCP_AO_INFO) {
        Ok(_) => refused(SocketObstacle::TcpAuthentication),
        // None, or a kernel without them.
        Err(Errno::ENOENT | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::EINVAL) => Ok(()),
        Err(e) => Err(failed("TCP_AO_INFO", file.pid, file.fd)(e).into()),
    }
}
