//! What lies unread in unix sockets, looked at before descriptions are numbered: messages may carry
//! descriptors that no table has, sockets with further messages among them.

use super::description::{Description, Slot, own_pid};
use super::stored::Kept;
use crate::blockers::failed;
use nix::sys::stat::fstat;
use snap_error::Result;
use snap_error::obstacle::SocketObstacle;
use snap_state::{CredentialsV1, FileId, Pid, TargetFd, UnixMessageV1};
use snap_sys::fdquery::{self, PeekOffset, Peeked};
use snap_sys::proc::FdInfo;
use snap_sys::{pidfd, proc};
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// More than the largest message that default buffer limits let through.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
const SO_DOMAIN: i32 = 39;
/// In place of the index of a process: the descriptor is ours, a duplicate of one in flight or in
/// systemd's store.
pub(super) const IN_FLIGHT: usize = usize::MAX;

/// The queues of all unix sockets of the tree.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// By inode of the socket: messages, or why they cannot be carried.
    by_inode: HashMap<u64, std::result::Result<Vec<Letter>, SocketObstacle>>,
    /// Our duplicates of descriptors that no table has, or that are not known to be in one, and who
    /// has them.
    held: HashMap<TargetFd, (OwnedFd, Carrier)>,
}

/// Who has a descriptor that is in no table of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// The socket in whose queue it lies.
    Socket(Pid, TargetFd),
    /// systemd's store, under this name and this number of PID 1.
    Store(String, TargetFd),
}

/// A message before descriptions have numbers.
#[derive(Debug)]
struct Letter {
    bytes: Vec<u8>,
    /// Our numbers.
    descriptors: Vec<TargetFd>,
    credentials: Option<CredentialsV1>,
    /// Family first.
    sender: Vec<u8>,
}

impl Queues {
    /// Looks into each unix socket once. What is in flight becomes a slot of its own behind those
    /// of the tables, and so does what systemd keeps, which may have something in flight itself.
    pub fn look(slots: &mut Vec<Slot>, pidfds: &HashMap<Pid, &OwnedFd>, stored: Vec<Kept>) -> Result<Self> {
        let own = own_pid();
        let mut queues = Self::default();
        for Kept { name, number, fd, .. } in stored {
            let ours = TargetFd(fd.as_raw_fd());
            slots.push(slot_of(own, ours, &fd)?);
            queues.held.insert(ours, (fd, Carrier::Store(name, number)));
        }
        let mut next = 0;
        while let Some(slot) = slots.get(next) {
            next += 1;
            let file = slot.description.clone();
            if !file.link.starts_with(b"socket:[") || queues.by_inode.contains_key(&file.ino) {
                continue;
            }
            let socket = match pidfds.get(&file.pid) {
                Some(pidfd) => pidfd::get_fd(pidfd.as_fd(), file.fd),
                None => queues.duplicate(file.fd),
            };
            let socket = socket.map_err(failed("duplicate descriptor", file.pid, file.fd))?;
            let Some(letters) = look_at(&file, socket.as_fd())? else { continue };
            let letters = letters.map(|letters| {
                let carrier = Carrier::Socket(file.pid, file.fd);
                let keep = |letter: Peeked| queues.keep(letter, &carrier);
                letters.into_iter().map(keep).collect::<Vec<_>>()
            });
            for fd in letters.iter().flatten().flat_map(|letter| &letter.descriptors) {
                slots.push(slot_of(own, *fd, &queues.held[fd].0)?);
            }
            queues.by_inode.insert(file.ino, letters);
        }
        Ok(queues)
    }

    fn keep(&mut self, letter: Peeked, carrier: &Carrier) -> Letter {
        let keep = |fd: OwnedFd| {
            let number = TargetFd(fd.as_raw_fd());
            self.held.insert(number, (fd, carrier.clone()));
            number
        };
        let Peeked { bytes, descriptors, credentials, sender, .. } = letter;
        Letter { bytes, descriptors: descriptors.into_iter().map(keep).collect(), credentials, sender }
    }

