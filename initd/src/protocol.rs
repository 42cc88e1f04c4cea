//! What shim and restore daemon say to each other, one packet each, over `SOCK_SEQPACKET`:
//!
//! 1. initd: [`Greeting`], as soon as it knows who has connected; without it the shim does not wait
//!    long
//! 2. shim: [`Hello`], with descriptors 0, 1, 2 and those of socket activation attached
//! 3. initd: [`Answer`]; with `Restored` come the descriptors for systemd's store
//! 4. shim, after `Restored`: [`Adopted`]; after `Failed` initd removes the tree and answers `Cold`
//!
//! The connection closed at any point means: start cold.

pub use fastboot_runtime::SOCKET_PATH;
use std::time::Duration;

use snap_state::{MAX_STORED, is_stored_name};

use crate::wire::{Decoder, Encoder, MAX_MESSAGE_LEN, Malformed};

/// Most descriptors of socket activation that are handed over; the kernel takes 253 in one message.
pub const MAX_LISTEN_FDS: usize = 250;

/// Longest that a shim waits for the first word. When there was none, nobody is at work, and it
/// starts the service cold. Once in a boot at most: then the zygote answers for all others. Of 300 ms
/// an emulated machine with two cores needed more while its services all started at once.
pub const FIRST_WORD_TIMEOUT: Duration = Duration::from_millis(1000);

const MAGIC: u32 = 0x3158_4246;
const VERSION: u16 = 5;
const HAS_NOTIFY_SOCKET: u16 = 1 << 0;
const IS_AGAIN: u16 = 1 << 1;
const SEND_MAIN_PID: u16 = 1 << 0;
const SEND_READY: u16 = 1 << 1;
/// Longest sentence that is sent to a shim.
const MAX_SENTENCE_LEN: usize = 1024;

/// The first word: somebody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting;

/// The shim's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Unit that it stands in for.
    pub unit: String,
    /// Whether it can tell systemd about another main process.
    pub has_notify_socket: bool,
    /// It asked before, the daemon died over it, and there are strangers in the cgroup: the only
    /// answer is `Cold`, when they are gone.
    pub is_again: bool,
    /// `LISTEN_FDNAMES`, one per descriptor after the first three.
    pub listen_names: Vec<String>,
}

/// initd's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Start the original command.
    Cold {
        /// Stable code, as in `image_store::ReasonCode`.
        code: String,
        /// For people.
        sentence: String,
    },
    /// The daemon runs.
    Restored {
        /// Its main process.
        main_pid: i32,
        /// Tell systemd which one it is.
        send_main_pid: bool,
        /// Tell systemd that the service is ready.
        send_ready: bool,
        /// What the service said of itself at the snapshot; empty: nothing.
        status: String,
        /// What systemd has to keep for the service, one per descriptor, last stored first.
        stored: Vec<StoredName>,
    },
}

/// How a descriptor is put into systemd's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredName {
    /// `FDNAME=`.
    pub name: String,
    /// systemd drops it when it hangs up; otherwise `FDPOLL=0`.
    pub polled: bool,
}

impl StoredName {
    pub(crate) fn encode_all(names: &[StoredName], encoder: &mut Encoder) {
        encoder.u16(names.len() as u16);
        for StoredName { name, polled } in names {
            encoder.bytes(name.as_bytes()).u16((*polled).into());
        }
    }

    pub(crate) fn decode_all(decoder: &mut Decoder<'_>) -> Result<Vec<StoredName>, Malformed> {
        let count = usize::from(decoder.u16()?);
        if count > MAX_STORED {
            return Err(Malformed("it has too many descriptors"));
        }
        let mut names = Vec::with_capacity(count);
        for _ in 0..count {
            let (name, polled) = (decoder.string()?, decoder.u16()?);
            // It becomes a line of a message to systemd.
            if !is_stored_name(&name) || polled > 1 {
                return Err(Malformed("a descriptor has an odd name"));
            }
            names.push(StoredName { name, polled: polled == 1 });
        }
        Ok(names)
    }
}

