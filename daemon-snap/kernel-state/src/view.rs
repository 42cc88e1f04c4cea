//! What there is at one moment, and what two moments differ in.

use snap_error::KernelObstacle;
use std::collections::{BTreeMap, BTreeSet};

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Nftables,
    Iptables,
    Ipset,
    Link,
    Address,
    Route,
    RoutingRule,
    Neighbour,
    Queue,
    Mount,
    BlockDevice,
    BpfPin,
}

impl Kind {
    /// Every kind, in the order in which they are reported.
    pub const ALL: [Self; 12] = [
        Self::Nftables,
        Self::Iptables,
        Self::Ipset,
        Self::Link,
        Self::Address,
        Self::Route,
        Self::RoutingRule,
        Self::Neighbour,
        Self::Queue,
        Self::Mount,
        Self::BlockDevice,
        Self::BpfPin,
    ];

    fn obstacle(self, objects: String) -> KernelObstacle {
        match self {
            Self::Nftables => KernelObstacle::Nftables { objects },
            Self::Iptables => KernelObstacle::Iptables { objects },
            Self::Ipset => KernelObstacle::Ipset { objects },
            Self::Link => KernelObstacle::Link { objects },
            Self::Address => KernelObstacle::Address { objects },
            Self::Route => KernelObstacle::Route { objects },
            Self::RoutingRule => KernelObstacle::RoutingRule { objects },
            Self::Neighbour => KernelObstacle::Neighbour { objects },
            Self::Queue => KernelObstacle::Queue { objects },
            Self::Mount => KernelObstacle::Mount { objects },
            Self::BlockDevice => KernelObstacle::BlockDevice { objects },
            Self::BpfPin => KernelObstacle::BpfPin { objects },
        }
    }
}

/// What an object is called: the same in every boot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    /// For people, too.
    pub name: String,
}

/// One object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Thing {
    /// What it is set to, without what the kernel counts in it.
    pub content: Vec<u8>,
    /// Numbers that another object of the same name would not have. Empty where there are none.
    pub identity: Vec<u8>,
    /// What people want to know beside its name; may be empty.
    pub detail: String,
}

/// All objects that a service may change, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    things: BTreeMap<Key, Thing>,
    /// The network namespace that it is of.
    network: Option<(u64, u64)>,
}

impl View {
    /// With nothing in it yet, of this network namespace.
    pub(crate) fn empty(network: Option<(u64, u64)>) -> Self {
        Self { things: BTreeMap::new(), network }
    }

    pub(crate) fn add(&mut self, kind: Kind, name: String, thing: Thing) {
        self.things.insert(Key { kind, name }, thing);
    }

