//! What a client has to hear because the bus is another one than at the snapshot: who has gone, who
//! is there now. Pure.

use super::message::{DRIVER, name_owner_changed};
use snap_error::Result;
use snap_state::BusConnectionV1;
use std::collections::BTreeMap;
use zbus::{MatchRule, Message, names::BusName};

/// Rules of a connection that could match a change of owners.
#[derive(Debug)]
pub struct Watcher {
    rules: Vec<MatchRule<'static>>,
    /// A rule that zbus cannot read; what it would match is not known, so everything is news.
    unread: bool,
}

impl Watcher {
    /// The rules of this connection.
    pub fn of(connection: &BusConnectionV1) -> Self {
        let mut watcher = Self { rules: Vec::new(), unread: false };
        for text in &connection.rules {
            match MatchRule::try_from(text.as_str()) {
                Ok(rule) => watcher.rules.push(rule.into_owned()),
                Err(_) => watcher.unread = true,
            }
        }
        watcher.rules.retain(|rule| rule.sender().is_none_or(is_driver));
        watcher
    }

    fn hears(&self, signal: &Message) -> bool {
        self.unread || self.rules.iter().any(|rule| rule.matches(signal).unwrap_or(true))
    }

    /// Whether any change at all can reach it.
    pub fn is_deaf(&self) -> bool {
        !self.unread && self.rules.is_empty()
    }
}

fn is_driver(name: &BusName<'_>) -> bool {
    name.as_str() == DRIVER
}

/// The signals that the client would have got, had it lived through the end of the old bus and the
/// beginning of the new one: each owner of the old one leaves, each owner of the new one comes.
/// Every unique name of the old bus has ended, even where the new one gives the same name to
/// somebody else.
///
/// # Errors
/// A message cannot be encoded.
pub fn news(
    connection: &BusConnectionV1,
    watcher: &Watcher,
    now: &BTreeMap<String, String>,
) -> Result<Vec<Message>> {
    let left = connection.others.iter().filter(|(name, _)| name != DRIVER).map(|(n, o)| (n, o.as_str(), ""));
    let came = now.iter().filter(|(name, _)| *name != DRIVER).map(|(n, o)| (n, "", o.as_str()));
    let mut out = Vec::new();
    for (name, old, new) in left.chain(came) {
        let signal = name_owner_changed(name, old, new)?;
        if watcher.hears(&signal) {
            out.push(signal);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_state::Pid;

    fn heard(rules: &[&str], others: &[(&str, &str)], now: &[(&str, &str)]) -> Vec<(String, String, String)> {
        let owned = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, owner)| ((*name).to_owned(), (*owner).to_owned())).collect()
        };
        let connection = BusConnectionV1 {
            unread: Vec::new(),
            address: b"/run/dbus/system_bus_socket".to_vec(),
            own_address: Vec::new(),
            unique_name: ":1.5".into(),
            connector: Pid(7),
            uid: 0,
            rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            names: Vec::new(),
            others: owned(others),
            options: Vec::new(),
        };
        let news = news(&connection, &Watcher::of(&connection), &owned(now).into_iter().collect()).unwrap();
        news.iter().map(|signal| signal.body().deserialize().unwrap()).collect()
    }

    fn change(name: &str, old: &str, new: &str) -> (String, String, String) {
        (name.into(), old.into(), new.into())
    }

    const OLD: &[(&str, &str)] = &[("a.b", ":1.2"), (":1.2", ":1.2"), ("c.d", ":1.3"), (DRIVER, DRIVER)];
    const NEW: &[(&str, &str)] = &[("a.b", ":1.9"), (":1.9", ":1.9"), (DRIVER, DRIVER)];

    #[test]
    fn a_watcher_of_one_name_hears_it_go_and_come() {
        let rule = "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
                    member='NameOwnerChanged',path='/org/freedesktop/DBus',arg0='a.b'";
        assert_eq!(heard(&[rule], OLD, NEW), [change("a.b", ":1.2", ""), change("a.b", "", ":1.9")]);
        assert_eq!(heard(&[rule], OLD, &[]), [change("a.b", ":1.2", "")]);
    }

    #[test]
    fn a_watcher_of_a_client_hears_that_it_is_gone_even_if_its_name_is_used_again() {
        let rule = "type='signal',member='NameOwnerChanged',arg0=':1.2'";
        assert_eq!(heard(&[rule], OLD, &[(":1.2", ":1.2")]).len(), 2);
        assert_eq!(heard(&[rule], OLD, NEW), [change(":1.2", ":1.2", "")]);
    }

    #[test]
    fn rules_about_loss_namespaces_and_everything_are_kept_apart() {
        assert_eq!(heard(&["member='NameOwnerChanged',arg0='a.b',arg2=''"], OLD, NEW).len(), 1);
        let space = heard(&["type='signal',member='NameOwnerChanged',arg0namespace='a'"], OLD, NEW);
        assert_eq!(space, [change("a.b", ":1.2", ""), change("a.b", "", ":1.9")]);
        assert_eq!(heard(&["type='signal'"], OLD, NEW).len(), 5);
    }

    #[test]
    fn who_watches_something_else_hears_nothing() {
        let other = "type='signal',sender='org.freedesktop.login1',member='PrepareForSleep'";
        assert!(heard(&[other], OLD, NEW).is_empty());
        assert!(heard(&["type='signal',sender='c.d'"], OLD, NEW).is_empty());
        assert!(heard(&[], OLD, NEW).is_empty());
    }
}
