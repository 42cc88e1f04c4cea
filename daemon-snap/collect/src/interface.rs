//! Network interfaces that a socket refers to by index.

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use nix::errno::Errno;
use snap_error::obstacle::SocketObstacle;
use snap_state::InterfaceV1;
use snap_sys::interface;
use std::os::fd::BorrowedFd;

/// Those of one socket, each once.
#[derive(Debug)]
pub(super) struct Interfaces<'a> {
    file: &'a Description,
    fd: BorrowedFd<'a>,
    list: Vec<InterfaceV1>,
}

impl<'a> Interfaces<'a> {
    pub fn of(file: &'a Description, fd: BorrowedFd<'a>) -> Self {
        Self { file, fd, list: Vec::new() }
    }

    /// 0 is no interface.
    pub fn note(&mut self, index: u32) -> Found<()> {
        if index == 0 || self.list.iter().any(|known| known.index == index) {
            return Ok(());
        }
        match interface::name_of(self.fd, index) {
            Ok(name) => self.list.push(InterfaceV1 { index, name }),
            Err(Errno::ENODEV) => {
                return refused(SocketObstacle::InterfaceGone { interface: index });
            }
            Err(e) => return Err(failed("SIOCGIFNAME", self.file.pid, self.file.fd)(e).into()),
        }
        Ok(())
    }

    pub fn into_list(self) -> Vec<InterfaceV1> {
        self.list
    }
}
