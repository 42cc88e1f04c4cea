//! A small process with one thread that forks the workers: initd itself has threads and must not
//! fork.
//!
//! It also outlives initd by a moment. When initd dies, it ends what was under way, and only then
//! lets go of the connections to the shims, so that none of them starts its service cold beside
//! half a restored one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use fastboot_runtime::RunDir;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_name;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use snap_rebuild::tids::let_others_number;

use crate::standby::Standby;
use crate::sys::process::{
    ChildEnd, Forked, fork, fork_into, pidfd_kill, pidfd_open, set_child_end, wait_ended,
};
use crate::sys::socket::{receive, send};
use crate::unit_cgroup::UnitCgroup;
use crate::wire::{Decoder, Encoder, MAX_MESSAGE_LEN, Malformed};
use crate::worker::{self, Order, Report};

const BEGIN: u16 = 1;
const FORGET: u16 = 2;
/// How long what is left of a restore may take to end when initd has died.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);

/// initd's side.
#[derive(Debug)]
pub struct Zygote {
    socket: OwnedFd,
}

/// Descriptors that a restore needs.
#[derive(Debug)]
pub struct OrderFds<T> {
    /// Where the worker reports.
    pub report: T,
    /// The image, open for reading.
    pub image: T,
    /// pidfd of the shim.
    pub shim: T,
    /// The unit's cgroup directory.
    pub cgroup: T,
    /// Connection to the shim.
    pub connection: T,
    /// The shim's 0, 1, 2 and those of socket activation.
    pub inherited: Vec<T>,
}

impl Zygote {
    /// Fork it. initd must have one thread. `standby` answers in initd's place when that says
    /// nothing.
    ///
    /// # Errors
    /// From `fork(2)`; nothing can be restored then.
    pub fn start(standby: Standby, run_dir: &RunDir) -> io::Result<Zygote> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        match fork()? {
            Forked::Parent(_) => Ok(Zygote { socket: ours }),
            Forked::Child => {
                drop(ours);
                serve(Descriptors { socket: theirs, standby }, run_dir);
                std::process::exit(0)
            }
        }
    }

    /// Start a worker. What it has to say comes through the other end of `fds.report`.
    ///
    /// # Errors
    /// When the zygote is gone.
    pub fn begin(&self, id: u64, order: &Order, fds: OrderFds<BorrowedFd<'_>>) -> io::Result<()> {
        let mut encoder = Encoder::default();
        encoder.u16(BEGIN).u64(id);
        order.encode(&mut encoder);
        let mut all = vec![fds.report, fds.image, fds.shim, fds.cgroup, fds.connection];
        all.extend(fds.inherited);
        send(&self.socket, &encoder.finish(), &all)
    }

    /// The restore is over, one way or the other: nothing has to be removed any more if initd dies.
    pub fn forget(&self, id: u64) {
        // A zygote that is gone has nothing to forget.
        let _ = send(&self.socket, &Encoder::default().u16(FORGET).u64(id).finish(), &[]);
    }
}

/// What a worker must not have open: a restored process inherits it.
#[derive(Debug)]
struct Descriptors {
    socket: OwnedFd,
    standby: Standby,
}

/// A restore that initd has not spoken about yet.
#[derive(Debug)]
struct UnderWay {
    worker: Option<OwnedFd>,
    cgroup: UnitCgroup,
    /// Held open: the shim must not see its end before the rest is gone.
    _connection: OwnedFd,
}

#[derive(Debug)]
enum Task {
    Begin(u64, Order),
    Forget(u64),
}

impl Task {
    fn decode(packet: &[u8]) -> Result<Task, Malformed> {
        let mut decoder = Decoder::new(packet);
        let kind = decoder.u16()?;
        let id = decoder.u64()?;
        let task = match kind {
            BEGIN => Task::Begin(id, Order::decode(&mut decoder)?),
            FORGET => Task::Forget(id),
            _ => return Err(Malformed("it is of another kind")),
        };
        decoder.finish()?;
        Ok(task)
    }
}

