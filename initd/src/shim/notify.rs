//! Telling systemd which process the service is, `sd_notify(3)`, and waiting until it has listened.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use sd_notify::NotifyState;

use crate::notify::{Datagrams, PATIENCE, time_val};
use crate::protocol::StoredName;
use crate::sys::socket::receive;

/// systemd's socket, after it has been told.
#[derive(Debug)]
pub struct Told {
    datagrams: Datagrams,
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
    let datagrams = Datagrams::of_environment()?;
    let main = main_pid.map(|pid| NotifyState::MainPid(pid.cast_unsigned()));
    let ready = is_ready.then_some(NotifyState::Ready);
    // systemd would read a second line as an assignment; it never had one from the service itself.
    let status = Some(status).filter(|text| !text.is_empty() && !text.contains('\n'));
    let words = [main, ready, status.map(NotifyState::Status)];
    let words = words.into_iter().flatten().collect::<Vec<_>>();
    let told = store(&datagrams, stored).and_then(|()| match words.is_empty() {
        true => Ok(()),
        false => datagrams.say(&words, &[]),
    });
    if let Err(error) = told {
        forget(&datagrams, stored);
        return Err(error);
    }
    Ok(Told { datagrams })
}

/// A message for each: names belong to messages. systemd lists and hands over first what it was
/// given last.
fn store(datagrams: &Datagrams, stored: &[(StoredName, OwnedFd)]) -> io::Result<()> {
    for (StoredName { name, polled }, fd) in stored.iter().rev() {
        let words = [NotifyState::FdStore, NotifyState::FdName(name), NotifyState::Custom("FDPOLL=0")];
        datagrams.say(if *polled { &words[..2] } else { &words }, &[fd.as_fd()])?;
    }
    Ok(())
}

/// The service is about to start cold, with an empty store. Names that were not stored are nothing
/// to systemd.
fn forget(datagrams: &Datagrams, stored: &[(StoredName, OwnedFd)]) {
    for (StoredName { name, .. }, _) in stored {
        // Who does not hear this has not heard the other either.
        let _ = datagrams.say(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)], &[]);
    }
}

impl Told {
    /// `sd_notify_barrier(3)`: systemd closes the descriptor when it has handled everything before
    /// it. Waiting is politeness: it looks at our end after our messages in any case.
    ///
    /// # Errors
    /// When it did not in time, or could not be asked. What it was told is told all the same.
    pub fn wait_for_systemd(&self) -> io::Result<()> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        setsockopt(&ours, sockopt::ReceiveTimeout, &time_val(PATIENCE))?;
        self.datagrams.say(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
        drop(theirs);
        receive(&ours, 1).map(drop)
    }
}
