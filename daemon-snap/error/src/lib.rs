//! What can go wrong, as values: step, object, pid and errno are fields, callers choose by
//! [`Kind`].

#[macro_use]
mod coded;
pub mod bus;
pub mod fault;
pub mod hook;
pub mod observation;
pub mod obstacle;

pub use bus::BusFault;
pub use fault::{RestoreFault, ServiceFault, TrialFault};
pub use obstacle::{KernelObstacle, Obstacle, UnitObstacle};

use image_store::{ReasonCode, StaleReason};
use nix::errno::Errno;
use serde::Serialize;
use snap_state::check::Corrupt;
use snap_state::sections::{EncodeError, SECTION_MAX_BYTES};
use snap_state::{Addr, Pid, TargetFd};
use std::fmt;

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The tree holds something that cannot be carried; it runs on untouched.
    Unsupported,
    /// The image does not fit today's machine.
    Stale,
    /// The image is damaged.
    Corrupt,
    /// A process ended while we looked at it, or there is no such unit.
    Gone,
    /// A system call failed that should not have.
    Kernel,
}

/// The part of a process that a [`Blocker`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    Process,
    Thread(Pid),
    Fd(TargetFd),
    Mapping(Addr),
}

impl Part {
    /// A thread of a process; the first one stands for the process.
    pub fn of_task(pid: Pid, tid: Pid) -> Self {
        if tid == pid { Self::Process } else { Self::Thread(tid) }
    }
}

/// One reason why a tree cannot be dumped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    pub pid: Pid,
    pub part: Part,
    pub obstacle: Obstacle,
}

impl Blocker {
    pub fn new(pid: Pid, part: Part, obstacle: impl Into<Obstacle>) -> Self {
        Self { pid, part, obstacle: obstacle.into() }
    }

    /// Whether it comes and goes: a moment later, or after a restart, it may not be there.
    pub fn passes(&self) -> bool {
        self.obstacle.passes()
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        match self.part {
            Part::Process => write!(f, " has {}", self.obstacle),
            Part::Thread(tid) => write!(f, " thread {tid} has {}", self.obstacle),
            Part::Fd(fd) => write!(f, " fd {fd} is {}", self.obstacle),
            Part::Mapping(addr) => write!(f, " mapping at {addr} is {}", self.obstacle),
        }
    }
}

