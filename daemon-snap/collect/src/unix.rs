//! Unix sockets: sock_diag for what connects them, our duplicates for queue and options.

use super::description::Description;
use super::description::own_pid;
use super::socket_options::Defaults;
use super::unix_queue::Queues;
use crate::blockers::{Found, failed, refused};
use crate::bus;
use crate::inode::Inodes;
use crate::options::{CollectOptions, LostPeer};
use crate::spaces::Spaces;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::signal::kill;
use nix::sys::stat::{FileStat, SFlag, fstat, fstatat};
use snap_bus::{BusAccess, SYSTEM_BUS};
use snap_error::obstacle::{BusObstacle, SocketKind, SocketObstacle};
use snap_error::{Error, Result};
use snap_state::{
    BusConnectionV1, FileId, FileKindV1, Pid, RawPath, RebindV1, SocketNodeV1, TargetFd, UnixSocketV1,
    UnixStateV1,
};
use snap_sys::proc;
use snap_sys::sock_diag::{self, STATE_CONNECTED, STATE_LISTENING, UnixDiag};
use snap_sys::{fdquery, netns};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Component;

const JOURNAL_STDOUT: &[u8] = b"/run/systemd/journal/stdout";

/// What all unix sockets of the tree need.
#[derive(Debug)]
pub(super) struct UnixSockets<'a> {
    spaces: &'a Spaces,
    options: &'a CollectOptions,
    by_inode: HashMap<u32, FileId>,
    /// Processes that have descriptors.
    processes: HashSet<Pid>,
    /// Asked once, when the first unix socket is met.
    table: Option<HashMap<u32, UnixDiag>>,
    defaults: Defaults<'a>,
    queues: &'a Queues,
    by_number: &'a HashMap<(Pid, TargetFd), FileId>,
}

impl<'a> UnixSockets<'a> {
    pub fn new(
        files: &[Description],
        by_number: &'a HashMap<(Pid, TargetFd), FileId>,
        queues: &'a Queues,
        spaces: &'a Spaces,
        options: &'a CollectOptions,
    ) -> Self {
        let sockets = files.iter().filter(|file| file.link.starts_with(b"socket:["));
        let by_inode = sockets.map(|file| (file.ino as u32, file.id)).collect();
        // A child that shares all its descriptions with its parent is the first to have none of
        // them.
        let processes = by_number.keys().map(|(pid, _)| *pid).filter(|pid| *pid != own_pid()).collect();
        let (table, defaults) = (None, Defaults::new(spaces));
        Self { spaces, options, by_inode, processes, table, defaults, queues, by_number }
    }

    /// One unix socket.
    pub fn collect(
        &mut self,
        file: &Description,
        fd: BorrowedFd<'_>,
        inodes: &mut Inodes<'_>,
    ) -> Found<FileKindV1> {
        let fail = |step| failed(step, file.pid, file.fd);
        let socket_type =
            fdquery::socket_int(fd, libc::SOL_SOCKET, libc::SO_TYPE).map_err(fail("SO_TYPE"))?;
        let address = unix_name(&fdquery::socket_address(fd, false).map_err(fail("getsockname"))?);
        if let Some(rebind) = self.rebind(file, fd, socket_type, &address) {
            return Ok(FileKindV1::Rebind(rebind));
        }
        if self.options.unit && socket_type == libc::SOCK_STREAM && self.leads_to_bus(fd) {
            return self.bus_connection(file, fd, &address).map(FileKindV1::Bus);
        }
        let Some(diag) = self.diag(file.ino as u32)? else {
            return refused(SocketObstacle::OtherNamespace { kind: SocketKind::Unix });
        };
        let state = self.state(file, fd, socket_type, &diag)?;
        let queue = self.queues.messages(file.ino, self.by_number).or_else(refused)?;
        let strangers = queue.iter().filter_map(|message| message.credentials).map(|from| from.pid);
        if let Some(from) = self.alive_outside(strangers) {
            return refused(SocketObstacle::UnixUnreadSender { from });
        }
        let peer = match state {
            UnixStateV1::Unconnected | UnixStateV1::ConnectedTo { .. } => None,
            _ => fdquery::socket_peer(fd).map_err(fail("SO_PEERCRED"))?,
        };
        // Who is gone by then cannot be named.
        let is_lost =
            matches!(state, UnixStateV1::PeerGone { .. }) && self.options.lost_peer == LostPeer::Close;
        let outside = self.alive_outside(peer.iter().map(|peer| peer.credentials.pid));
        let peer = peer.filter(|_| !(is_lost && outside.is_some()));
        if let Some(by) = outside.filter(|_| !is_lost) {
            return refused(SocketObstacle::UnixMadeOutside { by });
        }
        let Node { directory, node, renamed_to } = self.node(file, fd, &address, inodes)?;
        let options = self.defaults.changed((file.pid, file.fd), fd, (libc::AF_UNIX, socket_type, 0))?;
        Ok(FileKindV1::Unix(UnixSocketV1 {
            socket_type,
            address,
            directory,
            node,
            renamed_to,
            state,
            shutdown: diag.shutdown,
            queue,
            peer,
            options,
        }))
    }

