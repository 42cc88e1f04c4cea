//! The table "may use" of docs/ARCHITECTURE.md.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};

/// The table's first cell, by which it is found.
const HEADER: &str = "folder";
/// Behind these words stands what only tests may use.
const FOR_TESTS: &str = "for tests ";

/// A crate, or a folder of one that is a layer of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Below the work tree, without `/` at the end.
    pub(super) path: String,
    /// Paths of layers that this one may use.
    pub(super) may_use: BTreeSet<String>,
    /// Those that its tests may use too.
    pub(super) tests_may_use: BTreeSet<String>,
}

/// The table of a document: folders in the first column, and in the last one the layers that they
/// may use. A layer is called by its path or by the end of it, where that is clear: `` | `a/b`,
/// `a/c` | … | d, e; for tests f | ``. A dash or a sentence that begins with "none" allows nothing.
///
/// # Errors
/// There is no such table; a name in it is no row or several; a path stands in it twice.
pub(super) fn parse(document: &str) -> Result<Vec<Layer>> {
    let rows = document.lines().skip_while(|line| first_cell(line) != Some(HEADER)).skip(2);
    let rows: Vec<[&str; 2]> = rows.map_while(first_and_last_cell).collect();
    ensure!(!rows.is_empty(), "docs/ARCHITECTURE.md has no table whose first column is {HEADER:?}");
    let paths: Vec<&str> = rows.iter().flat_map(|row| quoted(row[0])).collect();
    for (at, path) in paths.iter().enumerate() {
        ensure!(!paths[..at].contains(path), "{path} stands in the table twice");
    }
    let mut layers = Vec::new();
    for [names, uses] in rows {
        let (always, for_tests) = uses.split_once(FOR_TESTS).unwrap_or((uses, ""));
        let meant = |list: &str| -> Result<BTreeSet<String>> {
            listed(list).map(|name| meant(name, &paths)).collect::<Result<_>>()
        };
        let in_row = || format!("in the row of {names}");
        let (may_use, more) = (meant(always).with_context(in_row)?, meant(for_tests).with_context(in_row)?);
        let tests_may_use: BTreeSet<String> = may_use.union(&more).cloned().collect();
        for path in quoted(names) {
            let (may_use, tests_may_use) = (may_use.clone(), tests_may_use.clone());
            layers.push(Layer { path: path.to_owned(), may_use, tests_may_use });
        }
    }
    Ok(layers)
}

fn first_cell(line: &str) -> Option<&str> {
    Some(line.strip_prefix('|')?.split('|').next()?.trim())
}

fn first_and_last_cell(line: &str) -> Option<[&str; 2]> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let mut cells = inside.split('|').map(str::trim);
    Some([cells.next()?, cells.next_back()?])
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Names of a list.
fn listed(list: &str) -> impl Iterator<Item = &str> {
    let list = if list.starts_with("none") { "" } else { list };
    let names = list.split([',', ';']).map(|name| name.trim().trim_matches('`'));
    names.filter(|name| !name.is_empty() && *name != "–")
}

fn meant(name: &str, paths: &[&str]) -> Result<String> {
    let ends = |path: &&&str| **path == name || path.ends_with(&format!("/{name}"));
    let found: Vec<&&str> = paths.iter().filter(ends).collect();
    match found.as_slice() {
        [one] => Ok((**one).to_owned()),
        [] => bail!("{name:?} is no row of the table"),
        several => bail!("{name:?} may be any of {several:?}"),
    }
}

/// The layer that a file belongs to: the longest path that it is below.
pub(super) fn layer_of<'a>(layers: &'a [Layer], file: &str) -> Option<&'a Layer> {
    let below = |layer: &&Layer| file.strip_prefix(&layer.path).is_some_and(|rest| rest.starts_with('/'));
    layers.iter().filter(below).max_by_key(|layer| layer.path.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Title\n\n| other | table |\n|---|---|\n| `a` | b |\n\n\
        | folder | crate | what | may use |\n|---|---|---|---|\n\
        | `store` | store | bytes | – |\n| `snap/state`, `snap/sys` | two | facts, `y` | store |\n\
        | `snap/rebuild` | snap-rebuild | work | state, sys; for tests store |\n\
        | `snap/rebuild/src/tape` | – | end | `snap/state` |\n| `tests` | tests | it | none of ours, ever |\n\nMore.\n";

    #[test]
    fn rows_say_what_each_layer_may_use() {
        let layers = parse(TABLE).unwrap();
        let count = |layer: &Layer| (layer.may_use.len(), layer.tests_may_use.len());
        let rows: Vec<_> = layers.iter().map(|layer| (layer.path.as_str(), count(layer))).collect();
        let expected = [
            ("store", (0, 0)),
            ("snap/state", (1, 1)),
            ("snap/sys", (1, 1)),
            ("snap/rebuild", (2, 3)),
            ("snap/rebuild/src/tape", (1, 1)),
            ("tests", (0, 0)),
        ];
        assert_eq!(rows, expected);
        assert!(layers[3].may_use.contains("snap/sys") && layers[3].tests_may_use.contains("store"));
        let of = |file| layer_of(&layers, file).map(|layer| layer.path.as_str());
        assert_eq!(of("snap/rebuild/src/tape/op.rs"), Some("snap/rebuild/src/tape"));
        assert_eq!(of("snap/rebuild/src/plan.rs"), Some("snap/rebuild"));
        assert_eq!(of("snap/rebuilder/src/lib.rs"), None);
    }

    #[test]
    fn a_name_that_is_no_row_is_an_error() {
        assert!(parse(&TABLE.replace("state, sys;", "state, sis;")).is_err());
        assert!(parse(&TABLE.replace("state, sys;", "all of the above;")).is_err());
        assert!(parse(&TABLE.replace("`store` |", "`snap/sys` |")).is_err());
        assert!(parse("no table").is_err());
    }
}