fn serve(own: Descriptors, run_dir: &RunDir) {
    let _ = set_name(c"fastboot-zygote");
    // Nobody here waits for a worker: its report says how it went, its pidfd that it has ended.
    if set_child_end(ChildEnd::Reaped).is_err() {
        return;
    }
    let mut under_way = BTreeMap::new();
    // An `Option`, so that a worker can close it.
    let mut own = Some(own);
    while let Some(descriptors) = &mut own {
        match descriptors.wait_for_task() {
            Ok(false) => {
                descriptors.standby.look(run_dir);
                continue;
            }
            Ok(true) => {}
            Err(_) => break,
        }
        match receive(&descriptors.socket, MAX_MESSAGE_LEN) {
            Ok((packet, _)) if packet.is_empty() => break,
            Ok((packet, fds)) => match Task::decode(&packet) {
                Ok(Task::Begin(id, order)) => begin(&mut own, id, &order, fds, &mut under_way),
                Ok(Task::Forget(id)) => drop(under_way.remove(&id)),
                // Only initd can have sent it; its side of the report closes and tells it.
                Err(_) => {}
            },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    for attempt in under_way.values() {
        if let Some(worker) = &attempt.worker {
            // Gone already is as good.
            let _ = pidfd_kill(worker);
            wait_ended(worker, CLEAN_TIMEOUT);
        }
        // Nobody is left to tell; the shim itself looks whether it is alone.
        let _ = attempt.cgroup.remove_new(CLEAN_TIMEOUT);
    }
}

impl Descriptors {
    /// Whether there is something to do for initd; otherwise it is to be looked whether it answers.
    fn wait_for_task(&self) -> io::Result<bool> {
        let (listener, timeout) = self.standby.interest();
        let mut polled = vec![PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        polled.extend(listener.map(|listener| PollFd::new(listener, PollFlags::POLLIN)));
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up: what is left is looked at when it has passed.
            PollTimeout::try_from(timeout + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, timeout) {
            Ok(_) => Ok(polled[0].any().unwrap_or(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn begin(
    own: &mut Option<Descriptors>,
    id: u64,
    order: &Order,
    fds: Vec<OwnedFd>,
    under_way: &mut BTreeMap<u64, UnderWay>,
) {
    // Without a full set there is no report to answer on either; initd sees the end of it.
    let Some(fds) = OrderFds::from_list(fds) else { return };
    if has_been_given_up(&fds.report) {
        return;
    }
    let failed = |step: &str, error: io::Error| {
        let report = Report::failed(format!("{step}: {error}"));
        // initd is gone when this fails.
        let _ = send(&fds.report, &report.encode(), &[]);
    };
    let cgroup = match fds.cgroup.try_clone().and_then(UnitCgroup::from_dir) {
        Ok(cgroup) => cgroup,
        Err(error) => return failed("list the unit's processes", error),
    };
    let connection = match fds.connection.try_clone() {
        Ok(connection) => connection,
        Err(error) => return failed("keep the connection", error),
    };
    // What a worker makes is the unit's: a socket belongs for good to the control group of whoever
    // made it, memory is charged to it.
    let_others_number();
    match fork_into(cgroup.dir()) {
        Err(error) => failed("fork a worker into the unit's control group", error),
        Ok(Forked::Child) => {
            // A restored process inherits what the worker has open: nothing of other units may be
            // among it.
            under_way.clear();
            drop((cgroup, connection));
            *own = None;
            worker::run(order, fds)
        }
        Ok(Forked::Parent(pid)) => {
            let worker = pidfd_open(pid).ok();
            let pidfd: Vec<BorrowedFd<'_>> = worker.iter().map(AsFd::as_fd).collect();
            // What initd cannot be told of it has not looked for: it has given the attempt up in
            // this moment. A worker that was forked before that moment it finds in the control
            // group. Others there may be of the cold start by now, so the worker alone is ended.
            if send(&fds.report, &Report::Started.encode(), &pidfd).is_err() {
                let _ = worker.as_ref().map(pidfd_kill);
            }
            under_way.insert(id, UnderWay { worker, cgroup, _connection: connection });
        }
    }
}

/// initd waits for no report any more.
fn has_been_given_up(report: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(report.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

impl OrderFds<OwnedFd> {
    fn from_list(fds: Vec<OwnedFd>) -> Option<OrderFds<OwnedFd>> {
        let mut fds = fds.into_iter();
        Some(OrderFds {
            report: fds.next()?,
            image: fds.next()?,
            shim: fds.next()?,
            cgroup: fds.next()?,
            connection: fds.next()?,
            inherited: fds.collect(),
        })
    }
}
