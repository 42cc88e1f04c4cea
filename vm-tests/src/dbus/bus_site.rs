//! One bus, and how long is waited for what happens on it.

use std::time::Duration;

use anyhow::Result;

use crate::container::{BootOptions, Container};
use crate::site::Site;

/// Longest for a boot.
pub const BOUND: Duration = Duration::from_secs(60);
/// Longest until a restored service has heard or done what is expected of it.
pub const SOON: Duration = Duration::from_secs(10);

/// One bus: its machine from boot to boot.
pub struct BusSite<'a> {
    pub bus: &'a str,
    pub machine: Site,
}

impl BusSite<'_> {
    /// Boot and wait for nothing.
    pub fn start(&mut self) -> Result<Container> {
        self.machine.start(&BootOptions::default())
    }
}
