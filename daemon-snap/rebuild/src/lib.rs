//! State → live: a file per kernel object kind, with the same name as in `collect` where both have
//! one.
//!
//! Order in the worker: shared objects once, on high descriptor numbers; then the process tree,
//! which inherits them and only moves them into place; then the tape. Knows `state`, `sys` and
//! `tape`, never `collect`.

pub mod bus;
pub mod bus_claim;
pub mod cgroup;
mod content;
pub mod context;
mod copy_areas;
mod deleted_file;
pub mod desk;
pub mod epoll;
pub mod eventfd;
pub mod fanotify;
pub mod inet;
pub mod inherit;
pub mod inhibitor;
pub mod inode;
pub mod inotify;
pub mod interface;
pub mod kernel_file;
pub mod keyring;
pub mod kind;
pub mod kinds;
pub mod label;
pub mod late;
mod load;
pub mod low_port;
mod memfd;
mod named_file;
pub mod namespaces;
pub mod netlink;
pub mod node;
pub mod numbers;
mod object;
mod objects;
pub mod open_file;
pub mod own_maps;
pub mod packet;
pub mod pidfd;
pub mod pipe;
pub mod plan;
pub mod posix_queue;
pub mod process;
mod process_file;
pub mod rebind;
pub mod reseed;
pub mod restore;
pub mod rights;
pub mod ring;
pub mod signalfd;
pub mod socket_options;
mod stall;
pub mod stand_in;
pub mod status_flags;
pub mod stopped;
pub mod stored;
pub mod sysv;
pub mod sysv_queue;
pub mod sysv_semaphore;
pub mod tape;
pub mod tcp;
pub mod tids;
pub mod timerfd;
pub mod trail;
pub mod unix;
mod unix_address;
mod unix_name;
mod unix_nameless;
pub mod unix_queue;
pub mod volatile;
pub mod volatile_file;
pub mod vsock;
mod working_directory;
pub mod zombie;
