//! `/proc/PID/task/TID/status`.

use super::{read_task, unreadable};
use snap_error::Result;
use snap_state::Pid;

/// The lines of `status` that we use (proc_pid_status(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub comm: Vec<u8>,
    pub umask: u32,
    /// Who traces it; one outside our PID namespace is not seen.
    pub tracer: Option<Pid>,
    /// Real, effective, saved, file system.
    pub uids: [u32; 4],
    pub gids: [u32; 4],
    pub groups: Vec<u32>,
    /// How many PID namespaces see the task, counted from ours.
    pub pid_namespaces: usize,
    pub sig_ignored: u64,
    pub sig_caught: u64,
    pub cap_inheritable: u64,
    pub cap_permitted: u64,
    pub cap_effective: u64,
    pub cap_bounding: u64,
    pub cap_ambient: u64,
    pub no_new_privs: bool,
    /// 0 none, 1 strict, 2 filters.
    pub seccomp_mode: u32,
    /// Since Linux 5.9.
    pub seccomp_filters: usize,
    /// A CET shadow stack is in use (since Linux 6.6).
    pub shadow_stack: bool,
}

impl Status {
    /// Reads the status of a thread.
    ///
    /// # Errors
    /// [`snap_error::Error::Gone`] when the thread has ended.
    pub fn of(pid: Pid, tid: Pid) -> Result<Self> {
        let text = read_task(pid, tid, "status")?;
        Self::parse(&text).ok_or_else(|| unreadable("status", format!("/proc/{pid}/task/{tid}/status")))
    }

    /// From the text of the file.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut status = Self::default();
        let mut known = 0;
        for line in text.split(|&b| b == b'\n') {
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name == b"Name" {
                status.comm = unescaped(line.get(colon + 2..).unwrap_or_default());
                known += 1;
                continue;
            }
            let value = std::str::from_utf8(value).ok()?;
            let hex = || u64::from_str_radix(value, 16).ok();
            match name {
                b"Umask" => status.umask = u32::from_str_radix(value, 8).ok()?,
                b"TracerPid" => status.tracer = Some(Pid(value.parse().ok()?)).filter(|tracer| tracer.0 != 0),
                b"Uid" => status.uids = four(value)?,
                b"Gid" => status.gids = four(value)?,
                b"Groups" => status.groups = words(value)?,
                b"NSpid" => status.pid_namespaces = value.split_ascii_whitespace().count(),
                b"SigIgn" => status.sig_ignored = hex()?,
                b"SigCgt" => status.sig_caught = hex()?,
                b"CapInh" => status.cap_inheritable = hex()?,
                b"CapPrm" => status.cap_permitted = hex()?,
                b"CapEff" => status.cap_effective = hex()?,
                b"CapBnd" => status.cap_bounding = hex()?,
                b"CapAmb" => status.cap_ambient = hex()?,
                b"NoNewPrivs" => status.no_new_privs = value == "1",
                b"Seccomp" => status.seccomp_mode = value.parse().ok()?,
                b"Seccomp_filters" => status.seccomp_filters = value.parse().ok()?,
                b"x86_Thread_features" => status.shadow_stack = value.split(' ').any(|w| w == "shstk"),
                _ => continue,
            }
            known += 1;
        }
        // Name, ids, groups, signals and capabilities are always there.
        (known >= 12).then_some(status)
    }
}

/// The kernel writes newline and backslash in a name as escapes.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(other) => other,
                None => b'\\',
            },
            _ => byte,
        });
    }
    plain
}

fn words(text: &str) -> Option<Vec<u32>> {
    text.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
}

fn four(text: &str) -> Option<[u32; 4]> {
    words(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_ourselves_has_our_ids() {
        let pid = Pid(std::process::id() as i32);
        let status = Status::of(pid, pid).unwrap();
        assert_eq!(status.uids[1], nix::unistd::geteuid().as_raw());
        assert_eq!(status.pid_namespaces, 1);
    }

    #[test]
    fn status_name_is_unescaped() {
        assert_eq!(unescaped(br"a\nb\\c"), b"a\nb\\c");
    }
}
