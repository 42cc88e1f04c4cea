//! The first seconds of a restored service: an image whose service fails in them is not trusted
//! again.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use image_store::{ImageId, ReasonCode, StaleReason, Store};

use crate::sys::process::wait_ended;

/// How long a restored main process has to live.
pub const PROBATION: Duration = Duration::from_secs(10);
/// systemd hears of the end when we do, and needs a moment.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What became of a restored service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It lived, or was stopped on purpose.
    Passed,
    /// It ended by itself and has not failed: its time was up, as of a service that leaves when
    /// nobody has asked it for a while.
    Left,
    /// It failed, with systemd's word for it.
    Failed(String),
}

/// Watch the main process for [`PROBATION`].
pub fn watch(unit: &str, main_pid: i32, main_pidfd: &OwnedFd) -> Verdict {
    if !wait_ended(main_pidfd, PROBATION) {
        return Verdict::Passed;
    }
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let judged = show(unit).and_then(|text| judge(&text, main_pid));
        match judged {
            Some(verdict) => return verdict,
            None if Instant::now() >= deadline => {
                return Verdict::Failed("its main process ended".to_owned());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

impl Verdict {
    /// What there is to say of a service that did not live; its reason for the next boots.
    pub fn reason(&self) -> Option<StaleReason> {
        let seconds = PROBATION.as_secs();
        match self {
            Self::Passed => None,
            Self::Left => {
                let sentence = format!("restored service ended by itself within {seconds} s");
                Some(StaleReason::new(ReasonCode::EndedItself, sentence))
            }
            Self::Failed(why) => {
                let sentence = format!("restored service failed within {seconds} s: {why}");
                Some(StaleReason::new(ReasonCode::RestoreFailed, sentence))
            }
        }
    }
}

/// Write down what happened. Returns whether the image will not be tried again.
///
/// # Errors
/// When the store cannot be written.
pub fn record(store: &Store, image: ImageId, boot_id: &str, verdict: &Verdict) -> image_store::Result<bool> {
    match verdict.reason() {
        None => store.mark_boot_ok(image).map(|()| false),
        Some(reason) => store.record_failure(image, boot_id, &reason).map(|record| record.is_final()),
    }
}

fn show(unit: &str) -> Option<String> {
    let properties = "--property=ExecMainPID,ExecMainCode,ExecMainStatus,Result,NRestarts,\
                      ExecMainExitTimestampMonotonic,ActiveExitTimestampMonotonic";
    let output = Command::new("systemctl").args(["show", properties, "--", unit]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// From systemd's properties; `None` when it has not noticed the end yet.
fn judge(text: &str, main_pid: i32) -> Option<Verdict> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(k, _)| *k == key).map(|(_, value)| value)
    };
    if value("ExecMainPID")?.parse() != Ok(main_pid) {
        // Started again already: by systemd after a failure, or by somebody on purpose.
        let is_automatic = value("NRestarts")? != "0";
        return Some(if is_automatic { Verdict::Failed("restarted".to_owned()) } else { Verdict::Passed });
    }
    if value("ExecMainCode")? == "0" {
        return None;
    }
    // A job that stops it takes the unit out of "active" first, and then its process ends.
    let time = |key: &str| value(key).and_then(|text| text.parse::<u64>().ok());
    let ended_us = time("ExecMainExitTimestampMonotonic");
    let ended_first = match (ended_us, time("ActiveExitTimestampMonotonic")) {
        // It is active still: `RemainAfterExit=`, or systemd has only just heard of it.
        (Some(_), Some(0)) => return None,
        (Some(ended_us), Some(left_us)) => ended_us <= left_us,
        _ => false,
    };
    match value("Result")? {
        "success" if ended_first => Some(Verdict::Left),
        "success" => Some(Verdict::Passed),
        result => Some(Verdict::Failed(result.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_on_purpose_is_no_failure_and_a_crash_is_one() {
        let text = |pid: i32, code: i32, result: &str, restarts: i32| {
            format!(
                "ExecMainPID={pid}\nExecMainCode={code}\nExecMainStatus=0\nResult={result}\nNRestarts={restarts}\n"
            )
        };
        assert_eq!(judge(&text(7, 0, "success", 0), 7), None);
        assert_eq!(judge(&text(7, 1, "success", 0), 7), Some(Verdict::Passed));
        assert_eq!(judge(&text(7, 2, "signal", 0), 7), Some(Verdict::Failed("signal".to_owned())));
        assert_eq!(judge(&text(8, 0, "success", 0), 7), Some(Verdict::Passed));
        assert_eq!(judge(&text(8, 0, "success", 1), 7), Some(Verdict::Failed("restarted".to_owned())));
        assert_eq!(judge("nonsense", 7), None);
    }

    #[test]
    fn who_ends_before_anybody_stops_it_has_left() {
        let text = |ended_us: u64, left_us: u64, result: &str| {
            format!(
                "ExecMainPID=7\nExecMainCode=1\nExecMainStatus=0\nResult={result}\nNRestarts=0\n\
                 ExecMainExitTimestampMonotonic={ended_us}\nActiveExitTimestampMonotonic={left_us}\n"
            )
        };
        assert_eq!(judge(&text(500, 501, "success"), 7), Some(Verdict::Left));
        assert_eq!(judge(&text(500, 400, "success"), 7), Some(Verdict::Passed), "it was stopped");
        assert_eq!(judge(&text(500, 0, "success"), 7), None, "systemd is not done with it");
        assert_eq!(judge(&text(500, 501, "exit-code"), 7), Some(Verdict::Failed("exit-code".to_owned())));
        let reason = Verdict::Left.reason().map(|reason| reason.code);
        assert_eq!((reason, Verdict::Passed.reason()), (Some(ReasonCode::EndedItself), None));
    }
}
