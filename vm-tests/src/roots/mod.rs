//! Root file systems: what one is made of ([`Recipe`]), a cache of built ones, and throw-away
//! copies to boot.

mod archive;
mod cache;
mod damage;
mod debs;
#[cfg(test)]
mod no_mirrors;
mod recipe;
mod toolchain;

pub use archive::backports;
pub use cache::{Scratch, cached, sweep};
pub use damage::flip_middle_byte;
pub use debs::downloaded;
pub use recipe::{Recipe, RootFile};
pub use toolchain::{Language, compiled};

/// Where built roots, copies and logs are; outside every work tree.
pub const CACHE_DIR: &str = "/var/cache/fastboot-tests";
