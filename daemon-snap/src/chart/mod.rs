//! `fastboot chart`: this boot as a picture, in the manner of `systemd-analyze plot`.

mod draw;
mod gather;

use serde::Serialize;

pub use draw::draw;
pub use gather::{Recorded, gather};

/// One boot. Moments are microseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Boot {
    /// Host name, kernel and systemd.
    pub machine: String,
    /// When systemd began.
    pub userspace_us: u64,
    /// When it had nothing more to start; `None`: it still has.
    pub finished_us: Option<u64>,
    /// What is drawn ends here.
    pub end_us: u64,
    /// By the moment of their start.
    pub services: Vec<Service>,
    /// In the order of time; empty where nobody has watched the disks.
    pub disk: Vec<DiskRate>,
}

/// One service of the boot.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Service {
    /// Its unit.
    pub unit: String,
    /// When systemd began to start it.
    pub start_us: u64,
    /// When it had been started; `None`: never.
    pub ready_us: Option<u64>,
    /// What fastboot had to do with it.
    #[serde(flatten)]
    pub how: How,
}

/// How a service was started.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum How {
    /// From its image.
    Restored {
        /// Where the time went, in order, in milliseconds.
        phases_ms: Vec<Phase>,
        /// Its cold start as measured when the image was taken, in milliseconds.
        cold_start_ms: Option<f64>,
    },
    /// It has an image, and started the ordinary way.
    Cold {
        /// Why.
        reason: String,
    },
    /// It has none.
    Other,
}

/// A part of a start.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Phase {
    /// As `fastboot status` calls it.
    pub name: String,
    /// Milliseconds.
    pub ms: f64,
}

/// What the disks did between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DiskRate {
    /// From here.
    pub from_us: u64,
    /// To here.
    pub to_us: u64,
    /// Bytes per second.
    pub read: f64,
    /// Bytes per second.
    pub written: f64,
}

impl Boot {
    /// One sentence about it.
    pub fn sentence(&self) -> String {
        let restored = self.services.iter().filter(|s| matches!(s.how, How::Restored { .. })).count();
        let cold = self.services.iter().filter(|s| matches!(s.how, How::Cold { .. })).count();
        let length = match self.finished_us {
            Some(finished_us) => {
                format!("{} ms of userspace", finished_us.saturating_sub(self.userspace_us) / 1000)
            }
            None => "not finished yet".to_owned(),
        };
        let others = self.services.len() - restored - cold;
        format!("{length}; {restored} services restored, {cold} with an image started cold, {others} others")
    }
}
