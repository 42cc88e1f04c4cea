//! One restore: a process of its own that ends with it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::exit;
use std::time::{Duration, Instant};

use image_store::{Image, ReasonCode, StaleReason, Stamp, UncheckedImage, fault};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use snap_rebuild::bus_claim::{Claim, Wanted};
use snap_rebuild::restore::{Request, Stored, UnitContext, restore};
use snap_state::{Pid, Tree};

use crate::boot::monotonic_us;
use crate::dynamic_user;
use crate::pid_file;
use crate::protocol::StoredName;
use crate::sys::priority::set_nice;
use crate::sys::process::{ChildEnd, set_child_end};
use crate::sys::socket::send;
use crate::wire::{Decoder, Encoder, Malformed};
use crate::zygote::OrderFds;

/// What to restore, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The unit, for messages.
    pub unit: String,
    /// Path of the image, for messages; its descriptor comes along.
    pub image_path: String,
    /// `CLOCK_MONOTONIC` in microseconds when this was sent.
    pub sent_us: u64,
    /// The same, at which the attempt has failed.
    pub deadline_us: u64,
    /// Chunks of pages that have been compared with their checksums.
    pub checked_chunks: u64,
    /// What the image was when that began.
    pub stamp: Stamp,
    /// The image is small: its restore goes ahead of everything else.
    pub is_light: bool,
    /// The shim, in our PID namespace.
    pub shim_pid: i32,
    /// User and group that the shim runs as.
    pub owner: (u32, u32),
    /// Main process at the snapshot.
    pub main_pid: i32,
    /// `PIDFile=`; empty for none.
    pub pid_file: String,
    /// `BusName=` that systemd waits for; empty for none.
    pub bus_name: String,
    /// One per descriptor of socket activation.
    pub listen_names: Vec<String>,
}

/// What a worker (or the zygote in its place) has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// It runs; its pidfd is attached.
    Started,
    /// All processes run. Descriptors for systemd's store are attached, and the two of a claim
    /// behind them.
    Done {
        /// These become children of PID 1 when the worker ends.
        roots: Vec<i32>,
        /// How long each of [`STEPS`] took, in microseconds.
        steps_us: Vec<u32>,
        /// One per descriptor.
        stored: Vec<StoredName>,
        /// The name on the bus that is still to be claimed.
        claim: Option<Wanted>,
    },
    /// Nothing of the tree is left.
    Failed(StaleReason),
}

/// Steps of a worker, in order.
pub const STEPS: [&str; 7] = ["fork", "decode", "objects", "tree", "check", "load", "release"];

impl Order {
    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        encoder.bytes(self.unit.as_bytes()).bytes(self.image_path.as_bytes());
        encoder.u64(self.sent_us).u64(self.deadline_us).u64(self.checked_chunks).u16(self.is_light.into());
        let Stamp { device, inode, len_bytes, written_ns } = self.stamp;
        encoder.u64(device).u64(inode).u64(len_bytes).u64(written_ns.cast_unsigned());
        encoder.i32(self.shim_pid).u32(self.owner.0).u32(self.owner.1).i32(self.main_pid);
        encoder.bytes(self.pid_file.as_bytes()).bytes(self.bus_name.as_bytes());
        encoder.u16(self.listen_names.len() as u16);
        for name in &self.listen_names {
            encoder.bytes(name.as_bytes());
        }
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Order, Malformed> {
        Ok(Order {
            unit: decoder.string()?,
            image_path: decoder.string()?,
            sent_us: decoder.u64()?,
            deadline_us: decoder.u64()?,
            checked_chunks: decoder.u64()?,
            is_light: decoder.u16()? != 0,
            stamp: Stamp {
                device: decoder.u64()?,
                inode: decoder.u64()?,
                len_bytes: decoder.u64()?,
                written_ns: decoder.u64()?.cast_signed(),
            },
            shim_pid: decoder.i32()?,
            owner: (decoder.u32()?, decoder.u32()?),
            main_pid: decoder.i32()?,
            pid_file: decoder.string()?,
            bus_name: decoder.string()?,
            listen_names: (0..decoder.u16()?).map(|_| decoder.string()).collect::<Result<_, _>>()?,
        })
    }

    fn deadline(&self) -> Instant {
        let left_us = self.deadline_us.saturating_sub(monotonic_us());
        Instant::now() + Duration::from_micros(left_us)
    }
}

impl Report {
    /// A failure of this kernel or this program.
    pub fn failed(sentence: String) -> Report {
        Report::Failed(StaleReason::new(ReasonCode::RestoreFailed, sentence))
    }

