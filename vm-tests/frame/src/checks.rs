//! What one test looked at and how it came out.

use anyhow::Result;

/// A question with its answer.
#[derive(Debug)]
pub struct Check {
    /// A sentence that holds when the check passes.
    pub name: String,
    /// Why it does not hold.
    pub failure: Option<String>,
}

/// Checks in the order in which they were made. Each is printed at once, so that a long run shows
/// where it is.
#[derive(Debug, Default)]
pub struct Checks {
    list: Vec<Check>,
    remarks: Vec<String>,
}

impl Checks {
    /// Note one result; returns whether it passed.
    pub fn note(&mut self, name: impl Into<String>, result: Result<()>) -> bool {
        let check = Check { name: name.into(), failure: result.err().map(|error| format!("{error:#}")) };
        match &check.failure {
            None => println!("  ok    {}", check.name),
            Some(why) => println!("  FAIL  {}: {why}", check.name),
        }
        self.list.push(check);
        self.list.last().is_some_and(|check| check.failure.is_none())
    }

    /// Something happened that the test declares as possible; it stands beside the verdict.
    pub fn remark(&mut self, sentence: impl Into<String>) {
        self.remarks.push(sentence.into());
    }

    /// All, in order.
    pub fn all(&self) -> &[Check] {
        &self.list
    }

    /// What stands beside the verdict.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Those that do not hold.
    pub fn failures(&self) -> impl Iterator<Item = &Check> {
        self.list.iter().filter(|check| check.failure.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_keeps_its_whole_reason() {
        let mut checks = Checks::default();
        assert!(checks.note("one is one", Ok(())));
        assert!(!checks.note("two is one", Err(anyhow::anyhow!("inner").context("outer"))));
        let failed: Vec<_> = checks.failures().map(|check| check.failure.clone().unwrap()).collect();
        assert_eq!(failed, ["outer: inner"]);
    }
}
