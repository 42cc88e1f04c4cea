//! What was: plain, serialisable structs. No descriptors, no system calls, no addresses of ours.
//!
//! A shared kernel object has one entry in one table of [`TreeV1`]; users hold its id.
//! A kind of object has a file of its own, with what has to hold for it (`check`) beside what it is.
//! What may not live here: anything that reads or changes the running system.

pub mod bands;
mod bus;
pub mod bus_framing;
mod cgroup;
pub mod check;
mod epoll;
mod eventfd;
mod fanotify;
mod file;
mod ids;
mod inet;
mod inhibitor;
mod inode;
mod inotify;
mod kernel_file;
mod keyring;
mod kind;
mod label;
mod lock;
mod memory;
mod netlink;
mod node;
mod packet;
mod page;
mod pidfd;
mod pipe;
mod process;
mod rebind;
mod ring;
pub mod sections;
mod signalfd;
mod socket;
mod stored;
mod sysv;
mod tcp;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod thread;
mod timerfd;
mod tree;
mod unix;
mod volatile;
mod vsock;
mod zombie;

pub use bands::outside_bands;
pub use bus::*;
pub use cgroup::*;
pub use epoll::*;
pub use eventfd::*;
pub use fanotify::*;
pub use file::*;
pub use ids::*;
pub use inet::*;
pub use inhibitor::*;
pub use inode::*;
pub use inotify::*;
pub use kernel_file::*;
pub use keyring::*;
pub use label::*;
pub use lock::*;
pub use memory::*;
pub use netlink::*;
pub use node::*;
pub use packet::*;
pub use page::*;
pub use pidfd::*;
pub use pipe::*;
pub use process::*;
pub use rebind::*;
pub use ring::*;
pub use signalfd::*;
pub use socket::*;
pub use stored::*;
pub use sysv::*;
pub use tcp::*;
pub use thread::*;
pub use timerfd::*;
pub use tree::*;
pub use unix::*;
pub use volatile::*;
pub use vsock::*;
pub use zombie::*;
