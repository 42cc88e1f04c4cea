//! What stands against a service beside its processes and its settings: files that it depends on,
//! its surroundings.

use crate::hook::HookFailure;
use crate::observation::NotObserved;
use image_store::StaleReason;
use image_store::evidence::Gap;
use snap_state::sections::Family;
use snap_state::{Pid, RawPath};

coded! {
    /// A reason not to take a service that lies around it.
    UnitObstacle {
        "inside-itself" stays InsideItself: "this command runs inside it";
        "no-machine-id" stays NoMachineId:
            "/etc/machine-id is empty: at the next boot nothing would say that an image is of this machine";
        "reads-identity" stays ReadsIdentity { path: RawPath, what: &'static str }:
            "has read {path} ({what}), which is of this machine alone, and a golden image would bring it to others \
             ([X-Fastboot] Identity= overrides)";
        "repeats-random" stays RepeatsRandom { library: String }:
            "uses {library}, by which every machine with the image would draw or have the same secrets \
             ([X-Fastboot] Identity= overrides)";
        "identity-unseen" stays IdentityUnseen { why: String }:
            "nobody knows whether it has read something that is of this machine alone: {why} \
             ([X-Fastboot] Identity= overrides)";
        "identity-not-renewed" stays IdentityNotRenewed:
            "says Identity=renewed, and has no hook that could do it (AfterRestore=, fastboot-hooks.h)";
        "writes-state" stays WritesState { path: RawPath }:
            "writes to {path}: a golden image would put old memory beside newer data \
             ([X-Fastboot] AllowState=yes overrides)";
        "kernel-setting" stays WritesSetting { path: RawPath }:
            "has written to {path}, and nobody would write that again after a restore \
             ([X-Fastboot] KernelState=reload, or IgnoreChanges= for this file, overrides)";
        "file-changed-since-start" stays ChangedSinceStart { path: RawPath }:
            "{path} changed after the service had started: nobody knows which version it has read";
        "unit-changed-since-start" stays UnitChangedSinceStart { path: RawPath }:
            "{path}, of its unit, changed after the service had started, which goes by what it said before";
        "file-seen-inside-only" stays SeenInsideOnly { path: RawPath }:
            "{path} can only be seen by the unit itself and could not be checked at boot";
        "file-name-not-utf8" stays NameNotUtf8 { path: RawPath }:
            "{path} has a name that is not UTF-8 and could not be checked at boot";
        "dependency-name-not-utf8" stays DependencyNotUtf8 { path: RawPath }:
            "{path} has a name that is not UTF-8";
        "file-changed-in-start" stays ChangedInStart { path: RawPath }:
            "{path} changed while the start was recorded: nobody knows which version the service has read";
        "file-on-remote" stays OnRemote { path: RawPath, kind: String }:
            "{path} lies on {kind}, and comparing it could hold up a boot ([X-Fastboot] IgnoreChanges= says that it does not matter)";
        "start-not-observed" stays StartNotObserved { why: NotObserved }:
            "its start was not observed ({why}), so nobody knows what it has read and closed ([X-Fastboot] DependsOn= says what counts)";
        "start-observed-in-part" stays StartObservedInPart { gap: Gap }:
            "not all of its start was observed: {gap} ([X-Fastboot] DependsOn= says what counts)";
        "random-held" stays RandomHeld { process: Pid, path: RawPath }:
            "process {process} holds {path} open, and what it has read ahead would be drawn again after each restore \
             ([X-Fastboot] AllowRepeatedRandom=yes says that it does not matter)";
        "pid-of-other-image" stays PidOfOtherImage { number: i32, unit: String }:
            "process id {number} also belongs to the image of {unit}";
        "restarted-by-others" stays RestartedByOthers { names: String }:
            "somebody restarted it meanwhile, and systemd may have handed it what it keeps for it ({names})";
        "store-untold" stays StoreUntold { count: u32 }:
            "systemd keeps {count} descriptors for it and does not say which";
        "store-restless" stays StoreRestless:
            "what systemd keeps for it (file descriptor store) changes all the time";
        "gains-nothing" stays GainsNothing { restored_ms: u64, cold_ms: u64 }:
            "gains nothing: restored in {restored_ms} ms, started cold in {cold_ms} ms";
        "fast-restart-unit" stays FastRestartUnit:
            "is in fast-restart mode ([X-Fastboot] Mode=): it is taken when the machine goes down, and has no golden image";
        "not-fast-restart" stays NotFastRestart:
            "is not in fast-restart mode ([X-Fastboot] Mode=fast-restart, which `fastboot enable` writes)";
        "other-kernel-next" stays OtherKernelNext { release: String }:
            "the next boot starts another kernel ({release}), with which no image of today's is used";
        "never-observed" stays NeverObserved:
            "nobody has observed yet what it reads at its start; `fastboot enable` does";
        "inputs-changed" stays InputsChanged { reason: StaleReason }:
            "{reason} since it was observed: its next start is to take that in";
        "input-changed-since-start" stays InputChangedSinceStart { path: RawPath }:
            "{path} changed since it has started: its next start is to take that in";
        "ordinary-numbers" stays OrdinaryNumbers { number: i32 }:
            "its process id {number} is an ordinary one, which the next boot gives to somebody else; \
             `fastboot enable`, or a start in the next boot, gives it others";
        "state-untold" stays StateUntold { why: String }: "its state cannot be compared: {why}";
        "state-not-still" stays StateNotStill { path: RawPath }:
            "{path} changed after its service had been frozen: somebody else writes to it";
        "not-in-time" stays NotInTime { limit_s: u64 }: "it was not its turn within {limit_s} s";
        "changed-while-frozen" stays ChangedWhileFrozen { state: String }:
            "systemd has begun to end it meanwhile (it is {state})";
        "hook-failed" stays HookFailed { failure: HookFailure }: "{failure}";
        "state-too-large" stays StateTooLarge { family: Family, len_bytes: usize, most_bytes: usize }:
            "has so much to record ({family:?}) that it would take {len_bytes} bytes; at most {most_bytes} are read again";
    }
}
