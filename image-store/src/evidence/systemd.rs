//! The systemd that starts the services: it makes the surroundings that an image is restored into.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::file::under_root;
use super::reason::{ReasonCode, StaleReason};
use crate::digest::Digest;

/// The program that runs as PID 1, not the one that lies on the disk: after an upgrade it may be
/// another one.
const PROGRAM: &str = "/proc/1/exe";
/// Debian's has less than 100 KB, as most of it is in libraries.
const MAX_LEN: u64 = 16 << 20;
/// PID 1 says `systemd VERSION running in system mode`, and the version is compiled into that
/// sentence.
const BEFORE_VERSION: &[u8] = b"systemd ";
const BEHIND_VERSION: &[u8] = b" running in ";
const MAX_VERSION_LEN: usize = 64;

/// What identifies a build of systemd. Packages of one version that were built in the same way have
/// the same program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemdEvidence {
    /// As in brackets in the first line of `systemctl --version`, with the distribution's revision:
    /// `257.9-1~deb13u1`. For messages; `None` where the program does not have it in the usual
    /// place.
    pub version: Option<String>,
    /// Digest of the program.
    pub digest: Digest,
}

impl SystemdEvidence {
    /// Look at `root/proc/1/exe`. Costs the reading of a small file that is in memory. `None` where
    /// it cannot be read, or is longer than 16 MiB.
    pub fn collect(root: &Path) -> Option<SystemdEvidence> {
        let mut program = Vec::new();
        let file = File::open(under_root(root, Path::new(PROGRAM))).ok()?;
        file.take(MAX_LEN + 1).read_to_end(&mut program).ok()?;
        if program.is_empty() || program.len() as u64 > MAX_LEN {
            return None;
        }
        Some(SystemdEvidence { version: find_version(&program), digest: Digest::of(&program) })
    }

    /// Compare with the systemd that runs now.
    ///
    /// # Errors
    /// It is another one or cannot be looked at, with [`ReasonCode::SystemdChanged`].
    pub fn check(&self, now: Option<&SystemdEvidence>) -> Result<(), StaleReason> {
        let name =
            |systemd: &SystemdEvidence| systemd.version.clone().unwrap_or_else(|| "unknown".to_owned());
        let was = name(self);
        let sentence = match now {
            Some(now) if now.digest == self.digest => return Ok(()),
            Some(now) if name(now) == was => {
                format!("systemd is another build than at the snapshot, of version {was}")
            }
            Some(now) => format!("systemd is {}, was {was} at the snapshot", name(now)),
            None => format!("{PROGRAM} cannot be read, systemd was {was} at the snapshot"),
        };
        Err(StaleReason::new(ReasonCode::SystemdChanged, sentence))
    }
}

fn find_version(program: &[u8]) -> Option<String> {
    let windows = program.windows(BEHIND_VERSION.len()).enumerate();
    // Other sentences have these words too.
    let ends = windows.filter(|(_, window)| *window == BEHIND_VERSION).map(|(end, _)| end);
    ends.filter_map(|end| version_before(program, end)).next()
}

fn version_before(program: &[u8], end: usize) -> Option<String> {
    // The string begins with its first word, behind the end of the string before.
    let text = &program[end.saturating_sub(MAX_VERSION_LEN + BEFORE_VERSION.len())..end];
    let begin = text.iter().rposition(|&byte| byte == 0).map_or(0, |at| at + 1);
    let version = text[begin..].strip_prefix(BEFORE_VERSION)?;
    let is_plain = !version.is_empty() && version.iter().all(u8::is_ascii_graphic);
    is_plain.then(|| String::from_utf8_lossy(version).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root_with(program: &[u8]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/1")).unwrap();
        std::fs::write(root.path().join("proc/1/exe"), program).unwrap();
        root
    }

    fn program(version: &str, build: u8) -> Vec<u8> {
        let strings = format!("\u{1}\0\u{7f}\0systemd {version} running in %ssystem mode (%s)\0");
        [b"\x7fELF\0", strings.as_bytes(), &[build]].concat()
    }

    fn sentence(was: &[u8], now: &[u8]) -> Option<String> {
        let was = SystemdEvidence::collect(root_with(was).path()).unwrap();
        let now = SystemdEvidence::collect(root_with(now).path());
        let reason = was.check(now.as_ref()).err()?;
        assert_eq!(reason.code, ReasonCode::SystemdChanged);
        Some(reason.sentence)
    }

    #[test]
    fn an_upgrade_is_named_with_both_versions() {
        let (old, new) = (program("257.9-1~deb13u1", 1), program("258.1-1", 1));
        assert_eq!(sentence(&old, &old), None);
        assert_eq!(sentence(&old, &new).unwrap(), "systemd is 258.1-1, was 257.9-1~deb13u1 at the snapshot");
    }

    #[test]
    fn another_build_of_a_version_is_another_systemd() {
        let said = sentence(&program("257", 1), &program("257", 2)).unwrap();
        assert_eq!(said, "systemd is another build than at the snapshot, of version 257");
        let said = sentence(&program("257", 1), b"\x7fELF of which nothing is known").unwrap();
        assert_eq!(said, "systemd is unknown, was 257 at the snapshot");
        let said = sentence(&program("257", 1), b"").unwrap();
        assert_eq!(said, "/proc/1/exe cannot be read, systemd was 257 at the snapshot");
    }

    #[test]
    fn programs_that_are_not_systemd_have_no_version() {
        assert_eq!(find_version(&program("257", 1)).as_deref(), Some("257"));
        let other = [b"\0This is running in a container\0".as_slice(), &program("257", 1)].concat();
        assert_eq!(find_version(&other).as_deref(), Some("257"));
        assert_eq!(find_version(b"\0 running in \0"), None);
        assert_eq!(find_version(b"\0systemd two words running in \0"), None);
        assert_eq!(find_version(b"\0fsystemd 257 running in \0"), None);
    }
}
