//! The conversation with initd, bounded at every step.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, setsockopt, shutdown, socket, sockopt,
};

use super::ShimArguments;
use super::flags::InheritedFlags;
use super::notify;
use crate::protocol::{Adopted, Answer, FIRST_WORD_TIMEOUT, Greeting, Hello, MAX_LISTEN_FDS, SOCKET_PATH};
use crate::sys::descriptors;
use crate::sys::socket::{receive, send};
use crate::wire::MAX_MESSAGE_LEN;

/// For tests: another path of initd's socket. It counts in builds with debug assertions only.
pub const SOCKET_ENV: &str = "FASTBOOT_TEST_SOCKET";

/// How long what is left of a failed attempt may take to disappear.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an initd that follows a dead one may take to remove what that one left.
const AGAIN_LIMIT: Duration = Duration::from_secs(6);

/// The service must be started cold.
#[derive(Debug)]
pub enum Cold {
    /// initd has said so, and logged why.
    Told,
    /// Nobody has said anything.
    NoAnswer(String),
}

/// Why a conversation came to no end.
#[derive(Debug)]
enum Broken {
    /// Before the question was sent: nothing has to be cleaned up.
    NotAsked(io::Error),
    /// After it: something may have been under way.
    Asked(io::Error),
}

/// What [`ask`] ends with.
#[derive(Debug)]
pub enum Asked {
    /// systemd has taken over a restored service.
    Restored,
    /// The service must be started.
    Cold(Cold),
    /// Strangers are in our cgroup that nobody could end: a restored service without a restorer.
    /// Starting another one beside it would be worse than not starting.
    Occupied,
}

/// Ask for a restored service. Where none comes, our descriptors are as they were.
pub fn ask(arguments: &ShimArguments) -> Asked {
    let flags = InheritedFlags::of(descriptors::inherited(3 + listen_names().map_or(0, |names| names.len())));
    let asked = ask_initd(arguments);
    if matches!(asked, Asked::Cold(_)) {
        flags.put_back();
    }
    asked
}

fn ask_initd(arguments: &ShimArguments) -> Asked {
    let before = members();
    let error = match converse(arguments, arguments.limit, false) {
        Ok(true) => return Asked::Restored,
        Ok(false) => return Asked::Cold(Cold::Told),
        Err(Broken::NotAsked(error)) => return Asked::Cold(Cold::NoAnswer(format!("initd: {error}"))),
        Err(Broken::Asked(error)) => error,
    };
    if is_alone_soon(&before) {
        return Asked::Cold(Cold::NoAnswer(format!("initd: {error}")));
    }
    // initd and its helper died together, after the tree had been let go. Whoever follows can end
    // it; we may not.
    match converse(arguments, AGAIN_LIMIT, true) {
        Ok(false) => Asked::Cold(Cold::Told),
        _ if is_alone_soon(&before) => Asked::Cold(Cold::NoAnswer(format!("initd: {error}"))),
        _ => Asked::Occupied,
    }
}

/// `Ok(true)` when systemd has taken over a restored service, `Ok(false)` when it must be started
/// cold.
fn converse(arguments: &ShimArguments, limit: Duration, is_again: bool) -> Result<bool, Broken> {
    let deadline = Instant::now() + limit;
    let Some(connection) = open(arguments, is_again).map_err(Broken::NotAsked)? else { return Ok(false) };
    let mut answer = next_answer(&connection, deadline);
    loop {
        match answer {
            Ok((Answer::Cold { .. }, _)) => return Ok(false),
            Ok((Answer::Restored { main_pid, send_main_pid, send_ready, status, stored }, fds)) => {
                let send_ready = send_ready || arguments.says_ready;
                let told = match send_main_pid || send_ready || !status.is_empty() || !stored.is_empty() {
                    true => {
                        let main_pid = send_main_pid.then_some(main_pid);
                        let stored: Vec<_> = stored.into_iter().zip(fds).collect();
                        notify::tell(main_pid, send_ready, &status, &stored).map(Some)
                    }
                    false => Ok(None),
                };
                let error = match told {
                    Ok(told) => {
                        // At once: until initd knows, it removes the tree if anything happens. It
                        // only wants to know; the service runs without it.
                        let _ = send(&connection, &Adopted::Done.encode(), &[]);
                        // Not waiting long enough changes nothing either, see `Told::wait_for_systemd`.
                        let _ = told.map(|told| told.wait_for_systemd());
                        return Ok(true);
                    }
                    Err(error) => error,
                };
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let sent = send(&connection, &Adopted::Failed(errno).encode(), &[]);
                answer = sent.and_then(|()| next_answer(&connection, deadline));
            }
            Err(error) => {
                // The attempt may still be under way. Closing our side ends it; initd closes its
                // side when nothing of it is left.
                let _ = shutdown(connection.as_raw_fd(), Shutdown::Write);
                let _ =
                    setsockopt(&connection, sockopt::ReceiveTimeout, &crate::notify::time_val(CLEAN_TIMEOUT));
                while receive(&connection, MAX_MESSAGE_LEN).is_ok_and(|(packet, _)| !packet.is_empty()) {}
                return Err(Broken::Asked(error));
            }
        }
    }
}