    /// A process that the kernel will not let anybody stand in for.
    fn alive_outside(&self, mut pids: impl Iterator<Item = Pid>) -> Option<Pid> {
        let lives = |pid: &Pid| !matches!(kill(nix::unistd::Pid::from_raw(pid.0), None), Err(Errno::ESRCH));
        pids.find(|pid| !self.processes.contains(pid) && lives(pid))
    }

    fn leads_to_bus(&self, fd: BorrowedFd<'_>) -> bool {
        let is_carried = !matches!(self.options.bus, BusAccess::Refused);
        is_carried && fdquery::socket_address(fd, true).is_ok_and(|peer| unix_name(&peer) == SYSTEM_BUS)
    }

    fn bus_connection(
        &mut self,
        file: &Description,
        fd: BorrowedFd<'_>,
        address: &[u8],
    ) -> Found<BusConnectionV1> {
        if address.first().is_some_and(|&first| first != 0) {
            return refused(BusObstacle::BoundSocket);
        }
        let kind = (libc::AF_UNIX, libc::SOCK_STREAM, 0);
        let options = self.defaults.changed((file.pid, file.fd), fd, kind)?;
        match &self.options.bus {
            BusAccess::Watched(watch) => {
                bus::collect(file, fd, [SYSTEM_BUS, address], options, &self.processes, watch)
            }
            BusAccess::Unheard(why) => refused(BusObstacle::Unheard { why: why.clone() }),
            _ => bus::look(file, fd, [SYSTEM_BUS, address], options),
        }
    }

    /// Sockets that the new boot provides.
    fn rebind(
        &self,
        file: &Description,
        fd: BorrowedFd<'_>,
        socket_type: i32,
        address: &[u8],
    ) -> Option<RebindV1> {
        let peer = fdquery::socket_address(fd, true).ok().map(|peer| unix_name(&peer));
        if let Some(peer) = peer {
            let journal = self.options.unit && socket_type == libc::SOCK_STREAM && peer == JOURNAL_STDOUT;
            return journal.then_some(RebindV1::JournalStream { stdio: if file.fd.0 == 2 { 2 } else { 1 } });
        }
        let given = |socket: &&super::ActivationSocket| {
            socket.address == address && socket.socket_type == socket_type
        };
        let socket = self.options.activation.iter().find(given).filter(|_| !address.is_empty())?;
        Some(RebindV1::Activation { address: socket.address.clone(), socket_type, name: socket.name.clone() })
    }

    fn diag(&mut self, ino: u32) -> Result<Option<UnixDiag>> {
        let table = match self.table.take() {
            Some(table) => table,
            None => {
                let fail = |e| Error::kernel("ask for unix sockets", "sock_diag", e);
                let (kind, protocol) = (libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG);
                let netlink =
                    netns::socket(self.spaces.net(), libc::AF_NETLINK, kind, protocol).map_err(fail)?;
                sock_diag::unix_sockets(netlink.as_fd()).map_err(fail)?
            }
        };
        Ok(self.table.insert(table).get(&ino).cloned())
    }

