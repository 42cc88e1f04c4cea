//! Addresses of unix sockets: names in the file system, abstract ones, none.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) fn path_of(address: &[u8]) -> Option<&Path> {
    (address.first().is_some_and(|b| *b != 0)).then(|| Path::new(std::ffi::OsStr::from_bytes(address)))
}

pub(super) fn show(address: &[u8]) -> String {
    match address.split_first() {
        None => "unnamed socket".into(),
        Some((0, name)) => format!("@{}", String::from_utf8_lossy(name)),
        Some(_) => String::from_utf8_lossy(address).into_owned(),
    }
}
