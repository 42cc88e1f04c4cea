//! How a test ends, and how many ended how.

use std::fmt;
use std::time::Duration;

use crate::need::{Missing, NeedKind};

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All holds.
    Passed,
    /// Something does not hold: what.
    Failed(String),
    /// It was not run, or gave up: what is missing here.
    Skipped(Missing),
}

/// The error of a test that finds out by itself that something is missing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub Missing);

impl Skip {
    /// The kernel lacks something.
    pub fn kernel(reason: impl Into<String>) -> Skip {
        Skip(Missing { kind: NeedKind::Kernel, reason: reason.into() })
    }

    /// The processor lacks something.
    pub fn processor(reason: impl Into<String>) -> Skip {
        Skip(Missing { kind: NeedKind::Processor, reason: reason.into() })
    }

    /// Something was recorded on another kernel, to which it is bound.
    pub fn recorded_kernel(reason: impl Into<String>) -> Skip {
        Skip(Missing { kind: NeedKind::RecordedKernel, reason: reason.into() })
    }

    /// Root does not have a capability.
    pub fn capability(reason: impl Into<String>) -> Skip {
        Skip(Missing { kind: NeedKind::Capability, reason: reason.into() })
    }
}

impl Verdict {
    /// Of a test that ended with this. An error is a failure unless somewhere in it there is a
    /// [`Skip`].
    pub fn of(result: anyhow::Result<()>) -> Verdict {
        match result {
            Ok(()) => Verdict::Passed,
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(Skip(missing)) => Verdict::Skipped(missing.clone()),
                None => Verdict::Failed(format!("{error:#}")),
            },
        }
    }
}

/// A tally. Its text form is what CI reads.
#[derive(Debug, Clone, Default)]
pub struct Count {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed: name and reason.
    pub failed: Vec<(String, String)>,
    /// Tests that were skipped: name, and what is missing.
    pub skipped: Vec<(String, Missing)>,
    /// Tests that passed although something happened: name and what.
    pub remarks: Vec<(String, String)>,
    /// Single checks in all these tests.
    pub checks: usize,
    /// Time that the tests took.
    pub took: Duration,
}

impl Count {
    pub(crate) fn add(&mut self, name: &str, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Failed(reason) => self.failed.push((name.to_owned(), reason)),
            Verdict::Skipped(missing) => self.skipped.push((name.to_owned(), missing)),
        }
    }

    pub(crate) fn absorb(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.remarks.extend(other.remarks);
        self.checks += other.checks;
        self.took += other.took;
    }

    /// Skips that no machine of a CI service may have.
    pub fn unexcused(&self) -> impl Iterator<Item = &(String, Missing)> {
        self.skipped.iter().filter(|(_, missing)| !missing.kind.is_beyond_ci())
    }

    /// Whether all is well; where `strict`, skips have to be excused.
    pub fn is_good(&self, strict: bool) -> bool {
        self.failed.is_empty() && !(strict && self.unexcused().next().is_some())
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn a_skip_is_known_by_its_type_however_deep_it_is() {
        let skip = Err::<(), _>(Skip::kernel("no keyrings")).context("outer").context("outermost");
        let wanted = Missing { kind: NeedKind::Kernel, reason: "no keyrings".to_owned() };
        assert_eq!(Verdict::of(skip), Verdict::Skipped(wanted));
        let failed = Verdict::of(Err(anyhow::anyhow!("kernel: no keyrings")));
        assert_eq!(failed, Verdict::Failed("kernel: no keyrings".to_owned()));
    }

    #[test]
    fn only_what_ci_cannot_have_passes_there() {
        let mut count = Count::default();
        count.add("a", Verdict::Passed);
        count.add("b", Verdict::of(Err(Skip::processor("no AVX-512").into())));
        assert!(count.is_good(true));
        count.add("c", Verdict::of(Err(Skip::kernel("no keyrings").into())));
        assert!(count.is_good(false) && !count.is_good(true));
        assert_eq!(count.unexcused().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["c"]);
        count.add("d", Verdict::Failed("two is one".to_owned()));
        assert!(!count.is_good(false));
        assert_eq!(count.to_string(), "1 passed, 1 failed, 2 skipped");
    }
}
