//! Hooks: what a service drops before its image is taken and regains when it goes on. Commands of
//! the unit file, and processes that asked to be told themselves (`fastboot-hooks.h`).

use image_store::HookChannel;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use snap_error::Error;
use snap_error::hook::{Hook, HookEnd, HookFailure};
use snap_state::{Pid, TargetFd};
use snap_sys as sys;
use std::collections::HashSet;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest for all hooks of one event, unless a start has less time left.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Link of a descriptor that names a channel.
const CHANNEL_NAME: &[u8] = b"/memfd:fastboot-hooks (deleted)";
/// Longest answer.
const ANSWER_BYTES: usize = 512;

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// The image is about to be taken.
    BeforeSnapshot,
    /// It goes on after the image was taken, or was not.
    AfterSnapshot,
    /// It goes on from the image.
    AfterRestore,
}

impl HookEvent {
    /// As hooks are told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BeforeSnapshot => "before-snapshot",
            Self::AfterSnapshot => "after-snapshot",
            Self::AfterRestore => "after-restore",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::BeforeSnapshot => "BeforeSnapshot=",
            Self::AfterSnapshot | Self::AfterRestore => "AfterRestore=",
        }
    }
}

/// Calls of one service.
#[derive(Clone, Copy, Debug)]
pub struct Hooks<'a> {
    pub unit: &'a str,
    pub main_pid: i32,
    pub commands: &'a [String],
    pub channels: &'a [HookChannel],
}

