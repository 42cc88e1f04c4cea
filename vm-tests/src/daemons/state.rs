//! What the image of a service records, and whether a second image, of the restored service,
//! records the same.
//!
//! A service lives between the two: memory, registers, queues, counters and what remains of timers
//! are left out, as is what only one of the two images has of threads and of connections to
//! clients. Everything else is compared.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use nix::fcntl::OFlag;
use serde_json::{Map, Value};

use super::daemon::GoesOn;
use crate::container::Container;
use crate::fastboot::parse;

/// Of a process: compared piece by piece, or not at all.
const APART: [&str; 8] =
    ["mm", "pending", "itimers", "posix_timers", "fds", "locks", "threads", "membarrier"];
/// Of a thread.
const MOVING: [&str; 3] = ["regs", "xstate", "pending"];
/// Of what descriptors refer to: moves while a service lives, or is a number in a table of the
/// image.
const LIVE: [&str; 14] = [
    "pos",
    "count",
    "ticks",
    "remaining_ns",
    "file",
    "queue",
    "data",
    "packets",
    "unique_name",
    "others",
    "place",
    "peer",
    "content",
    "len_bytes",
];
/// Differences that are shown.
const SHOWN: usize = 12;

/// Facts by where they stand, as `pid 7 fd 3`.
#[derive(Debug, Clone)]
pub(super) struct State(BTreeMap<String, Value>);

impl State {
    /// Of a unit's newest image.
    ///
    /// # Errors
    /// There is none, or it is printed as something else.
    pub(super) fn of(machine: &Container, unit: &str) -> Result<State> {
        let text = machine.run(&["fastboot", "show", "--state", unit])?.success()?;
        State::parse(&text)
    }

    fn parse(text: &str) -> Result<State> {
        let tree: Value = parse(text)?;
        let mut facts = BTreeMap::new();
        for process in list(&tree["processes"]) {
            add_process(&mut facts, &tree, process);
        }
        ensure!(!facts.is_empty(), "no processes are recorded");
        Ok(State(facts))
    }

    /// Passes when both say the same, but for what the service is known to go on changing.
    ///
    /// # Errors
    /// What differs.
    pub(super) fn require_same(&self, later: &State, goes_on: &[GoesOn]) -> Result<()> {
        let places: BTreeSet<&String> = self.0.keys().chain(later.0.keys()).collect();
        let differences: Vec<String> = places
            .into_iter()
            .filter_map(|place| match (self.0.get(place), later.0.get(place)) {
                (before, now) if before == now => None,
                (None, _) | (_, None) if comes_and_goes(place) => None,
                (before, now) => Some(format!("{place}: {} → {}", shown(before), shown(now))),
            })
            .filter(|line| !goes_on.iter().any(|known| known.has.iter().all(|text| line.contains(text))))
            .collect();
        let some = differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
        ensure!(differences.is_empty(), "{} differences in a second image:\n{some}", differences.len());
        Ok(())
    }
}

fn shown(fact: Option<&Value>) -> String {
    fact.map_or_else(|| "nothing".to_owned(), Value::to_string)
}

