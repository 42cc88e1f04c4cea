//! Keys, which never travel: their content may be secret even from who owns them. They refuse
//! nothing, but are told of.

use std::fmt;

coded! {
    /// What lies in keyrings and does not come back.
    KeyringObstacle {
        "keyring-own-session" stays OwnSession: "a session keyring of its own, which is not carried";
        "keyring-key" stays Key { name: String, kind: String, place: KeyringPlace }:
            "the key {name} ({kind}) in its {place} keyring, which is not carried";
        "keyring-hidden-key" stays HiddenKey { place: KeyringPlace }:
            "a key that it cannot look at in its {place} keyring, which is not carried";
    }
}

/// Whose keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyringPlace {
    Session,
    Process,
    Thread,
}

impl fmt::Display for KeyringPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "session",
            Self::Process => "process",
            Self::Thread => "thread",
        })
    }
}
