//! TCP connections: between processes of the tree kept as they are, to others lost or refused.

use super::description::Description;
use super::inet::parse;
use crate::blockers::{Blockers, failed};
use crate::options::LostPeer;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use snap_error::Result;
use snap_error::obstacle::{SocketObstacle, TcpState};
use snap_state::{FileKindV1, FileV1, LostTcpV1, SocketOptionV1, TcpConnectionV1, TcpEndingV1};
use snap_sys::fdquery;
use snap_sys::tcp_repair::{Queue, Repair};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// `tcpi_state`.
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
/// SHUT_RD and SHUT_WR as bits.
const CLOSED_READING: u8 = 1;
const CLOSED_WRITING: u8 = 2;
const SO_BUF_LOCK: i32 = 72;

/// Connections of the tree, until all are known.
#[derive(Debug, Default)]
pub(super) struct TcpConnections(Vec<Connection>);

#[derive(Debug)]
struct Connection {
    file: Description,
    fd: OwnedFd,
    /// Local and remote; one that is connecting does not name the other end.
    ends: Option<(SocketAddr, SocketAddr)>,
    /// struct tcp_info.
    info: Vec<u8>,
    /// It has a key (TCP_MD5SIG).
    signed: bool,
}

impl Connection {
    fn state(&self) -> u8 {
        self.info.first().copied().unwrap_or_default()
    }

    fn obstacle(&self) -> SocketObstacle {
        // Numbers of include/net/tcp_states.h; what is closed or listens is no connection.
        let state = match self.state() {
            ESTABLISHED => TcpState::Established,
            2 => TcpState::Connecting,
            3 | 12 => TcpState::HalfOpen,
            FIN_WAIT1 | FIN_WAIT2 | 6 | 9 | 11 => TcpState::Closing,
            CLOSE_WAIT => TcpState::HalfClosed,
            _ => TcpState::Other,
        };
        SocketObstacle::TcpConnection { state, remote: self.ends.map(|(_, remote)| remote) }
    }
}

impl TcpConnections {
    /// One that is not closed. The rest is read when all are known.
    pub fn add(&mut self, file: &Description, fd: BorrowedFd<'_>, info: Vec<u8>, signed: bool) -> Result<()> {
        let fail = |step| failed(step, file.pid, file.fd);
        let fd = fd.try_clone_to_owned();
        let fd = fd.map_err(|e| fail("dup")(Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))))?;
        let end = |peer| fdquery::socket_address(fd.as_fd(), peer).ok().and_then(|address| parse(&address));
        let ends = end(false).zip(end(true)).map(|(local, remote)| (canonical(local), canonical(remote)));
        self.0.push(Connection { file: file.clone(), fd, ends, info, signed });
        Ok(())
    }

    /// Finds the connections with both ends in the tree and reads those; says what becomes of the
    /// others.
    pub fn finish(
        &self,
        files: &mut [Option<FileV1>],
        lost_peer: LostPeer,
        blockers: &mut Blockers,
    ) -> Result<()> {
        let by_ends: HashMap<_, usize> = self.0.iter().enumerate().map(|(at, one)| (one.ends, at)).collect();
        let other = |one: &Connection| {
            let swapped = one.ends.map(|(local, remote)| (remote, local));
            swapped.and_then(|swapped| by_ends.get(&Some(swapped)).copied())
        };
        let (mut pairs, mut others) = (Vec::new(), Vec::new());
        for one in &self.0 {
            match other(one).filter(|other| can_be_made(one.state(), self.0[*other].state())) {
                Some(other) => pairs.push((one, other)),
                None => others.push(one),
            }
        }
        for (one, _) in pairs.iter().filter(|(one, _)| one.signed) {
            blockers.add(one.file.pid, one.file.part(), SocketObstacle::TcpSigned);
        }
        for one in others {
            let is_inside = other(one).is_some();
            if lost_peer == LostPeer::Close && !is_inside {
                if let Some(file) = &mut files[one.file.id.index()] {
                    file.kind = lost(one, &mut file.kind)?;
                }
            } else {
                blockers.add(one.file.pid, one.file.part(), one.obstacle());
            }
        }
        // Live connections are not touched for nothing.
        if !blockers.is_empty() || pairs.is_empty() {
            return Ok(());
        }
        let repairs: Vec<Repair<'_>> = pairs
            .iter()
            .map(|(one, _)| {
                Repair::begin(one.fd.as_fd()).map_err(failed("TCP_REPAIR", one.file.pid, one.file.fd))
            })
            .collect::<Result<_>>()?;
        for ((one, _), repair) in pairs.iter().zip(&repairs) {
            if let Some(connection) = connection_of(&mut files[one.file.id.index()]) {
                read(one, repair, connection).map_err(failed(
                    "read connection",
                    one.file.pid,
                    one.file.fd,
                ))?;
            }
        }
        repairs
            .into_iter()
            .try_for_each(Repair::finish)
            .map_err(|e| snap_error::Error::kernel("TCP_REPAIR", "off", e))?;
        for (one, other) in pairs {
            let other = self.0[other].file.id;
            let Some(received) = connection_of(&mut files[other.index()]).map(|it| it.receive_sequence)
            else {
                continue;
            };
            if let Some(connection) = connection_of(&mut files[one.file.id.index()]) {
                // What has arrived is only kept until that is acknowledged.
                let first = connection.send_sequence.wrapping_sub(connection.send_queue.len() as u32);
                let arrived = received.wrapping_sub(first) as usize;
                connection.send_queue.drain(..arrived.min(connection.send_queue.len()));
            }
        }
        Ok(())
    }
}

