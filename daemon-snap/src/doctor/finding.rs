//! What was seen of one thing, and what follows from it.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name.
    pub name: &'static str,
    /// It is there and as it should be.
    pub ok: bool,
    /// Without it nothing can be taken, or nothing restored.
    pub necessary: bool,
    /// What was seen.
    pub found: String,
    /// What follows from that.
    pub consequence: String,
}

impl Finding {
    /// Something without which fastboot is of no use here.
    pub(super) fn necessary(name: &'static str, seen: Seen, otherwise: &str) -> Self {
        Self::of(name, true, seen, otherwise)
    }

    /// Something without which it does less.
    pub(super) fn useful(name: &'static str, seen: Seen, otherwise: &str) -> Self {
        Self::of(name, false, seen, otherwise)
    }

    pub(super) fn of(name: &'static str, necessary: bool, seen: Seen, otherwise: &str) -> Self {
        let (ok, found) = match seen {
            Ok(found) => (true, found),
            Err(found) => (false, found),
        };
        let consequence = if ok { String::new() } else { otherwise.to_owned() };
        Self { name, ok, necessary, found, consequence }
    }

    /// The same with something to know even though all is well.
    pub(super) fn but(mut self, note: &str) -> Self {
        if self.ok {
            note.clone_into(&mut self.consequence);
        }
        self
    }
}

/// What was seen of something that is as it should be, or of something that is not.
pub(super) type Seen = Result<String, String>;
