//! How many passed, failed, and were skipped, and why.

use std::fmt;

/// A tally. Its text form is what CI reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// A reason for each.
    pub(super) skipped: Vec<String>,
}

impl Count {
    pub(super) fn passed(passed: usize) -> Count {
        Count { passed, ..Count::default() }
    }

    pub(super) fn failed(failed: usize) -> Count {
        Count { failed, ..Count::default() }
    }

    pub(super) fn add(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped.extend(other.skipped);
    }

    /// Skips for another reason than that there are no virtual machines here.
    pub(super) fn unexcused(&self) -> impl Iterator<Item = &String> {
        self.skipped.iter().filter(|reason| !reason.contains("/dev/kvm"))
    }

    /// Read the results out of what `cargo test` prints.
    pub(super) fn of_cargo_test(text: &str) -> Count {
        let mut count = Count::default();
        for line in text.lines() {
            if let Some(results) = line.strip_prefix("test result: ") {
                count.passed += number_before(results, " passed");
                count.failed += number_before(results, " failed");
            } else if let Some((name, reason)) =
                line.strip_prefix("test ").and_then(|line| line.split_once(" ... ignored"))
            {
                count.skipped.push(format!("{name}{reason}"));
            }
        }
        count
    }
}

fn number_before(text: &str, word: &str) -> usize {
    let number = text.split(word).next().and_then(|before| before.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
running 3 tests
test a ... ok
test b::c ... ignored, needs /dev/kvm
test d ... ignored

test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 40 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn results_of_all_test_binaries_are_added_up() {
        let count = Count::of_cargo_test(TEXT);
        assert_eq!(count.to_string(), "41 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn only_a_missing_kvm_excuses_a_skip() {
        let count = Count::of_cargo_test(TEXT);
        assert_eq!(count.unexcused().collect::<Vec<_>>(), ["d"]);
    }
}
