//! What netlink tells about one object, taken apart.

use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_sys::netlink::{Answer, attributes, u32_at};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Values by kind.
pub(crate) struct Attributes<'a>(BTreeMap<u16, &'a [u8]>);

impl<'a> Attributes<'a> {
    /// Behind a fixed part of so many bytes.
    pub fn of(answer: &'a Answer, fixed_bytes: usize) -> Self {
        Self(attributes(answer.body.get(fixed_bytes..).unwrap_or_default()).collect())
    }

    /// Empty where there is none.
    pub fn get(&self, kind: u16) -> &'a [u8] {
        self.0.get(&kind).copied().unwrap_or_default()
    }

    pub fn number(&self, kind: u16) -> Option<u32> {
        self.0.get(&kind).map(|value| match value.len() {
            1 => u32::from(value[0]),
            _ => u32_at(value, 0),
        })
    }

    pub fn ip(&self, kind: u16) -> Option<IpAddr> {
        let value = self.get(kind);
        let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
    }
}

/// Without the zero at the end.
pub(crate) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// A list; empty where this kernel has nothing of the kind.
pub(crate) fn list_or_none(
    listed: std::result::Result<Vec<Answer>, Errno>,
    what: &'static str,
) -> Result<Vec<Answer>> {
    match listed {
        Err(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::ENOENT) => Ok(Vec::new()),
        listed => listed.map_err(|errno| Error::kernel("list", what, errno)),
    }
}
