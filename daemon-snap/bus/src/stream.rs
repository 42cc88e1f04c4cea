//! One end of a connection to the bus: bytes in, whole messages out. Every wait has an end.

use super::message::{
    DRIVER, answers, body, driver_call, error_text, message_len, method_call, numeric_answer, unreadable,
};
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, recv, send};
use snap_error::{Error, Result};
use snap_sys as sys;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;
use zbus::Message;
use zbus::zvariant::DynamicType;

/// What every client says first (D-Bus specification, "Authentication Protocol"): as the user whom
/// the kernel names, able to take descriptors. One write; the bus reads as it goes.
const GREETING: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n";
/// Lines that answer it.
const ANSWERS: usize = 3;

/// A connection that belongs to us alone while we speak on it.
#[derive(Debug)]
pub struct BusStream<F> {
    fd: F,
    unread: Vec<u8>,
    deadline: Instant,
    serial: u32,
    /// Whom errors name.
    who: &'static str,
}

impl<F: AsFd> BusStream<F> {
    /// Speaks on a connected socket until `deadline`.
    pub fn new(fd: F, deadline: Instant) -> Self {
        Self { fd, unread: Vec::new(), deadline, serial: 0, who: "the bus" }
    }

    /// Has errors name somebody else than the bus.
    pub fn with(mut self, who: &'static str) -> Self {
        self.who = who;
        self
    }

    /// From now on waits until `deadline`.
    pub fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Number of the last call.
    pub fn last_serial(&self) -> u32 {
        self.serial
    }

    /// Authenticates and says Hello; the unique name that the bus gives.
    ///
    /// # Errors
    /// `Stale` when the bus refuses.
    pub fn greet(&mut self) -> Result<String> {
        self.send(GREETING)?;
        let hello = self.call(DRIVER, "Hello", &())?;
        self.let_in()?;
        let (reply, _) = self.reply(hello, "Hello")?;
        body(&reply)
    }

    /// Authenticates at a service that is connected to without a bus between, and sends calls along
    /// with it; their numbers. Each is path, interface, member and body. One write, and no round
    /// trip before the answers.
    ///
    /// # Errors
    /// `Stale` when the service refuses.
    pub fn greet_service<B>(&mut self, service: &str, calls: &[([&str; 3], B)]) -> Result<Vec<u32>>
    where
        B: serde::Serialize + DynamicType,
    {
        let mut bytes = GREETING.to_vec();
        let mut serials = Vec::with_capacity(calls.len());
        for ([path, interface, member], body) in calls {
            self.serial += 1;
            serials.push(self.serial);
            bytes.extend(method_call(self.serial, [service, path, interface], member, body)?);
        }
        self.send(&bytes)?;
        Ok(serials)
    }

    /// Waits for the answers to calls of [`greet_service`](Self::greet_service) that are numbers,
    /// in the order of the calls.
    ///
    /// # Errors
    /// `Stale` when we are not let in or no answer comes; `Internal` for another one.
    pub fn numbers(&mut self, serials: &[u32]) -> Result<Vec<u64>> {
        self.let_in()?;
        let mut numbers = Vec::with_capacity(serials.len());
        // A service answers in the order in which it was asked; signals may come between.
        while let Some(serial) = serials.get(numbers.len()) {
            match self.take_bytes()? {
                Some(bytes) => match numeric_answer(&bytes)? {
                    Some((answered, number)) if answered == *serial => numbers.push(number),
                    Some(_) => return Err(unreadable(&"an answer to something else")),
                    None => {}
                },
                None if self.receive()? => {}
                None => {
                    return Err(self.silent());
                }
            }
        }
        Ok(numbers)
    }

