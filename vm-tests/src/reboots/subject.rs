//! The services that go through the reboots: how to ask, how to fill their memory, and what only
//! that memory knows.

use anyhow::{Context as _, Result, ensure};

use crate::machine::Running;

/// One service. Requests end with the server closing the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject {
    pub(super) unit: &'static str,
    port: u16,
    /// A client's question, and what its answer must have.
    question: (&'static str, &'static str),
    /// Fills its memory with what nothing else would put there.
    drive: fn() -> String,
    /// Where to look into its memory, and with which words.
    look: (u16, &'static str),
    /// Of the answer, what must be the same in the same life and is not in another.
    kept: fn(&str) -> Vec<String>,
}

pub(super) const SUBJECTS: [Subject; 4] = [
    Subject {
        unit: "nginx.service",
        port: 80,
        question: ("GET / HTTP/1.0\r\n\r\n", "nginx answers"),
        drive: || {
            let one = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
            one.repeat(NGINX_REQUESTS) + "GET / HTTP/1.0\r\n\r\n"
        },
        look: (8090, "GET /status HTTP/1.0\r\n\r\n"),
        kept: |answer| vec![format!("driven: {}", nginx_requests(answer) > Some(NGINX_REQUESTS))],
    },
    Subject {
        unit: "redis-server.service",
        port: 6379,
        question: ("PING\r\nQUIT\r\n", "+PONG"),
        drive: || "SET fastboot:test only-in-memory\r\nQUIT\r\n".to_owned(),
        look: (6379, "GET fastboot:test\r\nINFO server\r\nQUIT\r\n"),
        kept: |answer| lines_with(answer, &["only-in-memory", "run_id:"]),
    },
    Subject {
        unit: "counter.service",
        port: 8082,
        question: ("GET /state HTTP/1.0\r\n\r\n", "\"count\""),
        drive: || "GET /bump?by=4242 HTTP/1.0\r\n\r\n".to_owned(),
        look: (8082, "GET /state HTTP/1.0\r\n\r\n"),
        kept: |answer| lines_with(answer, &["\"count\""]),
    },
    Subject {
        unit: CLOCKWORK,
        port: 8083,
        question: ("", "kept instance"),
        drive: String::new,
        look: (8083, ""),
        kept: |answer| lines_with(answer, &["kept "]),
    },
];

pub(super) const CLOCKWORK: &str = "clockwork.service";
/// More than a few looks bring about.
const NGINX_REQUESTS: usize = 100;

fn lines_with(answer: &str, words: &[&str]) -> Vec<String> {
    let lines = answer.lines().map(str::trim).filter(|line| words.iter().any(|word| line.contains(word)));
    lines.map(str::to_owned).collect()
}

fn nginx_requests(answer: &str) -> Option<usize> {
    let numbers = answer.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1)?;
    numbers.split_whitespace().nth(2)?.parse().ok()
}

impl Subject {
    /// Ask as a client would.
    pub(super) fn ask(&self, running: &Running) -> Result<()> {
        let answer = running.ask(self.port, self.question.0)?;
        ensure!(answer.contains(self.question.1), "it answers {answer:?}");
        Ok(())
    }

    pub(super) fn drive(&self, running: &Running) -> Result<()> {
        running.ask(self.port, &(self.drive)()).map(drop)
    }

    fn look(&self, running: &Running) -> Result<String> {
        running.ask(self.look.0, self.look.1)
    }
}

/// A service at one moment.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) subject: Subject,
    active: String,
    main_pid: u32,
    pids: Vec<u32>,
    kept: Vec<String>,
    clocks: Option<Clocks>,
}

impl Seen {
    /// Look at all services: at their processes in one command, for each costs.
    pub(super) fn all(running: &Running) -> Result<Vec<Seen>> {
        let units = SUBJECTS.map(|subject| subject.unit).join(" ");
        let text = running.shell(&format!(
            "for unit in {units}; do echo Unit=$unit; systemctl show -p ActiveState,MainPID $unit; \
             cat /sys/fs/cgroup/system.slice/$unit/cgroup.procs || true; done"
        ))?;
        SUBJECTS
            .iter()
            .map(|&subject| {
                let answer = subject.look(running).with_context(|| running.journal(Some(subject.unit), 10));
                let answer = answer.with_context(|| format!("looking at {}", subject.unit))?;
                let (active, main_pid, pids) = parse_unit(&text, subject.unit)
                    .with_context(|| format!("no {} in {text:?}", subject.unit))?;
                let clocks = (subject.unit == CLOCKWORK).then(|| Clocks::parse(&answer)).flatten();
                Ok(Seen { subject, active, main_pid, pids, kept: (subject.kept)(&answer), clocks })
            })
            .collect()
    }

    pub(super) fn clocks(&self) -> Option<Clocks> {
        self.clocks
    }

