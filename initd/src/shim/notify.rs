//! Telling systemd which process the service is, `sd_notify(3)`, and waiting until it has listened.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::time::TimeVal;

use crate::protocol::StoredName;
use crate::sys::socket::{receive, send};

/// Environment variable with the address of systemd's socket.
pub const ENV: &str = "NOTIFY_SOCKET";
/// systemd takes our messages before it looks at our end, whether we wait or not; waiting is
/// politeness.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// systemd's socket, after it has been told.
#[derive(Debug)]
pub struct Told {
    datagrams: OwnedFd,
}

/// Give systemd what it has to keep for the service, then send `MAINPID=` and, where the type of
/// unit waits for it, `READY=1` in one message, with what the service said of itself: after it
/// systemd no longer listens to us.
///
/// # Errors
/// When a message could not be sent. What systemd was given it is asked to drop then.
pub fn tell(
    main_pid: Option<i32>,
    is_ready: bool,
    status: &str,
    stored: &[(StoredName, OwnedFd)],
) -> io::Result<Told> {
    let missing = || io::Error::from_raw_os_error(libc::ENOTCONN);
    let address = std::env::var_os(ENV).ok_or_else(missing)?;
    let address = address_of(&address)?;
    let datagrams = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&datagrams, sockopt::SendTimeout, &time_val(BARRIER_TIMEOUT))?;
    connect(datagrams.as_raw_fd(), &address)?;
    let main = main_pid.map(|pid| format!("MAINPID={pid}"));
    let ready = is_ready.then(|| "READY=1".to_owned());
    // systemd would read a second line as an assignment; it never had one from the service itself.
    let status = Some(status).filter(|text| !text.is_empty() && !text.contains('\n'));
    let lines = [main, ready, status.map(|text| format!("STATUS={text}"))];
    let lines = lines.into_iter().flatten().collect::<Vec<_>>();
    let told = store(&datagrams, stored).and_then(|()| match lines.is_empty() {
        true => Ok(()),
        false => send(&datagrams, lines.join("\n").as_bytes(), &[]),
    });
    if let Err(error) = told {
        forget(&datagrams, stored);
        return Err(error);
    }
    Ok(Told { datagrams })
}

/// A message for each: names belong to messages. systemd lists and hands over first what it was
/// given last.
fn store(datagrams: &OwnedFd, stored: &[(StoredName, OwnedFd)]) -> io::Result<()> {
    for (StoredName { name, polled }, fd) in stored.iter().rev() {
        let unpolled = if *polled { "" } else { "\nFDPOLL=0" };
        send(datagrams, format!("FDSTORE=1\nFDNAME={name}{unpolled}").as_bytes(), &[fd.as_fd()])?;
    }
    Ok(())
}

/// The service is about to start cold, with an empty store. Names that were not stored are nothing
/// to systemd.
fn forget(datagrams: &OwnedFd, stored: &[(StoredName, OwnedFd)]) {
    for (StoredName { name, .. }, _) in stored {
        // Who does not hear this has not heard the other either.
        let _ = send(datagrams, format!("FDSTOREREMOVE=1\nFDNAME={name}").as_bytes(), &[]);
    }
}

impl Told {
    /// `sd_notify_barrier(3)`: systemd closes the descriptor when it has handled everything before
    /// it.
    ///
    /// # Errors
    /// When it did not in time, or could not be asked. What it was told is told all the same.
    pub fn wait_for_systemd(&self) -> io::Result<()> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&ours, sockopt::ReceiveTimeout, &time_val(BARRIER_TIMEOUT))?;
        send(&self.datagrams, b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        receive(&ours, 1).map(drop)
    }
}

fn address_of(text: &OsStr) -> io::Result<UnixAddr> {
    let bytes = text.as_bytes();
    match bytes.split_first() {
        Some((b'/', _)) => Ok(UnixAddr::new(bytes)?),
        Some((b'@', name)) => Ok(UnixAddr::new_abstract(name)?),
        _ => Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
    }
}

pub(super) fn time_val(duration: Duration) -> TimeVal {
    TimeVal::new(duration.as_secs() as i64, i64::from(duration.subsec_micros()))
}
