//! Keyrings. What systemd makes for every unit is made again; keys that somebody added are named,
//! and not carried: their content may be secret even from who owns them, and a cold start would not
//! have them either.

use super::injected::{Scratch, call};
use nix::errno::Errno;
use snap_error::obstacle::{KeyringObstacle, KeyringPlace};
use snap_error::{Blocker, Part, Result};
use snap_state::{PAGE_BYTES, Pid, SessionKeyringV1};
use snap_sys::inject::Injector;
use snap_sys::keyring::{
    KEY_SPEC_PROCESS_KEYRING, KEY_SPEC_SESSION_KEYRING, KEY_SPEC_THREAD_KEYRING, KEYCTL_DESCRIBE,
    KEYCTL_GET_KEYRING_ID, KEYCTL_READ,
};

/// What PID 1 puts into the keyring of each unit.
const INVOCATION_ID: Described<'static> = Described { kind: "user", name: "invocation_id" };

/// Keyrings of a tree.
#[derive(Debug, Default)]
pub(super) struct Keyrings {
    /// Serial number of the first process's.
    first: Option<u64>,
    session: Option<SessionKeyringV1>,
    lost: Vec<Blocker>,
}

/// What `KEYCTL_DESCRIBE` says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Described<'a> {
    kind: &'a str,
    name: &'a str,
}

/// A key, its owner and its group.
fn parse(text: &str) -> Option<(Described<'_>, u32, u32)> {
    let mut fields = text.splitn(5, ';');
    let kind = fields.next()?;
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let name = fields.nth(1)?;
    Some((Described { kind, name }, uid, gid))
}

impl Keyrings {
    /// Looks into the keyrings of a process and of its first thread.
    pub fn collect_of_process(&mut self, pid: Pid, injector: &mut Injector, scratch: Scratch) -> Result<()> {
        let inside = &mut Inside { pid, injector, scratch };
        if let Some(id) = inside.keyring(KEY_SPEC_SESSION_KEYRING)? {
            match self.first {
                None => {
                    self.first = Some(id);
                    self.session = self.collect_session(inside, id)?;
                }
                Some(first) if first != id => self.note(pid, KeyringObstacle::OwnSession),
                Some(_) => {}
            }
        }
        if let Some(id) = inside.keyring(KEY_SPEC_PROCESS_KEYRING)? {
            self.note_keys(inside, id, KeyringPlace::Process)?;
        }
        self.collect_of_thread(pid, inside.injector, scratch)
    }

    /// Looks into the keyring of a thread.
    pub fn collect_of_thread(&mut self, pid: Pid, injector: &mut Injector, scratch: Scratch) -> Result<()> {
        let inside = &mut Inside { pid, injector, scratch };
        match inside.keyring(KEY_SPEC_THREAD_KEYRING)? {
            Some(id) => self.note_keys(inside, id, KeyringPlace::Thread),
            None => Ok(()),
        }
    }

    /// The keyring that a restore makes again, and what was found that it does not.
    pub fn into_parts(self) -> (Option<SessionKeyringV1>, Vec<Blocker>) {
        (self.session, self.lost)
    }

    /// `None` where it is not one that systemd has made for the unit: then it is that of who starts
    /// the process.
    fn collect_session(&mut self, inside: &mut Inside<'_>, id: u64) -> Result<Option<SessionKeyringV1>> {
        let Some((_, uid, gid)) = inside.describe(id)?.as_deref().and_then(parse) else { return Ok(None) };
        let user_keyring = format!("_uid.{uid}");
        let (mut is_of_unit, mut has_user_keyring) = (false, false);
        for text in inside.keys(id)? {
            match parse(&text) {
                Some((INVOCATION_ID, ..)) => is_of_unit = true,
                Some((Described { kind: "keyring", name }, ..)) if name == user_keyring => {
                    has_user_keyring = true;
                }
                other => self.note_key(inside.pid, other, KeyringPlace::Session),
            }
        }
        Ok(is_of_unit.then_some(SessionKeyringV1 { uid, gid, has_user_keyring }))
    }