    /// As a packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        match self {
            Report::Started => encoder.u16(1),
            Report::Done { roots, steps_us, stored, claim } => {
                encoder.u16(2).u16(roots.len() as u16);
                for pid in roots {
                    encoder.i32(*pid);
                }
                encoder.u16(steps_us.len() as u16);
                let encoder = steps_us.iter().fold(&mut encoder, |encoder, us| encoder.u32(*us));
                StoredName::encode_all(stored, encoder);
                let encoder = encoder.u16(claim.is_some().into());
                claim.iter().fold(encoder, |encoder, Wanted { name, flags, unique_name }| {
                    encoder.bytes(name.as_bytes()).u32(*flags).bytes(unique_name.as_bytes())
                })
            }
            Report::Failed(reason) => {
                // Some errors list every process; the first lines are enough.
                let mut end = reason.sentence.len().min(4096);
                while !reason.sentence.is_char_boundary(end) {
                    end -= 1;
                }
                let sentence = &reason.sentence.as_bytes()[..end];
                encoder.u16(3).bytes(reason.code.as_str().as_bytes()).bytes(sentence)
            }
        };
        encoder.finish()
    }

    /// From a packet.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(packet: &[u8]) -> Result<Report, Malformed> {
        let mut decoder = Decoder::new(packet);
        let report = match decoder.u16()? {
            1 => Report::Started,
            2 => Report::Done {
                roots: (0..decoder.u16()?).map(|_| decoder.i32()).collect::<Result<_, _>>()?,
                steps_us: (0..decoder.u16()?).map(|_| decoder.u32()).collect::<Result<_, _>>()?,
                stored: StoredName::decode_all(&mut decoder)?,
                claim: match decoder.u16()? {
                    0 => None,
                    _ => Some(Wanted {
                        name: decoder.string()?,
                        flags: decoder.u32()?,
                        unique_name: decoder.string()?,
                    }),
                },
            },
            3 => {
                let code = decoder.string()?.parse().map_err(|_| Malformed("its code is unknown"))?;
                Report::Failed(StaleReason::new(code, decoder.string()?))
            }
            _ => return Err(Malformed("it is of another kind")),
        };
        decoder.finish()?;
        Ok(report)
    }
}

/// The whole life of a worker. Exits 0 after `Done`, so that PID 1 inherits the roots.
pub fn run(order: &Order, fds: OrderFds<OwnedFd>) -> ! {
    let OrderFds { report, image, shim, cgroup, connection, inherited } = fds;
    // The zygote keeps the shim's connection for us.
    drop(connection);
    let outcome = prepare(order).and_then(|()| {
        let for_pid_file = shim.try_clone().map_err(|error| internal("keep the shim's pidfd", &error))?;
        let Rebuilt { roots, steps_us, stored, claim } = rebuild(order, image, shim, cgroup, inherited)?;
        write_pid_file(order, &roots, &for_pid_file)?;
        let of_one = |one: Stored| (StoredName { name: one.name, polled: one.polled }, one.fd);
        let (stored, mut fds): (_, Vec<OwnedFd>) = stored.into_iter().map(of_one).unzip();
        let claim = claim.map(|Claim { connection, own, wanted }| {
            fds.extend([connection, own]);
            wanted
        });
        Ok((Report::Done { roots, steps_us, stored, claim }, fds))
    });
    let (message, fds): (Report, Vec<OwnedFd>) =
        outcome.unwrap_or_else(|reason| (Report::Failed(reason), Vec::new()));
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    // A report that cannot be sent is as good as none: initd sees its end, and removes what is
    // there.
    let sent = send(&report, &message.encode(), &fds);
    exit(if sent.is_ok() { 0 } else { 1 })
}

fn prepare(order: &Order) -> Result<(), StaleReason> {
    let parent = getppid();
    set_pdeathsig(Signal::SIGKILL).map_err(|error| internal("tie the worker to its parent", &error))?;
    // It may have died before we asked.
    if getppid() != parent {
        exit(1);
    }
    set_child_end(ChildEnd::Waited).map_err(|error| internal("reset SIGCHLD", &error))?;
    let _ = set_name(c"fastboot-worker");
    if !order.is_light {
        // Not ahead of small ones, as initd itself is; upwards is always allowed. The processes get
        // their own value back.
        let _ = set_nice(0);
    }
    fault::point("worker.start").map_err(|error| internal("worker.start", &error))
}

/// What runs again.
struct Rebuilt {
    roots: Vec<i32>,
    steps_us: Vec<u32>,
    stored: Vec<Stored>,
    claim: Option<Claim>,
}