    /// Another one of a descriptor of ours.
    pub fn duplicate(&self, fd: TargetFd) -> nix::Result<OwnedFd> {
        let (held, _) = self.held.get(&fd).ok_or(nix::errno::Errno::EBADF)?;
        held.try_clone().map_err(|e| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// Where a descriptor of ours was found.
    pub fn carrier(&self, file: &Description) -> Option<&Carrier> {
        self.held.get(&file.fd).filter(|_| file.pid == own_pid()).map(|(_, carrier)| carrier)
    }

    /// The messages of a socket, with numbered descriptions.
    pub fn messages(
        &self,
        ino: u64,
        by_number: &HashMap<(Pid, TargetFd), FileId>,
    ) -> std::result::Result<Vec<UnixMessageV1>, SocketObstacle> {
        let letters = match self.by_inode.get(&ino) {
            None => return Ok(Vec::new()),
            Some(letters) => letters.as_ref().map_err(Clone::clone)?,
        };
        let number = |fd: &TargetFd| by_number.get(&(own_pid(), *fd)).copied();
        let message = |letter: &Letter| {
            Some(UnixMessageV1 {
                bytes: letter.bytes.clone(),
                files: letter.descriptors.iter().map(number).collect::<Option<_>>()?,
                credentials: letter.credentials,
                sender: super::unix::unix_name(&letter.sender),
            })
        };
        let messages: Option<_> = letters.iter().map(message).collect();
        messages.ok_or(SocketObstacle::UnixUnreadLost)
    }
}

fn slot_of(own: Pid, number: TargetFd, fd: &OwnedFd) -> Result<Slot> {
    let stat = fstat(fd).map_err(failed("stat", own, number))?;
    let link = proc::read_link(own, &format!("fd/{number}"))?;
    let info = FdInfo::of(own, number)?;
    let (dev, ino) = (stat.st_dev, stat.st_ino);
    let description = Description { id: FileId(0), pid: own, fd: number, dev, ino, link };
    Ok(Slot { owner: IN_FLIGHT, description, info })
}

/// Unread messages, which stay unread; `None` for what is no unix socket or has none.
fn look_at(
    file: &Description,
    fd: BorrowedFd<'_>,
) -> Result<Option<std::result::Result<Vec<Peeked>, SocketObstacle>>> {
    let fail = |step| failed(step, file.pid, file.fd);
    let ask = |name| fdquery::socket_int(fd, libc::SOL_SOCKET, name).map_err(fail("getsockopt"));
    if ask(SO_DOMAIN)? != libc::AF_UNIX || ask(libc::SO_ACCEPTCONN)? != 0 {
        return Ok(None);
    }
    let socket_type = ask(libc::SO_TYPE)?;
    let stream = socket_type == libc::SOCK_STREAM;
    let wanted = libc::POLLIN | libc::POLLPRI | libc::POLLRDHUP;
    let events = fdquery::poll_now(fd, wanted).map_err(fail("poll"))?;
    // The next call on the socket takes it, ours too.
    if events & libc::POLLERR != 0 {
        return Ok(Some(Err(SocketObstacle::UnixUnreadError)));
    }
    let unread = fdquery::unread_bytes(fd).map_err(fail("FIONREAD"))?;
    if events & libc::POLLPRI != 0 {
        return Ok(Some(Err(SocketObstacle::UnixUnreadOutOfBand)));
    }
    if events & libc::POLLIN == 0 || (stream && unread == 0) {
        return Ok(None);
    }
    let ends = events & libc::POLLRDHUP != 0 && socket_type != libc::SOCK_DGRAM;
    let letters = match stream {
        true => {
            let offset = PeekOffset::begin(fd).map_err(fail("SO_PEEK_OFF"))?;
            let letters = read_stream(file, fd, unread);
            offset.finish().map_err(fail("SO_PEEK_OFF"))?;
            letters?
        }
        false => read_packets(file, fd, ends.then_some(unread))?,
    };
    let empty_behind = letters.iter().skip(1).any(|letter| letter.bytes.is_empty());
    if !stream && !is_shown_whole(file.ino, empty_behind) {
        return Ok(Some(Err(SocketObstacle::UnixUnreadEmpty)));
    }
    let asks = ask(libc::SO_PASSCRED)? != 0;
    let blocker = letters.iter().find_map(|letter| blocker(letter, asks));
    Ok(Some(blocker.map_or(Ok(letters), Err)))
}

fn blocker(letter: &Peeked, asks_for_credentials: bool) -> Option<SocketObstacle> {
    let nobody = letter.credentials.is_none_or(|from| from.pid.0 == 0);
    match letter {
        Peeked { truncated: true, .. } => Some(SocketObstacle::UnixUnreadLong),
        Peeked { other_control: true, .. } => Some(SocketObstacle::UnixUnreadPidfd),
        _ if asks_for_credentials && nobody => Some(SocketObstacle::UnixUnreadAnonymous),
        _ => None,
    }
}

/// The kernel shows an empty message that lies behind others to one walk through the queue only. A
/// socket in which one has been seen is not walked through again by this process.
fn is_shown_whole(ino: u64, has_empty_behind: bool) -> bool {
    static SEEN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let seen_before = seen.contains(&ino);
    if has_empty_behind {
        seen.insert(ino);
    }
    !seen_before
}

/// `ending`: the peer sends no more, and so many bytes are unread.
///
/// The first message is looked at without an offset, which shows it also where it is empty and
/// somebody has looked before. The end of a connection reads as an empty message for ever: behind
/// the last byte of what has ended nobody can tell them apart, readers included.
fn read_packets(file: &Description, fd: BorrowedFd<'_>, ending: Option<usize>) -> Result<Vec<Peeked>> {
    let fail = |step| failed(step, file.pid, file.fd);
    let peek = || fdquery::peek_message(fd, MAX_MESSAGE_BYTES).map_err(fail("look at the queue"));
    let mut letters: Vec<Peeked> = Vec::new();
    let mut at = 0;
    let mut note = |letter: Peeked| {
        let is_message = !letter.is_empty() || ending.is_none_or(|unread| at < unread);
        if is_message {
            at += letter.bytes.len();
            letters.push(letter);
        }
        is_message
    };
    let offset = PeekOffset::begin_without(fd).map_err(fail("SO_PEEK_OFF"))?;
    let first = peek();
    offset.finish().map_err(fail("SO_PEEK_OFF"))?;
    let goes_on = first?.is_none_or(|first| !first.is_empty() || note(first));
    let offset = PeekOffset::begin(fd).map_err(fail("SO_PEEK_OFF"))?;
    let walk = (|| {
        while goes_on && let Some(letter) = peek()? {
            if !note(letter) {
                break;
            }
        }
        Ok(())
    })();
    offset.finish().map_err(fail("SO_PEEK_OFF"))?;
    walk.map(|()| letters)
}

/// One look ends with the first message that has descriptors, and shows plain bytes before it as
/// part of it: where it begins the kernel does not tell. So bytes that were sent before a message
/// with descriptors become part of it.
fn read_stream(file: &Description, fd: BorrowedFd<'_>, unread: usize) -> Result<Vec<Peeked>> {
    let (mut letters, mut at) = (Vec::new(), 0);
    let look = |len| fdquery::peek_message(fd, len).map_err(failed("look at the queue", file.pid, file.fd));
    while at < unread {
        let Some(letter) = look(unread - at)?.filter(|letter| !letter.bytes.is_empty()) else { break };
        at += letter.bytes.len();
        letters.push(letter);
    }
    Ok(letters)
}