fn connection_of(file: &mut Option<FileV1>) -> Option<&mut TcpConnectionV1> {
    match &mut file.as_mut()?.kind {
        FileKindV1::Tcp(connection) => Some(connection),
        _ => None,
    }
}

/// Which states of both ends one of them can bring about that closes its direction: the FIN has
/// arrived, or waits behind data for which there is no room yet.
fn can_be_made(one: u8, other: u8) -> bool {
    let pairs = [
        (ESTABLISHED, ESTABLISHED),
        (FIN_WAIT2, CLOSE_WAIT),
        (FIN_WAIT1, ESTABLISHED),
        // Arrived, and not acknowledged yet.
        (FIN_WAIT1, CLOSE_WAIT),
    ];
    pairs.contains(&(one, other)) || pairs.contains(&(other, one))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Options of a connection: what the kernel itself changed in the course of it is left out or made
/// explicit.
pub(super) fn options_of(mut options: Vec<SocketOptionV1>, fd: BorrowedFd<'_>) -> Vec<SocketOptionV1> {
    const TCP_WINDOW_CLAMP: i32 = 10;
    let changing = [(libc::IPPROTO_TCP, libc::TCP_MAXSEG), (libc::IPPROTO_TCP, TCP_WINDOW_CLAMP)];
    options.retain(|option| !changing.contains(&(option.level, option.name)));
    // Sizes that nobody has set go on growing by themselves.
    let level = libc::SOL_SOCKET;
    options.retain(|option| (option.level, option.name) != (level, SO_BUF_LOCK));
    if let Ok(value) = fdquery::socket_option(fd, level, SO_BUF_LOCK) {
        options.push(SocketOptionV1 { level, name: SO_BUF_LOCK, value });
    }
    options
}

fn read(one: &Connection, repair: &Repair<'_>, connection: &mut TcpConnectionV1) -> nix::Result<()> {
    const TIMESTAMPS: u8 = 1;
    const SELECTIVE: u8 = 2;
    const SCALES: u8 = 4;
    // tcpi_options, then both scales in one byte.
    let (agreed, scales) = match one.info.get(5..7) {
        Some(&[agreed, scales]) => (agreed, scales),
        _ => return Err(Errno::EINVAL),
    };
    connection.segment_bytes = repair.segment_bytes()?;
    connection.scales = (agreed & SCALES != 0).then_some((scales & 0xf, scales >> 4));
    connection.selective = agreed & SELECTIVE != 0;
    connection.timestamp = match agreed & TIMESTAMPS != 0 {
        true => Some(repair.timestamp()?),
        false => None,
    };
    repair.select(Queue::Send)?;
    connection.send_sequence = repair.sequence()?;
    connection.send_queue = repair.content(Queue::Send)?;
    repair.select(Queue::Receive)?;
    connection.receive_sequence = repair.sequence()?;
    connection.receive_queue = repair.content(Queue::Receive)?;
    connection.window = repair.window()?;
    // A FIN counts as a byte. It is sent again, so it is taken back on both sides.
    if matches!(one.state(), FIN_WAIT1 | FIN_WAIT2) {
        connection.send_sequence = connection.send_sequence.wrapping_sub(1);
        connection.shutdown |= CLOSED_WRITING;
    }
    if one.state() == CLOSE_WAIT {
        connection.receive_sequence = connection.receive_sequence.wrapping_sub(1);
        withdraw_fin(&mut connection.window, connection.receive_sequence);
    } else if fdquery::poll_now(one.fd.as_fd(), libc::POLLRDHUP)? & libc::POLLRDHUP != 0 {
        // The other end has not closed anything: it was this one, by shutdown(SHUT_RD).
        connection.shutdown |= CLOSED_READING;
    }
    Ok(())
}

/// The window as it was before the FIN was acknowledged; its right edge stays. `struct
/// tcp_repair_window`: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
fn withdraw_fin(window: &mut [u8], receive_sequence: u32) {
    let word = |window: &[u8], at: usize| {
        let bytes = window.get(at * 4..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    };
    const RECEIVE_WINDOW: usize = 3;
    const ACKNOWLEDGED: usize = 4;
    if word(window, ACKNOWLEDGED) == receive_sequence.wrapping_add(1) {
        let len = word(window, RECEIVE_WINDOW).wrapping_add(1);
        window[RECEIVE_WINDOW * 4..][..4].copy_from_slice(&len.to_ne_bytes());
        window[ACKNOWLEDGED * 4..][..4].copy_from_slice(&receive_sequence.to_ne_bytes());
    }
}

/// After the restore the peer is gone.
fn lost(one: &Connection, kind: &mut FileKindV1) -> Result<FileKindV1> {
    let FileKindV1::Tcp(connection) = kind else { return Ok(kind.clone()) };
    let receive_queue = match one.state() {
        ESTABLISHED | CLOSE_WAIT => unread(&one.file, one.fd.as_fd())?,
        _ => Vec::new(),
    };
    Ok(FileKindV1::LostTcp(LostTcpV1 {
        family: connection.family,
        options: std::mem::take(&mut connection.options),
        receive_queue,
        ending: if one.state() == CLOSE_WAIT { TcpEndingV1::PeerClosed } else { TcpEndingV1::Reset },
    }))
}

/// What has arrived and has not been read. It stays where it is.
pub(super) fn unread(file: &Description, fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let fail = |step| failed(step, file.pid, file.fd);
    let mut queue = vec![0u8; fdquery::unread_bytes(fd).map_err(fail("FIONREAD"))?];
    if !queue.is_empty() {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let got = fdquery::peek_from_beginning(fd, || recv(fd.as_raw_fd(), &mut queue, flags))
            .map_err(fail("look at the queue"))?;
        if got < queue.len() {
            return Err(fail("look at the queue")(Errno::ENODATA));
        }
    }
    Ok(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fin_is_taken_back_without_moving_the_edge_of_the_window() {
        let bytes = |words: [u32; 5]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let mut window = bytes([7, 8, 9, 1000, 51]);
        withdraw_fin(&mut window, 50);
        assert_eq!(window, bytes([7, 8, 9, 1001, 50]));
        // The FIN was not acknowledged yet.
        withdraw_fin(&mut window, 50);
        assert_eq!(window, bytes([7, 8, 9, 1001, 50]));
    }

    #[test]
    fn only_one_end_may_have_closed_its_direction() {
        assert!(can_be_made(CLOSE_WAIT, FIN_WAIT2) && can_be_made(FIN_WAIT1, ESTABLISHED));
        const LAST_ACK: u8 = 9;
        assert!(!can_be_made(FIN_WAIT2, LAST_ACK) && !can_be_made(CLOSE_WAIT, CLOSE_WAIT));
    }
}
