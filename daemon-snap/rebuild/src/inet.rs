//! Sockets over IPv4 and IPv6: listeners, unconnected, datagram and raw sockets.

use super::interface::Indices;
use super::kind::{Context, Kind};
use super::low_port::check_low_ports;
use super::socket_options::set_options;
use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{FileId, FileKindV1, FileV1, InetSocketV1, MembershipV1, SocketOptionV1};
use snap_sys as sys;
use snap_sys::multicast::SourceFilter;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

const IP_UNICAST_IF: i32 = 50;
const IPV6_UNICAST_IF: i32 = 76;

impl Kind for InetSocketV1 {
    fn check(&self, cx: &Context<'_>) -> Result<()> {
        let Some(unit) = cx.today.unit else { return Ok(()) };
        check_low_ports(cx.desk, inet_sockets(cx).map(|(_, socket)| socket), unit)
    }

    fn make(&self, file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        let shares = shares_by_former_option(file.id, self, cx);
        rebuild_inet(file.id, self, shares).map(Some)
    }

    /// When all that share a port are there, SO_REUSEPORT goes where it had been turned off.
    fn connect(&self, cx: &Context<'_>) -> Result<()> {
        for (id, socket) in inet_sockets(cx) {
            if shares_by_former_option(id, socket, cx) {
                set_reuse_port(id, &cx.desk.file(id)?, false)?;
            }
        }
        Ok(())
    }
}

fn inet_sockets<'a>(cx: &Context<'a>) -> impl Iterator<Item = (FileId, &'a InetSocketV1)> {
    cx.files.iter().filter_map(|file| match &file.kind {
        FileKindV1::Inet(socket) => Some((file.id, socket)),
        _ => None,
    })
}

/// Whether another socket of the tree has the same address, and this one has no option any more by
/// which it may: that one was turned off when both were bound.
fn shares_by_former_option(id: FileId, socket: &InetSocketV1, cx: &Context<'_>) -> bool {
    let is_set = |name| {
        let of_socket = socket.options.iter().filter(|option| option.level == libc::SOL_SOCKET);
        of_socket.filter(|option| option.name == name).any(|option| option.value.first() == Some(&1))
    };
    let same = |other: &InetSocketV1| {
        (other.family, other.protocol, &other.local) == (socket.family, socket.protocol, &socket.local)
    };
    socket.local.is_some()
        && socket.socket_type != libc::SOCK_RAW
        && !is_set(libc::SO_REUSEPORT)
        && inet_sockets(cx).any(|(other, there)| other != id && same(there))
}

fn set_reuse_port(id: FileId, fd: &impl AsFd, on: bool) -> Result<()> {
    let value = i32::from(on).to_ne_bytes();
    sys::rebuild::set_socket_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, &value)
        .map_err(|e| Error::kernel("SO_REUSEPORT", id, e))
}

/// Same options, address, groups, peer, backlog. `shares`: its address belongs to another one of the
/// tree too.
fn rebuild_inet(id: FileId, socket: &InetSocketV1, shares: bool) -> Result<OwnedFd> {
    let fd = sys::rebuild::socket(socket.family, socket.socket_type, socket.protocol)
        .map_err(|e| Error::kernel("socket", id, e))?;
    let indices = Indices::of(fd.as_fd(), &socket.interfaces)?;
    let mut options = socket.options.clone();
    options.iter_mut().try_for_each(|option| rename_interface(option, &indices))?;
    let bound: Vec<SocketOptionV1> = take_repeated(&mut options);
    set_options(id, &fd, &options)?;
    if shares {
        set_reuse_port(id, &fd, true)?;
    }
    if let Some(local) = &socket.local {
        bind(id, socket, &fd, &with_scope(local, &indices)?)?;
    }
    set_options(id, &fd, &bound)?;
    for membership in &socket.memberships {
        let MembershipV1 { level, interface, group, exclude, sources } = membership;
        let filter = SourceFilter { exclude: *exclude, sources: sources.clone() };
        sys::multicast::join(fd.as_fd(), *level, indices.today(*interface)?, group, &filter)
            .map_err(|e| Error::kernel("joining", show(group), e))?;
    }
    if let Some(remote) = &socket.remote {
        sys::rebuild::connect(fd.as_fd(), &with_scope(remote, &indices)?).map_err(|e| match e {
            Errno::ENETUNREACH | Errno::EADDRNOTAVAIL => {
                Error::stale(ReasonCode::AddressMissing, format!("no way to {} yet", show(remote)))
            }
            e => Error::kernel("connect", format!("open file {id} {}", show(remote)), e),
        })?;
    }
    if let Some(backlog) = socket.listen_backlog {
        sys::rebuild::listen(fd.as_fd(), backlog).map_err(|e| Error::kernel("listen", id, e))?;
    }
    Ok(fd)
}