fn rebuild(
    order: &Order,
    image: OwnedFd,
    shim: OwnedFd,
    cgroup: OwnedFd,
    inherited: Vec<OwnedFd>,
) -> Result<Rebuilt, StaleReason> {
    let began_us = monotonic_us();
    let mut inherited = inherited.into_iter();
    let mut next =
        || inherited.next().ok_or_else(|| internal("descriptors of the shim", &"some are missing"));
    let stdio = [next()?, next()?, next()?];
    let listen_fds = order.listen_names.iter().cloned().zip(inherited).collect();
    let bus_name = Some(order.bus_name.clone()).filter(|name| !name.is_empty());
    let unit = UnitContext { shim, shim_pid: Pid(order.shim_pid), stdio, listen_fds, cgroup, bus_name };
    #[cfg(feature = "test-hooks")]
    if let Some(roots) = crate::sys::plain_child::instead_of_restore(order, &unit) {
        fault::point("worker.mid").map_err(|error| internal("worker.mid", &error))?;
        return roots
            .map(|roots| Rebuilt { roots, steps_us: Vec::new(), stored: Vec::new(), claim: None })
            .map_err(|error| internal("plain process", &error));
    }
    let path = PathBuf::from(&order.image_path);
    let image = UncheckedImage::from_file(image.into(), path)
        .check()
        .map_err(|corrupt| snap_error::Error::from(corrupt).to_stale_reason())?;
    let tree = decode(&image)?;
    dynamic_user::check(&tree, order.owner)?;
    fault::point("worker.before_go").map_err(|error| internal("worker.before_go", &error))?;
    let request = Request {
        image: &image,
        stamp: order.stamp,
        tree,
        unit: Some(unit),
        checked_chunks: order.checked_chunks,
        deadline: order.deadline(),
    };
    let decoded_us = monotonic_us();
    let restored = restore(request).map_err(|error| error.to_stale_reason())?;
    let mut steps_us = vec![began_us.saturating_sub(order.sent_us) as u32, (decoded_us - began_us) as u32];
    steps_us.extend(restored.times.steps().map(|(_, took)| took.as_micros() as u32));
    let roots = restored.roots.iter().map(|pid| pid.0).collect();
    Ok(Rebuilt { roots, steps_us, stored: restored.stored, claim: restored.claim })
}

fn decode(image: &Image) -> Result<Tree, StaleReason> {
    snap_image::read_tree(image).map_err(|error| error.to_stale_reason())
}

/// Only for a service whose PID file systemd reads; an error here would make the start fail, so it
/// ends the attempt.
fn write_pid_file(order: &Order, roots: &[i32], shim: &OwnedFd) -> Result<(), StaleReason> {
    if order.pid_file.is_empty() {
        return Ok(());
    }
    let main_pid =
        if order.main_pid > 1 { order.main_pid } else { roots.first().copied().unwrap_or_default() };
    let path = PathBuf::from(&order.pid_file);
    pid_file::write(&path, main_pid, shim, order.owner.0, order.owner.1)
        .map_err(|error| internal(&order.pid_file, &error))
}

fn internal(step: &str, error: &dyn std::fmt::Display) -> StaleReason {
    StaleReason::new(ReasonCode::RestoreFailed, format!("{step}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_of_a_worker_are_its_own_two_and_those_of_the_engine() {
        let engine = snap_rebuild::restore::Times::default().steps();
        assert_eq!(STEPS[2..], engine.map(|(name, _)| name));
    }

    #[test]
    fn orders_and_reports_read_back_and_cut_ones_are_refused() {
        let order = Order {
            unit: "a.service".to_owned(),
            image_path: "/var/lib/fastboot/images/1/a.service.img".to_owned(),
            sent_us: 1 << 39,
            deadline_us: 1 << 40,
            checked_chunks: 7,
            is_light: true,
            stamp: Stamp { device: 1, inode: 2, len_bytes: 3, written_ns: -4 },
            shim_pid: 17,
            owner: (33, 34),
            main_pid: 300_000,
            pid_file: "/run/a.pid".to_owned(),
            bus_name: "com.example.a".to_owned(),
            listen_names: vec!["x".to_owned(), String::new()],
        };
        let mut encoder = Encoder::default();
        order.encode(&mut encoder);
        let bytes = encoder.finish();
        assert_eq!(Order::decode(&mut Decoder::new(&bytes)), Ok(order));
        for len in 0..bytes.len() {
            assert!(Order::decode(&mut Decoder::new(&bytes[..len])).is_err());
        }
        let failed = Report::Failed(StaleReason::new(ReasonCode::Deadline, "too late"));
        let stored = vec![StoredName { name: "kept".to_owned(), polled: false }];
        let name = "com.example.a".to_owned();
        let claim = Some(Wanted { name, flags: 4, unique_name: ":1.7".to_owned() });
        let done = |claim| {
            let stored = stored.clone();
            Report::Done { roots: vec![300_000, 7], steps_us: vec![1, 2, 3], stored, claim }
        };
        for report in [Report::Started, done(None), done(claim), failed] {
            let bytes = report.encode();
            assert_eq!(Report::decode(&bytes), Ok(report));
            assert!(Report::decode(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
