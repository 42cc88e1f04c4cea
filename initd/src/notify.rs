//! Words to systemd, `sd_notify(3)`: its socket, and a bound on how long a word may take.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use sd_notify::NotifyState;

use crate::sys::socket::send;

/// Environment variable with the address of systemd's socket.
pub const ENV: &str = "NOTIFY_SOCKET";
/// systemd takes messages before it looks at our end. Its queue may be full for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// systemd's socket. The words are sd-notify's; its own sending would wait for systemd without end
/// (docs/decisions/0024-words-of-sd-notify.md).
#[derive(Debug)]
pub(crate) struct Datagrams(OwnedFd);

impl Datagrams {
    /// The one that the environment names.
    ///
    /// # Errors
    /// `ENOTCONN`: it names none; those of the socket.
    pub fn of_environment() -> io::Result<Datagrams> {
        let missing = || io::Error::from_raw_os_error(libc::ENOTCONN);
        let address = std::env::var_os(ENV).ok_or_else(missing)?;
        let address = address_of(&address)?;
        let datagrams = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&datagrams, sockopt::SendTimeout, &time_val(PATIENCE))?;
        connect(datagrams.as_raw_fd(), &address)?;
        Ok(Datagrams(datagrams))
    }

    /// One message.
    ///
    /// # Errors
    /// It could not be sent within five seconds.
    pub fn say(&self, words: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let lines: Vec<String> = words.iter().map(NotifyState::to_string).collect();
        send(&self.0, lines.join("\n").as_bytes(), fds)
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

pub(crate) fn time_val(duration: Duration) -> TimeVal {
    TimeVal::new(duration.as_secs() as i64, i64::from(duration.subsec_micros()))
}
