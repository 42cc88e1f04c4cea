//! Connections to the system bus, made again in the daemon's name.
//!
//! 1. The worker makes a socket that is not connected; the tree inherits it.
//! 2. The process that had the connection connects it, as the user of then: the bus sees its PID
//!    and user.
//! 3. When every process of the unit waits for the go, the worker speaks on its own descriptor of
//!    the same connection: authentication, Hello, rules, what has changed, names last. The name
//!    that systemd waits for (`BusName=`) is held back until nothing is left that could fail
//!    ([`Claim`]).
//! 4. What the daemon has to hear is put back into its end of the connection, from the bus's own
//!    end.

use super::bus_claim::Claim;
use super::desk::Desk;
use super::kind::{Context, Kind};
use super::socket_options::set_options;
use super::stand_in::as_user;
use image_store::ReasonCode;
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::fstat;
use snap_bus::{BusStream, DRIVER, Watcher, body, driver_signal, news, split};
use snap_error::{Error, Result};
use snap_state::{BusConnectionV1, BusNameV1, FileId, FileKindV1, FileV1, Files, Pid, ProcessV1};
use snap_sys as sys;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use zbus::Message;

/// Longest that a bus may take for one connection. It is started by its socket, so it may have to
/// start first.
const PATIENCE: Duration = Duration::from_secs(3);
/// Reply of RequestName: it owns the name now, it waits in the queue.
const PRIMARY_OWNER: u32 = 1;
const IN_QUEUE: u32 = 2;

fn connections(files: Files<'_>) -> impl Iterator<Item = (FileId, &BusConnectionV1)> {
    files.iter().filter_map(|file| match &file.kind {
        FileKindV1::Bus(connection) => Some((file.id, connection)),
        _ => None,
    })
}

impl Kind for BusConnectionV1 {
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        rebuild_socket(file.id, self).map(Some)
    }

    fn act(&self, process: &ProcessV1, cx: &Context<'_>) -> Result<()> {
        connect_own(cx.desk, cx.files, process)
    }

    fn settle(&self, cx: &Context<'_>) -> Result<Option<Claim>> {
        let held_back = cx.today.unit.and_then(|unit| unit.bus_name.as_deref());
        introduce(cx.desk, cx.files, cx.today.deadline, held_back)
    }
}

/// The socket, not connected.
fn rebuild_socket(id: FileId, connection: &BusConnectionV1) -> Result<OwnedFd> {
    let fd = sys::rebuild::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)
        .map_err(|e| Error::kernel("socket", id, e))?;
    set_options(id, &fd, &connection.options)?;
    if !connection.own_address.is_empty() {
        // Only abstract names are recorded; nobody else has a name of this kind, it has random
        // parts.
        sys::rebuild::bind(fd.as_fd(), &sys::rebuild::unix_address(&connection.own_address))
            .map_err(|e| Error::kernel("bind", id, e))?;
    }
    Ok(fd)
}

/// Connects what this process had connected; called in it, while it still may become any user.
fn connect_own(desk: &Desk, files: Files<'_>, process: &ProcessV1) -> Result<()> {
    for (id, connection) in connections(files).filter(|(_, c)| c.connector == process.pid) {
        let creds = &process.leader().creds;
        let address = sys::rebuild::unix_address(&connection.address);
        let socket = desk.file(id)?;
        let connect = || sys::rebuild::connect(socket, &address);
        as_user(connection.uid, creds.gids[1], &creds.groups, connect).map_err(|e| {
            Error::stale(
                ReasonCode::BusUnavailable,
                format!("the system bus cannot be reached ({})", e.desc()),
            )
        })?;
    }
    Ok(())
}