/// Connect and ask. `None`: told to start cold before anything was asked.
fn open(arguments: &ShimArguments, is_again: bool) -> io::Result<Option<OwnedFd>> {
    // A shim that is shipped does not even have the name.
    let path = if cfg!(debug_assertions) { std::env::var_os(SOCKET_ENV) } else { None };
    let address = match path {
        Some(path) => UnixAddr::new(Path::new(&path))?,
        None => UnixAddr::new(SOCKET_PATH)?,
    };
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    // A queue that is full and a silence have one limit together.
    let patience = FIRST_WORD_TIMEOUT.min(arguments.limit);
    let deadline = Instant::now() + patience;
    setsockopt(&connection, sockopt::SendTimeout, &crate::notify::time_val(patience))?;
    connect(connection.as_raw_fd(), &address)?;
    if !is_greeted(&connection, deadline)? {
        return Ok(None);
    }
    let listen_names = listen_names()?;
    let hello = Hello {
        unit: arguments.unit.clone(),
        has_notify_socket: std::env::var_os(crate::notify::ENV).is_some_and(|address| !address.is_empty()),
        is_again,
        listen_names,
    };
    let fds = descriptors::inherited(3 + hello.listen_names.len());
    let fds: Vec<BorrowedFd<'_>> = fds.collect();
    send(&connection, &hello.encode(), &fds)?;
    Ok(Some(connection))
}

/// The first word comes at once or not at all. `false`: it is that the service is to be started
/// cold.
fn is_greeted(connection: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    let (packet, _) = next_packet(connection, deadline)?;
    match Greeting::decode(&packet) {
        Ok(Greeting) => Ok(true),
        Err(error) => match Answer::decode(&packet) {
            Ok(Answer::Cold { .. }) => Ok(false),
            _ => Err(io::Error::other(error)),
        },
    }
}

/// With `Restored` comes a descriptor for each that is to be stored.
fn next_answer(connection: &OwnedFd, deadline: Instant) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let (packet, fds) = next_packet(connection, deadline)?;
    let answer = Answer::decode(&packet).map_err(io::Error::other)?;
    match &answer {
        Answer::Restored { stored, .. } if stored.len() != fds.len() => {
            Err(io::Error::other("sent a wrong number of descriptors"))
        }
        _ => Ok((answer, fds)),
    }
}

fn next_packet(connection: &OwnedFd, deadline: Instant) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let too_late = || io::Error::new(io::ErrorKind::TimedOut, "did not answer in time");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero would be none.
        if left.as_micros() == 0 {
            return Err(too_late());
        }
        setsockopt(connection, sockopt::ReceiveTimeout, &crate::notify::time_val(left))?;
        match receive(connection, MAX_MESSAGE_LEN) {
            Ok((packet, _)) if packet.is_empty() => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed the connection"));
            }
            Ok(received) => return Ok(received),
            // Stopped and continued: nothing has happened.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        }
    }
}

/// Names of the descriptors of socket activation, `sd_listen_fds_with_names(3)`.
fn listen_names() -> io::Result<Vec<String>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<usize>().ok());
    let is_for_us = number("LISTEN_PID") == Some(std::process::id() as usize);
    let count = number("LISTEN_FDS").filter(|_| is_for_us).unwrap_or(0);
    if count > MAX_LISTEN_FDS {
        return Err(io::Error::other(format!("{count} descriptors of socket activation are too many")));
    }
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').map(str::to_owned);
    Ok((0..count).map(|_| names.next().unwrap_or_default()).collect())
}

/// Wait until nobody is in our cgroup who was not there before: initd and its helpers died
/// together, and what they were building is about to end by itself. Where the sandbox hides the
/// cgroup, a moment has to do.
fn is_alone_soon(before: &Option<BTreeSet<u32>>) -> bool {
    let deadline = Instant::now() + CLEAN_TIMEOUT;
    loop {
        let Some((before, now)) = before.as_ref().zip(members()) else {
            std::thread::sleep(Duration::from_millis(50));
            return true;
        };
        if now.is_subset(before) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Processes in our unit's cgroup and in those below it; `None` where it cannot be seen.
fn members() -> Option<BTreeSet<u32>> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    // systemd may have put us into a group below (DelegateSubgroup=).
    let end = path.rfind(".service").map_or(path.len(), |at| at + ".service".len());
    let mut found = BTreeSet::new();
    add_members(Path::new(&format!("/sys/fs/cgroup{}", path.get(..end)?)), &mut found)?;
    Some(found)
}

fn add_members(dir: &Path, found: &mut BTreeSet<u32>) -> Option<()> {
    let processes = match fs::read_to_string(dir.join("cgroup.procs")) {
        // A threaded group: its processes are listed in the one that it belongs to.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        read => read.ok()?,
    };
    found.extend(processes.lines().filter_map(|pid| pid.parse::<u32>().ok()));
    // Each group below is one link more (kernfs).
    if fs::metadata(dir).ok()?.nlink() > 2 {
        for entry in fs::read_dir(dir).ok()?.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            add_members(&entry.path(), found)?;
        }
    }
    Some(())
}
