//! io_uring rings at rest.

use super::desk::Desk;
use super::kind::{Context, Kind};
use super::object::{Object, Source};
use image_store::ReasonCode;
use nix::errno::Errno;
use snap_error::{Error, Result};
use snap_state::{FileV1, InodeId, InodeV1, OpenRingV1, RingV1};
use snap_sys::ring;
use std::os::fd::{AsFd as _, OwnedFd};

impl Kind for OpenRingV1 {
    fn make(&self, _: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
        let made = cx.desk.made_object(self.ring)?;
        made.try_clone_to_owned().map(Some).map_err(|e| Error::io("dup", self.ring, &e))
    }
}

impl Object for RingV1 {
    fn make(&self, inode: &InodeV1, desk: &mut Desk, _: &Source<'_>) -> Result<()> {
        let made = rebuild_ring(inode.id, self)?;
        desk.rings.push((inode.id, made.takes_address));
        desk.put_object(inode.id, made.fd)
    }

    /// It cannot be opened once more.
    fn is_mapped_as_made(&self, _: bool) -> bool {
        true
    }
}

/// A ring and how it is mapped.
#[derive(Debug)]
struct MadeRing {
    fd: OwnedFd,
    /// This kernel maps it where it is told to.
    takes_address: bool,
}

/// Sets up a ring, brings its counters to where they were with requests that do nothing, and puts
/// its memory back.
///
/// # Errors
/// `Stale`: io_uring is not allowed here, or this kernel's rings are laid out in another way.
fn rebuild_ring(id: InodeId, recorded: &RingV1) -> Result<MadeRing> {
    let flags = ring::SETUP_CQSIZE | if recorded.no_array { ring::SETUP_NO_SQARRAY } else { 0 };
    let (fd, params) = ring::setup(recorded.sq_entries, recorded.cq_entries, flags).map_err(|e| match e {
        Errno::EPERM | Errno::ENOSYS => {
            Error::stale(ReasonCode::HostUnsupported, format!("io_uring is not allowed here ({e})"))
        }
        e => Error::kernel("io_uring_setup", id, e),
    })?;
    let failed = |step: &'static str| move |e: std::io::Error| Error::io(step, id, &e);
    let fits = params.queues_bytes() == recorded.queues.len() as u64
        && params.requests_bytes() == recorded.requests.len() as u64;
    let fresh = ring::read_area(fd.as_fd(), ring::OFF_QUEUES, params.queues_bytes())
        .map_err(failed("read a ring"))?;
    let same = |at: u32| {
        let range = at as usize..at as usize + 4;
        fresh.get(range.clone()) == recorded.queues.get(range)
    };
    if !fits || !same(params.sq_off.ring_mask) || !same(params.cq_off.ring_mask) {
        return Err(Error::stale(
            ReasonCode::KernelChanged,
            "io_uring rings are laid out in another way on this kernel",
        ));
    }
    let takes_address =
        ring::takes_address(fd.as_fd(), &params).map_err(failed("find out how rings are mapped"))?;
    ring::turn(fd.as_fd(), &params, recorded.turns).map_err(failed("turn a ring"))?;
    ring::write_area(fd.as_fd(), ring::OFF_REQUESTS, &recorded.requests).map_err(failed("fill a ring"))?;
    ring::write_area(fd.as_fd(), ring::OFF_QUEUES, &recorded.queues).map_err(failed("fill a ring"))?;
    Ok(MadeRing { fd, takes_address })
}
