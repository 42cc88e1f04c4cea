//! What is dumped and restored: how each is started, when it is ready, and how it proves that it is
//! the same process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::child;
use super::place::{self, WORK_DIR};
use crate::client;
use crate::container::wait_until;

/// Longest for a start, and for an answer after a restore.
const BOUND: Duration = Duration::from_secs(60);
/// PID of every subject: far above what the tools get, so that it is free when they bring it back.
const SUBJECT_PID: u32 = 20_000;
/// PID that the first process of a tool gets.
const TOOL_PID: u32 = 300;
/// Ports of the servers, in a network of their own.
const REDIS_PORT: u16 = 6379;
const JAVA_PORT: u16 = 8080;

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Tiny,
    Redis,
    Java,
    Memory,
    Threads,
    Children,
    Descriptors,
    Areas,
}

/// A started subject that is ready.
#[derive(Debug)]
pub(super) struct Running {
    subject: Subject,
    pub(super) pid: Pid,
    /// As in /proc: redis writes its own.
    command_line: Vec<u8>,
    memory_kib: u64,
}

impl Subject {
    pub(super) const ALL: [Subject; 8] = [
        Subject::Tiny,
        Subject::Redis,
        Subject::Java,
        Subject::Memory,
        Subject::Threads,
        Subject::Children,
        Subject::Descriptors,
        Subject::Areas,
    ];

    /// Name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Subject::Tiny => "tiny C daemon",
            Subject::Redis => "redis-server",
            Subject::Java => "JVM, 100 MiB on the heap",
            Subject::Memory => "C program, 1 GiB touched",
            Subject::Threads => "C program, 32 threads",
            Subject::Children => "C program, 32 children",
            Subject::Descriptors => "C program, 1,000 descriptors",
            Subject::Areas => "C program, 10,000 areas",
        }
    }

    /// What it is, and how it shows that it was restored.
    pub(super) fn description(self) -> &'static str {
        match self {
            Subject::Tiny => {
                "one thread, glibc, counts and writes the count to a file every ms; the count goes on from where it was"
            }
            Subject::Redis => {
                "Debian's, started with --save '' --appendonly no and one key; answers PING and has the key"
            }
            Subject::Java => {
                "OpenJDK with its default options, com.sun.net.httpserver, 100 MiB of random bytes on the heap; answers, \
                 goes on counting requests, heap has its checksum"
            }
            Subject::Memory => {
                "1 GiB of anonymous memory, every page other random numbers; all of them are compared after the restore"
            }
            Subject::Threads => "each counts every 10 ms; all go on",
            Subject::Children => "forked, each counts every 10 ms in memory that all share; all go on",
            Subject::Descriptors => {
                "both ends of 500 pipes, each with a number inside that is read afterwards"
            }
            Subject::Areas => {
                "pages of anonymous memory that are writable and not by turns, each with its number"
            }
        }
    }

    fn arguments(self) -> Vec<String> {
        let line = match self {
            Subject::Tiny => format!("bench-tiny {WORK_DIR}/count"),
            Subject::Redis => {
                format!("redis-server --port {REDIS_PORT} --bind 127.0.0.1 --appendonly no --save")
            }
            Subject::Java => format!("java -cp /usr/local/share/bench Server {JAVA_PORT}"),
            Subject::Memory => format!("bench-memory 1024 {WORK_DIR}/comparison"),
            Subject::Threads => format!("bench-shape threads 32 {WORK_DIR}/comparison"),
            Subject::Children => format!("bench-shape children 32 {WORK_DIR}/comparison"),
            Subject::Descriptors => format!("bench-shape descriptors 1000 {WORK_DIR}/comparison"),
            Subject::Areas => format!("bench-shape areas 10000 {WORK_DIR}/comparison"),
        };
        let mut arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        if self == Subject::Redis {
            arguments.push(String::new());
        }
        arguments
    }

    /// Start it, with the same PID each time, and wait until it is ready and quiet.
    ///
    /// # Errors
    /// It does not start, or does not get its PID.
    pub(super) fn start(self) -> Result<Running> {
        for name in ["count", "comparison"] {
            let _ = fs::remove_file(work(name));
        }
        let arguments = self.arguments();
        place::set_next_pid(SUBJECT_PID)?;
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // Not waited for through this handle: what has to be reaped later is a restored process
        // with the same number.
        let started = place::daemon(&words).spawn().with_context(|| format!("starting {}", self.name()))?;
        let pid = Pid::from_raw(i32::try_from(started.id())?);
        let mut running = Running { subject: self, pid, command_line: Vec::new(), memory_kib: 0 };
        let ready = running.make_ready();
        if let Err(error) = ready {
            child::end(pid)?;
            return Err(error.context(format!("{} does not get ready", self.name())));
        }
        place::set_next_pid(TOOL_PID)?;
        Ok(running)
    }
}