    /// Reads the answers to the greeting.
    ///
    /// # Errors
    /// `Stale` when we are not let in.
    fn let_in(&mut self) -> Result<()> {
        let mut lines = Vec::new();
        while lines.len() < ANSWERS {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if line.starts_with("REJECTED") || line.starts_with("ERROR") {
                    return Err(refused(
                        ReasonCode::BusRefused,
                        format!("{} does not let it in ({line})", self.who),
                    ));
                }
                lines.push(line);
            } else if !self.receive()? {
                return Err(self.silent());
            }
        }
        Ok(())
    }

    fn silent(&self) -> Error {
        refused(ReasonCode::BusUnavailable, format!("{} does not answer", self.who))
    }

    /// Sends a call to the bus itself and does not wait; its number.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn call<B>(&mut self, interface: &str, member: &str, body: &B) -> Result<u32>
    where
        B: serde::Serialize + DynamicType,
    {
        self.serial += 1;
        self.send(&driver_call(self.serial, interface, member, body)?)?;
        Ok(self.serial)
    }

    /// Waits for the answer to a call; what came before it comes along, in order.
    ///
    /// # Errors
    /// `Stale` when the answer is an error or none comes.
    pub fn reply(&mut self, serial: u32, what: &str) -> Result<(Message, Vec<Message>)> {
        let (reply, before) = self.any_reply(serial, what)?;
        match answers(&reply) {
            Some((_, true)) => Ok((reply, before)),
            _ => Err(refused(ReasonCode::BusRefused, format!("{what}: {}", error_text(&reply)))),
        }
    }

    /// The same, whatever the answer is.
    ///
    /// # Errors
    /// `Stale` when none comes.
    pub fn any_reply(&mut self, serial: u32, what: &str) -> Result<(Message, Vec<Message>)> {
        let mut before = Vec::new();
        loop {
            let Some(message) = self.message()? else {
                return Err(refused(ReasonCode::BusUnavailable, format!("{what}: the bus does not answer")));
            };
            match answers(&message) {
                Some((answered, _)) if answered == serial => return Ok((message, before)),
                _ => before.push(message),
            }
        }
    }

    /// Calls the bus and waits; everything else that arrives meanwhile is dropped, so only for
    /// connections of our own.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn ask<B>(&mut self, interface: &str, member: &str, body: &B) -> Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        let serial = self.call(interface, member, body)?;
        Ok(self.reply(serial, member)?.0)
    }

    /// Calls somebody whose answer is one descriptor; only for connections of our own, and as their
    /// last call: the answer stays unread.
    ///
    /// # Errors
    /// As [`Self::reply`].
    pub fn ask_for_descriptor<B>(&mut self, whom: [&str; 3], member: &str, body: &B) -> Result<OwnedFd>
    where
        B: serde::Serialize + DynamicType,
    {
        const MOST_BYTES: usize = 16 << 10;
        self.serial += 1;
        self.send(&method_call(self.serial, whom, member, body)?)?;
        let failed = |e| Error::kernel("recvmsg", "bus", e);
        loop {
            // A look hands out duplicates of the descriptors, and ends behind the first message
            // that has some.
            let peeked = sys::fdquery::peek_message(self.fd.as_fd(), MOST_BYTES).map_err(failed)?;
            match peeked {
                Some(mut peeked) if !peeked.descriptors.is_empty() => {
                    return Ok(peeked.descriptors.swap_remove(0));
                }
                // NameAcquired, or an error. What has come behind it meanwhile is left where it is.
                Some(peeked) if !peeked.bytes.is_empty() => {
                    let mut bytes = vec![0; peeked.bytes.len()];
                    let got = recv(self.fd.as_fd().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
                    self.unread.extend_from_slice(&bytes[..got.map_err(gone)?]);
                    while let Some(message) = self.take()? {
                        if answers(&message).is_some_and(|(serial, _)| serial == self.serial) {
                            let sentence = format!("{member}: {}", error_text(&message));
                            return Err(refused(ReasonCode::BusRefused, sentence));
                        }
                    }
                }
                Some(_) => return Err(gone(Errno::ECONNRESET)),
                None if self.wait(PollFlags::POLLIN)? => {}
                None => return Err(refused(ReasonCode::BusUnavailable, format!("{member}: no answer"))),
            }
        }
    }

    /// The next message; `None` when the time is up.
    ///
    /// # Errors
    /// The connection is gone, or what comes is no message.
    pub fn message(&mut self) -> Result<Option<Message>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if !self.receive()? {
                return Ok(None);
            }
        }
    }

    /// The next message if it is there already, whole or in part.
    ///
    /// # Errors
    /// As [`Self::message`].
    pub fn message_at_hand(&mut self) -> Result<Option<Message>> {
        let at_hand = sys::fdquery::poll_now(self.fd.as_fd(), libc::POLLIN);
        let at_hand = at_hand.map_err(|e| Error::kernel("poll", "bus", e))? & libc::POLLIN != 0;
        match at_hand || !self.unread.is_empty() {
            true => self.message(),
            false => Ok(None),
        }
    }

    fn take(&mut self) -> Result<Option<Message>> {
        let bytes = self.take_bytes()?;
        bytes.map(|bytes| sys::dbus::message_from(bytes).map_err(|e| unreadable(&e))).transpose()
    }

    fn take_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        let len = message_len(&self.unread)?.filter(|len| *len <= self.unread.len());
        Ok(len.map(|len| self.unread.drain(..len).collect()))
    }

    /// Writes whole messages.
    ///
    /// # Errors
    /// The connection is gone, or the bus reads nothing until the deadline.
    pub fn send(&self, mut bytes: &[u8]) -> Result<()> {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        while !bytes.is_empty() {
            match send(self.fd.as_fd().as_raw_fd(), bytes, flags) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !self.wait(PollFlags::POLLOUT)? {
                        return Err(refused(ReasonCode::BusUnavailable, "the bus does not read".into()));
                    }
                }
                Err(e) => return Err(gone(e)),
            }
        }
        Ok(())
    }

    /// Reads what is there, waiting for it; `false` when the time is up.
    fn receive(&mut self) -> Result<bool> {
        if !self.wait(PollFlags::POLLIN)? {
            return Ok(false);
        }
        let mut bytes = [0; 16 << 10];
        match recv(self.fd.as_fd().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => Err(refused(ReasonCode::BusUnavailable, "the bus has closed the connection".into())),
            Ok(got) => {
                self.unread.extend_from_slice(&bytes[..got]);
                Ok(true)
            }
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(true),
            Err(e) => Err(gone(e)),
        }
    }

    fn wait(&self, events: PollFlags) -> Result<bool> {
        sys::fdquery::poll_until(self.fd.as_fd(), events, self.deadline)
            .map_err(|e| Error::kernel("poll", "bus", e))
    }
}

