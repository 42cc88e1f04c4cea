//! Interfaces of then and their indices of today.

use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::InterfaceV1;
use snap_state::check::Corrupt;
use snap_sys::interface;
use std::os::fd::BorrowedFd;

/// Index of then, index of today.
#[derive(Debug)]
pub struct Indices(Vec<(u32, u32)>);

impl Indices {
    /// Looks all of them up by name.
    ///
    /// # Errors
    /// `Stale`: one does not exist.
    pub fn of(socket: BorrowedFd<'_>, interfaces: &[InterfaceV1]) -> Result<Self> {
        let today = |then: &InterfaceV1| {
            let name = String::from_utf8_lossy(&then.name);
            match interface::index_of(socket, &then.name) {
                Ok(index) => Ok((then.index, index)),
                Err(Errno::ENODEV) => Err(Error::stale(
                    ReasonCode::AddressMissing,
                    format!("network interface {name} does not exist yet"),
                )),
                Err(e) => Err(Error::kernel("SIOCGIFINDEX", name, e)),
            }
        };
        interfaces.iter().map(today).collect::<Result<_>>().map(Self)
    }

    /// The index of today; 0 stays 0.
    ///
    /// # Errors
    /// It was recorded without its name.
    pub fn today(&self, then: u32) -> Result<u32> {
        let known = self.0.iter().find(|(known, _)| *known == then).map(|(_, today)| *today);
        known.or((then == 0).then_some(0)).ok_or_else(|| Corrupt::Interface(then).into())
    }
}