/// What became of a restored tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// systemd has taken it over; the shim ends.
    Done,
    /// systemd could not be told, with the errno; the shim waits for another answer.
    Failed(i32),
}

impl Greeting {
    /// As a packet.
    pub fn encode(self) -> Vec<u8> {
        head(5).finish()
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(packet: &[u8]) -> Result<Greeting, Malformed> {
        check_head(packet, 5)?.finish().map(|()| Greeting)
    }
}

impl Hello {
    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = head(1);
        let notify = if self.has_notify_socket { HAS_NOTIFY_SOCKET } else { 0 };
        encoder.u16(notify | if self.is_again { IS_AGAIN } else { 0 });
        encoder.bytes(self.unit.as_bytes()).u16(self.listen_names.len() as u16);
        for name in &self.listen_names {
            encoder.bytes(name.as_bytes());
        }
        encoder.finish()
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(packet: &[u8]) -> Result<Hello, Malformed> {
        let mut decoder = check_head(packet, 1)?;
        let flags = decoder.u16()?;
        if flags & !(HAS_NOTIFY_SOCKET | IS_AGAIN) != 0 {
            return Err(Malformed("it has unknown flags"));
        }
        let unit = decoder.string()?;
        let count = usize::from(decoder.u16()?);
        if count > MAX_LISTEN_FDS {
            return Err(Malformed("it has too many descriptors"));
        }
        let listen_names = (0..count).map(|_| decoder.string()).collect::<Result<_, _>>()?;
        decoder.finish()?;
        let (has_notify_socket, is_again) = (flags & HAS_NOTIFY_SOCKET != 0, flags & IS_AGAIN != 0);
        Ok(Hello { unit, has_notify_socket, is_again, listen_names })
    }
}

impl Answer {
    /// As a packet; a long sentence is cut.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Answer::Cold { code, sentence } => head(2).bytes(code.as_bytes()).bytes(cut(sentence)).finish(),
            Answer::Restored { main_pid, send_main_pid, send_ready, status, stored } => {
                let main = if *send_main_pid { SEND_MAIN_PID } else { 0 };
                let ready = if *send_ready { SEND_READY } else { 0 };
                let mut encoder = head(3);
                encoder.i32(*main_pid).u16(main | ready).bytes(cut(status));
                StoredName::encode_all(stored, &mut encoder);
                encoder.finish()
            }
        }
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(packet: &[u8]) -> Result<Answer, Malformed> {
        if let Ok(mut decoder) = check_head(packet, 2) {
            let answer = Answer::Cold { code: decoder.string()?, sentence: decoder.string()? };
            decoder.finish()?;
            return Ok(answer);
        }
        let mut decoder = check_head(packet, 3)?;
        let main_pid = decoder.i32()?;
        let flags = decoder.u16()?;
        let status = decoder.string()?;
        let stored = StoredName::decode_all(&mut decoder)?;
        decoder.finish()?;
        if main_pid <= 1 || flags & !(SEND_MAIN_PID | SEND_READY) != 0 {
            return Err(Malformed("it names no process"));
        }
        let (send_main_pid, send_ready) = (flags & SEND_MAIN_PID != 0, flags & SEND_READY != 0);
        Ok(Answer::Restored { main_pid, send_main_pid, send_ready, status, stored })
    }
}

/// At most [`MAX_SENTENCE_LEN`] bytes, whole characters.
fn cut(sentence: &str) -> &[u8] {
    let mut end = sentence.len().min(MAX_SENTENCE_LEN);
    while !sentence.is_char_boundary(end) {
        end -= 1;
    }
    &sentence.as_bytes()[..end]
}