impl Running {
    fn make_ready(&mut self) -> Result<()> {
        ensure!(self.pid.as_raw().unsigned_abs() == SUBJECT_PID, "it got PID {}", self.pid);
        match self.subject {
            Subject::Tiny => {
                wait_until("a first count", BOUND, || Ok((count()? > 20).then_some(())))?;
            }
            Subject::Redis => {
                wait_until("an answer", BOUND, || client::command(REDIS_PORT, &["PING"]).map(Some))?;
                client::command(REDIS_PORT, &["SET", "proof", "4711"])?;
            }
            Subject::Java => {
                wait_until("an answer", BOUND, || client::get(JAVA_PORT, "/").map(Some))?;
                // Enough that the handler is loaded and linked.
                for request in 2..=20 {
                    self.java_answers(request)?;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            Subject::Memory
            | Subject::Threads
            | Subject::Children
            | Subject::Descriptors
            | Subject::Areas => {
                wait_until("all that it is to have", BOUND, || Ok((comparison()? == "ready").then_some(())))?;
            }
        }
        wait_until("an end of all connections", BOUND, || Ok(no_open_connection()?.then_some(())))?;
        std::thread::sleep(Duration::from_millis(200));
        self.command_line = command_line(self.pid)?;
        self.memory_kib = resident_kib(self.pid)?;
        Ok(())
    }

    /// Resident memory when it was ready.
    pub(super) fn memory_kib(&self) -> u64 {
        self.memory_kib
    }

    /// Whether the process that now has the PID is the subject, alive, with its memory.
    /// `count_before` is what [`final_count`](Self::final_count) said while it was away.
    ///
    /// # Errors
    /// It is not, and in what.
    pub(super) fn prove(&self, count_before: u64) -> Result<()> {
        let same = command_line(self.pid)? == self.command_line;
        ensure!(same, "process {} has another command line", self.pid);
        match self.subject {
            Subject::Tiny => {
                let went_on = || {
                    let now = count()?;
                    ensure!(
                        now >= count_before && now < count_before + 100_000,
                        "{now} after {count_before}"
                    );
                    Ok((now > count_before + 20).then_some(()))
                };
                wait_until("a count that goes on", Duration::from_secs(5), went_on)
            }
            Subject::Redis => {
                let answer = client::command(REDIS_PORT, &["PING"])?;
                ensure!(answer == "PONG", "PING is answered with {answer:?}");
                let key = client::command(REDIS_PORT, &["GET", "proof"])?;
                ensure!(key == "4711", "the key is {key:?}");
                Ok(())
            }
            Subject::Java => self.java_answers(21),
            Subject::Memory
            | Subject::Threads
            | Subject::Children
            | Subject::Descriptors
            | Subject::Areas => {
                kill(self.pid, Signal::SIGUSR1).context("asking for a comparison")?;
                let done = || {
                    let text = comparison()?;
                    Ok((text != "ready").then_some(text))
                };
                let text = wait_until("a look at all of it", BOUND, done)?;
                ensure!(text == "ok 1", "comparison after the restore: {text}");
                Ok(())
            }
        }
    }

    /// The last thing that a subject wrote before it was gone.
    ///
    /// # Errors
    /// The file is not there.
    pub(super) fn final_count(&self) -> Result<u64> {
        match self.subject {
            Subject::Tiny => count(),
            _ => Ok(0),
        }
    }

    fn java_answers(&self, request: u32) -> Result<()> {
        let response = client::get(JAVA_PORT, "/")?;
        let expected = format!("request {request}, heap ok");
        ensure!(response.body == expected, "{:?} instead of {expected:?}", response.body);
        Ok(())
    }
}

fn work(name: &str) -> PathBuf {
    Path::new(WORK_DIR).join(name)
}

fn count() -> Result<u64> {
    let bytes = fs::read(work("count")).context("reading the count")?;
    let bytes: [u8; 8] = bytes.try_into().map_err(|_| anyhow::anyhow!("the count has not eight bytes"))?;
    Ok(u64::from_ne_bytes(bytes))
}

fn comparison() -> Result<String> {
    fs::read_to_string(work("comparison")).context("reading the comparison")
}

/// Whether there are only listeners, and ends that nobody holds any more.
fn no_open_connection() -> Result<bool> {
    let mut tables = String::new();
    for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        tables += &fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    }
    Ok(only_listeners(&tables))
}

fn only_listeners(tables: &str) -> bool {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let mut states = tables.lines().filter_map(|line| {
        let state = line.split_whitespace().nth(3)?;
        (state != "st").then_some(state)
    });
    states.all(|state| state == TIME_WAIT || state == LISTEN)
}

fn command_line(pid: Pid) -> Result<Vec<u8>> {
    fs::read(format!("/proc/{pid}/cmdline")).with_context(|| format!("there is no process {pid}"))
}

fn resident_kib(pid: Pid) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading status")?;
    let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmRSS:")) else {
        bail!("process {pid} has no memory");
    };
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_somebody_holds_is_seen() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let line =
            |state| format!("   0: 0100007F:18EB 00000000:0000 {state} 00000000:00000000 00:00000000\n");
        assert!(only_listeners(&format!("{header}{}{}", line("0A"), line("06"))));
        for state in ["01", "05", "08"] {
            assert!(!only_listeners(&format!("{header}{}{header}{}", line("0A"), line(state))));
        }
    }
}
