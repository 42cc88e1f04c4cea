//! `docs/reasons.md` explains every code, and no other.

use image_store::ReasonCode;
use snap_error::{Error, KernelObstacle, Obstacle, RestoreFault, ServiceFault, UnitObstacle};
use snap_policy::Reason;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../docs/reasons.md");

/// Codes in the order of the page, and whether they are said to pass: "- `code` *(passes)*:
/// explanation".
fn explained() -> Vec<(&'static str, bool)> {
    let entry = |line: &'static str| {
        let (code, rest) = line.strip_prefix("- `")?.split_once('`')?;
        let (mark, explanation) = rest.split_once(": ")?;
        assert!(explanation.len() > 10, "{code} is not explained");
        match mark {
            "" => Some((code, false)),
            " *(passes)*" => Some((code, true)),
            other => panic!("{code} has a mark that is not known: {other}"),
        }
    };
    PAGE.lines().filter_map(entry).collect()
}

/// Every code that the programs know.
fn known() -> BTreeMap<&'static str, bool> {
    let families = [UnitObstacle::ALL, KernelObstacle::ALL, ServiceFault::ALL, RestoreFault::ALL]
        .into_iter()
        .flatten()
        .copied();
    let stale = ReasonCode::ALL.iter().map(|code| code.as_str());
    let lasting = stale.chain(Reason::CODES.iter().chain(Error::CODES).copied()).map(|code| (code, false));
    let mut known = BTreeMap::new();
    for (code, passes) in Obstacle::all().chain(families).chain(lasting) {
        assert!(known.insert(code, passes).is_none(), "{code} means two things");
    }
    known
}

#[test]
fn every_code_is_explained_once_and_no_other_is() {
    let known = known();
    let mut left = known.clone();
    for (code, passes) in explained() {
        assert!(known.contains_key(code), "docs/reasons.md explains {code}, which does not exist");
        assert_eq!(left.remove(code), Some(passes), "{code}: explained twice, or passes otherwise than said");
    }
    assert!(left.is_empty(), "docs/reasons.md does not explain {:?}", left.keys());
}

#[test]
fn lines_of_the_page_are_at_most_a_hundred_columns_wide() {
    let long = PAGE.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None);
}
