//! Sockets by which interfaces, routes and packet filters are changed.

use snap_state::Pid;
use snap_sys::proc;
use std::collections::BTreeSet;

/// Parts of the kernel that are configured by netlink.
const CONFIGURING: [(i32, &str); 3] =
    [(libc::NETLINK_ROUTE, "ROUTE"), (libc::NETLINK_XFRM, "XFRM"), (libc::NETLINK_NETFILTER, "NETFILTER")];

/// Names of the netlink protocols that one of these processes has a socket for; `main` is in their
/// network namespace.
pub fn configuring_sockets(main: Pid, processes: &[Pid]) -> Vec<&'static str> {
    let table = std::fs::read_to_string(format!("/proc/{main}/net/netlink")).unwrap_or_default();
    let mut held = BTreeSet::new();
    for &pid in processes {
        for fd in proc::fds(pid).unwrap_or_default() {
            let link = proc::read_link(pid, &format!("fd/{}", fd.0)).unwrap_or_default();
            let link = String::from_utf8_lossy(&link).into_owned();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            held.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
        }
    }
    let protocols = protocols(&table, &held);
    CONFIGURING.iter().filter(|(number, _)| protocols.contains(number)).map(|(_, name)| *name).collect()
}

/// Protocols of the sockets with these inodes.
fn protocols(table: &str, inodes: &BTreeSet<u64>) -> BTreeSet<i32> {
    const PROTOCOL: usize = 1;
    const INODE: usize = 9;
    let protocol = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let inode = words.get(INODE)?.parse().ok()?;
        words.get(PROTOCOL)?.parse().ok().filter(|_| inodes.contains(&inode))
    };
    table.lines().skip(1).filter_map(protocol).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd as _, AsRawFd as _};

    #[test]
    fn a_socket_for_routes_is_found_and_other_sockets_are_not() {
        let own = Pid(std::process::id() as i32);
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(other.as_raw_fd() > 0 && configuring_sockets(own, &[]).is_empty());
        let socket =
            snap_sys::netns::socket(None, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).unwrap();
        // The kernel lists a socket when it has been used.
        snap_sys::netlink::list(socket.as_fd(), 18, &[0; 16]).unwrap();
        assert!(configuring_sockets(own, &[own]).contains(&"ROUTE"));
    }

    #[test]
    fn the_table_is_read_by_its_columns() {
        let table = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
                     ffff888100000000 0   812        00000111 0        0        0     2        0        21771\n\
                     ffff888100000001 12  -4123      00000000 0        0        0     2        0        21772\n";
        assert_eq!(protocols(table, &BTreeSet::from([21772])), BTreeSet::from([12]));
    }
}