impl Hooks<'_> {
    /// Runs the commands, then tells the processes; before a snapshot the other way round, so that
    /// a command finds what the processes have made.
    ///
    /// # Errors
    /// The first that failed; those behind it are not called.
    pub fn call(&self, event: HookEvent, deadline: Instant) -> Result<(), HookFailure> {
        let commands = || self.commands.iter().try_for_each(|line| self.run(line, event, deadline));
        let channels = || self.channels.iter().try_for_each(|channel| tell(*channel, event, deadline));
        match event {
            HookEvent::BeforeSnapshot => channels().and_then(|()| commands()),
            HookEvent::AfterSnapshot | HookEvent::AfterRestore => commands().and_then(|()| channels()),
        }
    }

    fn run(&self, line: &str, event: HookEvent, deadline: Instant) -> Result<(), HookFailure> {
        let command = line.trim_start_matches(['+', '-']);
        let prefixes = &line[..line.len() - command.len()];
        let result = self.run_plain(command, !prefixes.contains('+'), event, deadline);
        match prefixes.contains('-') {
            true => Ok(()),
            false => result.map_err(|why| {
                let hook = Hook::Command { key: event.key(), line: line.to_owned() };
                HookFailure { hook, why }
            }),
        }
    }

    fn run_plain(
        &self,
        command: &str,
        is_inside: bool,
        event: HookEvent,
        deadline: Instant,
    ) -> Result<(), HookEnd> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr()).process_group(0);
        shell.env("UNIT", self.unit).env("MAINPID", self.main_pid.to_string());
        shell.env("FASTBOOT_EVENT", event.as_str());
        // Those of the restore daemon, not of the service.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            shell.env_remove(name);
        }
        if is_inside {
            let main = Pid(self.main_pid);
            let process = sys::pidfd::open(main).map_err(HookEnd::Surroundings)?;
            let ids = ids_of(main).map_err(HookEnd::Surroundings)?;
            sys::hook::in_context(&mut shell, process, ids);
        }
        let mut child = shell.spawn().map_err(|error| HookEnd::NotExecuted(errno_of(&error)))?;
        let ended = sys::pidfd::open(Pid(child.id() as i32))
            .and_then(|child| wait(child.as_fd(), deadline))
            .unwrap_or(false);
        if !ended {
            let _ = nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(child.id() as i32),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let status = child.wait().map_err(|error| HookEnd::NotExecuted(errno_of(&error)))?;
        match (ended, status.success()) {
            (true, true) => Ok(()),
            (true, false) => Err(HookEnd::Ended(status)),
            (false, _) => Err(HookEnd::NotInTime),
        }
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn ids_of(main: Pid) -> nix::Result<sys::hook::Ids> {
    let status = sys::proc::Status::of(main, main).map_err(|error| match error {
        Error::Gone { .. } => Errno::ESRCH,
        Error::Kernel { errno, .. } => errno,
        _ => Errno::EIO,
    })?;
    let (uid, gid) = (status.uids[1], status.gids[1]);
    Ok(sys::hook::Ids { uid, gid, groups: status.groups, no_new_privs: status.no_new_privs })
}

/// Channels of these processes. One that several have in common (since a fork) belongs to the
/// first.
pub fn find_channels(processes: &[Pid]) -> Vec<HookChannel> {
    let mut seen = HashSet::new();
    let mut channels = Vec::new();
    for &pid in processes {
        for fd in sys::proc::fds(pid).unwrap_or_default() {
            let link = sys::proc::read_link(pid, &format!("fd/{}", fd.0));
            if link.is_ok_and(|link| link == CHANNEL_NAME)
                && let Some((channel, ino)) = read_channel(pid, fd)
                && seen.insert(ino)
            {
                channels.push(channel);
            }
        }
    }
    channels
}

/// The channel that a memory file names, and that file's number.
fn read_channel(pid: Pid, fd: TargetFd) -> Option<(HookChannel, u64)> {
    use std::os::unix::fs::MetadataExt;
    let mut text = String::new();
    // By path, so that the reader has an offset of its own.
    let mut file = std::fs::File::open(format!("/proc/{pid}/fd/{}", fd.0)).ok()?;
    file.rewind().ok()?;
    (&file).take(32).read_to_string(&mut text).ok()?;
    let channel = HookChannel { pid: pid.0, fd: text.trim().parse().ok()? };
    Some((channel, file.metadata().ok()?.ino()))
}

/// Tells one process, and waits for its answer.
fn tell(channel: HookChannel, event: HookEvent, deadline: Instant) -> Result<(), HookFailure> {
    let hook = Hook::Channel { pid: Pid(channel.pid), event: event.as_str() };
    let fail = |why| HookFailure { hook: hook.clone(), why };
    let kernel = |errno| fail(HookEnd::Unreachable(errno));
    let process = sys::pidfd::open(Pid(channel.pid)).map_err(kernel)?;
    let socket = sys::pidfd::get_fd(process.as_fd(), TargetFd(channel.fd)).map_err(kernel)?;
    // An answer that nobody waited for.
    while receive(&socket).map_err(kernel)?.is_some() {}
    send(socket.as_raw_fd(), event.as_str().as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)
        .map_err(kernel)?;
    while wait(socket.as_fd(), deadline).map_err(kernel)? {
        match receive(&socket).map_err(kernel)? {
            Some(answer) if answer == "ok" => return Ok(()),
            Some(answer) => return Err(fail(HookEnd::Answer(answer))),
            None => {}
        }
    }
    Err(fail(HookEnd::NoAnswer))
}

fn receive(socket: &OwnedFd) -> nix::Result<Option<String>> {
    let mut answer = [0; ANSWER_BYTES];
    match recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
        Ok(len) => Ok(Some(String::from_utf8_lossy(&answer[..len]).into_owned())),
        Err(Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether it can be read before the deadline.
fn wait(fd: BorrowedFd<'_>, deadline: Instant) -> nix::Result<bool> {
    sys::fdquery::poll_until(fd, PollFlags::POLLIN, deadline)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::io::Write;
    use std::os::unix::net::UnixDatagram;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(500)
    }

    fn own(commands: &[String]) -> Hooks<'_> {
        Hooks { unit: "a.service", main_pid: std::process::id() as i32, commands, channels: &[] }
    }

    #[test]
    fn a_command_that_fails_or_takes_too_long_is_named_and_a_minus_forgives() {
        let call = |line: &str| {
            let commands = [line.to_owned()];
            own(&commands).call(HookEvent::BeforeSnapshot, soon()).map_err(|failure| failure.to_string())
        };
        assert_eq!(call("+test $FASTBOOT_EVENT = before-snapshot && test $UNIT = a.service"), Ok(()));
        assert_eq!(call("-+exit 3"), Ok(()));
        assert_eq!(call("+exit 3"), Err("BeforeSnapshot=+exit 3: exit status: 3".to_owned()));
        assert_eq!(call("+sleep 60"), Err("BeforeSnapshot=+sleep 60: did not end in time".to_owned()));
    }

    #[test]
    fn a_process_is_found_told_and_believed() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let memory = memfd_create("fastboot-hooks", MFdFlags::MFD_CLOEXEC).unwrap();
        std::fs::File::from(memory.try_clone().unwrap())
            .write_all(format!("{}\n", theirs.as_raw_fd()).as_bytes())
            .unwrap();
        let pid = std::process::id() as i32;
        let channels = find_channels(&[Pid(pid), Pid(pid)]);
        assert_eq!(channels, [HookChannel { pid, fd: theirs.as_raw_fd() }]);
        let hooks = Hooks { channels: &channels, ..own(&[]) };
        let answer = |text: &'static str| {
            let ours = ours.try_clone().unwrap();
            std::thread::spawn(move || {
                let mut event = [0; 64];
                let len = ours.recv(&mut event).unwrap();
                assert_eq!(&event[..len], b"after-restore");
                ours.send(text.as_bytes()).unwrap();
            })
        };
        for (text, expected) in [("ok", true), ("no database", false)] {
            let thread = answer(text);
            let result = hooks.call(HookEvent::AfterRestore, soon());
            assert_eq!(result.is_ok(), expected, "{result:?}");
            assert!(expected || result.unwrap_err().why == HookEnd::Answer("no database".to_owned()));
            thread.join().unwrap();
        }
        let silent = hooks.call(HookEvent::AfterRestore, Instant::now()).unwrap_err();
        assert_eq!(silent.why, HookEnd::NoAnswer);
    }
}