/// Speaks for all connections of the tree: first rules of all, then names of all but the one that
/// is held back.
fn introduce(
    desk: &Desk,
    files: Files<'_>,
    deadline: Instant,
    held_back: Option<&str>,
) -> Result<Option<Claim>> {
    let mut introduced = Vec::new();
    for (id, connection) in connections(files) {
        let limit = deadline.min(Instant::now() + PATIENCE);
        let mut entry = Entry {
            connection,
            stream: BusStream::new(desk.file(id)?, limit),
            unheard: Vec::new(),
            held_back,
        };
        let own = entry.subscribe()?;
        introduced.push((id, entry, own));
    }
    let mut claim = None;
    for (id, entry, own) in &mut introduced {
        entry.request_names()?;
        entry.catch_up()?;
        if !entry.unheard.is_empty() {
            let pid = entry.bus_pid()?;
            let near = desk.file(*id)?;
            entry.put_back(near, &far_end(desk, near, pid)?)?;
        }
        let connection = entry.connection;
        if let Some(name) = connection.names.iter().find(|name| entry.is_held_back(name)) {
            let fd = desk.file(*id)?.try_clone_to_owned().map_err(|e| Error::io("dup", "bus", &e))?;
            claim = Some(Claim::prepare(fd, connection, name, std::mem::take(own))?);
        }
    }
    Ok(claim)
}

/// One connection on its way.
struct Entry<'a> {
    connection: &'a BusConnectionV1,
    stream: BusStream<BorrowedFd<'a>>,
    /// What the daemon has to be told.
    unheard: Vec<Message>,
    /// A name that is claimed later.
    held_back: Option<&'a str>,
}

