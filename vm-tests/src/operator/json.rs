//! The JSON of the commands is what docs/json.md says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::stages::json;
use crate::container::Container;
use crate::fastboot::workspace;

const COMMANDS: &[(&str, &[&str])] = &[
    ("plan", &["plan"]),
    ("status", &["status"]),
    ("list", &["list"]),
    ("verify", &["verify"]),
    ("history", &["history"]),
    ("doctor", &["doctor"]),
    ("refresh", &["refresh", "--dry-run"]),
    ("remove", &["remove", "no-such"]),
];

/// Every key that a command prints is in the page with its type, and every key of the page is
/// printed.
pub(super) fn documented(machine: &Container) -> Result<()> {
    let page = fs::read_to_string(workspace().join("docs/json.md")).context("docs/json.md")?;
    for (command, arguments) in COMMANDS {
        let documented = keys_of(&page, command);
        ensure!(!documented.is_empty(), "docs/json.md has nothing about {command}");
        let mut found = BTreeMap::new();
        collect("", &json(machine, arguments)?, &mut found);
        for (key, types) in &found {
            let known =
                documented.get(key).with_context(|| format!("{command}: {key} is not in docs/json.md"))?;
            for kind in types {
                ensure!(known.contains(*kind), "{command}: {key} is {kind}, and {known:?} in docs/json.md");
            }
        }
        for (key, kinds) in &documented {
            let may_lack = kinds.contains("missing")
                || key.rsplit_once('.').is_some_and(|(of, _)| {
                    of.ends_with("[]") && !found.keys().any(|found| found.starts_with(of))
                });
            ensure!(found.contains_key(key) || may_lack, "{command}: nothing has {key}");
        }
    }
    Ok(())
}

/// From the table below the command's heading: `| key | types | meaning |`.
fn keys_of(page: &str, command: &str) -> BTreeMap<String, String> {
    let heading = format!("## `fastboot {command}");
    let lines = page.lines().skip_while(|line| !line.starts_with(&heading)).skip(1);
    let rows = lines.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("| `"));
    rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        Some((cells.next()?.trim_matches('`').to_owned(), cells.next()?.to_owned()))
    })
    .collect()
}

fn collect(at: &str, value: &Value, found: &mut BTreeMap<String, BTreeSet<&'static str>>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !at.is_empty() {
        found.entry(at.to_owned()).or_default().insert(kind);
    }
    match value {
        // Its keys are names of phases.
        Value::Object(_) if at.ends_with("phases_ms") => {}
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let below = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            collect(&below, value, found);
        }),
        Value::Array(items) => items.iter().for_each(|item| collect(&format!("{at}[]"), item, found)),
        _ => {}
    }
}
