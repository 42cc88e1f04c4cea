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

use crate::sys::socket::{receive, send};

/// Environment variable with the address of systemd's socket.
pub const ENV: &str = "NOTIFY_SOCKET";
/// systemd takes our messages before it looks at our end, whether we wait or not; waiting is politeness.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(5);

/// systemd's socket, after it has been told.
#[derive(Debug)]
pub struct Told {
    datagrams: OwnedFd,
}

/// Send `MAINPID=` and, where the type of unit waits for it, `READY=1` in one message, with what the service said of itself:
/// after it systemd no longer listens to us.
///
/// # Errors
/// When the message could not be sent.
pub fn tell(main_pid: Option<i32>, is_ready: bool, status: &str) -> io::Result<Told> {
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
    send(&datagrams, lines.into_iter().flatten().collect::<Vec<_>>().join("\n").as_bytes(), &[])?;
    Ok(Told { datagrams })
}

impl Told {
    /// `sd_notify_barrier(3)`: systemd closes the descriptor when it has handled everything before it.
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
