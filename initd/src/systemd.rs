//! What systemd itself says about a start: which process it has made for the unit, and whether it
//! had started the unit in this boot before.
//!
//! It is asked on its private socket, which answers from the first moment of a boot, before there
//! is a bus, and only to root. One connection per question: whoever stays connected is sent a
//! signal about every change of every unit.
//!
//! systemd forgets a unit that nothing refers to when it has stopped. What it would have said is
//! then known only from our own notes ([`crate::first_start`]).

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use snap_bus::BusStream;

/// Where systemd listens for those who speak to it without a bus.
pub const PRIVATE_SOCKET: &str = "/run/systemd/private";

const SERVICE: &str = "org.freedesktop.systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OF_UNITS: &str = "org.freedesktop.systemd1.Unit";
const OF_SERVICES: &str = "org.freedesktop.systemd1.Service";
/// Started anew in each userspace, before any service that it is there for.
const OUR_SOCKET: &str = "fastboot-initd.socket";

/// Properties of one question, in the order of [`Word`].
const OF_THE_UNIT: [(&str, &str); 5] = [
    (OF_SERVICES, "MainPID"),
    (OF_SERVICES, "ControlPID"),
    (OF_SERVICES, "NRestarts"),
    (OF_UNITS, "InactiveEnterTimestampMonotonic"),
    (OF_UNITS, "ActiveExitTimestampMonotonic"),
];

/// How to reach systemd, and since when its memory counts.
#[derive(Clone, Debug)]
pub struct Systemd {
    socket: PathBuf,
    /// The kernel goes on from an earlier userspace, whose starts are none of this one's.
    is_soft_reboot: bool,
}

/// A question that has been asked. It waits in systemd while we do something else.
#[derive(Debug)]
pub struct Question {
    stream: BusStream<UnixStream>,
    serials: Vec<u32>,
}

/// systemd's word about a start that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Main process; 0: there is none.
    pub main_pid: i32,
    /// The process of the command that is being executed, for a service that forks; 0: there is
    /// none.
    pub control_pid: i32,
    /// How often systemd has started it again by itself.
    pub restarts: u64,
    /// When it became inactive last, and when it was active last, `CLOCK_MONOTONIC`; 0: never.
    pub ended_us: [u64; 2],
    /// When this userspace began.
    pub userspace_us: u64,
}

impl Systemd {
    /// systemd at this socket.
    pub fn new(socket: &Path, is_soft_reboot: bool) -> Systemd {
        Systemd { socket: socket.to_owned(), is_soft_reboot }
    }

    /// Ask about a unit; systemd may take until `deadline`.
    ///
    /// # Errors
    /// There is no systemd, or it does not read.
    pub fn ask(&self, unit: &str, deadline: Instant) -> io::Result<Question> {
        let unit = unit_path(unit);
        let mut calls = OF_THE_UNIT.map(|(of, name)| get(&unit, of, name)).to_vec();
        calls.push(get(MANAGER_PATH, MANAGER, "UserspaceTimestampMonotonic"));
        let ours = unit_path(OUR_SOCKET);
        if self.is_soft_reboot {
            // Not every version begins to count anew there.
            calls.push(get(&ours, OF_UNITS, "InactiveExitTimestampMonotonic"));
        }
        let mut stream = BusStream::new(UnixStream::connect(&self.socket)?, deadline).with("systemd");
        let serials = stream.greet_service(SERVICE, &calls).map_err(plain)?;
        Ok(Question { stream, serials })
    }
}

impl Question {
    /// Wait for the answer.
    ///
    /// # Errors
    /// There is none in time, or it is none that a service has.
    pub fn answer(mut self) -> io::Result<Word> {
        let numbers = self.stream.numbers(&self.serials).map_err(plain)?;
        let [main, control, restarts, inactive, active, ref userspace @ ..] = numbers[..] else {
            return Err(io::Error::other("a part of the answer is missing"));
        };
        let pid = |number: u64| i32::try_from(number).map_err(io::Error::other);
        Ok(Word {
            main_pid: pid(main)?,
            control_pid: pid(control)?,
            restarts,
            ended_us: [inactive, active],
            userspace_us: userspace.iter().copied().max().unwrap_or(0),
        })
    }
}

impl Word {
    /// Whether this process is the one that systemd has made for the command of a service of this
    /// type.
    pub fn names(&self, pid: i32, service_type: &str) -> bool {
        match service_type {
            "forking" => self.control_pid == pid,
            _ => self.main_pid == pid,
        }
    }

    /// Whether this userspace had started the unit before.
    pub fn has_started_before(&self) -> bool {
        self.restarts > 0 || self.ended_us.iter().any(|ended_us| *ended_us > self.userspace_us)
    }
}

/// What went wrong, without the words that make it a reason against an image.
fn plain(error: snap_error::Error) -> io::Error {
    io::Error::other(error.to_stale_reason().sentence)
}

type Get<'a> = ([&'a str; 3], (&'a str, &'a str));

fn get<'a>(path: &'a str, of: &'a str, name: &'a str) -> Get<'a> {
    ([path, PROPERTIES, "Get"], (of, name))
}

/// Path of a unit's object: what is no letter, nor a digit behind the first character, is written
/// by its number.
fn unit_path(unit: &str) -> String {
    let mut path = format!("{MANAGER_PATH}/unit/");
    for (at, byte) in unit.bytes().enumerate() {
        match byte.is_ascii_alphabetic() || at > 0 && byte.is_ascii_digit() {
            true => path.push(char::from(byte)),
            false => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_path_that_systemd_gives_it() {
        let of =
            |unit: &str| unit_path(unit).strip_prefix("/org/freedesktop/systemd1/unit/").unwrap().to_owned();
        assert_eq!(of("redis-server.service"), "redis_2dserver_2eservice");
        assert_eq!(of("9p@a\\x2db.service"), "_39p_40a_5cx2db_2eservice");
    }

    #[test]
    fn an_earlier_start_is_one_that_has_ended_in_this_userspace() {
        let first = Word { main_pid: 7, userspace_us: 100, ..Word::default() };
        assert!(!first.has_started_before());
        // In the initial RAM file system, or before a soft reboot.
        assert!(!Word { ended_us: [90, 80], ..first }.has_started_before());
        assert!(Word { ended_us: [101, 0], ..first }.has_started_before());
        assert!(Word { ended_us: [0, 101], ..first }.has_started_before());
        assert!(Word { restarts: 1, ..first }.has_started_before());
    }

    #[test]
    fn the_process_of_a_command_is_the_main_one_unless_the_service_forks() {
        let word = Word { main_pid: 7, control_pid: 8, ..Word::default() };
        assert!(word.names(7, "notify") && !word.names(8, "notify"));
        assert!(word.names(8, "forking") && !word.names(7, "forking"));
        assert!(!word.names(0, "simple"));
    }
}
