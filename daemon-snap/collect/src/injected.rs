//! System calls that a thread of the tree executes for us, and the memory that their results are
//! written to.

use crate::blockers::failed;
use nix::errno::Errno;
use snap_error::obstacle::ProcessObstacle;
use snap_error::{Blocker, Part, Result};
use snap_state::{Addr, PAGE_BYTES, Pid};
use snap_sys::inject::Injector;
use snap_sys::{limits, vmread};

/// Memory of the process that injected calls write their results to; the first page is for that,
/// the rest for frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scratch {
    pub at: Addr,
}

impl Scratch {
    /// The first words of the page.
    pub fn words<const N: usize>(self, pid: Pid) -> Result<[u64; N]> {
        let bytes = self.bytes(pid, N * 8)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        Ok(words)
    }

    /// The first bytes of the page.
    pub fn bytes(self, pid: Pid, len_bytes: usize) -> Result<Vec<u8>> {
        vmread::read(pid, self.at, len_bytes).map_err(failed("read results", pid, self.at))
    }

    pub fn map(pid: Pid, injector: &mut Injector, len_bytes: u64) -> Result<Self> {
        let prot = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let lifted = limits::Lifted::for_mapping(pid);
        let mapped = injector.call(libc::SYS_mmap, [0, len_bytes, prot, flags, u64::MAX, 0]);
        drop(lifted);
        match mapped {
            Ok(at) => Ok(Self { at: Addr(at) }),
            // The limit on locked memory, where later mappings are locked too, gives EAGAIN.
            Err(Errno::ENOMEM | Errno::EAGAIN) => {
                Err(Blocker::new(pid, Part::Process, ProcessObstacle::NoRoom { len_bytes }).into())
            }
            Err(errno) => Err(failed("mmap", pid, "from inside")(errno)),
        }
    }

    /// Where the frame of the thread in turn lies.
    pub fn frame_place(self) -> Addr {
        Addr(self.at.0 + PAGE_BYTES)
    }
}

/// An injected call that must succeed.
pub(super) fn call(
    pid: Pid,
    injector: &mut Injector,
    step: &'static str,
    number: i64,
    args: [u64; 6],
) -> Result<u64> {
    injector.call(number, args).map_err(failed(step, pid, "from inside"))
}
