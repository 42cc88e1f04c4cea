//! Lists of kernel objects by netlink (netlink(7)): asking, and taking the answers apart.

use netlink_packet_core::{
    Emitable as _, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NlasIterator,
};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::os::fd::{AsRawFd, BorrowedFd};

/// The list changed while it was told.
const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
/// Of messages and attributes.
const ALIGNMENT: usize = 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// As much as the kernel puts into one answer, and more.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;
/// How often a list is asked for that changes while it is told.
const ATTEMPTS: u32 = 5;
/// The kernel answers at once; nothing waits for longer.
const LONGEST_S: i64 = 2;

/// One object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `nlmsg_type`.
    pub kind: u16,
    /// Behind the header.
    pub body: Vec<u8>,
}

/// All objects that a request of this kind lists, in the network namespace of the socket. `body`
/// follows the header.
///
/// # Errors
/// Those of the socket and the kernel's own answer; `EINTR` of a list that never stands still.
pub fn list(socket: BorrowedFd<'_>, kind: u16, body: &[u8]) -> Result<Vec<Answer>, Errno> {
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(LONGEST_S))?;
    for _ in 0..ATTEMPTS {
        if let Some(answers) = ask(socket, kind, body)? {
            return Ok(answers);
        }
    }
    Err(Errno::EINTR)
}

/// `None` when the list changed meanwhile.
fn ask(socket: BorrowedFd<'_>, kind: u16, body: &[u8]) -> Result<Option<Vec<Answer>>, Errno> {
    send(socket.as_raw_fd(), &request(kind, body), MsgFlags::empty())?;
    let mut answers = Vec::new();
    let mut changed = false;
    let mut buffer = vec![0u8; BUFFER_BYTES];
    loop {
        let got = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in messages(&buffer[..got]) {
            let Message { kind, flags, body } = message?;
            changed |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                NLMSG_DONE | NLMSG_ERROR if u32_at(body, 0) as i32 != 0 => {
                    return Err(Errno::from_raw(-(u32_at(body, 0) as i32)));
                }
                NLMSG_DONE | NLMSG_ERROR => return Ok((!changed).then_some(answers)),
                kind => answers.push(Answer { kind, body: body.to_vec() }),
            }
        }
    }
}

/// The bytes of a request for a list.
pub(crate) fn request(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    let header_bytes = header.buffer_len();
    header.length = (header_bytes + body.len()) as u32;
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut bytes = vec![0; header_bytes];
    header.emit(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

/// A message of a datagram, without its header.
pub(crate) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub body: &'a [u8],
}

/// Takes a datagram apart. `EBADMSG`: a length leads beyond it; nothing follows then.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Errno>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let Ok(message) = NetlinkBuffer::new_checked(bytes) else {
            bytes = &[];
            return Some(Err(Errno::EBADMSG));
        };
        let len = (message.length() as usize).next_multiple_of(ALIGNMENT);
        bytes = bytes.get(len..).unwrap_or_default();
        Some(Ok(Message { kind: message.message_type(), flags: message.flags(), body: message.payload() }))
    })
}

/// Kind (without its flags) and value of each attribute, up to the first that leads beyond them.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, len) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, &attribute.into_inner()[ATTRIBUTE_HEADER_BYTES..len]))
    })
}

/// The number at this place in the machine's order; 0 behind the end.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// The same of two bytes.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|word| word.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    const RTM_GETLINK: u16 = 18;
    const IFLA_IFNAME: u16 = 3;
    const IFINFOMSG_BYTES: usize = 16;

    #[test]
    fn the_loopback_interface_is_listed_by_name() {
        let socket =
            crate::netns::socket(None, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).unwrap();
        let links = list(socket.as_fd(), RTM_GETLINK, &[0; IFINFOMSG_BYTES]).unwrap();
        let is_loopback = |answer: &Answer| {
            let name = attributes(&answer.body[IFINFOMSG_BYTES..]).find(|(kind, _)| *kind == IFLA_IFNAME);
            name.is_some_and(|(_, name)| name == b"lo\0")
        };
        assert!(links.iter().any(is_loopback), "{links:?}");
    }

    #[test]
    fn a_request_that_nobody_knows_is_an_error_and_not_an_empty_list() {
        let socket =
            crate::netns::socket(None, libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).unwrap();
        assert!(list(socket.as_fd(), 0x7ffe, &[0; 4]).is_err());
    }

    #[test]
    fn a_message_that_is_cut_off_is_an_error_and_the_last() {
        let mut bytes = request(7, &[1, 2, 3, 4]);
        bytes.extend_from_slice(&request(8, &[5]));
        let kinds = |bytes: &[u8]| messages(bytes).map(|m| m.map(|m| m.kind)).collect::<Vec<_>>();
        assert_eq!(kinds(&bytes), [Ok(7), Ok(8)]);
        assert_eq!(kinds(&bytes[..bytes.len() - 1]), [Ok(7), Err(Errno::EBADMSG)]);
        assert_eq!(kinds(&bytes[..24]), [Ok(7), Err(Errno::EBADMSG)]);
    }

    #[test]
    fn attributes_that_are_cut_off_end_the_list() {
        let mut bytes = vec![5, 0, 1, 0, 7, 0, 0, 0, 9, 0, 2, 0x80];
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &[7u8][..])]);
        bytes.extend_from_slice(&[1, 2, 3, 4, 5]);
        assert_eq!(attributes(&bytes).collect::<Vec<_>>(), [(1, &[7u8][..]), (2, &[1, 2, 3, 4, 5][..])]);
    }
}
