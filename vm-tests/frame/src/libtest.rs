//! The command line and the output of `cargo test`, for test programs that are built with `harness
//! = false`.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::run::Options;
use crate::test::{BesideBody, Body, Test};
use crate::verdict::Verdict;

thread_local! {
    /// Where and why a test of this thread panicked; `None` in threads without a test.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Run what the command line chooses of `tests`, all of which may run beside each other. Their
/// names are given without their family, which is that of the program.
pub fn main(tests: Vec<Test>) -> ExitCode {
    run(&Arguments::from_args(), tests)
}

/// The same for tests that change what the whole process is (its ids, its control group): one after
/// the other, and without another thread beside them.
pub fn main_one_by_one(tests: Vec<Test>) -> ExitCode {
    run(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, tests)
}

fn run(arguments: &Arguments, tests: Vec<Test>) -> ExitCode {
    let options = Options::from_environment();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let kept =
            PANIC.with_borrow_mut(|panic| panic.as_mut().map(|text| *text = info.to_string()).is_some());
        if !kept {
            before(info);
        }
    }));
    let trials = tests.into_iter().map(|test| trial(test, options)).collect();
    libtest_mimic::run(arguments, trials).exit_code()
}

fn trial(test: Test, options: Options) -> Trial {
    let missing = test.missing();
    let Test { name, run, .. } = test;
    let Body::Beside(body) = run else {
        return Trial::test(name, || Err("it cannot run beside others".into()));
    };
    Trial::ignorable_test(name, move || {
        let verdict = missing.map_or_else(|| judged(body), Verdict::Skipped);
        match verdict {
            Verdict::Passed => Ok(Completion::Completed),
            Verdict::Failed(reason) => Err(Failed::from(reason)),
            Verdict::Skipped(missing) if options.no_skips && !missing.kind.is_beyond_ci() => {
                Err(Failed::from(format!("a skip is a failure where CI runs: {missing}")))
            }
            Verdict::Skipped(missing) => Ok(Completion::ignored_with(missing)),
        }
    })
}

fn judged(body: BesideBody) -> Verdict {
    PANIC.set(Some(String::new()));
    let ended = catch_unwind(AssertUnwindSafe(body));
    let text = PANIC.take().unwrap_or_default();
    ended.map_or(Verdict::Failed(text), Verdict::of)
}
