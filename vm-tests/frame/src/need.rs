//! What a test needs of the machine it runs on, and which of that is missing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;

use nix::unistd::geteuid;

/// One thing that a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// All privileges.
    Root,
    /// To boot containers with systemd in them.
    Container,
    /// To boot virtual machines, on KVM or emulated.
    Machine,
    /// Control groups of version 2, to make some of our own.
    ControlGroups,
    /// A program, and the Debian package that has it.
    Program {
        /// As it is called.
        name: &'static str,
        /// For who has to install it.
        package: &'static str,
    },
}

/// The kinds of needs. Some are only found missing by a test that runs: those have no [`Need`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeedKind {
    /// All privileges.
    Root,
    /// Containers.
    Container,
    /// Virtual machines.
    Machine,
    /// Control groups.
    ControlGroups,
    /// A program.
    Program,
    /// Something that this kernel lacks, or that it has been configured not to give.
    Kernel,
    /// Something that this processor lacks.
    Processor,
    /// A capability that root does not have here.
    Capability,
    /// The kernel that something committed was recorded on.
    RecordedKernel,
    /// What a test of somebody else's harness calls ignored.
    Ignored,
}

/// What even a machine of a CI service may lack, and why. Everything else that is missing there is
/// a failure.
pub const CI_CANNOT_HAVE: &[(NeedKind, &str)] = &[
    (NeedKind::Processor, "nobody chooses the processor of a machine that is rented for a run"),
    (NeedKind::Capability, "root of such a machine may lack one, as CAP_SYS_RESOURCE"),
    (
        NeedKind::RecordedKernel,
        "what was recorded with the vDSO of one kernel is never right for another one",
    ),
];

const KINDS: &[(NeedKind, &str)] = &[
    (NeedKind::Root, "root"),
    (NeedKind::Container, "container"),
    (NeedKind::Machine, "machine"),
    (NeedKind::ControlGroups, "control-groups"),
    (NeedKind::Program, "program"),
    (NeedKind::Kernel, "kernel"),
    (NeedKind::Processor, "processor"),
    (NeedKind::Capability, "capability"),
    (NeedKind::RecordedKernel, "recorded-kernel"),
    (NeedKind::Ignored, "ignored"),
];

impl NeedKind {
    /// Whether its absence is excused on a machine of a CI service.
    pub fn is_beyond_ci(self) -> bool {
        CI_CANNOT_HAVE.iter().any(|(kind, _)| *kind == self)
    }
}

impl fmt::Display for NeedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(kind, _)| kind == self).map_or("unknown", |(_, name)| name);
        f.write_str(name)
    }
}

/// A need that is not met, with a sentence about it. Its text form is `kind: sentence`, by which it
/// passes from one process to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub kind: NeedKind,
    /// What is missing, for people.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.reason)
    }
}

impl FromStr for Missing {
    type Err = std::convert::Infallible;

    /// What is in no known form was ignored by somebody else.
    fn from_str(text: &str) -> Result<Missing, Self::Err> {
        let known = text.split_once(": ").and_then(|(word, reason)| {
            let (kind, _) = KINDS.iter().find(|(_, name)| *name == word)?;
            Some(Missing { kind: *kind, reason: reason.to_owned() })
        });
        Ok(known.unwrap_or_else(|| {
            let reason = if text.is_empty() { "no reason is given" } else { text };
            Missing { kind: NeedKind::Ignored, reason: reason.to_owned() }
        }))
    }
}

impl Need {
    /// Its kind.
    pub fn kind(self) -> NeedKind {
        match self {
            Need::Root => NeedKind::Root,
            Need::Container => NeedKind::Container,
            Need::Machine => NeedKind::Machine,
            Need::ControlGroups => NeedKind::ControlGroups,
            Need::Program { .. } => NeedKind::Program,
        }
    }

    /// What of it is missing here. Each need is looked at once in the life of a process.
    pub fn missing(self) -> Option<Missing> {
        static KNOWN: Mutex<BTreeMap<Need, Option<String>>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let reason = known.entry(self).or_insert_with(|| self.look()).clone()?;
        Some(Missing { kind: self.kind(), reason })
    }

    fn look(self) -> Option<String> {
        match self {
            Need::Root => (!geteuid().is_root()).then(|| "it needs root".to_owned()),
            Need::Container => lacks_program("systemd-nspawn", "systemd-container"),
            Need::Machine => lacks_program("qemu-system-x86_64", "qemu-system-x86"),
            Need::ControlGroups => {
                let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
                let has = mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2"));
                (!has).then(|| "no control groups of version 2 are mounted".to_owned())
            }
            Need::Program { name, package } => lacks_program(name, package),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Need::Program { name, .. } => f.write_str(name),
            other => write!(f, "{}", other.kind()),
        }
    }
}

fn lacks_program(name: &str, package: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Programs of administrators are not in everybody's path.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.map(|dir: std::path::PathBuf| dir.join(name)).any(|path| is_program(&path));
    (!found).then(|| format!("the program {name} is missing, which Debian's package {package} has"))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let none = Need::Program { name: "no-such-program", package: "no-such-package" };
        let missing = none.missing().unwrap();
        assert_eq!(missing.kind, NeedKind::Program);
        assert!(missing.reason.contains("no-such-program") && missing.reason.contains("no-such-package"));
        assert_eq!(Need::Program { name: "sh", package: "dash" }.missing(), None);
    }

    #[test]
    fn what_is_missing_keeps_its_kind_from_process_to_process() {
        for (kind, _) in KINDS {
            let missing = Missing { kind: *kind, reason: "it is not: here".to_owned() };
            assert_eq!(missing.to_string().parse(), Ok(missing));
        }
        let other: Missing = "because of the weather".parse().unwrap();
        assert_eq!(other, Missing { kind: NeedKind::Ignored, reason: "because of the weather".to_owned() });
    }

    #[test]
    fn only_what_ci_cannot_have_is_excused_there() {
        assert!(NeedKind::Processor.is_beyond_ci());
        assert!(!NeedKind::Root.is_beyond_ci() && !NeedKind::Ignored.is_beyond_ci());
    }
}
