//! Running tests one after the other, with a line for each and a count at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;

use crate::checks::Checks;
use crate::test::{Body, Report, Test, Together, judge};
use crate::verdict::{Count, Verdict};

/// How to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A skip is a failure unless it is excused.
    pub no_skips: bool,
}

impl Options {
    /// As the environment has it: with `CI=true` skips have to be excused.
    pub fn from_environment() -> Options {
        let ci = std::env::var("CI").unwrap_or_default();
        Options { no_skips: !matches!(ci.as_str(), "" | "0" | "false") }
    }
}

/// Run the tests in their order, print what comes of them, and last the count, alone on its line.
///
/// Returns whether all is well.
pub fn run(tests: &[Test], options: Options) -> bool {
    let mut total = Count::default();
    let mut lines = Vec::new();
    for family in tests.chunk_by(|one, next| one.family() == next.family()) {
        let name = family.first().map_or("", |test| test.family());
        println!("\n== {name}");
        let count = run_family(family);
        let line = format!("{name}: {count}, {} checks, in {:.0} s", count.checks, count.took.as_secs_f64());
        println!("{line}");
        lines.push(line);
        total.absorb(count);
    }
    println!("\n== Result");
    for line in lines {
        println!("{line}");
    }
    for (name, remark) in &total.remarks {
        println!("remark   {name}: {remark}");
    }
    for (name, missing) in &total.skipped {
        println!("skipped  {name}: {missing}");
    }
    for (name, reason) in &total.failed {
        println!("FAILED   {name}: {reason}");
    }
    let unexcused = total.unexcused().count();
    if options.no_skips && unexcused > 0 {
        println!("{unexcused} skips are failures here: what they need can be had");
    }
    println!("{total}");
    total.is_good(options.no_skips)
}

fn run_family(tests: &[Test]) -> Count {
    let mut count = Count::default();
    let mut done = vec![false; tests.len()];
    for (index, test) in tests.iter().enumerate() {
        if done[index] {
            continue;
        }
        if let Some(missing) = test.missing() {
            end(&mut count, test, Verdict::Skipped(missing), &Checks::default(), None);
            continue;
        }
        let started = Instant::now();
        match &test.run {
            Body::Alone(body) => {
                let mut checks = Checks::default();
                let result = caught(|| body(&mut checks));
                end(&mut count, test, judge(result, &checks), &checks, Some(started));
            }
            Body::Beside(body) => {
                let result = caught(body);
                end(&mut count, test, Verdict::of(result), &Checks::default(), Some(started));
            }
            Body::Together(shared) => {
                let mates: Vec<usize> =
                    (index..tests.len()).filter(|&at| is_mate(&tests[at], shared)).collect();
                let chosen: Vec<&Test> = mates.iter().map(|&at| &tests[at]).collect();
                run_together(shared.as_ref(), &chosen, &mut count);
                mates.into_iter().for_each(|at| done[at] = true);
            }
        }
        count.took += started.elapsed();
    }
    count
}

fn is_mate(test: &Test, shared: &Rc<dyn Together>) -> bool {
    matches!(&test.run, Body::Together(other) if Rc::ptr_eq(shared, other)) && test.missing().is_none()
}

fn run_together(shared: &dyn Together, tests: &[&Test], count: &mut Count) {
    let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
    let mut report = Report::default();
    let whole = caught(|| shared.run(&names, &mut report)).map_err(|error| format!("{error:#}"));
    for test in tests {
        let (verdict, checks) = report.take(&test.name, &whole);
        if shared.is_terse() && verdict == Verdict::Passed {
            count.passed += 1;
            count.checks += checks.all().len();
        } else {
            end(count, test, verdict, &checks, None);
        }
    }
}

/// A panic becomes an error.
fn caught(run: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(anyhow::anyhow!("it panicked: {}", text.unwrap_or("without words")))
    })
}

fn end(count: &mut Count, test: &Test, verdict: Verdict, checks: &Checks, started: Option<Instant>) {
    let name = &test.name;
    let took = started.map_or_else(String::new, |at| format!(" ({:.1} s)", at.elapsed().as_secs_f64()));
    match &verdict {
        Verdict::Passed => println!("ok    {name}{took}"),
        Verdict::Failed(reason) => println!("FAIL  {name}{took}: {reason}"),
        Verdict::Skipped(missing) => println!("skip  {name}: {missing}"),
    }
    for remark in checks.remarks() {
        println!("      {remark}");
        count.remarks.push((name.clone(), remark.clone()));
    }
    count.checks += checks.all().len();
    count.add(name, verdict);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need::Need;
    use std::cell::RefCell;

    const NOT_HERE: Need = Need::Program { name: "no-such-program", package: "no-such-package" };

    #[derive(Default)]
    struct Shared {
        runs: RefCell<Vec<Vec<String>>>,
    }

    impl Together for Shared {
        fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
            self.runs.borrow_mut().push(names.iter().map(|name| (*name).to_owned()).collect());
            for name in names {
                report.checks(name).note("it is there", Ok(()));
            }
            Ok(())
        }
    }

    #[test]
    fn those_who_share_run_once_and_without_whom_lacks_something() {
        let shared = Rc::new(Shared::default());
        let test = |name: &str, needs: &[Need]| {
            let shared: Rc<dyn Together> = Rc::<Shared>::clone(&shared);
            Test::new(name, needs, Body::Together(shared))
        };
        let tests = [test("f/a", &[]), test("f/b", &[NOT_HERE]), test("f/c", &[])];
        let count = run_family(&tests);
        assert_eq!(*shared.runs.borrow(), [["f/a", "f/c"]]);
        assert_eq!(count.to_string(), "2 passed, 0 failed, 1 skipped");
        assert_eq!(count.checks, 2);
    }

    #[test]
    fn a_test_that_lacks_something_does_not_run_and_one_that_panics_ends_alone() {
        let tests = [
            Test::alone("f/a", &[NOT_HERE], |_| panic!("it must not run")),
            Test::alone("f/b", &[], |_| panic!("out of luck")),
            Test::alone("f/c", &[], |checks| {
                checks.remark("the sun shone");
                Ok(())
            }),
        ];
        let count = run_family(&tests);
        assert_eq!(count.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(count.failed, [("f/b".to_owned(), "it panicked: out of luck".to_owned())]);
        assert_eq!(count.remarks, [("f/c".to_owned(), "the sun shone".to_owned())]);
        assert!(count.skipped[0].1.reason.contains("no-such-package"));
        assert!(!run(&tests, Options { no_skips: false }));
        assert!(run(&tests[2..], Options { no_skips: true }));
        assert!(!run(&[Test::alone("f/a", &[NOT_HERE], |_| Ok(()))], Options { no_skips: true }));
        assert!(run(&[Test::alone("f/a", &[NOT_HERE], |_| Ok(()))], Options { no_skips: false }));
    }
}
