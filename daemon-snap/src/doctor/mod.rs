//! What this machine can and cannot do for fastboot, each with what follows from it.
//!
//! Found out by trying, not by version numbers. Changes nothing; the calls themselves are in
//! [`snap_sys::probe`].

mod boot;
mod finding;
mod kernel;
mod machine;
mod store;

pub use finding::Finding;
pub use store::volatile_file_system;

use serde::Serialize;
use std::path::Path;

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing that is necessary is missing.
    pub ok: bool,
    pub findings: Vec<Finding>,
}

/// Looks at everything; `store` is where images are kept.
pub fn examine(store: &Path) -> Report {
    let mut findings = kernel::examine();
    findings.extend(machine::examine());
    findings.extend(boot::examine(Path::new("/")));
    findings.extend(store::examine(store, Path::new("/")));
    Report { ok: findings.iter().all(|finding| finding.ok || !finding.necessary), findings }
}
