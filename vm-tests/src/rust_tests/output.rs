//! What a test program prints, as the standard harness does and those who do as it does.

use std::collections::BTreeMap;

use test_frame::Missing;

/// How one test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Passed,
    /// With what it printed.
    Failed(String),
    Ignored(Missing),
}

/// Ends of all tests of a program.
pub(super) fn parse(text: &str) -> BTreeMap<String, Ended> {
    let mut ends = BTreeMap::new();
    let mut said: BTreeMap<&str, String> = BTreeMap::new();
    let mut speaker = None;
    for line in text.lines() {
        if let Some((name, end)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            let name = name.trim_end().trim_end_matches(" - should panic");
            if let Some(end) = parse_end(end) {
                ends.insert(name.to_owned(), end);
            }
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix(" ----")) {
            speaker = Some(name.trim_end_matches(" stdout"));
        } else if line == "failures:" || line.starts_with("test result: ") {
            speaker = None;
        } else if let Some(name) = speaker {
            let text = said.entry(name).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    for (name, end) in &mut ends {
        if let (Ended::Failed(reason), Some(text)) = (end, said.get(name.as_str())) {
            *reason = text.trim().to_owned();
        }
    }
    ends
}

/// `ok`, `FAILED`, `ignored`, `ignored, reason` (the standard harness), `ignored (reason)`
/// (libtest-mimic).
fn parse_end(end: &str) -> Option<Ended> {
    match end {
        "ok" => Some(Ended::Passed),
        "FAILED" => Some(Ended::Failed("it says nothing".to_owned())),
        _ => {
            let rest = end.strip_prefix("ignored")?;
            let inner = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
            let reason = inner.or_else(|| rest.strip_prefix(", ")).unwrap_or_default();
            let Ok(missing) = reason.parse::<Missing>();
            Some(Ended::Ignored(missing))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_frame::NeedKind;

    const STANDARD: &str = "
running 4 tests
test a ... ok
test b::c ... ignored, because of the weather
test d - should panic ... ok
test e ... FAILED

failures:

---- e stdout ----

thread 'e' panicked at src/lib.rs:1:1:
two is not one
note: run with `RUST_BACKTRACE=1`

failures:
    e

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    const OTHER: &str = "
running 3 tests
test short     ... ok
test much_more ... ignored (root: it needs root)
test bad       ... FAILED

failures:

---- bad ----
panicked at engine/main.rs:1:1:
two is not one


failures:
    bad

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn the_standard_harness_is_understood() {
        let ends = parse(STANDARD);
        assert_eq!(ends.len(), 4);
        assert_eq!(ends["a"], Ended::Passed);
        assert_eq!(ends["d"], Ended::Passed);
        let Ended::Failed(reason) = &ends["e"] else { panic!("{ends:?}") };
        assert!(reason.contains("two is not one") && !reason.contains("failures"), "{reason}");
        let weather = Missing { kind: NeedKind::Ignored, reason: "because of the weather".to_owned() };
        assert_eq!(ends["b::c"], Ended::Ignored(weather));
    }

    #[test]
    fn a_skip_of_ours_keeps_its_kind() {
        let ends = parse(OTHER);
        assert_eq!(ends["short"], Ended::Passed);
        let root = Missing { kind: NeedKind::Root, reason: "it needs root".to_owned() };
        assert_eq!(ends["much_more"], Ended::Ignored(root));
        let Ended::Failed(reason) = &ends["bad"] else { panic!("{ends:?}") };
        assert!(reason.ends_with("two is not one"), "{reason}");
    }
}
