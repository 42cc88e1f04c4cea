//! What systemd in the container says about a unit.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// Properties that [`UnitState`] is made of.
pub(super) const PROPERTIES: &str =
    "Id,LoadState,ActiveState,SubState,Result,MainPID,NRestarts,InvocationID,InactiveExitTimestampMonotonic";

/// A unit at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// Full name.
    pub name: String,
    /// `active`, `failed`, …
    pub active: String,
    /// `running`, `exited`, …
    pub sub: String,
    /// `success`, or what went wrong last.
    pub result: String,
    /// Main PID, 0 when there is none.
    pub main_pid: u32,
    /// Restarts by `Restart=` since it was started by somebody.
    pub restarts: u32,
    /// Changes with each start.
    pub invocation: String,
    /// When its current or last start began, CLOCK_MONOTONIC in µs.
    pub start_us: u64,
}

impl UnitState {
    /// Running, or done well where that is all it does.
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    pub(super) fn parse(text: &str) -> Result<UnitState> {
        let values = parse_properties(text);
        let value =
            |name: &str| values.get(name).copied().with_context(|| format!("systemctl shows no {name}"));
        let number =
            |name: &str| -> Result<u64> { value(name)?.parse().with_context(|| format!("reading {name}")) };
        Ok(UnitState {
            name: value("Id")?.to_owned(),
            active: value("ActiveState")?.to_owned(),
            sub: value("SubState")?.to_owned(),
            result: value("Result")?.to_owned(),
            main_pid: u32::try_from(number("MainPID")?).context("reading MainPID")?,
            restarts: u32::try_from(number("NRestarts")?).context("reading NRestarts")?,
            invocation: value("InvocationID")?.to_owned(),
            start_us: number("InactiveExitTimestampMonotonic")?,
        })
    }
}

/// `name=value` lines.
pub(super) fn parse_properties(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_state_is_read_from_what_systemctl_shows() {
        let text = "Result=success\nMainPID=71\nNRestarts=1\nId=a.service\nLoadState=loaded\nActiveState=active\n\
                    SubState=running\nInvocationID=3f\nInactiveExitTimestampMonotonic=2895404594\n";
        let unit = UnitState::parse(text).unwrap();
        assert!(unit.is_active());
        assert_eq!((unit.main_pid, unit.restarts, unit.start_us), (71, 1, 2_895_404_594));
        let error = UnitState::parse("Id=a.service\n").unwrap_err();
        assert!(error.to_string().contains("ActiveState"), "{error}");
    }
}
