//! System calls, typed in and `Result` out: no policy, no logging. The only place beside `tape/` with unsafe code.

pub mod fork;
pub mod limits;
pub mod own;
pub mod procfs_own;
pub mod rebuild;