    fn state(
        &mut self,
        file: &Description,
        fd: BorrowedFd<'_>,
        socket_type: i32,
        diag: &UnixDiag,
    ) -> Found<UnixStateV1> {
        if diag.state == STATE_LISTENING {
            if diag.waiting.len() != diag.receive_queue as usize
                || diag.waiting.iter().any(|client| !self.by_inode.contains_key(client))
            {
                return refused(SocketObstacle::UnixPendingOutside);
            }
            return Ok(UnixStateV1::Listening { backlog: diag.send_queue });
        }
        let inside = diag.peer.and_then(|peer| self.by_inode.get(&peer).copied());
        let peer_name = match fdquery::socket_address(fd, true) {
            Ok(address) => Some(unix_name(&address)),
            Err(Errno::ENOTCONN) => None,
            Err(e) => return Err(failed("getpeername", file.pid, file.fd)(e).into()),
        };
        if socket_type == libc::SOCK_DGRAM {
            return self.datagram_state(file, fd, diag, inside, peer_name);
        }
        let gone = |name: Option<Vec<u8>>| Ok(UnixStateV1::PeerGone { address: name.unwrap_or_default() });
        if let (Some(waiting), true) = (self.waiting(file.ino as u32), diag.state == STATE_CONNECTED) {
            if fdquery::unsent_bytes(fd).map_err(failed("SIOCOUTQ", file.pid, file.fd))? > 0 {
                return refused(SocketObstacle::UnixPendingSent);
            }
            return Ok(waiting);
        }
        match (diag.peer, inside) {
            (_, Some(peer)) => Ok(UnixStateV1::Pair { peer }),
            (Some(0), _) => gone(peer_name),
            (None, _) if diag.state == STATE_CONNECTED => gone(peer_name),
            (None, _) => Ok(UnixStateV1::Unconnected),
            (Some(_), None) if self.options.lost_peer == LostPeer::Close => gone(peer_name),
            (Some(_), None) => refused(outside(fd, peer_name.unwrap_or_default())),
        }
    }

    /// Whether a socket waits in the queue of a listener of the tree.
    fn waiting(&self, client: u32) -> Option<UnixStateV1> {
        self.table.iter().flatten().filter(|(_, diag)| !diag.waiting.is_empty()).find_map(|(ino, diag)| {
            let listener = *self.by_inode.get(ino)?;
            let place = diag.waiting.iter().position(|waiting| *waiting == client)? as u32;
            Some(UnixStateV1::Waiting { listener, place })
        })
    }

    fn datagram_state(
        &mut self,
        file: &Description,
        fd: BorrowedFd<'_>,
        diag: &UnixDiag,
        inside: Option<FileId>,
        peer_name: Option<Vec<u8>>,
    ) -> Found<UnixStateV1> {
        let Some(address) = peer_name else { return Ok(UnixStateV1::Unconnected) };
        if let (Some(peer), Some(peer_ino)) = (inside, diag.peer) {
            let back = self.diag(peer_ino)?.and_then(|peer| peer.peer);
            if back == Some(file.ino as u32) {
                return Ok(UnixStateV1::Pair { peer });
            }
            // Such a pair is made as one, and nobody else can connect to either end of it then.
            if let Some(third) = back
                && self.diag(third)?.and_then(|third| third.peer) == Some(peer_ino)
            {
                return refused(SocketObstacle::UnixConnectedElsewhere);
            }
        }
        // A restore finds one of the tree by its name.
        let of_tree = self.table.iter().flatten().filter(|(ino, other)| {
            let is_named = i32::from(other.socket_type) == libc::SOCK_DGRAM && other.name == address;
            is_named && self.by_inode.contains_key(ino)
        });
        if !address.is_empty() && of_tree.count() != usize::from(inside.is_some()) {
            return refused(SocketObstacle::UnixNameShared { path: RawPath(address) });
        }
        match (address.is_empty(), diag.peer) {
            (false, _) if inside.is_some() => Ok(UnixStateV1::ConnectedTo { address }),
            (false, _) if ![0, b'/'].contains(&address[0]) => {
                refused(SocketObstacle::UnixRelativePeer { path: RawPath(address) })
            }
            (false, _) => Ok(UnixStateV1::ConnectedTo { address }),
            (true, None | Some(0)) => Ok(UnixStateV1::PeerGone { address: Vec::new() }),
            (true, Some(_)) if inside.is_some() => refused(SocketObstacle::UnixOneWay),
            (true, Some(_)) => refused(outside(fd, address)),
        }
    }

