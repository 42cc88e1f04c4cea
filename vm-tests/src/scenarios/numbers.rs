//! Services with threads that are numbered by counter: whoever forks while they are restored may
//! get one of their numbers.

use std::cell::{Cell, RefCell};

use crate::fastboot::StatusUnit;

/// The reason of a cold start for which somebody else was given such a number. Whoever finds a
/// number in use that was to be chosen (`pid-taken`) has another reason, and no excuse.
const TAKEN: &str = "thread-id-taken";

/// Which service of the scenario that runs may lose a number, and whether it has. Once only: who
/// loses one in each boot is never seen restored.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    may_lose: Cell<Option<&'static str>>,
    lost: RefCell<Option<String>>,
}

impl Numbers {
    /// Another scenario, with what it declares.
    pub(super) fn begin(&self, may_lose: Option<&'static str>) {
        self.may_lose.set(may_lose);
        self.lost.take();
    }

    /// Whether this one is cold because it has lost a number, and may.
    pub(super) fn excuse(&self, said: &StatusUnit) -> bool {
        self.may_lose.get() == Some(said.unit.as_str())
            && said.outcome == "cold"
            && said.reason_code.as_deref() == Some(TAKEN)
            && self.lost.borrow().is_none()
    }

    /// The excuse of a boot is used up.
    pub(super) fn note(&self, said: &StatusUnit, boot: u32) {
        let reason = said.reason.as_deref().unwrap_or(TAKEN);
        let text = format!("{} lost a number in boot {boot} and was cold in it: {reason}", said.unit);
        self.lost.replace(Some(text));
    }

    /// What happened.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(unit: &str, outcome: &str, code: &str) -> StatusUnit {
        StatusUnit {
            unit: unit.to_owned(),
            outcome: outcome.to_owned(),
            reason_code: Some(code.to_owned()),
            reason: None,
            restore_ms: None,
            main_pid: None,
            phases_ms: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn only_who_is_declared_is_excused_and_once() {
        let numbers = Numbers::default();
        let lost = said("a.service", "cold", TAKEN);
        assert!(!numbers.excuse(&lost));
        numbers.begin(Some("a.service"));
        assert!(!numbers.excuse(&said("a.service", "cold", "image-corrupt")));
        assert!(!numbers.excuse(&said("a.service", "cold", "pid-taken")));
        assert!(!numbers.excuse(&said("b.service", "cold", TAKEN)));
        assert!(numbers.excuse(&lost) && numbers.lost().is_none());
        numbers.note(&lost, 2);
        assert!(numbers.lost().unwrap().contains("boot 2") && !numbers.excuse(&lost));
        numbers.begin(Some("a.service"));
        assert!(numbers.excuse(&lost));
    }
}