impl Adopted {
    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        let errno = match self {
            Adopted::Done => 0,
            Adopted::Failed(errno) => (*errno).max(1),
        };
        head(4).i32(errno).finish()
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(packet: &[u8]) -> Result<Adopted, Malformed> {
        let mut decoder = check_head(packet, 4)?;
        let errno = decoder.i32()?;
        decoder.finish()?;
        Ok(if errno == 0 { Adopted::Done } else { Adopted::Failed(errno) })
    }
}

fn head(kind: u16) -> Encoder {
    let mut encoder = Encoder::default();
    encoder.u32(MAGIC).u16(VERSION).u16(kind);
    encoder
}

fn check_head(packet: &[u8], kind: u16) -> Result<Decoder<'_>, Malformed> {
    if packet.len() > MAX_MESSAGE_LEN {
        return Err(Malformed("it is too long"));
    }
    let mut decoder = Decoder::new(packet);
    if decoder.u32()? != MAGIC || decoder.u16()? != VERSION {
        return Err(Malformed("it has another version"));
    }
    if decoder.u16()? != kind {
        return Err(Malformed("it is of another kind"));
    }
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let listen_names = vec!["http".to_owned(), String::new(), "a\\x2db".to_owned()];
        Hello {
            unit: "redis-server.service".to_owned(),
            has_notify_socket: true,
            is_again: false,
            listen_names,
        }
    }

    fn answers() -> [Answer; 3] {
        [
            Answer::Cold { code: "file-changed".to_owned(), sentence: "/etc/x changed".to_owned() },
            Answer::Restored {
                main_pid: 300_001,
                send_main_pid: true,
                send_ready: true,
                status: "serving".to_owned(),
                stored: vec![
                    StoredName { name: "kept".to_owned(), polled: true },
                    StoredName { name: String::new(), polled: false },
                ],
            },
            Answer::Restored {
                main_pid: 2,
                send_main_pid: false,
                send_ready: false,
                status: String::new(),
                stored: Vec::new(),
            },
        ]
    }

    #[test]
    fn every_message_reads_back_as_it_was_written() {
        assert_eq!(Greeting::decode(&Greeting.encode()), Ok(Greeting));
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        for answer in answers() {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
        for adopted in [Adopted::Done, Adopted::Failed(13)] {
            assert_eq!(Adopted::decode(&adopted.encode()), Ok(adopted));
        }
    }

    #[test]
    fn every_cut_or_lengthened_message_is_refused() {
        let packets = answers().map(|answer| answer.encode()).into_iter().chain([hello().encode()]);
        for packet in packets {
            for len in 0..packet.len() {
                assert!(Hello::decode(&packet[..len]).is_err() && Answer::decode(&packet[..len]).is_err());
            }
            let longer = [packet, vec![0]].concat();
            assert!(Hello::decode(&longer).is_err() && Answer::decode(&longer).is_err());
        }
    }

    #[test]
    fn a_name_that_would_be_a_line_of_its_own_is_refused() {
        let stored = vec![StoredName { name: "a\nMAINPID=1".to_owned(), polled: true }];
        let answer = Answer::Restored {
            main_pid: 300_001,
            send_main_pid: true,
            send_ready: true,
            status: String::new(),
            stored,
        };
        Answer::decode(&answer.encode()).unwrap_err();
    }

    #[test]
    fn no_single_changed_byte_makes_a_decoder_panic_or_allocate_much() {
        let packet = hello().encode();
        for at in 0..packet.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = packet.clone();
                changed[at] = value;
                if let Ok(hello) = Hello::decode(&changed) {
                    assert!(hello.listen_names.len() <= MAX_LISTEN_FDS);
                }
            }
        }
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let answer = Answer::Cold { code: "x".to_owned(), sentence: "ä".repeat(4000) };
        let Ok(Answer::Cold { sentence, .. }) = Answer::decode(&answer.encode()) else { panic!("not cold") };
        assert_eq!(sentence, "ä".repeat(512));
    }
}
