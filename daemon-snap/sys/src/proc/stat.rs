//! `/proc/PID/stat`.

use super::{read, read_task, unreadable};
use procfs_core::{FromRead as _, process};
use snap_error::Result;
use snap_state::{Addr, Pid};

/// The fields of `/proc/PID/stat` that we use (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// `R`, `S`, `Z`, `T` …
    pub state: u8,
    pub ppid: Pid,
    pub pgid: Pid,
    pub sid: Pid,
    /// 0 when there is no controlling terminal.
    pub tty: i32,
    /// When it was made, in clock ticks since the boot.
    pub start_ticks: u64,
    pub start_code: Addr,
    pub end_code: Addr,
    pub start_stack: Addr,
    pub exit_signal: i32,
    pub start_data: Addr,
    pub end_data: Addr,
    pub start_brk: Addr,
    pub arg_start: Addr,
    pub arg_end: Addr,
    pub env_start: Addr,
    pub env_end: Addr,
    /// Of one that has ended: as waitpid(2) gives it.
    pub exit_code: i32,
}

impl Stat {
    /// Reads `/proc/PID/stat`.
    ///
    /// # Errors
    /// [`snap_error::Error::Gone`] when the process has ended.
    pub fn of(pid: Pid) -> Result<Self> {
        Self::parse(&read(pid, "stat")?).ok_or_else(|| unreadable("stat", format!("/proc/{pid}/stat")))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let stat = process::Stat::from_read(text).ok()?;
        Some(Self {
            state: u8::try_from(stat.state).ok()?,
            ppid: Pid(stat.ppid),
            pgid: Pid(stat.pgrp),
            sid: Pid(stat.session),
            tty: stat.tty_nr,
            start_ticks: stat.starttime,
            start_code: Addr(stat.startcode),
            end_code: Addr(stat.endcode),
            start_stack: Addr(stat.startstack),
            exit_signal: stat.exit_signal?,
            start_data: stat.start_data.map(addr)?,
            end_data: stat.end_data.map(addr)?,
            start_brk: stat.start_brk.map(addr)?,
            arg_start: stat.arg_start.map(addr)?,
            arg_end: stat.arg_end.map(addr)?,
            env_start: stat.env_start.map(addr)?,
            env_end: stat.env_end.map(addr)?,
            exit_code: stat.exit_code?,
        })
    }
}

fn addr(value: impl TryInto<u64>) -> Addr {
    Addr(value.try_into().unwrap_or_default())
}

/// What the kernel has marked a thread with (`PF_*`, field 9 of its stat).
///
/// # Errors
/// [`snap_error::Error::Gone`] when the thread has ended.
pub fn task_flags(pid: Pid, tid: Pid) -> Result<u64> {
    let stat = process::Stat::from_read(read_task(pid, tid, "stat")?.as_slice());
    let flags = stat.map(|stat| u64::from(stat.flags));
    flags.map_err(|_| unreadable("stat", format!("/proc/{pid}/task/{tid}/stat")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_name_with_parentheses() {
        let mut text = b"12 (a) b) S 3 4 5 6 ".to_vec();
        text.extend((8..=52).flat_map(|n| format!("{n} ").into_bytes()));
        let stat = Stat::parse(&text).unwrap();
        assert_eq!((stat.state, stat.ppid, stat.pgid, stat.sid, stat.tty), (b'S', Pid(3), Pid(4), Pid(5), 6));
        assert_eq!((stat.start_code, stat.exit_signal, stat.env_end), (Addr(26), 38, Addr(51)));
    }
}