/// Failure of any step of the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", lines(.0))]
    Refused(Vec<Blocker>),
    /// Everything against a unit, in its processes and around it.
    #[error("{}", lines(.0))]
    NotEligible(Vec<Objection>),
    /// What the judge has against the unit.
    #[error("{}", lines(.0))]
    Unit(Vec<snap_policy::Reason>),
    #[error("there is no unit {0}")]
    NoUnit(String),
    #[error("process {pid} is gone ({step})")]
    Gone { pid: Pid, step: &'static str },
    #[error("{step}: {object}: {errno}")]
    Kernel { step: &'static str, object: String, errno: Errno },
    #[error("image is stale: {0}")]
    Stale(StaleReason),
    #[error("image is damaged: {0}")]
    Corrupt(#[from] Corrupt),
    #[error("process {pid} could not be rebuilt: {step} gave {result}, wanted {wanted}")]
    Tape { pid: Pid, step: String, result: String, wanted: String },
    #[error("not ready {0} ms after the restore began")]
    Deadline(u64),
    /// What the bus answered, or that it did not, or that its answer is not understood.
    #[error("{step}: {fault}")]
    Bus { step: &'static str, fault: BusFault },
    /// Text of the kernel that is not as it is documented.
    #[error("{step}: {object} is not understood")]
    Unreadable { step: &'static str, object: String },
    #[error("{0}")]
    Service(ServiceFault),
    #[error("{0}")]
    Restore(RestoreFault),
    /// What cannot happen: a defect of this program.
    #[error("{step}: {message}")]
    Internal { step: &'static str, message: String },
    #[error(transparent)]
    Store(#[from] image_store::Error),
}

impl From<Blocker> for Error {
    fn from(blocker: Blocker) -> Self {
        Self::Refused(vec![blocker])
    }
}

impl From<UnitObstacle> for Error {
    fn from(obstacle: UnitObstacle) -> Self {
        Self::NotEligible(vec![obstacle.into()])
    }
}

impl From<ServiceFault> for Error {
    fn from(fault: ServiceFault) -> Self {
        Self::Service(fault)
    }
}

impl From<TrialFault> for Error {
    fn from(why: TrialFault) -> Self {
        Self::Service(ServiceFault::TrialFailed { why })
    }
}

impl From<RestoreFault> for Error {
    fn from(fault: RestoreFault) -> Self {
        Self::Restore(fault)
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::TooLarge { family, len_bytes } => {
                UnitObstacle::StateTooLarge { family, len_bytes, most_bytes: SECTION_MAX_BYTES }.into()
            }
            EncodeError::Serialise(error) => Self::Internal { step: "encode", message: error.to_string() },
        }
    }
}

fn lines(reasons: &[impl fmt::Display]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A reason as it stands in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodedReason {
    /// One of `docs/reasons.md`.
    pub code: &'static str,
    /// The same for people.
    pub reason: String,
    /// It comes and goes by itself.
    pub passes: bool,
}

impl From<&Blocker> for CodedReason {
    fn from(blocker: &Blocker) -> Self {
        Self { code: blocker.obstacle.code(), reason: blocker.to_string(), passes: blocker.passes() }
    }
}

impl From<&snap_policy::Reason> for CodedReason {
    fn from(reason: &snap_policy::Reason) -> Self {
        Self { code: reason.code(), reason: reason.to_string(), passes: false }
    }
}

impl From<&UnitObstacle> for CodedReason {
    fn from(obstacle: &UnitObstacle) -> Self {
        Self { code: obstacle.code(), reason: obstacle.to_string(), passes: obstacle.passes() }
    }
}

impl From<&KernelObstacle> for CodedReason {
    fn from(obstacle: &KernelObstacle) -> Self {
        Self { code: obstacle.code(), reason: obstacle.to_string(), passes: obstacle.passes() }
    }
}

impl From<&Objection> for CodedReason {
    fn from(objection: &Objection) -> Self {
        match objection {
            Objection::Tree(blocker) => blocker.into(),
            Objection::Unit(obstacle) => obstacle.into(),
            Objection::Kernel(obstacle) => obstacle.into(),
        }
    }
}

/// Something against a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// In its processes.
    Tree(Blocker),
    /// Around it.
    Unit(UnitObstacle),
    /// In the kernel, outside of its processes.
    Kernel(KernelObstacle),
}

impl From<Blocker> for Objection {
    fn from(blocker: Blocker) -> Self {
        Self::Tree(blocker)
    }
}

impl From<UnitObstacle> for Objection {
    fn from(obstacle: UnitObstacle) -> Self {
        Self::Unit(obstacle)
    }
}

impl From<KernelObstacle> for Objection {
    fn from(obstacle: KernelObstacle) -> Self {
        Self::Kernel(obstacle)
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(blocker) => blocker.fmt(f),
            Self::Unit(obstacle) => obstacle.fmt(f),
            Self::Kernel(obstacle) => obstacle.fmt(f),
        }
    }
}

/// The code of what cannot happen: a refusal without a reason is that too.
const DEFECT: &str = "internal";

/// Codes of errors, and the list of them: neither can have one that the other lacks. In the
/// second braces stand errors whose codes belong to what they hold.
macro_rules! codes {
    ({ $($error:pat => $code:literal,)* } { $($holder:pat => $held:expr,)* }) => {
        /// Codes that [`Error::code`] has of its own.
        pub const CODES: &[&str] = &[$($code),*];

        /// The stable name of it; of several reasons that of the first.
        pub fn code(&self) -> &'static str {
            match self {
                $($error => $code,)*
                $($holder => $held,)*
            }
        }
    };
}

impl Error {
    /// A failed system call: `step` is what we were doing, `object` what we did it to.
    pub fn kernel(step: &'static str, object: impl fmt::Display, errno: Errno) -> Self {
        Self::Kernel { step, object: object.to_string(), errno }
    }

    /// The same from `std::io::Error`; an error without errno counts as EIO.
    pub fn io(step: &'static str, object: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::kernel(step, object, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// The image does not fit today's machine.
    pub fn stale(code: ReasonCode, sentence: impl Into<String>) -> Self {
        Self::Stale(StaleReason::new(code, sentence))
    }

    /// The same fact as a reason to start cold.
    pub fn to_stale_reason(&self) -> StaleReason {
        let code = match self {
            Self::Stale(reason) => return reason.clone(),
            Self::Store(error) => return error.to_stale_reason(),
            Self::Deadline(_) => ReasonCode::Deadline,
            Self::Kernel { errno: Errno::EADDRINUSE, .. } => ReasonCode::AddressTaken,
            other => match other.kind() {
                Kind::Corrupt => ReasonCode::ImageCorrupt,
                Kind::Unsupported | Kind::Stale => ReasonCode::HostUnsupported,
                Kind::Gone | Kind::Kernel => ReasonCode::RestoreFailed,
            },
        };
        StaleReason::new(code, self.to_string())
    }

    /// All that it says, each with its code.
    pub fn reasons(&self) -> Vec<CodedReason> {
        match self {
            Self::Refused(blockers) => blockers.iter().map(CodedReason::from).collect(),
            Self::NotEligible(all) => all.iter().map(CodedReason::from).collect(),
            Self::Unit(reasons) => reasons.iter().map(CodedReason::from).collect(),
            other => vec![CodedReason { code: other.code(), reason: other.to_string(), passes: false }],
        }
    }

    codes! {
        {
            Self::NoUnit(_) => "no-unit",
            Self::Gone { .. } => "process-gone",
            Self::Kernel { .. } => "system-call-failed",
            Self::Tape { .. } => "tape-step-failed",
            Self::Bus { .. } => "bus-failed",
            Self::Unreadable { .. } => "text-not-understood",
            Self::Store(_) => "store-failed",
            Self::Internal { .. } => "internal",
        }
        {
            Self::Refused(all) => all.first().map_or(DEFECT, |first| first.obstacle.code()),
            Self::NotEligible(all) => all.first().map_or(DEFECT, |first| CodedReason::from(first).code),
            Self::Unit(all) => all.first().map_or(DEFECT, snap_policy::Reason::code),
            Self::Stale(reason) => reason.code.as_str(),
            Self::Corrupt(_) => ReasonCode::ImageCorrupt.as_str(),
            Self::Deadline(_) => ReasonCode::Deadline.as_str(),
            Self::Service(fault) => fault.code(),
            Self::Restore(fault) => fault.code(),
        }
    }

    /// What the caller does about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(_) | Self::NotEligible(_) | Self::Unit(_) => Kind::Unsupported,
            Self::Gone { .. } | Self::NoUnit(_) => Kind::Gone,
            Self::Stale(_) => Kind::Stale,
            Self::Corrupt(_) => Kind::Corrupt,
            Self::Kernel { .. } | Self::Tape { .. } | Self::Deadline(_) | Self::Bus { .. } => Kind::Kernel,
            Self::Unreadable { .. } | Self::Service(_) | Self::Restore(_) => Kind::Kernel,
            Self::Internal { .. } => Kind::Kernel,
            Self::Store(e) => match e.kind() {
                image_store::ErrorKind::Corrupt => Kind::Corrupt,
                image_store::ErrorKind::Stale => Kind::Stale,
                image_store::ErrorKind::Unsupported => Kind::Stale,
                image_store::ErrorKind::Gone => Kind::Gone,
                image_store::ErrorKind::Io => Kind::Kernel,
            },
        }
    }
}

/// Result of a step of the engine.
pub type Result<T> = std::result::Result<T, Error>;
