//! How long a boot takes, or would take if some services started faster or slower: the longest
//! chain counts, not the sum.
//!
//! systemd's timestamps say when each unit was begun and when it was there, `After=` says what a
//! unit has waited for. A unit that begins a while after the last one that it waited for is taken
//! to do so in any case.

use std::collections::BTreeMap;

/// A unit in a boot; times in microseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    /// It left the inactive state.
    pub start_us: u64,
    /// systemd has gone on with those that wait for it.
    pub done_us: u64,
    /// It serves. Not before `done_us`; later where systemd does not wait for a service's word.
    pub ready_us: u64,
    /// What it waits for, where that is started too.
    pub after: Vec<String>,
}

impl Link {
    fn waits(&self) -> bool {
        self.done_us >= self.ready_us
    }
}

/// When the last unit serves, if these take so long from their start until they serve (in
/// microseconds) and all others as long as they took.
pub fn end_us(links: &[Link], takes_us: &BTreeMap<String, u64>) -> u64 {
    let mut order: Vec<&Link> = links.iter().collect();
    order.sort_by_key(|link| (link.start_us, link.done_us));
    let was_done: BTreeMap<&str, u64> = links.iter().map(|link| (link.name.as_str(), link.done_us)).collect();
    let mut is_done: BTreeMap<&str, u64> = BTreeMap::new();
    let mut end = 0;
    for link in order {
        // Who was there before it began, and has been placed already.
        let before = link.after.iter().filter_map(|name| {
            let was = was_done.get(name.as_str()).filter(|was| **was <= link.start_us)?;
            Some((*was, *is_done.get(name.as_str())?))
        });
        let (was, is): (Vec<u64>, Vec<u64>) = before.unzip();
        let start = match was.into_iter().max().zip(is.into_iter().max()) {
            Some((was, is)) => is + (link.start_us - was),
            None => link.start_us,
        };
        let took = link.ready_us.saturating_sub(link.start_us);
        let ready = start + takes_us.get(&link.name).copied().unwrap_or(took);
        let done = if link.waits() { ready } else { start + (link.done_us - link.start_us) };
        is_done.insert(&link.name, done);
        end = end.max(ready).max(done);
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, start_us: u64, done_us: u64, ready_us: u64, after: &[&str]) -> Link {
        let after = after.iter().map(|name| (*name).to_owned()).collect();
        Link { name: name.to_owned(), start_us, done_us, ready_us, after }
    }

    fn with(links: &[Link], takes: &[(&str, u64)]) -> u64 {
        end_us(links, &takes.iter().map(|(name, us)| ((*name).to_owned(), *us)).collect())
    }

    #[test]
    fn the_longest_chain_counts_and_not_the_sum() {
        let links = [
            link("db", 100, 300, 300, &[]),
            link("web", 310, 400, 400, &["db"]),
            link("other", 100, 500, 500, &[]),
        ];
        assert_eq!(with(&links, &[]), 500);
        // Two that are not in the way gain nothing by being faster.
        assert_eq!(with(&links, &[("db", 10), ("web", 10)]), 500);
        assert_eq!(with(&links, &[("other", 10)]), 400);
        // One that waits begins earlier, by as much; its own delay stays.
        assert_eq!(with(&links, &[("other", 10), ("db", 50)]), 250);
        assert_eq!(with(&links, &[("db", 1000)]), 1200);
    }

    #[test]
    fn nobody_waits_for_a_service_of_whose_readiness_systemd_does_not_know() {
        let links = [link("simple", 100, 100, 900, &[]), link("behind", 110, 200, 200, &["simple"])];
        assert_eq!(with(&links, &[("simple", 50)]), 200);
        assert_eq!(with(&links, &[("simple", 5000)]), 5100);
    }

    #[test]
    fn what_was_not_there_when_a_unit_began_has_not_kept_it() {
        let links = [link("a", 100, 900, 900, &["b"]), link("b", 100, 800, 800, &["a"])];
        assert_eq!(with(&links, &[("a", 10)]), 800);
        assert_eq!(end_us(&[], &BTreeMap::new()), 0);
    }
}
