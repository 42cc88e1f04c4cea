//! System calls, typed in and `Result` out: no policy, no logging. The only place beside `tape/` with unsafe code.

pub mod audit;
pub mod dbus;
pub mod fdquery;
pub mod fork;
pub mod hook;
pub mod inject;
pub mod interface;
pub mod kcmp;
pub mod limits;
pub mod multicast;
pub mod netns;
pub mod own;
pub mod pagemap;
pub mod pidfd;
pub mod premap;
pub mod probe;
pub mod proc;
pub mod procfs_own;
pub mod ptrace;
pub mod rebuild;
pub mod sched;
pub mod sock_diag;
pub mod sysvipc;
pub mod tcp_repair;
pub mod vmread;
pub mod xattr;
