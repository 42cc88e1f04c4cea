//! The conversation with initd, bounded at every step.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, connect, setsockopt, shutdown, socket, sockopt,
};

use super::ShimArguments;
use super::notify;
use crate::protocol::{Adopted, Answer, Hello, MAX_LISTEN_FDS, SOCKET_PATH};
use crate::sys::descriptors;
use crate::sys::socket::{receive, send};
use crate::wire::MAX_MESSAGE_LEN;

/// For tests: another path of initd's socket.
pub const SOCKET_ENV: &str = "FASTBOOT_TEST_SOCKET";

/// initd has a deadline of ten seconds and needs a moment to clean up; this is for the case that it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(13);
/// How long a queue that is full may keep us.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long what is left of a failed attempt may take to disappear.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);

/// The service must be started cold.
#[derive(Debug)]
pub enum Cold {
    /// initd has said so, and logged why.
    Told,
    /// Nobody has said anything.
    NoAnswer(String),
}

/// Ask for a restored service. `Ok` when systemd has taken one over.
///
/// # Errors
/// [`Cold`].
pub fn ask(arguments: &ShimArguments) -> Result<(), Cold> {
    let (connection, first) = open(arguments).map_err(|error| Cold::NoAnswer(format!("initd: {error}")))?;
    let mut answer = first;
    loop {
        match answer {
            Ok(Answer::Cold { .. }) => return Err(Cold::Told),
            Ok(Answer::Restored { main_pid, send_main_pid, send_ready }) => {
                let send_ready = send_ready || arguments.says_ready;
                let told = match send_main_pid || send_ready {
                    true => notify::tell(main_pid, send_ready).map(Some),
                    false => Ok(None),
                };
                let error = match told {
                    Ok(told) => {
                        // At once: until initd knows, it removes the tree if anything happens. It only wants to know;
                        // the service runs without it.
                        let _ = send(&connection, &Adopted::Done.encode(), &[]);
                        // Not waiting long enough changes nothing either, see BARRIER_TIMEOUT.
                        let _ = told.map(|told| told.wait_for_systemd());
                        return Ok(());
                    }
                    Err(error) => error,
                };
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let sent = send(&connection, &Adopted::Failed(errno).encode(), &[]);
                answer = sent.and_then(|()| next_answer(&connection));
            }
            Err(error) => {
                // The attempt may still be under way. Closing our side ends it; initd closes its side when nothing
                // of it is left.
                let _ = shutdown(connection.as_raw_fd(), Shutdown::Write);
                let _ = setsockopt(&connection, sockopt::ReceiveTimeout, &notify::time_val(CLEAN_TIMEOUT));
                while receive(&connection, MAX_MESSAGE_LEN).is_ok_and(|(packet, _)| !packet.is_empty()) {}
                wait_alone();
                return Err(Cold::NoAnswer(format!("initd: {error}")));
            }
        }
    }
}

/// Connect and ask. The outer error is one before the question was sent, after which nothing has to be cleaned up.
fn open(arguments: &ShimArguments) -> io::Result<(OwnedFd, io::Result<Answer>)> {
    let path = std::env::var_os(SOCKET_ENV).filter(|_| cfg!(debug_assertions));
    let address = match path {
        Some(path) => UnixAddr::new(Path::new(&path))?,
        None => UnixAddr::new(SOCKET_PATH)?,
    };
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&connection, sockopt::SendTimeout, &notify::time_val(CONNECT_TIMEOUT))?;
    setsockopt(&connection, sockopt::ReceiveTimeout, &notify::time_val(ANSWER_TIMEOUT))?;
    connect(connection.as_raw_fd(), &address)?;
    let listen_names = listen_names()?;
    let hello = Hello {
        unit: arguments.unit.clone(),
        has_notify_socket: std::env::var_os(notify::ENV).is_some_and(|address| !address.is_empty()),
        listen_names,
    };
    let fds = descriptors::inherited(3 + hello.listen_names.len());
    let fds: Vec<BorrowedFd<'_>> = fds.collect();
    send(&connection, &hello.encode(), &fds)?;
    let answer = next_answer(&connection);
    Ok((connection, answer))
}

fn next_answer(connection: &OwnedFd) -> io::Result<Answer> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match receive(connection, MAX_MESSAGE_LEN) {
            Ok((packet, _)) if packet.is_empty() => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed the connection"));
            }
            Ok((packet, _)) => return Answer::decode(&packet).map_err(io::Error::other),
            // Stopped and continued: nothing has happened.
            Err(error) if error.kind() == io::ErrorKind::Interrupted && Instant::now() < deadline => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "did not answer in time"));
            }
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

/// Wait until we are the only process in our cgroup: initd and its helpers died together, and what they were building
/// is about to end by itself. Where the sandbox hides the cgroup, a moment has to do.
fn wait_alone() {
    let deadline = Instant::now() + CLEAN_TIMEOUT;
    let mut is_alone = false;
    while !is_alone && Instant::now() < deadline {
        match other_processes() {
            Some(0) => is_alone = true,
            Some(_) => std::thread::sleep(Duration::from_millis(2)),
            None => {
                std::thread::sleep(Duration::from_millis(50));
                is_alone = true;
            }
        }
    }
}

fn other_processes() -> Option<usize> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let processes = fs::read_to_string(format!("/sys/fs/cgroup{path}/cgroup.procs")).ok()?;
    let us = std::process::id().to_string();
    Some(processes.lines().filter(|pid| *pid != us).count())
}
