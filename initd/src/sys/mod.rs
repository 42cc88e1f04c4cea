//! Kernel interfaces: typed in, `io::Result` out, no policy, no logging. The only unsafe code of
//! the library.

pub mod descriptors;
pub mod exec;
pub mod mount;
pub mod peer;
#[cfg(feature = "test-hooks")]
pub mod plain_child;
pub mod priority;
pub mod process;
pub mod pulse;
pub mod socket;
