//! How an object of the file system is reached from outside.

use std::os::fd::BorrowedFd;

/// How an object is reached and what the kernel calls it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handle<'a> {
    /// A link in /proc that leads to it.
    pub magic: &'a str,
    /// Target of the link as text.
    pub link: &'a [u8],
    /// Opened with O_PATH: only the name counts.
    pub by_name_only: bool,
    pub writable: bool,
    /// A descriptor of the process, not a mapping or a directory that it is in.
    pub open: bool,
    /// Our duplicate of that descriptor.
    pub duplicate: Option<BorrowedFd<'a>>,
}

impl<'a> Handle<'a> {
    /// What a process has without a descriptor: a mapping, or its executable.
    pub fn of_link(magic: &'a str, link: &'a [u8]) -> Self {
        Self { magic, link, by_name_only: false, writable: false, open: false, duplicate: None }
    }
}
