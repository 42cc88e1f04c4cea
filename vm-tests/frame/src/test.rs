//! What a test is.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use anyhow::Result;

use crate::checks::Checks;
use crate::need::{Missing, Need};
use crate::verdict::Verdict;

/// One test.
#[derive(Debug)]
pub struct Test {
    /// `family/name`; nobody else has it.
    pub name: String,
    /// Without these it is skipped.
    pub needs: Vec<Need>,
    /// What it does.
    pub run: Body,
    /// Whether it runs where nobody names it.
    pub when: When,
    /// A unit with threads that are numbered by counter, which in one boot of this test may lose
    /// the race for a number and be cold (README, Limits). Whoever makes use of that says so beside
    /// the verdict.
    pub may_lose_number: Option<&'static str>,
}

/// When a test runs although nobody names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// With everything that takes long.
    Full,
    /// Never.
    Named,
}

/// What a test by itself does.
pub type AloneBody = Box<dyn Fn(&mut Checks) -> Result<()>>;
/// What a test does that may run beside others.
pub type BesideBody = Box<dyn Fn() -> Result<()> + Send>;

/// What a test does.
pub enum Body {
    /// It runs while no other one of this process does. It fails with its error, and with any of
    /// its checks.
    Alone(AloneBody),
    /// It may run beside others of its kind. A panic is a failure.
    Beside(BesideBody),
    /// It shares with others what is too costly to be made for each.
    Together(Rc<dyn Together>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Body::Alone(_) => "Alone",
            Body::Beside(_) => "Beside",
            Body::Together(_) => "Together",
        })
    }
}

/// Runs several tests on what they share.
pub trait Together {
    /// Run those of these names. A test without a verdict ends as its checks do; one without checks
    /// has failed.
    ///
    /// # Errors
    /// What concerns all that have no verdict yet.
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()>;

    /// So many that only those are printed that have not passed.
    fn is_terse(&self) -> bool {
        false
    }
}

/// What came of tests that run together.
#[derive(Debug, Default)]
pub struct Report {
    parts: BTreeMap<String, Part>,
}

#[derive(Debug, Default)]
struct Part {
    checks: Checks,
    verdict: Option<Verdict>,
}

impl Report {
    /// The checks of one of them.
    pub fn checks(&mut self, name: &str) -> &mut Checks {
        &mut self.parts.entry(name.to_owned()).or_default().checks
    }

    /// One of them has ended, whatever its checks say.
    pub fn end(&mut self, name: &str, verdict: Verdict) {
        self.parts.entry(name.to_owned()).or_default().verdict = Some(verdict);
    }

    /// Verdict and checks of one, when all have ended with `whole`.
    pub(crate) fn take(&mut self, name: &str, whole: &Result<(), String>) -> (Verdict, Checks) {
        let Part { checks, verdict } = self.parts.remove(name).unwrap_or_default();
        let verdict = verdict.unwrap_or_else(|| match whole {
            Err(error) => Verdict::Failed(error.clone()),
            Ok(()) if checks.all().is_empty() => Verdict::Failed("nothing was looked at".to_owned()),
            Ok(()) => judge(Ok(()), &checks),
        });
        (verdict, checks)
    }
}

/// A test passes when it comes to its end and all its checks hold.
pub(crate) fn judge(result: Result<()>, checks: &Checks) -> Verdict {
    let failures: Vec<String> = checks
        .failures()
        .map(|check| format!("{}: {}", check.name, check.failure.as_deref().unwrap_or_default()))
        .collect();
    match Verdict::of(result) {
        Verdict::Passed if failures.is_empty() => Verdict::Passed,
        Verdict::Skipped(missing) if failures.is_empty() => Verdict::Skipped(missing),
        Verdict::Passed | Verdict::Skipped(_) => Verdict::Failed(failures.join("\n")),
        Verdict::Failed(reason) => Verdict::Failed([&failures[..], &[reason]].concat().join("\n")),
    }
}

/// What a plain function of a test returns: nothing, or a result.
pub trait Outcome {
    /// As a result.
    ///
    /// # Errors
    /// Its own.
    fn into_result(self) -> Result<()>;
}

impl Outcome for () {
    fn into_result(self) -> Result<()> {
        Ok(())
    }
}

impl<E: Into<anyhow::Error>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<()> {
        self.map_err(Into::into)
    }
}

/// Functions as tests with their names, all with the same needs: `tests![[Need::Root]; one,
/// other]`. Those that are forgotten are found by the compiler, as nobody uses them.
#[macro_export]
macro_rules! tests {
    ($needs:tt; $($name:ident),+ $(,)?) => {
        ::std::vec![$($crate::Test::beside(
            ::std::stringify!($name),
            &$needs,
            || $crate::Outcome::into_result($name()),
        )),+]
    };
}

impl Test {
    /// A test that runs always.
    pub fn new(name: impl Into<String>, needs: &[Need], run: Body) -> Test {
        Test { name: name.into(), needs: needs.to_vec(), run, when: When::Always, may_lose_number: None }
    }

    /// A test that runs by itself.
    pub fn alone(
        name: impl Into<String>,
        needs: &[Need],
        run: impl Fn(&mut Checks) -> Result<()> + 'static,
    ) -> Test {
        Test::new(name, needs, Body::Alone(Box::new(run)))
    }

    /// A test that may run beside others.
    pub fn beside(
        name: impl Into<String>,
        needs: &[Need],
        run: impl Fn() -> Result<()> + Send + 'static,
    ) -> Test {
        Test::new(name, needs, Body::Beside(Box::new(run)))
    }

    /// The same at another time.
    pub fn when(mut self, when: When) -> Test {
        self.when = when;
        self
    }

    /// The first part of its name.
    pub fn family(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// The first of its needs that is not met here.
    pub fn missing(&self) -> Option<Missing> {
        self.needs.iter().find_map(|need| need.missing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Skip;

    #[test]
    fn a_check_that_fails_outweighs_the_end_of_a_test() {
        let mut checks = Checks::default();
        assert_eq!(judge(Ok(()), &checks), Verdict::Passed);
        checks.note("two is one", Err(anyhow::anyhow!("it is not")));
        let failed = Verdict::Failed("two is one: it is not".to_owned());
        assert_eq!(judge(Ok(()), &checks), failed);
        assert_eq!(judge(Err(Skip::kernel("no luck").into()), &checks), failed);
        let both = Verdict::Failed("two is one: it is not\nthe end".to_owned());
        assert_eq!(judge(Err(anyhow::anyhow!("the end")), &checks), both);
    }

    #[test]
    fn a_test_of_which_nothing_is_said_has_failed() {
        let mut report = Report::default();
        report.checks("looked-at").note("one is one", Ok(()));
        report.end("ended", Verdict::Passed);
        let mut verdict = |name: &str, whole: &Result<(), String>| report.take(name, whole).0;
        assert_eq!(verdict("looked-at", &Ok(())), Verdict::Passed);
        assert_eq!(verdict("ended", &Err("no boot".to_owned())), Verdict::Passed);
        assert_eq!(verdict("forgotten", &Ok(())), Verdict::Failed("nothing was looked at".to_owned()));
        assert_eq!(verdict("cut off", &Err("no boot".to_owned())), Verdict::Failed("no boot".to_owned()));
    }
}
