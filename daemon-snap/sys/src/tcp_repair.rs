//! TCP_REPAIR (since Linux 3.5): reading and setting what a connection has agreed upon, without a
//! word to the other end.

use super::fdquery::socket_option;
use super::rebuild::set_socket_option;
use nix::errno::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

const TCP: i32 = libc::IPPROTO_TCP;
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_REPAIR_OPTIONS: i32 = 22;
const TCP_TIMESTAMP: i32 = 24;
const TCP_REPAIR_WINDOW: i32 = 29;
/// Without asking the other end for its window.
const OFF_SILENTLY: i32 = -1;

/// TCP_RECV_QUEUE and TCP_SEND_QUEUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Queue {
    Receive = 1,
    Send = 2,
}

/// A socket that is being repaired: it sends nothing. Dropped, it goes on as before.
#[derive(Debug)]
pub struct Repair<'a> {
    fd: BorrowedFd<'a>,
    /// SO_REUSEADDR, which the kernel clears at the end.
    reuse: Vec<u8>,
    on: bool,
}

impl<'a> Repair<'a> {
    /// Begins.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_ADMIN, or for a listener.
    pub fn begin(fd: BorrowedFd<'a>) -> Result<Self, Errno> {
        let reuse = socket_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
        set_word(fd, TCP_REPAIR, 1)?;
        Ok(Self { fd, reuse, on: true })
    }

    /// Chooses the queue that the next calls are about.
    ///
    /// # Errors
    /// None in practice.
    pub fn select(&self, queue: Queue) -> Result<(), Errno> {
        set_word(self.fd, TCP_REPAIR_QUEUE, queue as i32)
    }

    /// Number of the byte behind the selected queue.
    ///
    /// # Errors
    /// None in practice.
    pub fn sequence(&self) -> Result<u32, Errno> {
        word(self.fd, TCP_QUEUE_SEQ)
    }

    /// Sets it; the socket must not be connected yet.
    ///
    /// # Errors
    /// `EPERM` when it is.
    pub fn set_sequence(&self, sequence: u32) -> Result<(), Errno> {
        set_word(self.fd, TCP_QUEUE_SEQ, sequence as i32)
    }

    /// The bytes of the selected queue, which stay there.
    ///
    /// # Errors
    /// Those of recv(2); `ENODATA`: not all that is unread was seen.
    pub fn content(&self, queue: Queue) -> Result<Vec<u8>, Errno> {
        let len = match queue {
            Queue::Receive => super::fdquery::unread_bytes(self.fd)?,
            Queue::Send => super::fdquery::unsent_bytes(self.fd)?,
        };
        let mut bytes = vec![0u8; len];
        if len == 0 {
            return Ok(bytes);
        }
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let got = super::fdquery::peek_from_beginning(self.fd, || {
            // SAFETY: bytes is writable for its length.
            let got = unsafe { libc::recv(self.fd.as_raw_fd(), bytes.as_mut_ptr().cast(), len, flags) };
            Errno::result(got).map(|got| got as usize)
        })?;
        // A FIN counts as a byte of the other queue.
        if queue == Queue::Receive && got < len {
            return Err(Errno::ENODATA);
        }
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Largest segment that the other end takes.
    ///
    /// # Errors
    /// None in practice.
    pub fn segment_bytes(&self) -> Result<u32, Errno> {
        word(self.fd, libc::TCP_MAXSEG)
    }

    /// Timestamp of now.
    ///
    /// # Errors
    /// None in practice.
    pub fn timestamp(&self) -> Result<u32, Errno> {
        word(self.fd, TCP_TIMESTAMP)
    }

    /// Goes on counting from there.
    ///
    /// # Errors
    /// None in practice.
    pub fn set_timestamp(&self, now: u32) -> Result<(), Errno> {
        set_word(self.fd, TCP_TIMESTAMP, now as i32)
    }

    /// `struct tcp_repair_window` (since Linux 4.8).
    ///
    /// # Errors
    /// None in practice.
    pub fn window(&self) -> Result<Vec<u8>, Errno> {
        // Only this length is answered.
        let mut window = vec![0u8; 20];
        let mut len = window.len() as libc::socklen_t;
        // SAFETY: window is writable for len bytes.
        let got = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                TCP,
                TCP_REPAIR_WINDOW,
                window.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        Errno::result(got).map(|_| window)
    }

    /// Sets it; both queues must be as they shall be.
    ///
    /// # Errors
    /// `EINVAL` for one that does not fit the sequence numbers.
    pub fn set_window(&self, window: &[u8]) -> Result<(), Errno> {
        set_socket_option(self.fd, TCP, TCP_REPAIR_WINDOW, window)
    }

    /// What both ends agreed upon when they connected.
    ///
    /// # Errors
    /// None in practice.
    pub fn set_agreement(
        &self,
        segment_bytes: u32,
        scales: Option<(u8, u8)>,
        selective: bool,
        timestamps: bool,
    ) -> Result<(), Errno> {
        // struct tcp_repair_opt: kind as in the header of a segment, value.
        let mut options = vec![[2, segment_bytes]];
        options.extend(scales.map(|(send, receive)| [3, u32::from(send) | u32::from(receive) << 16]));
        options.extend(selective.then_some([4, 0]));
        options.extend(timestamps.then_some([8, 0]));
        let bytes: Vec<u8> = options.iter().flatten().flat_map(|word| word.to_ne_bytes()).collect();
        set_socket_option(self.fd, TCP, TCP_REPAIR_OPTIONS, &bytes)
    }

    /// The socket is an ordinary one again.
    ///
    /// # Errors
    /// None in practice.
    pub fn finish(mut self) -> Result<(), Errno> {
        self.end()
    }

    fn end(&mut self) -> Result<(), Errno> {
        self.on = false;
        set_word(self.fd, TCP_REPAIR_QUEUE, 0)?;
        set_word(self.fd, TCP_REPAIR, OFF_SILENTLY)?;
        set_socket_option(self.fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &self.reuse)
    }
}

impl Drop for Repair<'_> {
    fn drop(&mut self) {
        if self.on {
            // Best effort on the way out of another error.
            let _ = self.end();
        }
    }
}

fn word(fd: BorrowedFd<'_>, name: i32) -> Result<u32, Errno> {
    super::fdquery::socket_int(fd, TCP, name).map(|word| word as u32)
}

fn set_word(fd: BorrowedFd<'_>, name: i32, value: i32) -> Result<(), Errno> {
    set_socket_option(fd, TCP, name, &value.to_ne_bytes())
}