    fn note_keys(&mut self, inside: &mut Inside<'_>, id: u64, place: KeyringPlace) -> Result<()> {
        for text in inside.keys(id)? {
            self.note_key(inside.pid, parse(&text), place);
        }
        Ok(())
    }

    fn note_key(&mut self, pid: Pid, key: Option<(Described<'_>, u32, u32)>, place: KeyringPlace) {
        let what = match key {
            None => KeyringObstacle::HiddenKey { place },
            Some((Described { kind, name }, ..)) => {
                KeyringObstacle::Key { name: name.to_owned(), kind: kind.to_owned(), place }
            }
        };
        self.note(pid, what);
    }

    fn note(&mut self, pid: Pid, what: KeyringObstacle) {
        self.lost.push(Blocker::new(pid, Part::Process, what));
    }
}

/// Questions that a thread asks for us.
struct Inside<'a> {
    pid: Pid,
    injector: &'a mut Injector,
    scratch: Scratch,
}

impl Inside<'_> {
    fn keyctl(&mut self, operation: u64, id: u64) -> std::result::Result<u64, Errno> {
        self.injector.call(libc::SYS_keyctl, [operation, id, self.scratch.at.0, PAGE_BYTES, 0, 0])
    }

    /// Serial number of a keyring that the thread has. The session keyring of somebody who never
    /// had one becomes the default of its user by this question, which it is anyway as soon as
    /// anybody uses it.
    fn keyring(&mut self, which: i32) -> Result<Option<u64>> {
        let none = [KEYCTL_GET_KEYRING_ID, i64::from(which) as u64, 0, 0, 0, 0];
        match self.injector.call(libc::SYS_keyctl, none) {
            Ok(id) => Ok(Some(id)),
            // Not there; not in the kernel, or not for anybody in this container.
            Err(Errno::ENOKEY | Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Ok(None),
            // Emptied and dead, by its owner or with time.
            Err(Errno::EKEYREVOKED | Errno::EKEYEXPIRED) => Ok(None),
            Err(_) => {
                call(self.pid, self.injector, "KEYCTL_GET_KEYRING_ID", libc::SYS_keyctl, none).map(Some)
            }
        }
    }

    /// Descriptions of the keys in a keyring; empty texts for those that may not be seen.
    fn keys(&mut self, id: u64) -> Result<Vec<String>> {
        let bytes = match self.keyctl(KEYCTL_READ, id) {
            Ok(len) => len.min(PAGE_BYTES),
            Err(_) => return Ok(vec![String::new()]),
        };
        let ids = self.scratch.bytes(self.pid, bytes as usize)?;
        let ids = ids.as_chunks::<4>().0.iter().map(|id| u64::from(u32::from_ne_bytes(*id)));
        ids.map(|id| Ok(self.describe(id)?.unwrap_or_default())).collect()
    }

    fn describe(&mut self, id: u64) -> Result<Option<String>> {
        match self.keyctl(KEYCTL_DESCRIBE, id) {
            // With the zero at its end; longer ones are not written at all.
            Ok(len) if (1..=PAGE_BYTES).contains(&len) => {
                let text = self.scratch.bytes(self.pid, len as usize - 1)?;
                Ok(Some(String::from_utf8_lossy(&text).into_owned()))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_of_keys_are_read() {
        let key = parse("user;0;0;0b0b0000;invocation_id").unwrap();
        assert_eq!(key, (INVOCATION_ID, 0, 0));
        let (named, uid, gid) = parse("logon;7;8;3f010000;a;b;c").unwrap();
        assert_eq!((named.name, uid, gid), ("a;b;c", 7, 8));
        assert_eq!(parse(""), None);
        assert_eq!(parse("user;x;0;0;name"), None);
    }
}
