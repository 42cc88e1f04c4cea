//! The bus as `busctl` shows it from inside a container.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::container::Container;

/// One name on the bus.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Name {
    pub name: String,
    pub pid: Option<u32>,
    pub user: Option<String>,
    /// Unique name of the owner.
    pub connection: Option<String>,
    pub unit: Option<String>,
}

/// What busctl prints of an answer.
#[derive(Debug, Deserialize)]
struct Answer<T> {
    data: T,
}

/// A method that answers one number.
pub(super) fn call(
    machine: &Container,
    destination: &str,
    path: &str,
    interface: &str,
    rest: &[&str],
) -> Result<u64> {
    let answer: Answer<(u64,)> = raw_call(machine, destination, path, interface, rest)?;
    Ok(answer.data.0)
}

fn raw_call<T: for<'a> Deserialize<'a>>(
    machine: &Container,
    destination: &str,
    path: &str,
    interface: &str,
    rest: &[&str],
) -> Result<T> {
    let mut arguments =
        vec!["busctl", "--system", "--json=short", "--timeout=10", "call", destination, path, interface];
    arguments.extend(rest);
    let text = machine.run(&arguments)?.success()?;
    serde_json::from_str(&text).with_context(|| format!("reading busctl's {text:?}"))
}

/// Every name that somebody owns.
pub(super) fn names(machine: &Container) -> Result<Vec<Name>> {
    let text = machine.run(&["busctl", "--system", "--json=short", "list"])?.success()?;
    let all: Vec<Name> = serde_json::from_str(&text).with_context(|| format!("reading busctl's {text:?}"))?;
    Ok(all.into_iter().filter(|name| name.pid.is_some()).collect())
}

/// Match rules by unique name.
type RulesByName = BTreeMap<String, Vec<String>>;

/// What one unit has on the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Presence {
    /// Well-known names with PID and user of the owner.
    pub names: Vec<(String, u32, String)>,
    /// Connections, by PID.
    pub connections: Vec<u32>,
    /// Match rules of all its connections; `None` where the bus cannot list them (dbus-broker).
    pub rules: Option<Vec<String>>,
}

/// What a unit has on the bus now.
pub(super) fn presence(machine: &Container, unit: &str) -> Result<Presence> {
    let all = names(machine)?;
    let own: Vec<&Name> = all.iter().filter(|name| name.unit.as_deref() == Some(unit)).collect();
    let (unique, known): (Vec<&Name>, Vec<&Name>) =
        own.into_iter().partition(|name| name.name.starts_with(':'));
    let described = |name: &&Name| {
        (name.name.clone(), name.pid.unwrap_or_default(), name.user.clone().unwrap_or_default())
    };
    let mut names: Vec<_> = known.iter().map(described).collect();
    names.sort();
    let mut connections: Vec<u32> = unique.iter().filter_map(|name| name.pid).collect();
    connections.sort_unstable();
    let driver = "org.freedesktop.DBus";
    let stats = "org.freedesktop.DBus.Debug.Stats";
    let answer: Result<Answer<(RulesByName,)>> =
        raw_call(machine, driver, "/org/freedesktop/DBus", stats, &["GetAllMatchRules"]);
    let rules = answer.ok().map(|answer| {
        let of_unit = |name: &&Name| answer.data.0.get(&name.name).cloned().unwrap_or_default();
        let mut rules: Vec<String> = unique.iter().flat_map(of_unit).collect();
        rules.sort();
        rules
    });
    Ok(Presence { names, connections, rules })
}

/// Unique name of the owner of a well-known one.
pub(super) fn owner(machine: &Container, name: &str) -> Result<String> {
    let all = names(machine)?;
    let found = all.iter().find(|entry| entry.name == name);
    found.and_then(|entry| entry.connection.clone()).with_context(|| format!("nobody owns {name}"))
}
