//! Why a unit cannot be restored: a stable code with what it is about. The sentence is made last,
//! and nobody searches it.

use std::fmt;
use std::path::PathBuf;

use crate::exec_line::ExecLineProblem;

/// One reason against a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Others are connected to it, or it is part of the boot.
    Hub,
    /// systemd has no unit file for it, or a bad or masked one.
    NotLoaded { state: String },
    /// It does not run now.
    NotRunning { active: String, sub: String },
    /// systemd does not know its main process.
    NoMainProcess,
    /// A `Type=` of which nothing runs on, or that is not known here.
    ServiceType { value: String },
    /// It has no `ExecStart=`.
    NoExecStart,
    /// It has several.
    SeveralExecStarts { count: usize },
    /// Another program cannot be put in front of its command.
    ExecLine { line: String, problem: ExecLineProblem },
    /// systemd looks for its program in directories of the unit's own, and the shim would not.
    SearchPath,
    /// Its program is not there, or not executable.
    ProgramMissing { program: String },
    /// It has no unit file.
    NoUnitFile,
    /// Its unit file is made anew at each boot.
    VolatileUnitFile { path: PathBuf },
    /// A drop-in of it does not outlive a reboot.
    VolatileDropIn { path: PathBuf },
    /// systemd has read other files for it than the generator would find.
    OtherFiles { path: PathBuf },
    /// systemd has not read its files as they are now.
    NeedsReload,
    /// It may not be started or stopped by hand.
    NoManualRestart,
    /// A file of our drop-in's name in a stronger directory: the administrator has switched the
    /// unit off.
    SwitchedOff { path: PathBuf },
    /// A drop-in that applies after ours says what is started.
    LaterDropIn { path: PathBuf, key: String },
    /// It has a root directory or image of its own.
    OwnRoot { key: &'static str, value: String },
    /// It is confined by a profile or label that the shim would get too.
    Confined { key: &'static str, value: String },
    /// It opens a PAM session.
    PamSession { name: String },
    /// It has a PID namespace of its own.
    OwnPids,
    /// `NoExecPaths=` forbids the shim or a library of it.
    NotExecutable { file: String },
    /// A mount of the unit hides the shim.
    ShimHidden { key: &'static str, word: String, shim: String },
    /// It may not use the sockets by which the shim speaks.
    AddressFamilies,
    /// The shim would be ended at this system call.
    SystemCall { call: &'static str },
    /// A group of system calls is denied that may hold those of the shim.
    SystemCallGroup { group: String },
    /// `TimeoutStartSec=` has no room for a restore that fails and a cold start after it.
    StartTimeout,
    /// systemd does not list the descriptors that it keeps for it.
    StoreUnlisted { count: u32 },
    /// systemd would not take descriptors from the shim of such a service.
    StoreUnheard { count: u32, notify_access: String },
    /// systemd may have kept descriptors for it over a soft reboot.
    StoreOverSoftReboot,
    /// A key in `[X-Fastboot]` that means nothing.
    UnknownOption { key: String },
    /// A value in `[X-Fastboot]` that its key does not take.
    OptionValue { key: &'static str, value: String, wanted: &'static str },
}

/// The codes of all reasons, and the list of them: neither can have one that the other lacks.
macro_rules! codes {
    ($($reason:pat => $code:literal,)*) => {
        /// Every code, in the order of the variants.
        pub const CODES: &[&str] = &[$($code),*];

        /// The stable name of this kind of reason. Log readers match on it.
        pub fn code(&self) -> &'static str {
            match self {
                $($reason => $code,)*
            }
        }
    };
}

impl Reason {
    codes! {
        Self::Hub => "hub",
        Self::NotLoaded { .. } => "not-loaded",
        Self::NotRunning { .. } => "not-running",
        Self::NoMainProcess => "no-main-process",
        Self::ServiceType { .. } => "service-type",
        Self::NoExecStart => "no-exec-start",
        Self::SeveralExecStarts { .. } => "several-exec-starts",
        Self::ExecLine { .. } => "exec-line",
        Self::SearchPath => "exec-search-path",
        Self::ProgramMissing { .. } => "program-missing",
        Self::NoUnitFile => "no-unit-file",
        Self::VolatileUnitFile { .. } => "volatile-unit-file",
        Self::VolatileDropIn { .. } => "volatile-drop-in",
        Self::OtherFiles { .. } => "other-unit-files",
        Self::NeedsReload => "needs-reload",
        Self::NoManualRestart => "no-manual-restart",
        Self::SwitchedOff { .. } => "switched-off",
        Self::LaterDropIn { .. } => "later-drop-in",
        Self::OwnRoot { .. } => "own-root",
        Self::Confined { .. } => "confined",
        Self::PamSession { .. } => "pam-session",
        Self::OwnPids => "own-pids",
        Self::NotExecutable { .. } => "shim-not-executable",
        Self::ShimHidden { .. } => "shim-hidden",
        Self::AddressFamilies => "address-families",
        Self::SystemCall { .. } | Self::SystemCallGroup { .. } => "system-call-filter",
        Self::StartTimeout => "start-timeout",
        Self::StoreUnlisted { .. } => "store-unlisted",
        Self::StoreUnheard { .. } => "store-unheard",
        Self::StoreOverSoftReboot => "store-over-soft-reboot",
        Self::UnknownOption { .. } | Self::OptionValue { .. } => "option",
    }
}

/// Without a final full stop, and so that "UNIT: " may stand before it.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str("it is a hub that others are connected to, or part of the boot itself"),
            Self::NotLoaded { state } => write!(f, "its unit file is {state}"),
            Self::NotRunning { active, sub } => write!(f, "it is not running ({active}, {sub})"),
            Self::NoMainProcess => f.write_str("systemd does not know its main process"),
            Self::ServiceType { value } => write!(f, "Type={value} is not restored"),
            Self::NoExecStart => f.write_str("it has no ExecStart="),
            Self::SeveralExecStarts { count } => write!(f, "it has {count} ExecStart= lines"),
            Self::ExecLine { line, problem } => write!(f, "ExecStart={line} {problem}"),
            Self::SearchPath => f.write_str("ExecSearchPath= is set and the program has no path"),
            Self::ProgramMissing { program } => write!(f, "{program} cannot be executed"),
            Self::NoUnitFile => f.write_str("it has no unit file"),
            Self::VolatileUnitFile { path } => {
                write!(f, "its unit file {} is made anew at each boot", path.display())
            }
            Self::VolatileDropIn { path } => {
                write!(f, "its drop-in {} does not outlive a reboot", path.display())
            }
            Self::OtherFiles { path } => {
                write!(f, "the generator would find other files for it than systemd has ({})", path.display())
            }
            Self::NeedsReload => {
                f.write_str("its unit files changed since systemd read them (systemctl daemon-reload)")
            }
            Self::NoManualRestart => f.write_str("it may not be started or stopped by hand"),
            Self::SwitchedOff { path } => write!(f, "{} replaces our drop-in", path.display()),
            Self::LaterDropIn { path, key } => {
                write!(f, "{} sets {key}= after our drop-in", path.display())
            }
            Self::OwnRoot { key, value } => write!(f, "it has a root of its own ({key}={value})"),
            Self::Confined { key, value } => write!(f, "{key}={value} would confine the shim too"),
            Self::PamSession { name } => write!(f, "it opens a PAM session (PAMName={name})"),
            Self::OwnPids => f.write_str("it has a PID namespace of its own (PrivatePIDs=)"),
            Self::NotExecutable { file } => write!(f, "NoExecPaths= does not let {file} be executed"),
            Self::ShimHidden { key, word, shim } => write!(f, "{key}={word} covers {shim}"),
            Self::AddressFamilies => f.write_str("RestrictAddressFamilies= does not allow AF_UNIX"),
            Self::SystemCall { call } => write!(f, "SystemCallFilter= does not allow {call}"),
            Self::SystemCallGroup { group } => {
                write!(f, "SystemCallFilter= denies {group}, which is not known here")
            }
            Self::StartTimeout => {
                f.write_str("its TimeoutStartSec= leaves no time for a restore and a cold start")
            }
            Self::StoreUnlisted { count } => write!(
                f,
                "systemd keeps {count} descriptors for it and does not say which (file descriptor store; \
                 systemd 254 does)"
            ),
            Self::StoreUnheard { count, notify_access } => write!(
                f,
                "systemd keeps {count} descriptors for it, and would take them back from its main process \
                 only (file descriptor store; Type=forking with NotifyAccess={notify_access})"
            ),
            Self::StoreOverSoftReboot => f.write_str(
                "systemd may have kept descriptors for it over the soft reboot (FileDescriptorStorePreserve=)",
            ),
            Self::UnknownOption { key } => write!(f, "[X-Fastboot] {key}= is not known"),
            Self::OptionValue { key, value, wanted } => {
                write!(f, "[X-Fastboot] {key}={value} is not {wanted}")
            }
        }
    }
}

impl std::error::Error for Reason {}
