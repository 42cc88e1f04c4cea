//! `/proc/PID/stat`.

use super::{read, read_task, unreadable};
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
        // The second field is the name in parentheses and may itself contain anything.
        let after_name = text.iter().rposition(|&b| b == b')')? + 2;
        let text = std::str::from_utf8(text.get(after_name..)?).ok()?;
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        // Numbered from 1 as in the manual page; the state is field 3.
        let field = |number: usize| words.get(number - 3).copied();
        let int = |number| field(number)?.parse::<i32>().ok();
        let addr = |number| field(number)?.parse::<u64>().ok().map(Addr);
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            ppid: Pid(int(4)?),
            pgid: Pid(int(5)?),
            sid: Pid(int(6)?),
            tty: int(7)?,
            start_ticks: field(22)?.parse().ok()?,
            start_code: addr(26)?,
            end_code: addr(27)?,
            start_stack: addr(28)?,
            exit_signal: int(38)?,
            start_data: addr(45)?,
            end_data: addr(46)?,
            start_brk: addr(47)?,
            arg_start: addr(48)?,
            arg_end: addr(49)?,
            env_start: addr(50)?,
            env_end: addr(51)?,
            exit_code: int(52)?,
        })
    }
}

/// What the kernel has marked a thread with (`PF_*`, field 9 of its stat).
///
/// # Errors
/// [`snap_error::Error::Gone`] when the thread has ended.
pub fn task_flags(pid: Pid, tid: Pid) -> Result<u64> {
    let text = read_task(pid, tid, "stat")?;
    let after_name = text.iter().rposition(|&b| b == b')').map_or(0, |at| at + 2);
    let fields = String::from_utf8_lossy(text.get(after_name..).unwrap_or_default()).into_owned();
    // state ppid pgrp session tty_nr tpgid flags
    let flags = fields.split_ascii_whitespace().nth(6).and_then(|flags| flags.parse().ok());
    flags.ok_or_else(|| unreadable("stat", format!("/proc/{pid}/task/{tid}/stat")))
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
