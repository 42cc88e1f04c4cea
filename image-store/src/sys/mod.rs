//! Kernel interfaces that the standard library and nix do not cover safely. The only unsafe code of
//! the crate. Typed in, `io::Result` out; no policy, no logging.

pub(crate) mod direct;
pub(crate) mod readahead;
pub(crate) mod resident;