/// A service makes and ends threads as it likes.
fn comes_and_goes(place: &str) -> bool {
    place.contains(" tid ")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn add_process(facts: &mut BTreeMap<String, Value>, tree: &Value, process: &Value) {
    let pid = format!("pid {}", process["pid"]);
    for (name, value) in process.as_object().into_iter().flatten() {
        if !APART.contains(&name.as_str()) {
            let value = match name.as_str() {
                "exe" => inode(tree, value),
                "cwd" | "root" => file(tree, value).unwrap_or_default(),
                "sigactions" => list(value).map(handler).collect(),
                _ => value.clone(),
            };
            facts.insert(format!("{pid} {name}"), value);
        }
    }
    for timer in list(&process["posix_timers"]) {
        let kept = without(timer, &["remaining_ns", "overrun"]);
        facts.insert(format!("{pid} timer {}", timer["id"]), kept);
    }
    for fd in list(&process["fds"]) {
        let Some(description) = file(tree, &fd["file"]) else { continue };
        let mut fact = Map::new();
        fact.insert("cloexec".to_owned(), fd["cloexec"].clone());
        fact.insert("description".to_owned(), description);
        facts.insert(format!("{pid} fd {}", fd["fd"]), Value::Object(fact));
    }
    for thread in list(&process["threads"]) {
        let mut fact = without(thread, &MOVING);
        for filter in fact["seccomp"].as_array_mut().into_iter().flatten() {
            let program = filter.get(0).and_then(Value::as_u64).unwrap_or_default();
            filter[0] = tree["seccomp_filters"][program as usize].clone();
        }
        facts.insert(format!("{pid} tid {}", thread["tid"]), fact);
    }
}

/// SIG_DFL, with flags that nobody will see (alarm(2) with a handler for its time), is as good as
/// never set.
fn handler(action: &Value) -> Value {
    if action["handler"] == 0 { Value::Null } else { action.clone() }
}

/// An open file description; `None` for a client's connection.
fn file(tree: &Value, id: &Value) -> Option<Value> {
    let file = &tree["files"][id.as_u64()? as usize];
    let (name, kind) = file["kind"].as_object()?.iter().next()?;
    if ["Tcp", "LostTcp"].contains(&name.as_str()) {
        return None;
    }
    let mut kind = without(kind, &LIVE);
    match name.as_str() {
        "Inode" | "Ring" | "PressureTrigger" => kind["inode"] = inode(tree, &kind["inode"]),
        "Pipe" => {
            let pipe = kind["pipe"].as_u64()? as usize;
            kind["pipe"] = without(&tree["pipes"][pipe], &[&LIVE[..], &["fifo"]].concat());
        }
        "Epoll" => {
            if let Some(watches) = kind["watches"].as_array_mut() {
                watches.sort_by_key(Value::to_string);
            }
        }
        // Which description the other end is, is a number in the table; that there is one counts.
        "Unix" => {
            if let Some(pair) = kind["state"].get_mut("Pair") {
                *pair = Value::Null;
            }
        }
        _ => {}
    }
    let mut fact = Map::new();
    fact.insert(name.clone(), kind);
    // O_NOFOLLOW means nothing any more; a file without a name can only be opened again by a link
    // in /proc.
    let flags = file["flags"].as_i64()? & !i64::from(OFlag::O_NOFOLLOW.bits());
    fact.insert("flags".to_owned(), flags.into());
    fact.insert("owner".to_owned(), file["owner"].clone());
    Some(Value::Object(fact))
}

/// The file or memory object behind a number.
fn inode(tree: &Value, id: &Value) -> Value {
    let Some(at) = id.as_u64() else { return id.clone() };
    let inode = &tree["inodes"][at as usize];
    // What its end made of the name of a nameless file differs each time.
    let kind = match inode["kind"].get("Deleted") {
        Some(_) => Value::from("deleted"),
        None => without(&inode["kind"], &[]),
    };
    let mut fact = without(inode, &[&LIVE[..], &["id", "mtime_ns", "kind"]].concat());
    fact["kind"] = kind;
    fact
}

/// Without some fields, on every level, and with paths as text.
fn without(value: &Value, left_out: &[&str]) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !left_out.contains(&name.as_str()))
            .map(|(name, value)| match name.as_str() {
                "path" => (name.clone(), text(value)),
                _ => (name.clone(), without(value, left_out)),
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(values) => values.iter().map(|value| without(value, left_out)).collect(),
        other => other.clone(),
    }
}

fn text(bytes: &Value) -> Value {
    let bytes: Option<Vec<u8>> = list(bytes).map(|byte| byte.as_u64()?.try_into().ok()).collect();
    bytes.map_or(Value::Null, |bytes| String::from_utf8_lossy(&bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(umask: u32, count: u32, flags: u32, tids: &[u32]) -> State {
        let threads: Vec<Value> = tids
            .iter()
            .map(|tid| serde_json::json!({"tid": tid, "comm": "a", "regs": count, "seccomp": []}))
            .collect();
        let tree = serde_json::json!({
            "processes": [{"pid": 7, "umask": umask, "mm": count, "threads": threads,
                "fds": [{"fd": 3, "file": 0, "cloexec": true}]}],
            "files": [{"id": 0, "flags": flags, "owner": null, "kind": {"EventFd": {"count": count, "semaphore": false}}}],
        });
        State::parse(&tree.to_string()).unwrap()
    }

    #[test]
    fn what_moves_while_a_service_lives_is_no_difference() {
        state(18, 1, 2, &[7, 8]).require_same(&state(18, 5, 2, &[7, 9]), &[]).unwrap();
    }

    #[test]
    fn what_a_service_is_must_be_the_same() {
        let first = state(18, 1, 2, &[7]);
        let error = first.require_same(&state(2, 1, 2, &[7]), &[]).unwrap_err().to_string();
        assert!(error.contains("pid 7 umask: 18 → 2"), "{error}");
        let flags = state(18, 1, 6, &[7]);
        let error = first.require_same(&flags, &[]).unwrap_err().to_string();
        assert!(error.contains("pid 7 fd 3"), "{error}");
        let known = |has| [GoesOn { has, why: "" }];
        first.require_same(&flags, &known(&["fd 3", "→"])).unwrap();
        first.require_same(&flags, &known(&["fd 3", "umask"])).unwrap_err();
    }
}