    /// Owner and mode of the path, if it still leads here, and its name of today where that is
    /// another one in the same directory: who wants a socket to appear with the right mode or in
    /// place of an old one binds it elsewhere and renames it.
    fn node(
        &self,
        file: &Description,
        fd: BorrowedFd<'_>,
        address: &[u8],
        inodes: &mut Inodes<'_>,
    ) -> Found<Node> {
        let table = || self.table.iter().flatten();
        let own = table().find(|(ino, _)| **ino == file.ino as u32).map(|(_, own)| own);
        let Some((own, bound)) = own.and_then(|own| Some((own, own.bound?))) else {
            return Ok(Node::default());
        };
        if address.first().is_none_or(|&first| first == 0) {
            return Ok(Node::default());
        }
        // A connection that was accepted has the listener's address, and its path leads to the
        // listener.
        let of_listener = |(ino, other): (&u32, &UnixDiag)| {
            *ino != file.ino as u32 && other.state == STATE_LISTENING && other.bound == own.bound
        };
        if own.state == STATE_CONNECTED && table().any(of_listener) {
            return Ok(Node::default());
        }
        let bound = BoundNode::of(fd, bound.ino)?;
        if bound.is_removed {
            return Ok(Node::default());
        }
        let path = RawPath(address.to_vec());
        let beginnings = if address[0] == b'/' { vec![None] } else { self.beginnings(&bound, address)? };
        let whole = |beginning: &Option<RawPath>| match beginning {
            Some(directory) => RawPath::from_path(&directory.as_path().join(path.as_path())),
            None => path.clone(),
        };
        for beginning in &beginnings {
            if let Some(stat) = self.socket_at(&whole(beginning), &bound)? {
                return Node::noted(beginning, &whole(beginning), &stat, None, inodes);
            }
        }
        for beginning in &beginnings {
            if let Some((to, stat)) = self.renamed(&whole(beginning), &bound)? {
                if self.is_taken(&whole(beginning))? {
                    return refused(SocketObstacle::UnixNameTaken { path: whole(beginning) });
                }
                return Node::noted(beginning, &to, &stat, Some(to.clone()), inodes);
            }
        }
        match (&bound.today, address[0]) {
            (Some(today), b'/') => refused(SocketObstacle::UnixMoved { path, today: today.clone() }),
            // The kernel has not told where it is. From nowhere is as good as removed.
            (None, b'/') => Ok(Node::default()),
            _ => refused(SocketObstacle::UnixRelativeDirectory { path }),
        }
    }

    /// Where a relative path may begin, one that nobody works in any more behind the others.
    fn beginnings(&self, bound: &BoundNode, address: &[u8]) -> Result<Vec<Option<RawPath>>> {
        let mut found = self.working_directories()?;
        let mut names = 0usize;
        for name in RawPath(address.to_vec()).as_path().components() {
            match name {
                Component::Normal(_) => names += 1,
                Component::ParentDir => names = names.saturating_sub(1),
                _ => {}
            }
        }
        let above = bound.today.as_ref().and_then(|today| today.as_path().ancestors().nth(names));
        found.extend(above.map(|directory| Some(RawPath::from_path(directory))));
        Ok(found)
    }

    /// The working directories of all processes. Which of them it was is seen by what lies there.
    fn working_directories(&self) -> Result<Vec<Option<RawPath>>> {
        let mut pids: Vec<Pid> = self.processes.iter().copied().collect();
        pids.sort_unstable();
        let mut found = Vec::new();
        for pid in pids {
            let directory = Some(RawPath(proc::read_link(pid, "cwd")?));
            if !found.contains(&directory) {
                found.push(directory);
            }
        }
        Ok(found)
    }

    /// What lies at `path`, if it is the node of the socket.
    fn socket_at(&self, path: &RawPath, bound: &BoundNode) -> Result<Option<FileStat>> {
        Ok(self.look_at(path)?.filter(|stat| bound.is(stat)))
    }

    fn is_taken(&self, path: &RawPath) -> Result<bool> {
        Ok(self.look_at(path)?.is_some())
    }