fn refused(code: ReasonCode, message: String) -> Error {
    Error::stale(code, message)
}

fn gone(errno: Errno) -> Error {
    Error::stale(ReasonCode::BusUnavailable, format!("the connection to the bus is gone ({})", errno.desc()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// Lets a client in on the other end and answers Hello; then says no more and goes when the
    /// client has said `until`.
    fn bus_that_dies_after(mut socket: UnixStream, until: &'static str) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let mut heard = Vec::new();
            let mut hear = |socket: &mut UnixStream, word: &str| {
                let mut bytes = [0; 4096];
                while !heard.windows(word.len()).any(|some| some == word.as_bytes()) {
                    let got = socket.read(&mut bytes).unwrap();
                    assert!(got > 0, "the client has gone before {word}");
                    heard.extend_from_slice(&bytes[..got]);
                }
            };
            hear(&mut socket, "Hello");
            let call = sys::dbus::message_from(driver_call(1, DRIVER, "Hello", &()).unwrap()).unwrap();
            let reply = Message::method_return(&call.header()).unwrap().build(&":1.7").unwrap();
            socket.write_all(b"DATA\r\nOK 00112233445566778899aabbccddeeff\r\nAGREE_UNIX_FD\r\n").unwrap();
            socket.write_all(reply.data()).unwrap();
            hear(&mut socket, until);
        })
    }

    #[test]
    fn a_bus_that_dies_in_the_middle_is_a_reason_and_no_wait() {
        let (near, far) = UnixStream::pair().unwrap();
        let bus = bus_that_dies_after(far, "RequestName");
        let mut stream = BusStream::new(near, Instant::now() + Duration::from_secs(600));
        assert_eq!(stream.greet().unwrap(), ":1.7");
        let rule = stream.call(DRIVER, "AddMatch", &"type='signal'").unwrap();
        let name = stream.call(DRIVER, "RequestName", &("com.example.x", 4_u32)).unwrap();
        bus.join().unwrap();
        for (serial, what) in [(rule, "AddMatch"), (name, "RequestName")] {
            let error = stream.reply(serial, what).unwrap_err();
            assert!(matches!(error, Error::Stale(_)), "{error:?}");
            let text = error.to_string();
            assert!(text.contains("bus"), "{text}");
        }
        // And a name asked for after that.
        let error = stream.call(DRIVER, "RequestName", &("com.example.y", 4_u32)).unwrap_err();
        assert!(matches!(error, Error::Stale(_)), "{error:?}");
    }
}
