//! The services, in groups: each group is one machine, so its services use different ports.

mod data;
mod home;
mod languages;
mod mail;
mod names;
mod watch;
mod web;

use super::daemon::Daemon;

/// Services that share a machine.
#[derive(Debug, Clone)]
pub struct Group {
    /// For `--only` and the table.
    pub name: &'static str,
    /// Name of its root.
    pub root: &'static str,
    /// All of its services: they decide what the root holds.
    pub all: &'static [Daemon],
    /// Those that are to be looked at.
    pub daemons: Vec<&'static Daemon>,
}

const GROUPS: &[(&str, &str, &[Daemon])] = &[
    ("web", "daemons-web", web::DAEMONS),
    ("mail", "daemons-mail", mail::DAEMONS),
    ("names", "daemons-names", names::DAEMONS),
    ("data", "daemons-data", data::DAEMONS),
    ("languages", "daemons-languages", languages::DAEMONS),
    ("watch", "daemons-watch", watch::DAEMONS),
    ("home", "daemons-home", home::DAEMONS),
];

/// The group of this name, or the services with this in their names (all without), with their
/// groups.
pub(super) fn chosen(only: Option<&str>) -> Vec<Group> {
    let group = |&(name, root, all): &(&'static str, &'static str, &'static [Daemon])| {
        let is_chosen = |daemon: &&Daemon| only.is_none_or(|only| only == name || daemon.name.contains(only));
        Group { name, root, all, daemons: all.iter().filter(is_chosen).collect() }
    };
    let is_group = |only: &str| GROUPS.iter().any(|&(name, ..)| name == only);
    GROUPS
        .iter()
        .filter(|(name, ..)| only.is_none_or(|only| !is_group(only) || only == *name))
        .map(group)
        .filter(|group| !group.daemons.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_units_are_used_once() {
        let all = || GROUPS.iter().flat_map(|&(_, _, daemons)| daemons);
        let names: BTreeSet<&str> = all().map(|daemon| daemon.name).collect();
        assert_eq!(names.len(), all().count());
        for (_, _, daemons) in GROUPS {
            let units: BTreeSet<&str> = daemons.iter().map(|daemon| daemon.unit).collect();
            assert_eq!(units.len(), daemons.len());
            assert!(daemons.iter().all(|daemon| daemon.unit.ends_with(".service")));
        }
        assert!(names.len() >= 40, "{} services", names.len());
    }

    #[test]
    fn a_group_or_a_part_of_a_name_chooses() {
        let web = chosen(Some("web"));
        assert_eq!(web.len(), 1);
        assert_eq!(web[0].daemons.len(), web[0].all.len());
        let one = chosen(Some("lighttpd"));
        assert_eq!((one.len(), one[0].daemons.len()), (1, 1));
        assert!(chosen(Some("no such service")).is_empty());
        assert_eq!(chosen(None).len(), GROUPS.len());
    }
}
