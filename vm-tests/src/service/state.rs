//! What only a service's memory knows, and the two questions about it: kept, or gone?

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

/// Observed state of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// PIDs inside the container, sorted.
    pub processes: Vec<u32>,
    /// Named values.
    pub facts: BTreeMap<String, String>,
}

impl State {
    /// Name of a fact that is a number and grows with every look at it.
    pub const AT_LEAST: &'static str = "accepted";

    /// Passes when `later` is the same life of the service.
    ///
    /// # Errors
    /// What differs.
    pub fn require_kept(&self, later: &State) -> Result<()> {
        ensure!(
            self.processes == later.processes,
            "processes {:?} are now {:?}",
            self.processes,
            later.processes
        );
        for (name, before) in &self.facts {
            let now = later.facts.get(name);
            let kept = match name.as_str() {
                Self::AT_LEAST => number(Some(before)) <= number(now),
                _ => Some(before) == now,
            };
            ensure!(kept, "{name} was {before:?} and is now {now:?}");
        }
        ensure!(self.facts.len() == later.facts.len(), "new facts: {:?}", later.facts);
        Ok(())
    }

    /// Passes when `later` is a new life: no process and no value of the old one.
    ///
    /// # Errors
    /// What survived.
    pub fn require_gone(&self, later: &State) -> Result<()> {
        let survivor = self.processes.iter().find(|pid| later.processes.contains(pid));
        ensure!(survivor.is_none(), "process {survivor:?} is still there");
        for (name, before) in &self.facts {
            let now = later.facts.get(name);
            let gone = match name.as_str() {
                Self::AT_LEAST => number(now) < number(Some(before)),
                _ => Some(before) != now,
            };
            ensure!(gone, "{name} is still {now:?}");
        }
        Ok(())
    }
}

fn number(text: Option<&String>) -> Option<u64> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(processes: &[u32], facts: &[(&str, &str)]) -> State {
        let facts = facts.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        State { processes: processes.to_vec(), facts }
    }

    #[test]
    fn kept_means_the_same_processes_and_values() {
        let before = state(&[7, 9], &[("key", "a"), (State::AT_LEAST, "9")]);
        before.require_kept(&state(&[7, 9], &[("key", "a"), (State::AT_LEAST, "10")])).unwrap();
        for other in [
            state(&[7], &[("key", "a"), (State::AT_LEAST, "9")]),
            state(&[7, 9], &[("key", ""), (State::AT_LEAST, "9")]),
            state(&[7, 9], &[("key", "a"), (State::AT_LEAST, "8")]),
            state(&[7, 9], &[("key", "a")]),
            state(&[7, 9], &[("key", "a"), (State::AT_LEAST, "9"), ("more", "")]),
        ] {
            before.require_kept(&other).unwrap_err();
        }
    }

    #[test]
    fn gone_means_that_nothing_is_left() {
        let before = state(&[7, 9], &[("key", "a"), (State::AT_LEAST, "9")]);
        before.require_gone(&state(&[8], &[("key", ""), (State::AT_LEAST, "2")])).unwrap();
        for other in [
            state(&[9], &[("key", ""), (State::AT_LEAST, "2")]),
            state(&[8], &[("key", "a"), (State::AT_LEAST, "2")]),
            state(&[8], &[("key", ""), (State::AT_LEAST, "9")]),
        ] {
            before.require_gone(&other).unwrap_err();
        }
    }
}
