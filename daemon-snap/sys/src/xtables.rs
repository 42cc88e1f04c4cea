//! Rules of the older packet filter (iptables-legacy), as far as it tells how many there are.

use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const GET_INFO: i32 = 64;
const NAME_BYTES: usize = 32;

/// `struct ipt_getinfo`, which is also that of IPv6.
#[repr(C)]
struct Info {
    name: [u8; NAME_BYTES],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}
const _: () = assert!(size_of::<Info>() == 84);

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// Without the policies and the end, which every table has.
    pub rules: u32,
    pub size_bytes: u32,
}

/// Asks for a table of the socket's network namespace. `socket`: any of AF_INET or AF_INET6, whose
/// tables are asked for. The kernel makes a table that it is asked for; name only one that is
/// there (`/proc/net/ip_tables_names`).
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN; `ENOENT` when there is no such table.
pub fn filling(socket: BorrowedFd<'_>, is_ipv6: bool, table: &str) -> Result<Filling, Errno> {
    let mut info = Info {
        name: [0; NAME_BYTES],
        valid_hooks: 0,
        hook_entry: [0; 5],
        underflow: [0; 5],
        num_entries: 0,
        size: 0,
    };
    // The last byte ends the name.
    let name = table.as_bytes().get(..table.len().min(NAME_BYTES - 1)).unwrap_or_default();
    info.name[..name.len()].copy_from_slice(name);
    let level = if is_ipv6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    let mut len = size_of::<Info>() as libc::socklen_t;
    // SAFETY: info is live, writable for `len` bytes and has the layout of struct ipt_getinfo.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, (&raw mut info).cast(), &raw mut len)
    };
    Errno::result(got)?;
    let always = info.valid_hooks.count_ones() + 1;
    Ok(Filling { rules: info.num_entries.saturating_sub(always), size_bytes: info.size })
}
