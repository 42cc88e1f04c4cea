//! What became of this boot, and of those before.

pub mod chain;
pub mod history;
mod report;
mod summary;
mod times;

pub use report::{BootReport, UnitRow, boot_id, cold_in_this_boot, missing_in_this_boot};
pub use summary::{Span, Summary, counted};
pub use times::Chains;
