//! A connection to the system bus: its name by asking on the daemon's own socket, the rest by
//! asking the bus.

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use nix::sys::socket::{MsgFlags, recv, send};
use snap_bus::{BusWatch, DRIVER, answers, driver_call, message_len, split};
use snap_error::obstacle::{BusObstacle, DescriptorObstacle};
use snap_error::{Blocker, BusFault, Error, Obstacle, Part, Result};
use snap_state::{BusConnectionV1, BusNameV1, FileKindV1, Pid, SocketOptionV1};
use snap_sys::{dbus, fdquery};
use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};
use zbus::Message;
use zbus::message::Type;

/// Number of our own call on the daemon's connection. Clients count from 1; one that has made four
/// thousand million calls does not wait for an answer to this one just now.
const OUR_SERIAL: u32 = 0xffff_fff0;
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest answer to [`OUR_SERIAL`], in bytes.
const ANSWER_BYTES: usize = 4096;

/// What the client has not read, as it is: some clients never read what they need no answer to. The
/// bus must have read everything: it would be lost, or be cut in two by our own call.
fn at_rest(file: &Description, fd: BorrowedFd<'_>) -> Found<Unread> {
    let fail = |step| failed(step, file.pid, file.fd);
    let len = fdquery::unread_bytes(fd).map_err(fail("FIONREAD"))?;
    let unread = if len > 0 { unread(file, fd, len)? } else { Unread::default() };
    if fdquery::unsent_bytes(fd).map_err(fail("SIOCOUTQ"))? > 0 {
        return refused(BusObstacle::Unsent);
    }
    Ok(unread)
}

/// Whole messages, and the unique name that the bus gives in them.
#[derive(Debug, Default)]
struct Unread {
    bytes: Vec<u8>,
    unique_name: Option<String>,
}

/// Calls are not carried: the daemon would ask the bus about a caller who has gone, and another may
/// have that name by then.
fn unread(file: &Description, fd: BorrowedFd<'_>, len: usize) -> Found<Unread> {
    const MOST_BYTES: usize = 64 << 10;
    if len > MOST_BYTES {
        return refused(BusObstacle::UnreadMany { len_bytes: len });
    }
    // One more, to see what is larger by then.
    let peeked = fdquery::peek_message(fd, len + 1).map_err(failed(
        "look at unread bus messages",
        file.pid,
        file.fd,
    ))?;
    let Some(peeked) = peeked.filter(|peeked| peeked.bytes.len() == len) else {
        return refused(BusObstacle::UnreadMoving);
    };
    if !peeked.descriptors.is_empty() || peeked.other_control {
        return refused(BusObstacle::UnreadDescriptors);
    }
    let Ok(messages) = split(&peeked.bytes) else {
        return refused(BusObstacle::UnreadHalf);
    };
    if messages.iter().any(|message| message.message_type() == Type::MethodCall) {
        return refused(BusObstacle::UnreadCall);
    }
    let from_driver = |message: &&Message| message.header().sender().is_some_and(|sender| sender == DRIVER);
    let unique_name = messages
        .iter()
        .filter(from_driver)
        .find_map(|message| message.header().destination().map(ToString::to_string));
    Ok(Unread { bytes: peeked.bytes, unique_name })
}

/// Only whether it could be recorded now; what is returned is not complete and never stored.
pub(super) fn look(
    file: &Description,
    fd: BorrowedFd<'_>,
    [address, own_address]: [&[u8]; 2],
    options: Vec<SocketOptionV1>,
) -> Found<BusConnectionV1> {
    at_rest(file, fd)?;
    let (unique_name, connector) = (String::new(), file.pid);
    let (rules, names, others) = (Vec::new(), Vec::new(), Vec::new());
    let (address, own_address) = (address.to_vec(), own_address.to_vec());
    Ok(BusConnectionV1 {
        address,
        own_address,
        unique_name,
        connector,
        uid: 0,
        rules,
        names,
        others,
        options,
        unread: Vec::new(),
    })
}

