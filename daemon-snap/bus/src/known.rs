//! What the clients of the bus have told it, gathered from the messages that pass by. Pure.

use super::message::{DRIVER, answers, driver_signal};
use std::collections::HashMap;
use zbus::Message;
use zbus::message::{Flags, Type};

/// What one connection has told the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// All rules are known; of names that were asked for earlier the flags may still be missing.
    pub whole: bool,
    pub rules: Vec<String>,
    /// Names that it asked for and did not give back, with flags.
    pub names: Vec<(String, u32)>,
}

/// A call to the bus that is not answered yet.
#[derive(Clone, Debug)]
enum Asked {
    Hello,
    AddMatch(String),
    RemoveMatch(String),
    RequestName(String, u32),
    ReleaseName(String),
}

/// All connections.
#[derive(Debug, Default)]
pub struct Known {
    told: HashMap<String, Told>,
    asked: HashMap<(String, u32), Asked>,
    /// Calls between clients that are not answered yet: caller and number, to (destination, what is
    /// called).
    open: HashMap<(String, u32), (String, String)>,
}

impl Known {
    /// What this connection has told.
    pub fn told(&self, unique_name: &str) -> Told {
        self.told.get(unique_name).cloned().unwrap_or_default()
    }

    /// Calls from or to this connection that wait for an answer; `names` are the names it has.
    pub fn open_calls(&self, unique_name: &str, names: &[String]) -> Vec<String> {
        let of_it = |name: &str| name == unique_name || names.iter().any(|own| own == name);
        let concerned = self.open.iter().filter(|((caller, _), (to, _))| of_it(caller) || of_it(to));
        let mut calls: Vec<String> =
            concerned.map(|((caller, _), (to, what))| format!("{what} from {caller} to {to}")).collect();
        calls.sort();
        calls
    }

    /// Takes one message into account, in the order in which the bus passes them on.
    pub fn see(&mut self, message: &Message) {
        let header = message.header();
        let sender = header.sender().map(ToString::to_string).unwrap_or_default();
        match message.message_type() {
            Type::MethodCall => self.see_call(message, sender),
            Type::MethodReturn | Type::Error => {
                let Some((serial, well)) = answers(message) else { return };
                let caller = header.destination().map(ToString::to_string).unwrap_or_default();
                self.open.remove(&(caller.clone(), serial));
                if let (Some(asked), true) = (self.asked.remove(&(caller.clone(), serial)), well) {
                    self.apply(caller, asked);
                }
            }
            Type::Signal => {
                if driver_signal(message).as_deref() == Some("NameOwnerChanged")
                    && let Ok((name, _, new)) = message.body().deserialize::<(String, String, String)>()
                    && name.starts_with(':')
                    && new.is_empty()
                {
                    self.forget(&name);
                }
            }
        }
    }

    fn see_call(&mut self, message: &Message, sender: String) {
        let header = message.header();
        let serial = message.primary_header().serial_num().get();
        let waits = !message.primary_header().flags().contains(Flags::NoReplyExpected);
        let member = header.member().map(ToString::to_string).unwrap_or_default();
        let to = header.destination().map(ToString::to_string).unwrap_or_default();
        if to != DRIVER {
            if waits {
                self.open.insert((sender, serial), (to, member));
            }
            return;
        }
        let body = message.body();
        let text = || body.deserialize::<String>().ok();
        let asked = match member.as_str() {
            "Hello" => Some(Asked::Hello),
            "AddMatch" => text().map(Asked::AddMatch),
            "RemoveMatch" => text().map(Asked::RemoveMatch),
            "ReleaseName" => text().map(Asked::ReleaseName),
            "RequestName" => {
                body.deserialize::<(String, u32)>().ok().map(|(name, flags)| Asked::RequestName(name, flags))
            }
            _ => None,
        };
        match asked {
            Some(asked) if waits => {
                self.asked.insert((sender, serial), asked);
            }
            Some(asked) => self.apply(sender, asked),
            None => {}
        }
    }

    fn apply(&mut self, caller: String, asked: Asked) {
        let told = self.told.entry(caller).or_default();
        match asked {
            Asked::Hello => told.whole = true,
            Asked::AddMatch(rule) => told.rules.push(rule),
            Asked::RemoveMatch(rule) => {
                // The bus compares what a rule means, clients send the same text that they added.
                if let Some(at) = told.rules.iter().rposition(|known| *known == rule) {
                    told.rules.remove(at);
                }
            }
            Asked::RequestName(name, flags) => {
                match told.names.iter_mut().find(|(known, _)| *known == name) {
                    Some(known) => known.1 = flags,
                    None => told.names.push((name, flags)),
                }
            }
            Asked::ReleaseName(name) => told.names.retain(|(known, _)| *known != name),
        }
    }

    fn forget(&mut self, unique_name: &str) {
        self.told.remove(unique_name);
        self.asked.retain(|(caller, _), _| caller != unique_name);
        self.open.retain(|(caller, _), (to, _)| caller != unique_name && to != unique_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::zvariant::DynamicType;

    fn call<B: serde::Serialize + DynamicType>(from: &str, to: &str, member: &str, body: &B) -> Message {
        let path = "/org/freedesktop/DBus";
        Message::method_call(path, member).and_then(|m| m.sender(from)?.destination(to)?.build(body)).unwrap()
    }

    fn answer(to: &Message) -> Message {
        Message::method_return(&to.header()).and_then(|m| m.build(&())).unwrap()
    }

    fn gone(name: &str) -> Message {
        super::super::message::name_owner_changed(name, name, "").unwrap()
    }

    #[test]
    fn what_was_answered_well_is_known() {
        let mut known = Known::default();
        let hello = call(":1.5", DRIVER, "Hello", &());
        let rule = call(":1.5", DRIVER, "AddMatch", &"type='signal'");
        let again = call(":1.5", DRIVER, "AddMatch", &"type='signal'");
        let name = call(":1.5", DRIVER, "RequestName", &("a.b", 4u32));
        for message in [&hello, &rule, &again, &name] {
            known.see(message);
            assert_eq!(known.told(":1.5").names.len(), 0, "nothing counts before it is answered");
            known.see(&answer(message));
        }
        let remove = call(":1.5", DRIVER, "RemoveMatch", &"type='signal'");
        known.see(&remove);
        known.see(&answer(&remove));
        let told = known.told(":1.5");
        assert!(told.whole);
        assert_eq!(told.rules, ["type='signal'"], "added twice, removed once");
        assert_eq!(told.names, [("a.b".to_owned(), 4)]);
        known.see(&gone(":1.5"));
        assert_eq!(known.told(":1.5"), Told::default());
    }

    #[test]
    fn a_refused_name_is_not_had() {
        let mut known = Known::default();
        let name = call(":1.5", DRIVER, "RequestName", &("a.b", 4u32));
        known.see(&name);
        let error = Message::error(&name.header(), "org.freedesktop.DBus.Error.AccessDenied");
        known.see(&error.and_then(|m| m.build(&"no")).unwrap());
        assert!(known.told(":1.5").names.is_empty());
    }

    #[test]
    fn calls_are_open_until_they_are_answered() {
        let mut known = Known::default();
        let question = call(":1.5", "c.d", "Work", &());
        known.see(&question);
        assert_eq!(known.open_calls(":1.5", &[]), ["Work from :1.5 to c.d"]);
        assert_eq!(known.open_calls(":1.9", &["c.d".to_owned()]).len(), 1);
        assert!(known.open_calls(":1.9", &[]).is_empty());
        known.see(&answer(&question));
        assert!(known.open_calls(":1.5", &[]).is_empty());
    }
}
