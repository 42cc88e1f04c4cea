//! timerfd_create(2).

use super::kind::FileState;
use serde::{Deserialize, Serialize};

/// `timerfd_create(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerFdV1 {
    pub clock_id: i32,
    /// TFD_TIMER_ABSTIME 1, TFD_TIMER_CANCEL_ON_SET 2.
    pub settime_flags: i32,
    /// Expirations not yet read.
    pub ticks: u64,
    /// 0 is disarmed.
    pub remaining_ns: u64,
    pub interval_ns: u64,
}

impl FileState for TimerFdV1 {
    fn name(&self) -> &'static str {
        "timerfd"
    }
}
