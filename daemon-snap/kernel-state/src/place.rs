//! Where a service lives, and what it may change there.

use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::Pid;
use snap_sys::netns;
use snap_sys::proc::Status;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// A service's place, as of one moment.
#[derive(Debug)]
pub struct Place {
    main: Pid,
    /// Its network namespace where that is not ours.
    netns: Option<File>,
    network: (u64, u64),
    in_our_mounts: bool,
    may_change_network: bool,
    may_mount: bool,
}

impl Place {
    /// The place of a service of these processes. `as_root`: it was started with all that its
    /// bounding set allows, whatever it has given up since.
    ///
    /// # Errors
    /// When its main process is gone.
    pub fn of(main: Pid, processes: &[Pid], as_root: bool) -> Result<Self> {
        let mut capabilities = 0;
        for &pid in processes.iter().chain([&main]) {
            // Who ends meanwhile had no more than who is left.
            let Ok(status) = Status::of(pid, pid) else { continue };
            capabilities |= status.cap_permitted | status.cap_ambient;
            if as_root {
                capabilities |= status.cap_bounding;
            }
        }
        let is_ours = |kind: &str| Ok::<_, Error>(namespace(main, kind)?.1 == namespace(own(), kind)?.1);
        let (file, network) = namespace(main, "net")?;
        let in_our_network = is_ours("net")?;
        // In a user namespace of its own it has no power over what is ours.
        let in_our_users = is_ours("user")?;
        Ok(Self {
            main,
            netns: (!in_our_network).then_some(file),
            network,
            in_our_mounts: is_ours("mnt")?,
            may_change_network: capabilities & CAP_NET_ADMIN != 0 && (in_our_users || !in_our_network),
            may_mount: capabilities & CAP_SYS_ADMIN != 0 && in_our_users,
        })
    }

    /// That of this process.
    ///
    /// # Errors
    /// When /proc does not show our own namespaces.
    pub fn ours() -> Result<Self> {
        Self::of(own(), &[], false)
    }

    /// The same place of somebody who may do everything there.
    #[must_use]
    pub fn with_all_powers(self) -> Self {
        Self { may_change_network: true, may_mount: true, ..self }
    }

    /// Whether there is anything that it may change.
    pub fn may_change_anything(&self) -> bool {
        self.may_change_network || self.may_mount
    }

    /// Its main process.
    pub(crate) fn main(&self) -> Pid {
        self.main
    }

    /// Whether it may change interfaces, addresses, routes and filters of its network.
    pub fn may_change_network(&self) -> bool {
        self.may_change_network
    }

    /// Whether it may mount, and set up devices.
    pub fn may_mount(&self) -> bool {
        self.may_mount
    }

    /// Whether its mounts are ours.
    pub fn is_in_our_mounts(&self) -> bool {
        self.in_our_mounts
    }

    /// Whether its network is ours.
    pub fn is_in_our_network(&self) -> bool {
        self.netns.is_none()
    }

    pub(crate) fn network_id(&self) -> Option<(u64, u64)> {
        Some(self.network)
    }

    /// A socket in its network.
    pub(crate) fn socket(
        &self,
        family: i32,
        kind: i32,
        protocol: i32,
    ) -> std::result::Result<OwnedFd, Errno> {
        let ns: Option<BorrowedFd<'_>> = self.netns.as_ref().map(File::as_fd);
        netns::socket(ns, family, kind, protocol)
    }
}

fn own() -> Pid {
    Pid(std::process::id() as i32)
}

/// Open on a namespace of a process, with its device and inode.
fn namespace(pid: Pid, kind: &str) -> Result<(File, (u64, u64))> {
    let path = format!("/proc/{pid}/ns/{kind}");
    let open = || {
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        Ok((file, (metadata.dev(), metadata.ino())))
    };
    open().map_err(|e: std::io::Error| Error::io("open namespace", &path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_live_where_we_live() {
        let place = Place::of(own(), &[], false).unwrap();
        assert!(place.is_in_our_network() && place.is_in_our_mounts());
        if !nix::unistd::geteuid().is_root() {
            assert!(!place.may_change_network() && !place.may_mount());
        }
    }
}
