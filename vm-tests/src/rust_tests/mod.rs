//! The tests that `cargo test` runs, as tests of the frame: unit tests, and those of the engine.
//!
//! Their names are `PACKAGE/TARGET/NAME`, as `image-store/lib/budget::tests::…` or `initd/shim/…`;
//! those of the engine are `engine/NAME`. Who asks for one of them has all test programs built.

mod output;
mod program;

use std::rc::Rc;

use anyhow::Result;
use test_frame::{Body, Report, Source, Test, Together, Verdict};

use output::Ended;
use program::{Program, Target};

/// The family of the engine's tests, and the target that they are in.
const ENGINE: &str = "engine";

/// The engine first, which is asked for most, then everything of each package of the workspace.
///
/// # Errors
/// cargo does not know its packages.
pub fn sources() -> Result<Vec<Source>> {
    let engine = Source::new(ENGINE, || tests_of(&program::build(Target::Test(ENGINE))?));
    let rest = || {
        let programs = program::build(Target::All)?;
        tests_of(&programs.into_iter().filter(|program| program.target != ENGINE).collect::<Vec<_>>())
    };
    let rest = Source { families: program::packages()?, load: Box::new(rest) };
    Ok(vec![engine, rest])
}

fn tests_of(programs: &[Program]) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for program in programs {
        let prefix = match program.target.as_str() {
            ENGINE => ENGINE.to_owned(),
            target => format!("{}/{target}", program.package),
        };
        let names = program.names()?;
        let shared: Rc<dyn Together> = Rc::new(Whole { program: program.clone(), prefix: prefix.clone() });
        let test = |name| Test::new(format!("{prefix}/{name}"), &[], Body::Together(Rc::clone(&shared)));
        tests.extend(names.into_iter().map(test));
    }
    Ok(tests)
}

/// A test program runs all that is wanted of it at once. What its tests need it knows itself, and
/// says so.
struct Whole {
    program: Program,
    prefix: String,
}

impl Together for Whole {
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let own = |name: &str| name.strip_prefix(&self.prefix).map(|rest| rest[1..].to_owned());
        let wanted: Vec<String> = names.iter().filter_map(|name| own(name)).collect();
        println!("{}: {} tests", self.prefix, wanted.len());
        let said = self.program.run(&wanted)?;
        for name in wanted {
            let verdict = match said.ends.get(&name) {
                Some(Ended::Passed) => Verdict::Passed,
                Some(Ended::Failed(reason)) => Verdict::Failed(reason.clone()),
                Some(Ended::Ignored(missing)) => Verdict::Skipped(missing.clone()),
                None => Verdict::Failed(format!("it has not ended: {}", said.end)),
            };
            report.end(&format!("{}/{name}", self.prefix), verdict);
        }
        Ok(())
    }

    fn is_terse(&self) -> bool {
        true
    }
}