    /// Passes when `later` is the same life.
    pub(super) fn require_kept(&self, later: &Seen) -> Result<()> {
        ensure!(later.active == "active", "it is {}", later.active);
        ensure!(self.main_pid == later.main_pid, "main PID {} is now {}", self.main_pid, later.main_pid);
        ensure!(self.pids == later.pids, "processes {:?} are now {:?}", self.pids, later.pids);
        ensure!(self.kept == later.kept, "{:?} is now {:?}", self.kept, later.kept);
        Ok(())
    }

    /// Passes when `later` is another life.
    pub(super) fn require_gone(&self, later: &Seen) -> Result<()> {
        ensure!(later.active == "active", "it is {}", later.active);
        let survivor = self.pids.iter().find(|pid| later.pids.contains(pid));
        ensure!(survivor.is_none(), "process {survivor:?} is still there");
        ensure!(self.kept != later.kept, "it still knows {:?}", later.kept);
        Ok(())
    }
}

fn parse_unit(text: &str, unit: &str) -> Option<(String, u32, Vec<u32>)> {
    let lines = text.lines().skip_while(|line| *line != format!("Unit={unit}")).skip(1);
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("Unit=")).collect();
    let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let mut pids: Vec<u32> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    pids.sort_unstable();
    Some((value("ActiveState")?.to_owned(), value("MainPID")?.parse().ok()?, pids))
}

/// What the clockwork's clocks and timers say, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    started: i64,
    mono: i64,
    boot: i64,
    ticks: i64,
    left: i64,
}

/// From the clockwork's start to its far timer; as `clockwork.c` has it.
const FAR_MS: i64 = 100_000_000;
/// What the clocks and timers of an emulated machine on a busy host may be apart.
const SLACK_MS: i64 = 3000;

impl Clocks {
    fn parse(answer: &str) -> Option<Clocks> {
        let number = |name: &str| {
            answer.lines().find_map(|line| line.strip_prefix(name)?.split(' ').nth(1)?.parse().ok())
        };
        Some(Clocks {
            started: number("kept started")?,
            mono: number("now mono")?,
            boot: number("now boot")?,
            ticks: number("now ticks")?,
            left: number("now left")?,
        })
    }

    /// Timers agree with the clock: one tick a second since the start, and the far one due when it
    /// was set to.
    pub(super) fn require_in_time(&self) -> Result<()> {
        let due = self.started / 1000 * 1000 + FAR_MS;
        let off = self.mono + self.left - due;
        ensure!(off.abs() < SLACK_MS, "the far timer is off by {off} ms: {self:?}");
        let missing = (self.mono - self.started) / 1000 - self.ticks;
        ensure!(missing.abs() * 1000 <= SLACK_MS, "{missing} ticks are missing: {self:?}");
        Ok(())
    }

    /// Passes when `later`, at most `uptime_ms` into another boot, has gone on from here.
    pub(super) fn require_continued(&self, later: &Clocks, uptime_ms: i64) -> Result<()> {
        later.require_in_time()?;
        // The image is a little older than the look at it.
        for (name, before, after) in
            [("monotonic", self.mono, later.mono), ("boottime", self.boot, later.boot)]
        {
            let gone = after - before;
            ensure!(
                gone > -60_000 && gone <= uptime_ms + SLACK_MS,
                "the {name} clock went from {before} to {after} in a boot of {uptime_ms} ms"
            );
        }
        ensure!(later.mono > self.started, "the clock is before the daemon's start: {later:?}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_in_what_the_guest_prints() {
        let text = "Unit=a.service\nMainPID=7\nActiveState=active\n9\n7\nUnit=b.service\nMainPID=0\nActiveState=failed\n";
        assert_eq!(parse_unit(text, "a.service"), Some(("active".to_owned(), 7, vec![7, 9])));
        assert_eq!(parse_unit(text, "b.service"), Some(("failed".to_owned(), 0, vec![])));
        assert_eq!(parse_unit(text, "c.service"), None);
    }

    #[test]
    fn a_clock_that_starts_again_has_not_continued() {
        let before = Clocks { started: 60_000, mono: 90_000, boot: 90_000, ticks: 30, left: FAR_MS - 30_000 };
        let later = Clocks { mono: 95_000, boot: 95_000, ticks: 35, left: FAR_MS - 35_000, ..before };
        before.require_continued(&later, 12_000).unwrap();
        // Jumped ahead; back at the start of this boot; a timer that was set anew; ticks that were
        // lost.
        for wrong in [
            Clocks { mono: 300_000, boot: 300_000, ticks: 240, left: FAR_MS - 240_000, ..before },
            Clocks { mono: 12_000, boot: 12_000, ..before },
            Clocks { left: FAR_MS, ..later },
            Clocks { ticks: 20, ..later },
        ] {
            before.require_continued(&wrong, 12_000).unwrap_err();
        }
    }
}
