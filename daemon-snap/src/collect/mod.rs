//! Live → state: a file per kernel object kind. Prefers reading from outside; injects system calls only for what has no
//! other way. Knows `state` and `sys`, never `rebuild`.

mod bus;
mod cgroup;
mod controller;
mod epoll;
mod eventfd;
mod fanotify;
mod file;
mod gate;
mod inet;
mod inhibitor;
mod inode;
mod inotify;
mod inside;
mod interface;
mod kernel_file;
mod keyring;
mod label;
mod landlock;
mod lock;
mod memory;
mod multicast;
mod netlink;
mod packet;
mod pages;
mod pidfd;
mod pipe;
mod process;
mod ring;
mod seccomp;
mod sharing;
mod signalfd;
mod socket_options;
mod stored;
mod sysv;
mod tcp;
mod thread;
mod timerfd;
mod timers;
mod unix;
mod unix_queue;
mod volatile;
mod vsock;
mod zombie;

pub(crate) use cgroup::collect_cgroups;
pub(crate) use file::{Descriptors, collect_descriptors};
pub(crate) use inode::Inodes;
pub(crate) use inside::{Insides, collect_insides};
pub(crate) use label::{Labels, collect_confinement};
pub(crate) use lock::collect_hidden_locks;
pub(crate) use memory::{AddressSpace, collect_address_space};
pub(crate) use pages::{collect_content, collect_pages, count_own_pages};
pub(crate) use process::{Directories, collect_directories, collect_process};
pub(crate) use seccomp::Filters;
pub(crate) use sharing::Sharing;
pub(crate) use sysv::{inspect_objects, list_objects};
pub(crate) use thread::{OutsideThread, collect_thread};
pub(crate) use volatile::collect_volatile_files;
pub(crate) use zombie::collect_zombies;

use crate::bus::BusAccess;
use crate::error::{Blocker, Error, Part, Result};
use crate::state::Pid;
use std::path::PathBuf;

/// Where pages go; implemented by the image writer and by tests.
pub trait PageSink {
    /// Appends whole pages and returns the absolute image offset of the first one.
    ///
    /// # Errors
    /// The store's error (full disk …).
    fn append_pages(&mut self, bytes: &[u8]) -> Result<u64>;
}

impl PageSink for image_store::ImageWriter {
    fn append_pages(&mut self, bytes: &[u8]) -> Result<u64> {
        Ok(image_store::ImageWriter::append_pages(self, bytes)?)
    }
}

/// What is special about the tree that is dumped.
#[derive(Clone, Debug, Default)]
pub struct CollectOptions {
    /// A systemd service: it may have mount, network, IPC, UTS, user and cgroup namespaces of its own, and its journal streams
    /// are attached to today's journal.
    pub unit: bool,
    /// Directory of the unit's control group; groups below it are recorded. `None`: all processes have to be in one group.
    pub cgroup: Option<PathBuf>,
    /// Directories whose content does not outlive a reboot although their file system might (RuntimeDirectory=, PrivateTmp=), as the
    /// unit sees them. Files below travel in the image.
    pub volatile_roots: Vec<PathBuf>,
    /// Sockets that systemd holds too.
    pub activation: Vec<ActivationSocket>,
    /// What systemd keeps for the unit (`FDSTORE=1`), in its order.
    pub stored: Vec<StoredDescriptor>,
    /// Connections to the system bus.
    pub bus: BusAccess,
    pub lost_peer: LostPeer,
}

/// What becomes of connections to somebody outside the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostPeer {
    #[default]
    Refuse,
    /// After the restore the peer is gone: end of file, or reset.
    Close,
}

/// No type of a socket: a named FIFO (ListenFIFO=).
pub const FIFO: i32 = 0;

/// A socket, or a FIFO, that systemd passes as `LISTEN_FDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivationSocket {
    /// As in [`crate::state::UnixSocketV1::address`], or `sockaddr_in`/`sockaddr_in6` bytes as getsockname(2) gives them. Of a FIFO its
    /// path.
    pub address: Vec<u8>,
    /// SOCK_STREAM …, or [`FIFO`].
    pub socket_type: i32,
    /// From `LISTEN_FDNAMES`.
    pub name: Option<String>,
}

/// A descriptor in systemd's store, as systemd describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StoredDescriptor {
    /// `FDNAME=`.
    pub name: String,
    /// `st_mode`, `st_dev`, `st_ino` and `st_rdev` of stat(2).
    pub mode: u32,
    pub device: u64,
    pub inode: u64,
    pub special_device: u64,
    /// Where its link in /proc/1/fd leads.
    pub path: Vec<u8>,
    /// Access mode and status flags.
    pub flags: i32,
}

impl StoredDescriptor {
    /// Nothing but the name may tell one from the other.
    pub fn is_alike(&self, other: &Self) -> bool {
        let object = |one: &Self| (one.mode, one.device, one.inode, one.special_device, one.flags);
        object(self) == object(other) && self.path == other.path
    }
}

/// Reasons not to dump, gathered while everything is looked at.
#[derive(Debug, Default)]
pub(crate) struct Blockers(Vec<Blocker>);

impl From<&[Blocker]> for Blockers {
    fn from(found: &[Blocker]) -> Self {
        Self(found.to_vec())
    }
}

impl Blockers {
    pub fn add(&mut self, pid: Pid, part: Part, kind: impl Into<String>) {
        self.0.push(Blocker { pid, part, kind: kind.into() });
    }

    /// Keeps the value; turns a refusal into a blocker.
    pub fn note<T>(&mut self, pid: Pid, part: Part, found: Found<T>) -> Result<Option<T>> {
        match found {
            Ok(value) => Ok(Some(value)),
            Err(Trouble::Refused(kind)) => {
                self.add(pid, part, kind);
                Ok(None)
            }
            Err(Trouble::Failed(e)) => Err(e),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sorted, each once.
    pub fn into_list(mut self) -> Vec<Blocker> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

/// Why an object could not be collected.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Cannot be carried; the text completes "fd 7 is …".
    Refused(String),
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

/// An object, or why not.
pub(crate) type Found<T> = std::result::Result<T, Trouble>;

/// Shorthand for [`Trouble::Refused`].
pub(crate) fn refused<T>(kind: impl Into<String>) -> Found<T> {
    Err(Trouble::Refused(kind.into()))
}

/// The error of a system call on an object of a recorded process.
pub(crate) fn failed<T: std::fmt::Display>(
    step: &'static str,
    pid: Pid,
    what: T,
) -> impl Fn(nix::errno::Errno) -> Error + use<T> {
    move |errno| match errno {
        nix::errno::Errno::ESRCH => Error::Gone { pid, step },
        _ => Error::kernel(step, format_args!("pid {pid} {what}"), errno),
    }
}
