//! What goes wrong beside system calls: nobody's refusal, and nothing that a program could not have
//! met.

use image_store::StaleReason;
use snap_state::{Pid, RawPath};
use std::fmt;
use std::process::ExitStatus;

coded! {
    /// What went wrong with a service on its way through a snapshot.
    ServiceFault {
        "main-process-changed" stays MainProcessChanged { was: i32, is: i32 }:
            "freeze: its main process changed meanwhile (was {was}, is {is})";
        "units-read-again" stays UnitsReadAgain:
            "restart: systemd has read its units again meanwhile, and may have handed over what it keeps";
        "not-come-back" stays NotComeBack { unit: String, state: String, result: String }:
            "restart: {unit} did not come back: it is {state} ({result})";
        "not-ready" stays NotReady { unit: String, after_s: u64 }:
            "restart: {unit} was not ready after {after_s} s";
        "not-in-state" stays NotInState { job: &'static str, unit: String, state: String, wanted: String }:
            "{job}: {unit} is {state} and not {wanted}";
        "ended-meanwhile" stays EndedMeanwhile { state: String, result: String }:
            "settle: it ended and is {state} now ({result})";
        "observation-failed" stays ObservationFailed { after_s: u64 }:
            "observe the start: events were still waiting after {after_s} s";
        "too-many-dependencies" stays TooManyDependencies { path: RawPath, most: usize }:
            "DependsOn=: {path} leads to more than {most} files";
        "warm-up-failed" stays WarmUpFailed { command: String, status: ExitStatus }: "warm-up: {command:?}: {status}";
        "trial-failed" stays TrialFailed { why: TrialFault }: "trial restore: {why}";
        "interrupted" stays Interrupted: "interrupted by the operator";
        "fault-injected" stays Injected { point: &'static str }: "fault point {point}";
    }
}

coded! {
    /// What went wrong with a restore.
    RestoreFault {
        "thread-not-stopped" stays NotStopped { thread: Pid, found: String }:
            "restore: thread {thread} was to be stopped and is {found}";
        "restore-stalled" stays Stalled { waits: String }:
            "restore: nothing has moved for two seconds: {waits}";
        "ended-before-ready" stays EndedBeforeReady: "restore: a process ended before it was ready";
        "ended-otherwise" stays EndedOtherwise { process: Ended, status: i32, wanted: i32 }:
            "{process} ended with {status:#x}, not {wanted:#x}";
        "creator-died" stays CreatorDied: "shmget: the creator died";
        "no-room-for-tape" stays NoRoomForTape { len_bytes: u64 }:
            "placing the tape: no free range of {len_bytes} bytes";
    }
}

/// A process that was made to end as an earlier one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// For a pidfd of it.
    OfPidfd,
    Zombie(Pid),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfPidfd => f.write_str("pidfd: a process"),
            Self::Zombie(pid) => write!(f, "rebuild: zombie {pid}"),
        }
    }
}

/// Why an image is not kept after its trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrialFault {
    /// The shim started the original command, for a reason that initd gave.
    StartedCold {
        reason: StaleReason,
    },
    /// systemd did not get it to run.
    NotRestarted {
        fault: Box<ServiceFault>,
    },
    DidNotStay {
        state: String,
        main_pid: i32,
        result: String,
    },
    /// The names are those of today.
    StoreDiffers {
        names: String,
    },
    /// Settings of systemd by which it starts the service, by name.
    StartChanged {
        names: String,
    },
    NoAnswer,
    TimesUntold,
    StartUntold,
}

impl fmt::Display for TrialFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartedCold { reason } => write!(f, "{reason} ({}); it was started cold", reason.code),
            Self::NotRestarted { fault } => fault.fmt(f),
            Self::DidNotStay { state, main_pid, result } => {
                let state = format_args!("{state} with main process {main_pid} ({result})");
                write!(f, "restored, and did not stay: it is {state}")
            }
            Self::StoreDiffers { names } => {
                write!(f, "restored, but what systemd keeps for it is not what it was ({names})")
            }
            Self::StartChanged { names } => {
                write!(f, "systemd starts it otherwise than when its image was taken ({names})")
            }
            Self::NoAnswer => f.write_str("the restore daemon was not asked, or said nothing"),
            Self::TimesUntold => f.write_str("its times cannot be told"),
            Self::StartUntold => f.write_str("the restore daemon has not recorded how it was started"),
        }
    }
}