impl Entry<'_> {
    fn is_held_back(&self, name: &BusNameV1) -> bool {
        name.owner && self.held_back == Some(name.name.as_str())
    }

    /// Hello, rules, and who is on the bus today. Its unique name of today.
    fn subscribe(&mut self) -> Result<String> {
        let own = self.stream.greet()?;
        let rules: Vec<u32> = self
            .connection
            .rules
            .iter()
            .map(|rule| self.stream.call(DRIVER, "AddMatch", rule))
            .collect::<Result<_>>()?;
        for serial in rules {
            let (_, before) = self.stream.reply(serial, "AddMatch")?;
            self.keep(before);
        }
        // What lay there unread comes first, then what happened since, then what happens now.
        let mut unheard = split(&self.connection.unread)?;
        let watcher = Watcher::of(self.connection);
        if !watcher.is_deaf() {
            let now = self.owners_now(&own)?;
            unheard.extend(news(self.connection, &watcher, &now)?);
        }
        unheard.append(&mut self.unheard);
        self.unheard = unheard;
        Ok(own)
    }

    /// Every name on the bus with its owner, our own left out.
    fn owners_now(&mut self, own: &str) -> Result<BTreeMap<String, String>> {
        let list = self.stream.call(DRIVER, "ListNames", &())?;
        let (reply, before) = self.stream.reply(list, "ListNames")?;
        self.keep(before);
        // What changed before the list was made is in it.
        self.unheard.retain(|message| changed_name(message).is_none());
        let names: Vec<String> = body(&reply)?;
        let (unique, known): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| name.starts_with(':'));
        let asked: Vec<(String, u32)> = known
            .into_iter()
            .map(|name| Ok((name.clone(), self.stream.call(DRIVER, "GetNameOwner", &name)?)))
            .collect::<Result<_>>()?;
        let mut owners: BTreeMap<String, String> =
            unique.into_iter().map(|name| (name.clone(), name)).collect();
        let mut unanswered: BTreeSet<String> = asked.iter().map(|(name, _)| name.clone()).collect();
        for (name, serial) in asked {
            let (reply, mut before) = self.stream.any_reply(serial, "GetNameOwner")?;
            // A change of a name whose answer is still to come is in that answer. Any other came
            // after what we know.
            before
                .retain(|message| changed_name(message).is_none_or(|changed| !unanswered.contains(&changed)));
            self.keep(before);
            unanswered.remove(&name);
            // An error: it has gone meanwhile.
            if let Ok(owner) = reply.body().deserialize::<String>()
                && owner.starts_with(':')
            {
                owners.insert(name, owner);
            }
        }
        owners.retain(|_, owner| owner != own);
        Ok(owners)
    }

    fn request_names(&mut self) -> Result<()> {
        for wanted in &self.connection.names {
            if self.is_held_back(wanted) {
                continue;
            }
            let serial = self.stream.call(DRIVER, "RequestName", &(&wanted.name, wanted.flags))?;
            let (reply, before) = self.stream.reply(serial, "RequestName")?;
            self.keep(before);
            let result: u32 = body(&reply)?;
            match (wanted.owner, result) {
                (true, PRIMARY_OWNER) | (false, IN_QUEUE) => {}
                // It moved up; the bus says so, and this time the daemon has to hear it.
                (false, PRIMARY_OWNER) => {}
                _ => {
                    return Err(Error::stale(
                        ReasonCode::BusRefused,
                        format!("bus name {} belongs to somebody else", wanted.name),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes along what has arrived by now, so that the order stays.
    fn catch_up(&mut self) -> Result<()> {
        while let Some(message) = self.stream.message_at_hand()? {
            self.keep(vec![message]);
        }
        Ok(())
    }

    /// Messages that are not for us. What the daemon was told in its earlier life is dropped.
    fn keep(&mut self, messages: Vec<Message>) {
        let is_old_news = |message: &Message| {
            driver_signal(message).as_deref() == Some("NameAcquired")
                && message.body().deserialize::<String>().is_ok_and(|name| {
                    name.starts_with(':')
                        || self.connection.names.iter().any(|own| own.owner && own.name == name)
                })
        };
        let kept: Vec<Message> = messages.into_iter().filter(|message| !is_old_news(message)).collect();
        self.unheard.extend(kept);
    }

    /// Puts everything into the daemon's queue. If the bus itself said something just before, that
    /// is taken out again and put behind: it is younger.
    fn put_back(&mut self, near: BorrowedFd<'_>, far: &OwnedFd) -> Result<()> {
        const ATTEMPTS: u32 = 8;
        for _ in 0..ATTEMPTS {
            let bytes: Vec<u8> = self.unheard.iter().flat_map(|m| m.data().to_vec()).collect();
            say(far, &bytes)?;
            let first = self.unheard.first().map(|m| m.data().to_vec()).unwrap_or_default();
            let peeked = sys::fdquery::peek_message(near, first.len())
                .map_err(|e| Error::kernel("recvmsg", "bus connection", e))?;
            if peeked.is_some_and(|peeked| peeked.bytes == first) {
                return Ok(());
            }
            let ours: Vec<Message> = std::mem::take(&mut self.unheard);
            self.catch_up()?;
            let is_ours = |message: &Message| ours.iter().any(|own| own.data()[..] == message.data()[..]);
            let younger: Vec<Message> = self.unheard.drain(..).filter(|message| !is_ours(message)).collect();
            self.unheard = ours.iter().cloned().chain(younger).collect();
        }
        Err(Error::stale(ReasonCode::BusUnavailable, "the bus does not come to rest"))
    }

    fn bus_pid(&mut self) -> Result<Pid> {
        let serial = self.stream.call(DRIVER, "GetConnectionUnixProcessID", &DRIVER)?;
        let (reply, before) = self.stream.reply(serial, "GetConnectionUnixProcessID")?;
        self.keep(before);
        self.catch_up()?;
        Ok(Pid(body::<u32>(&reply)? as i32))
    }
}

/// The name whose owner changed, if the bus says so in this message.
fn changed_name(message: &Message) -> Option<String> {
    if driver_signal(message).as_deref() != Some("NameOwnerChanged") {
        return None;
    }
    let (name, _, _): (String, String, String) = message.body().deserialize().ok()?;
    Some(name)
}

/// The bus's own descriptor of a connection: what is written there, the client reads. dbus-broker
/// gives the PID of its launcher, whose child it is.
fn far_end(desk: &Desk, near: BorrowedFd<'_>, bus: Pid) -> Result<OwnedFd> {
    let fail = |step| move |e| Error::kernel(step, "bus connection", e);
    let inode = fstat(near).map_err(fail("fstat"))?.st_ino as u32;
    let netlink = sys::netns::socket(None, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG)
        .map_err(fail("sock_diag"))?;
    let sockets = sys::sock_diag::unix_sockets(netlink.as_fd()).map_err(fail("sock_diag"))?;
    let Some(peer) = sockets.get(&inode).and_then(|socket| socket.peer).filter(|peer| *peer != 0) else {
        return Err(Error::stale(ReasonCode::BusUnavailable, "the connection to the bus is gone"));
    };
    let wanted = format!("socket:[{peer}]");
    let children = desk.proc.read(&format!("{bus}/task/{bus}/children")).unwrap_or_default();
    let children = String::from_utf8_lossy(&children).into_owned();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid);
    for pid in std::iter::once(bus).chain(children) {
        for fd in sys::proc::fds(pid).unwrap_or_default() {
            if sys::proc::read_link(pid, &format!("fd/{fd}")).is_ok_and(|link| link == wanted.as_bytes()) {
                let bus = sys::pidfd::open(pid).map_err(fail("pidfd_open"))?;
                return sys::pidfd::get_fd(bus.as_fd(), fd).map_err(fail("pidfd_getfd"));
            }
        }
    }
    Err(Error::stale(
        ReasonCode::BusUnavailable,
        format!("the bus's end of the connection was not found (pid {bus})"),
    ))
}

/// One write: a message stays whole whatever the bus itself sends.
fn say(far: &OwnedFd, bytes: &[u8]) -> Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let sent = send(far.as_raw_fd(), bytes, flags).map_err(|e| Error::kernel("send", "bus connection", e))?;
    match sent == bytes.len() {
        true => Ok(()),
        false => {
            Err(Error::stale(ReasonCode::BusUnavailable, "more has changed on the bus than a socket holds"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snap_bus::{driver_call, name_owner_changed};
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    fn reply(serial: u32, body: &(impl serde::Serialize + zbus::zvariant::DynamicType)) -> Vec<u8> {
        let call = sys::dbus::message_from(driver_call(serial, DRIVER, "Any", &()).unwrap()).unwrap();
        let reply = Message::method_return(&call.header()).unwrap().sender(DRIVER).unwrap();
        reply.build(body).unwrap().data().to_vec()
    }

    fn change(name: &str, new: &str) -> Vec<u8> {
        name_owner_changed(name, "", new).unwrap().data().to_vec()
    }

    #[test]
    fn regression_a_name_that_appears_while_owners_are_asked_for_is_heard_of_once() {
        let connection = BusConnectionV1 {
            unread: Vec::new(),
            address: Vec::new(),
            own_address: Vec::new(),
            unique_name: ":1.5".into(),
            connector: Pid(7),
            uid: 0,
            rules: Vec::new(),
            names: Vec::new(),
            others: Vec::new(),
            options: Vec::new(),
        };
        let (near, mut far) = UnixStream::pair().unwrap();
        let script = [
            change("before.list", ":1.1"),
            reply(1, &vec!["before.list", "asked.b", "asked.c"]),
            change("after.list", ":1.2"),
            change("asked.b", ":1.3"),
            reply(2, &":1.1"),
            reply(3, &":1.3"),
            change("asked.b", ":1.4"),
            reply(4, &":1.6"),
        ];
        far.write_all(&script.concat()).unwrap();
        let stream = BusStream::new(near.as_fd(), Instant::now() + Duration::from_secs(5));
        let mut entry = Entry { connection: &connection, stream, unheard: Vec::new(), held_back: None };
        let owners = entry.owners_now(":1.5").unwrap();
        let owner = |name: &str| owners.get(name).map(String::as_str);
        assert_eq!(owner("before.list"), Some(":1.1"));
        assert_eq!(owner("asked.b"), Some(":1.3"));
        assert_eq!(owner("asked.c"), Some(":1.6"));
        let heard: Vec<(String, String, String)> =
            entry.unheard.iter().map(|signal| signal.body().deserialize().unwrap()).collect();
        let expected = [("after.list", ":1.2"), ("asked.b", ":1.4")];
        assert_eq!(heard, expected.map(|(name, new)| (name.to_owned(), String::new(), new.to_owned())));
    }
}
