//! One restore as initd sees it: a worker, a deadline, and nothing left over when it fails.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use image_store::{ReasonCode, StaleReason};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use snap_rebuild::bus_claim::Claim;
use snap_state::Pid;
use snap_sys::proc::Stat;

use crate::protocol::StoredName;
use crate::sys::process::{pidfd_kill, pidfd_open, wait_ended, wait_readable};
use crate::sys::socket::receive;
use crate::unit_cgroup::UnitCgroup;
use crate::wire::MAX_MESSAGE_LEN;
use crate::worker::{Order, Report, STEPS};
use crate::zygote::{OrderFds, Zygote};

/// How long a worker may take to end after its report, and killed processes to disappear.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(2);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The tree runs, its roots are children of PID 1. It is gone unless it is kept.
    Restored(Unconfirmed<'a>),
    /// Nothing of it is left; the unit has to start cold.
    Failed(StaleReason),
    /// The shim has gone, and nothing of the tree is left.
    Abandoned,
}

/// A tree that systemd has to be told about.
#[derive(Debug)]
pub struct RestoredTree {
    /// Its main process.
    pub main_pid: i32,
    /// The same, for good.
    pub main_pidfd: OwnedFd,
    /// How long each step of the worker took.
    pub steps: Vec<(&'static str, Duration)>,
    /// For systemd's store.
    pub stored: Vec<(StoredName, OwnedFd)>,
    /// The name on the bus that systemd waits for.
    pub claim: Option<Claim>,
}

/// An attempt. Whatever becomes of it, a panic of our own included: what it has made is removed,
/// unless systemd has taken it over ([`Unconfirmed::keep`]), and the zygote hears that the matter
/// is settled.
#[derive(Debug)]
pub struct Attempt<'a> {
    zygote: &'a Zygote,
    id: u64,
    cgroup: UnitCgroup,
    worker: Option<OwnedFd>,
    remains: Remains,
}

/// What is left of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remains {
    /// Maybe something that has to be removed.
    Something,
    /// Nothing has to be done any more.
    Settled,
}

/// A restored tree that systemd has not taken over yet.
#[derive(Debug)]
pub struct Unconfirmed<'a> {
    attempt: Attempt<'a>,
    tree: RestoredTree,
}

/// What an attempt borrows for its start.
#[derive(Debug)]
pub struct Means<'a> {
    /// The image, open.
    pub image: BorrowedFd<'a>,
    /// pidfd of the shim.
    pub shim: &'a OwnedFd,
    /// Connection to it.
    pub connection: &'a OwnedFd,
    /// Descriptors that it handed over.
    pub inherited: &'a [OwnedFd],
}

impl<'a> Attempt<'a> {
    /// Prepare an attempt in this cgroup.
    pub fn new(zygote: &'a Zygote, cgroup: UnitCgroup) -> Attempt<'a> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Attempt { zygote, id, cgroup, worker: None, remains: Remains::Something }
    }

