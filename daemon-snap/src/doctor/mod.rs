//! What this machine can and cannot do for fastboot, each with what follows from it.
//!
//! Found out by trying, not by version numbers. Changes nothing; the calls themselves are in [`snap_sys::probe`].

mod boot;
mod kernel;
mod machine;
mod store;

use serde::Serialize;
use std::path::Path;

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing that is necessary is missing.
    pub ok: bool,
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name.
    pub name: &'static str,
    /// It is there and as it should be.
    pub ok: bool,
    /// Without it nothing can be taken, or nothing restored.
    pub necessary: bool,
    /// What was seen.
    pub found: String,
    /// What follows from that.
    pub consequence: String,
}

impl Finding {
    /// Something without which fastboot is of no use here.
    fn necessary(name: &'static str, seen: Seen, otherwise: &str) -> Self {
        Self::of(name, true, seen, otherwise)
    }

    /// Something without which it does less.
    fn useful(name: &'static str, seen: Seen, otherwise: &str) -> Self {
        Self::of(name, false, seen, otherwise)
    }

    fn of(name: &'static str, necessary: bool, seen: Seen, otherwise: &str) -> Self {
        let (ok, found) = match seen {
            Ok(found) => (true, found),
            Err(found) => (false, found),
        };
        let consequence = if ok { String::new() } else { otherwise.to_owned() };
        Self { name, ok, necessary, found, consequence }
    }

    /// The same with something to know even though all is well.
    fn but(mut self, note: &str) -> Self {
        if self.ok {
            note.clone_into(&mut self.consequence);
        }
        self
    }
}

/// What was seen of something that is as it should be, or of something that is not.
type Seen = Result<String, String>;

/// Looks at everything; `store` is where images are kept.
pub fn examine(store: &Path) -> Report {
    let mut findings = kernel::examine();
    findings.extend(machine::examine());
    findings.extend(boot::examine(Path::new("/")));
    findings.extend(store::examine(store, Path::new("/")));
    Report { ok: findings.iter().all(|finding| finding.ok || !finding.necessary), findings }
}