    fn look_at(&self, path: &RawPath) -> Result<Option<FileStat>> {
        let reachable = self.spaces.reachable(path);
        match fstatat(nix::fcntl::AT_FDCWD, &reachable, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(Error::kernel("stat", path, e)),
        }
    }

    /// Another name of the socket in the directory of `path`.
    fn renamed(&self, path: &RawPath, bound: &BoundNode) -> Result<Option<(RawPath, FileStat)>> {
        let Some(dir) = path.as_path().parent() else { return Ok(None) };
        // The directory may be gone too.
        let Ok(entries) = std::fs::read_dir(self.spaces.reachable(&RawPath::from_path(dir))) else {
            return Ok(None);
        };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())) {
            let name = RawPath::from_path(&dir.join(entry.file_name()));
            if let Some(stat) = self.socket_at(&name, bound)? {
                return Ok(Some((name, stat)));
            }
        }
        Ok(None)
    }
}

/// What a socket was bound to: an inode, and what the kernel says of it.
struct BoundNode {
    ino: u64,
    /// Told to who may ask (SIOCUNIXFILE).
    dev: Option<u64>,
    /// It has no name any more.
    is_removed: bool,
    today: Option<RawPath>,
}

impl BoundNode {
    fn of(fd: BorrowedFd<'_>, ino: u32) -> Result<Self> {
        let node = match snap_sys::rebuild::unix_node(fd) {
            Ok(node) => node,
            Err(_) => return Ok(Self { ino: u64::from(ino), dev: None, is_removed: false, today: None }),
        };
        let stat = fstat(&node).map_err(|e| Error::kernel("stat", "the node of a unix socket", e))?;
        let link = format!("/proc/self/fd/{}", node.as_raw_fd());
        let today = nix::fcntl::readlink(link.as_str())
            .map_err(|e| Error::kernel("readlink", "the node of a unix socket", e))?;
        let today = RawPath(today.into_encoded_bytes());
        Ok(Self {
            ino: stat.st_ino,
            dev: Some(stat.st_dev),
            is_removed: stat.st_nlink == 0,
            today: Some(today),
        })
    }

    fn is(&self, stat: &FileStat) -> bool {
        let is_inode = match self.dev {
            Some(dev) => (stat.st_dev, stat.st_ino) == (dev, self.ino),
            None => stat.st_ino as u32 == self.ino as u32,
        };
        is_inode && stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits()
    }
}

/// Where the path of a socket lies in the file system.
#[derive(Default)]
struct Node {
    directory: Option<RawPath>,
    node: Option<SocketNodeV1>,
    renamed_to: Option<RawPath>,
}

impl Node {
    fn noted(
        directory: &Option<RawPath>,
        path: &RawPath,
        stat: &FileStat,
        renamed_to: Option<RawPath>,
        inodes: &mut Inodes<'_>,
    ) -> Found<Self> {
        inodes.note_node(path, stat)?;
        let node = SocketNodeV1 { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid };
        Ok(Self { directory: directory.clone(), node: Some(node), renamed_to })
    }
}

/// `sun_path`: abstract names as they are, paths without the NUL at the end.
pub(super) fn unix_name(address: &[u8]) -> Vec<u8> {
    let name = address.get(size_of::<libc::sa_family_t>()..).unwrap_or_default();
    match name.first() {
        None | Some(0) => name.to_vec(),
        Some(_) => name.split(|&b| b == 0).next().unwrap_or_default().to_vec(),
    }
}

/// Names the other end.
fn outside(fd: BorrowedFd<'_>, name: Vec<u8>) -> SocketObstacle {
    let pid = fdquery::socket_int(fd, libc::SOL_SOCKET, libc::SO_PEERCRED).unwrap_or_default();
    SocketObstacle::UnixPeerOutside { name, pid: Some(Pid(pid)).filter(|pid| pid.0 != 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_names_keep_abstract_bytes_and_cut_paths() {
        assert_eq!(unix_name(b"\x01\x00/run/x\0"), b"/run/x");
        assert_eq!(unix_name(b"\x01\x00\0name\0"), b"\0name\0");
        assert_eq!(unix_name(b"\x01\x00"), b"");
    }
}