/// Everything about one connection. `tree`: processes that have descriptors.
pub(super) fn collect(
    file: &Description,
    fd: BorrowedFd<'_>,
    [address, own_address]: [&[u8]; 2],
    options: Vec<SocketOptionV1>,
    tree: &HashSet<Pid>,
    watch: &BusWatch,
) -> Found<BusConnectionV1> {
    let unread = at_rest(file, fd)?;
    let unique_name = match unread.unique_name {
        Some(name) => Some(name),
        None if unread.bytes.is_empty() => own_name(file, fd)?,
        None => None,
    };
    let Some(unique_name) = unique_name else {
        return refused(BusObstacle::UnreadNameless);
    };
    let told = watch.told(&unique_name)?;
    if !told.whole {
        return refused(BusObstacle::RulesUnseen);
    }
    let mut names = Vec::new();
    for (name, owner) in watch.names_of(&unique_name)? {
        let Some((_, flags)) = told.names.iter().find(|(known, _)| *known == name) else {
            return refused(BusObstacle::NameUnseen { name });
        };
        names.push(BusNameV1 { name, flags: *flags, owner });
    }
    names.sort_by_key(|name| told.names.iter().position(|(known, _)| *known == name.name));
    let own: Vec<String> = names.iter().map(|name| name.name.clone()).collect();
    if let Some(call) = watch.open_calls(&unique_name, &own).first() {
        return refused(BusObstacle::CallInProgress { call: call.clone() });
    }
    let credentials = watch.credentials(&unique_name)?;
    let of_tree = credentials.pid.map(Pid).filter(|pid| tree.contains(pid));
    if !unread.bytes.is_empty() && of_tree.is_none() {
        return refused(BusObstacle::UnreadOrphan);
    }
    let others = watch.owners()?.into_iter().filter(|(_, owner)| *owner != unique_name).collect();
    // What has arrived meanwhile may be about them.
    let fail = failed("FIONREAD", file.pid, file.fd);
    if fdquery::unread_bytes(fd).map_err(fail)? != unread.bytes.len() {
        return refused(BusObstacle::UnreadLate);
    }
    Ok(BusConnectionV1 {
        address: address.to_vec(),
        own_address: own_address.to_vec(),
        unique_name,
        connector: of_tree.unwrap_or(file.pid),
        uid: credentials.uid,
        rules: told.rules,
        names,
        others,
        options,
        unread: unread.bytes,
    })
}

/// Asks the bus something on the daemon's connection and takes the answer out again: it is
/// addressed to the unique name. The daemon stands still meanwhile. `None`: something else arrived
/// first; the daemon will find our answer behind it and, like every client, ignore an answer to a
/// question that it did not ask.
fn own_name(file: &Description, fd: BorrowedFd<'_>) -> Result<Option<String>> {
    let fail = |step| failed(step, file.pid, file.fd);
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let call = driver_call(OUR_SERIAL, DRIVER, "GetId", &())?;
    send(fd.as_raw_fd(), &call, flags).map_err(fail("ask on its bus connection"))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let peeked =
            fdquery::peek_message(fd, ANSWER_BYTES).map_err(fail("look at the answer of the bus"))?;
        let bytes = peeked.map(|peeked| peeked.bytes).unwrap_or_default();
        if let Some(len) = message_len(&bytes)?.filter(|len| *len <= bytes.len()) {
            let message = dbus::message_from(bytes[..len].to_vec())
                .map_err(|e| not_answered(BusFault::NotUnderstood { found: e.to_string() }))?;
            if answers(&message).is_none_or(|(serial, _)| serial != OUR_SERIAL) {
                return Ok(None);
            }
            let mut taken = vec![0; len];
            let got = recv(fd.as_raw_fd(), &mut taken, MsgFlags::MSG_DONTWAIT);
            let got = got.map_err(fail("take the answer of the bus"))?;
            if got != len {
                // Somebody outside of the tree has the connection too, and reads.
                return Err(Blocker::new(file.pid, Part::Fd(file.fd), BusObstacle::UnreadMoving).into());
            }
            return Ok(message.header().destination().map(ToString::to_string));
        }
        if Instant::now() >= deadline {
            return Err(not_answered(BusFault::NoAnswer));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn not_answered(fault: BusFault) -> Error {
    Error::Bus { step: "asking the bus", fault }
}

/// A connection is made by the process that has it.
pub(super) fn in_flight(kind: &FileKindV1) -> Option<Obstacle> {
    matches!(kind, FileKindV1::Bus(_)).then(|| DescriptorObstacle::BusInFlight.into())
}