    /// Adds to an object that is made of several.
    pub(crate) fn thing(&mut self, kind: Kind, name: String) -> &mut Thing {
        self.things.entry(Key { kind, name }).or_default()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// Names of everything.
    pub fn keys(&self) -> BTreeSet<Key> {
        self.things.keys().cloned().collect()
    }

    /// What is here, and was not there in `before` or was another one or set otherwise. In a
    /// network namespace that was made since, everything about the network is new.
    pub fn made_since(&self, before: &Self) -> BTreeSet<Key> {
        let is_old = |key: &Key, thing: &Thing| {
            (self.network == before.network || !key.kind.is_of_network())
                && before
                    .things
                    .get(key)
                    .is_some_and(|old| old.content == thing.content && old.identity == thing.identity)
        };
        self.things.iter().filter(|(key, thing)| !is_old(key, thing)).map(|(key, _)| key.clone()).collect()
    }

    /// What was there in `before` and is not here, or is set otherwise.
    pub fn lost_since(&self, before: &Self) -> BTreeSet<Key> {
        let is_here =
            |key: &Key, old: &Thing| self.things.get(key).is_some_and(|thing| thing.content == old.content);
        before.things.iter().filter(|(key, old)| !is_here(key, old)).map(|(key, _)| key.clone()).collect()
    }

    /// Of `keys`, those that are here now as they were in `before` and have been made anew since:
    /// another object of the same name that is set to the same.
    pub fn made_again(&self, keys: &BTreeSet<Key>, before: &Self) -> BTreeSet<Key> {
        let is_again = |key: &&Key| match (self.things.get(key), before.things.get(key)) {
            (Some(now), Some(old)) => {
                let is_other = now.identity != old.identity
                    || key.kind.is_of_network() && self.network != before.network;
                now.content == old.content && is_other
            }
            _ => false,
        };
        keys.iter().filter(is_again).cloned().collect()
    }

    /// Without what is not here any more.
    pub fn retain_present(&self, keys: &mut BTreeSet<Key>) {
        keys.retain(|key| self.things.contains_key(key));
    }

    /// An obstacle for each kind among these objects.
    pub fn obstacles(&self, keys: &BTreeSet<Key>) -> Vec<KernelObstacle> {
        let of_kind = |kind: Kind| {
            let names = self.names(keys.iter().filter(|key| key.kind == kind));
            (!names.is_empty()).then(|| kind.obstacle(names))
        };
        Kind::ALL.into_iter().filter_map(of_kind).collect()
    }

    /// Names for a sentence; of many only some.
    pub fn names<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> String {
        const SHOWN: usize = 6;
        let name = |key: &Key| match self.things.get(key).map(|thing| thing.detail.as_str()) {
            None | Some("") => key.name.clone(),
            Some(detail) => format!("{}: {detail}", key.name),
        };
        let mut names: Vec<String> = keys.into_iter().map(name).collect();
        if names.len() > SHOWN {
            let more = names.len() - SHOWN;
            names.truncate(SHOWN);
            names.push(format!("{more} more"));
        }
        names.join(", ")
    }
}

impl Kind {
    /// Whether it belongs to a network namespace.
    fn is_of_network(self) -> bool {
        !matches!(self, Self::Mount | Self::BlockDevice | Self::BpfPin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(network: u64, things: &[(Kind, &str, &str, &str)]) -> View {
        let mut view = View { network: Some((0, network)), ..View::default() };
        for (kind, name, content, identity) in things {
            let (content, identity) = (content.as_bytes().to_vec(), identity.as_bytes().to_vec());
            view.add(*kind, (*name).to_owned(), Thing { content, identity, detail: String::new() });
        }
        view
    }

    fn names(keys: &BTreeSet<Key>) -> Vec<&str> {
        keys.iter().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn what_is_new_another_one_or_set_otherwise_was_made() {
        let before = view(
            1,
            &[(Kind::Link, "a", "up", "2"), (Kind::Link, "b", "up", "3"), (Kind::Link, "c", "", "4")],
        );
        let after = view(
            1,
            &[
                (Kind::Link, "a", "up", "2"),
                (Kind::Link, "b", "up", "9"),
                (Kind::Link, "c", "up", "4"),
                (Kind::Link, "d", "", "10"),
            ],
        );
        assert_eq!(names(&after.made_since(&before)), ["b", "c", "d"]);
        assert_eq!(names(&before.made_since(&before)), Vec::<&str>::new());
    }

    #[test]
    fn in_a_new_network_everything_of_it_is_new_and_mounts_are_not() {
        let before = view(1, &[(Kind::Link, "a", "", "2"), (Kind::Mount, "/a", "", "2")]);
        let after = view(2, &[(Kind::Link, "a", "", "2"), (Kind::Mount, "/a", "", "2")]);
        assert_eq!(names(&after.made_since(&before)), ["a"]);
    }

    #[test]
    fn what_is_there_again_is_not_lost_and_what_is_set_otherwise_is() {
        let before = view(
            1,
            &[(Kind::Link, "a", "up", "2"), (Kind::Link, "b", "up", "3"), (Kind::Link, "c", "up", "4")],
        );
        let after = view(1, &[(Kind::Link, "a", "up", "7"), (Kind::Link, "b", "", "3")]);
        assert_eq!(names(&after.lost_since(&before)), ["b", "c"]);
        assert_eq!(
            names(&after.made_again(&before.keys(), &before)),
            ["a"],
            "the others are not as they were"
        );
        assert_eq!(names(&before.made_again(&before.keys(), &before)), Vec::<&str>::new(), "it stayed");
    }

    #[test]
    fn an_obstacle_per_kind_names_its_objects() {
        let mut one = view(1, &[(Kind::Route, "default via 192.0.2.1", "", ""), (Kind::Link, "a", "", "1")]);
        one.thing(Kind::Link, "a".to_owned()).detail = "dummy, up".to_owned();
        let codes: Vec<(&str, String)> =
            one.obstacles(&one.keys()).iter().map(|one| (one.code(), one.to_string())).collect();
        assert_eq!(codes.iter().map(|(code, _)| *code).collect::<Vec<_>>(), ["kernel-link", "kernel-route"]);
        assert!(codes[0].1.contains("(a: dummy, up)"), "{}", codes[0].1);
        let many: Vec<(Kind, String)> = (0..9).map(|n| (Kind::Link, format!("l{n}"))).collect();
        let keys: Vec<Key> = many.into_iter().map(|(kind, name)| Key { kind, name }).collect();
        assert!(one.names(&keys).ends_with("l5, 3 more"));
    }
}