    /// Run it until it has succeeded, failed, or `deadline` has passed.
    pub fn run(mut self, order: &Order, means: &Means<'_>, deadline: Instant) -> Outcome<'a> {
        let outcome = match self.wait_for_tree(order, means, deadline) {
            Ok(Wait::Done(done)) => {
                let Done { roots, steps_us, stored, claim } = done;
                let tree = self.take_over(order, &roots, &steps_us, deadline);
                tree.map(|tree| RestoredTree { stored, claim, ..tree })
                    .map_err(|error| failed("tree", &error))
            }
            Ok(Wait::Failed(reason)) => Err(reason),
            // Dropping the attempt ends what it has made.
            Ok(Wait::ShimGone) => return Outcome::Abandoned,
            Err(error) => Err(failed("worker", &error)),
        };
        match outcome {
            Ok(tree) => Outcome::Restored(Unconfirmed { attempt: self, tree }),
            Err(reason) => match self.remove() {
                true => Outcome::Failed(reason),
                false => {
                    let sentence = format!("{}; some of its processes could not be ended", reason.sentence);
                    Outcome::Failed(StaleReason::new(reason.code, sentence))
                }
            },
        }
    }

    /// End the worker and everything that it has made. Returns whether nothing is left.
    fn remove(&mut self) -> bool {
        self.remains = Remains::Settled;
        if let Some(worker) = self.worker.take() {
            // Gone already is what we want.
            let _ = pidfd_kill(&worker);
            wait_ended(&worker, CLEAN_TIMEOUT);
        }
        self.cgroup.remove_new(CLEAN_TIMEOUT).unwrap_or(false)
    }

    fn wait_for_tree(&mut self, order: &Order, means: &Means<'_>, deadline: Instant) -> io::Result<Wait> {
        let (report, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let fds = OrderFds {
            report: theirs.as_fd(),
            image: means.image,
            shim: means.shim.as_fd(),
            cgroup: self.cgroup.dir(),
            connection: means.connection.as_fd(),
            inherited: means.inherited.iter().map(AsFd::as_fd).collect(),
        };
        self.zygote.begin(self.id, order, fds)?;
        drop(theirs);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let sentence = "restore was not done in time".to_owned();
                return Ok(Wait::Failed(StaleReason::new(ReasonCode::Deadline, sentence)));
            }
            let [has_report, is_shim_gone] = wait_readable([report.as_fd(), means.connection.as_fd()], left)?;
            if is_shim_gone {
                return Ok(Wait::ShimGone);
            }
            if !has_report {
                continue;
            }
            let (packet, fds) = receive(&report, MAX_MESSAGE_LEN)?;
            if packet.is_empty() {
                return Err(io::Error::other("it ended without a report"));
            }
            match Report::decode(&packet).map_err(io::Error::other)? {
                Report::Started => self.worker = fds.into_iter().next(),
                Report::Done { roots, steps_us, stored, claim } => {
                    if fds.len() != stored.len() + 2 * usize::from(claim.is_some()) {
                        return Err(io::Error::other("it sent a wrong number of descriptors"));
                    }
                    let mut fds = fds.into_iter();
                    let stored: Vec<_> = stored.into_iter().zip(&mut fds).collect();
                    let claim = claim.zip(fds.next().zip(fds.next()));
                    let claim = claim.map(|(wanted, (connection, own))| Claim { connection, own, wanted });
                    return Ok(Wait::Done(Done { roots, steps_us, stored, claim }));
                }
                Report::Failed(reason) => return Ok(Wait::Failed(reason)),
            }
        }
    }

    /// Wait for the worker's end, which makes the roots children of PID 1, and find the main
    /// process.
    fn take_over(
        &mut self,
        order: &Order,
        roots: &[i32],
        steps_us: &[u32],
        deadline: Instant,
    ) -> io::Result<RestoredTree> {
        // `Started` and `Done` come from two processes: the pidfd may still be on its way, or the
        // worker be gone before the zygote could open one. Then its roots tell.
        let is_over = match self.worker.take() {
            Some(worker) => wait_ended(&worker, CLEAN_TIMEOUT),
            None => wait_until(deadline, || roots.iter().all(|root| parent_is_init(*root))),
        };
        if !is_over {
            return Err(io::Error::other("its worker does not end"));
        }
        let processes = self.cgroup.processes()?;
        let is_main_there = processes.contains(&order.main_pid);
        let main_pid = if is_main_there { Some(order.main_pid) } else { roots.first().copied() };
        let main_pid = main_pid.ok_or_else(|| io::Error::other("it is empty"))?;
        let main_pidfd = pidfd_open(main_pid)?;
        if wait_ended(&main_pidfd, Duration::ZERO) {
            return Err(io::Error::other(format!("its main process {main_pid} has ended at once")));
        }
        let steps = STEPS.iter().zip(steps_us).map(|(step, us)| (*step, Duration::from_micros((*us).into())));
        Ok(RestoredTree { main_pid, main_pidfd, steps: steps.collect(), stored: Vec::new(), claim: None })
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.remains == Remains::Something {
            self.remove();
        }
        self.zygote.forget(self.id);
    }
}

impl Unconfirmed<'_> {
    /// The tree.
    pub fn tree(&self) -> &RestoredTree {
        &self.tree
    }

    /// What is still to be claimed; once.
    pub fn take_claim(&mut self) -> Option<Claim> {
        self.tree.claim.take()
    }

    /// systemd has taken it over: it stays, whatever becomes of us.
    pub fn keep(self) -> RestoredTree {
        let Unconfirmed { mut attempt, tree } = self;
        attempt.remains = Remains::Settled;
        tree
    }
}

/// What the worker said, with its descriptors.
struct Done {
    roots: Vec<i32>,
    steps_us: Vec<u32>,
    stored: Vec<(StoredName, OwnedFd)>,
    claim: Option<Claim>,
}

enum Wait {
    Done(Done),
    Failed(StaleReason),
    ShimGone,
}

fn failed(what: &str, error: &io::Error) -> StaleReason {
    StaleReason::new(ReasonCode::RestoreFailed, format!("{what}: {error}"))
}

fn parent_is_init(pid: i32) -> bool {
    Stat::of(Pid(pid)).is_ok_and(|stat| stat.ppid == Pid(1))
}

fn wait_until(deadline: Instant, mut condition: impl FnMut() -> bool) -> bool {
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}