/// Options that stand there a second time: they are set when the address is bound.
fn take_repeated(options: &mut Vec<SocketOptionV1>) -> Vec<SocketOptionV1> {
    let mut seen = HashSet::new();
    options.extract_if(.., |option| !seen.insert((option.level, option.name))).collect()
}

/// Options whose value is the index of an interface.
fn rename_interface(option: &mut SocketOptionV1, indices: &Indices) -> Result<()> {
    let Some(value) = option.value.first_chunk::<4>().copied() else { return Ok(()) };
    option.value = match (option.level, option.name) {
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF) => {
            indices.today(u32::from_ne_bytes(value))?.to_ne_bytes().to_vec()
        }
        (libc::IPPROTO_IPV6, IPV6_UNICAST_IF) | (libc::IPPROTO_IP, IP_UNICAST_IF) => {
            indices.today(u32::from_be_bytes(value))?.to_be_bytes().to_vec()
        }
        _ => return Ok(()),
    };
    Ok(())
}

/// `sin6_scope_id` as it is today.
pub(super) fn with_scope(address: &[u8], indices: &Indices) -> Result<Vec<u8>> {
    let mut address = address.to_vec();
    let v6 = address.starts_with(&(libc::AF_INET6 as u16).to_ne_bytes());
    if let Some(scope) = address.get_mut(24..28).filter(|_| v6) {
        let then = u32::from_ne_bytes([scope[0], scope[1], scope[2], scope[3]]);
        scope.copy_from_slice(&indices.today(then)?.to_ne_bytes());
    }
    Ok(address)
}

/// Old connections in TIME_WAIT must not keep a listener from its port, so the address is reused
/// even where the daemon did not ask for it; its own setting comes back after the bind.
fn bind(id: FileId, socket: &InetSocketV1, fd: &OwnedFd, local: &[u8]) -> Result<()> {
    let listener = socket.listen_backlog.is_some();
    let reuse = |on: i32| {
        sys::rebuild::set_socket_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, &on.to_ne_bytes())
            .map_err(|e| Error::kernel("SO_REUSEADDR", id, e))
    };
    let recorded = socket
        .options
        .iter()
        .find(|o| o.level == libc::SOL_SOCKET && o.name == libc::SO_REUSEADDR)
        .is_some_and(|o| o.value.first() == Some(&1));
    if listener && !recorded {
        reuse(1)?;
    }
    sys::rebuild::bind(fd.as_fd(), local).map_err(|e| match e {
        Errno::EADDRINUSE => {
            Error::stale(ReasonCode::AddressTaken, format!("address {} is in use", show(local)))
        }
        Errno::EADDRNOTAVAIL => {
            Error::stale(ReasonCode::AddressMissing, format!("address {} does not exist yet", show(local)))
        }
        Errno::EPERM => Error::stale(
            ReasonCode::HostUnsupported,
            format!("the unit's control group may not bind to {} (SocketBindDeny=)", show(local)),
        ),
        e => Error::kernel("bind", show(local), e),
    })?;
    if listener && !recorded {
        reuse(0)?;
    }
    Ok(())
}

/// An address for messages.
pub fn show(address: &[u8]) -> String {
    let port = address.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    match (address.first(), address.len()) {
        (Some(2), 8..) => {
            let ip = <[u8; 4]>::try_from(&address[4..8]).unwrap_or_default();
            format!("{}:{port}", std::net::Ipv4Addr::from(ip))
        }
        (Some(10), 24..) => {
            let ip = <[u8; 16]>::try_from(&address[8..24]).unwrap_or_default();
            format!("[{}]:{port}", std::net::Ipv6Addr::from(ip))
        }
        _ => "of unknown family".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_there_a_second_time_is_set_later() {
        let option = |name, value: u8| SocketOptionV1 { level: 0, name, value: vec![value] };
        let mut options = vec![option(15, 1), option(1, 7), option(15, 0)];
        assert_eq!(take_repeated(&mut options), [option(15, 0)]);
        assert_eq!(options, [option(15, 1), option(1, 7)]);
    }

    #[test]
    fn addresses_are_shown_as_people_write_them() {
        assert_eq!(show(&[2, 0, 0, 80, 127, 0, 0, 1]), "127.0.0.1:80");
        let mut six = vec![10, 0, 0x1f, 0x90, 0, 0, 0, 0];
        six.extend_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
        assert_eq!(show(&six), "[::1]:8080");
    }
}
