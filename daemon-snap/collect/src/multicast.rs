//! Multicast groups of a socket. The kernel lists groups by interface only, so each socket is asked
//! for each group that anybody in its network namespace has joined.

use super::description::Description;
use crate::blockers::{Found, failed};
use nix::errno::Errno;
use snap_error::Result;
use snap_state::{MembershipV1, Pid};
use snap_sys::{multicast, proc};
use std::os::fd::BorrowedFd;

const LEVELS: [i32; 2] = [libc::IPPROTO_IP, libc::IPPROTO_IPV6];

/// A group on an interface that somebody has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    level: i32,
    interface: u32,
    /// `sockaddr_in` or `sockaddr_in6`.
    address: Vec<u8>,
}

/// All groups of a network namespace, read once.
#[derive(Debug, Default)]
pub(super) struct Groups(Option<Vec<Group>>);

impl Groups {
    /// What a socket has joined. `main`: a process of the socket's network namespace.
    pub fn joined(
        &mut self,
        main: Pid,
        file: &Description,
        fd: BorrowedFd<'_>,
        family: i32,
    ) -> Found<Vec<MembershipV1>> {
        let groups = match self.0.take() {
            Some(groups) => groups,
            None => read_groups(main)?,
        };
        let mut memberships = Vec::new();
        // An IPv6 socket may join groups of both.
        let levels = &LEVELS[..if family == libc::AF_INET6 { 2 } else { 1 }];
        for group in groups.iter().filter(|group| levels.contains(&group.level)) {
            let Group { level, interface, address } = group.clone();
            match multicast::membership(fd, level, interface, &address) {
                Ok(Some(filter)) => memberships.push(MembershipV1 {
                    level,
                    interface,
                    group: address,
                    exclude: filter.exclude,
                    sources: filter.sources,
                }),
                // Some kinds of sockets know no groups of the other family.
                Ok(None) | Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => {}
                Err(e) => return Err(failed("MCAST_MSFILTER", file.pid, file.fd)(e).into()),
            }
        }
        self.0 = Some(groups);
        Ok(memberships)
    }
}

fn read_groups(main: Pid) -> Result<Vec<Group>> {
    // Without IPv6 there is no such file.
    let read = |name| String::from_utf8_lossy(&proc::read(main, name).unwrap_or_default()).into_owned();
    let mut groups = parse_v4(&read("net/igmp"));
    groups.extend(parse_v6(&read("net/igmp6")));
    Ok(groups)
}

/// A line for each interface, indented lines for its groups.
fn parse_v4(text: &str) -> Vec<Group> {
    let (mut groups, mut interface) = (Vec::new(), 0);
    for line in text.lines().skip(1) {
        let Some(word) = line.split_whitespace().next() else { continue };
        if !line.starts_with(char::is_whitespace) {
            interface = word.parse().unwrap_or_default();
        } else if let Ok(address) = u32::from_str_radix(word, 16) {
            // As it lies in memory, shown as a number.
            let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&address.to_ne_bytes());
            bytes.resize(size_of::<libc::sockaddr_in>(), 0);
            groups.push(Group { level: libc::IPPROTO_IP, interface, address: bytes });
        }
    }
    groups
}

/// Index, name, address in 32 hexadecimal digits.
fn parse_v6(text: &str) -> Vec<Group> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let interface = words.next()?.parse().ok()?;
        let address = u128::from_str_radix(words.nth(1)?, 16).ok()?;
        let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[0; 6]);
        bytes.extend_from_slice(&address.to_be_bytes());
        bytes.resize(size_of::<libc::sockaddr_in6>(), 0);
        Some(Group { level: libc::IPPROTO_IPV6, interface, address: bytes })
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_from_both_lists() {
        let v4 = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
                  1\tlo        :     2      V3\n\t\t\t\t030201EF     1 0:00000000\t\t0\n";
        let v4 = parse_v4(v4);
        assert_eq!((v4.len(), v4[0].interface, &v4[0].address[4..8]), (1, 1, &[239, 1, 2, 3][..]));
        let v6 = parse_v6("4    eth0            ff020000000000000000000000000001     1 0000000C 0\n");
        assert_eq!((v6.len(), v6[0].interface), (1, 4));
        assert_eq!(v6[0].address[8..24], "ff02::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
}
