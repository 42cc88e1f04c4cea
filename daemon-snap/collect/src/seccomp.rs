//! Seccomp filters: programs are kept once, threads list them.

use crate::blockers::{Found, failed, refused};
use nix::errno::Errno;
use snap_error::Result;
use snap_error::obstacle::SandboxObstacle;
use snap_state::{FilterId, Pid, SeccompFilterV1, SeccompFlags};
use snap_sys::proc::Status;
use snap_sys::ptrace;
use std::collections::HashMap;

/// All programs of the tree.
#[derive(Debug)]
pub(crate) struct Filters {
    /// Filters that we have ourselves: everything here runs under them, and the kernel shows none
    /// to us.
    own: usize,
    list: Vec<SeccompFilterV1>,
    known: HashMap<Vec<u8>, FilterId>,
}

impl Filters {
    pub fn new() -> Result<Self> {
        let own = Pid(std::process::id() as i32);
        Ok(Self { own: Status::of(own, own)?.seccomp_filters, list: Vec::new(), known: HashMap::new() })
    }

    /// The stack of a thread, outermost first.
    pub fn of_thread(&mut self, tid: Pid, status: &Status) -> Found<Vec<(FilterId, SeccompFlags)>> {
        if self.own > 0 {
            return match status.seccomp_filters {
                count if count == self.own => Ok(Vec::new()),
                filters => refused(SandboxObstacle::SeccompUnreadable { filters, own: self.own }),
            };
        }
        const FILTERS: u32 = 2;
        let mut stack = Vec::new();
        if status.seccomp_mode != FILTERS {
            return Ok(stack);
        }
        loop {
            let index = stack.len();
            let program = match ptrace::seccomp_filter(tid, index) {
                Ok(program) => program,
                Err(Errno::ENOENT) => break,
                Err(Errno::EMEDIUMTYPE) => return refused(SandboxObstacle::SeccompNotClassic),
                Err(e) => return Err(failed("read seccomp filter", tid, index)(e).into()),
            };
            let flags =
                ptrace::seccomp_flags(tid, index).map_err(failed("read seccomp filter flags", tid, index))?;
            stack.push((self.intern(program), flags));
        }
        Ok(stack)
    }

    fn intern(&mut self, program: Vec<u8>) -> FilterId {
        if let Some(&id) = self.known.get(&program) {
            return id;
        }
        let id = FilterId(self.list.len() as u32);
        self.list.push(SeccompFilterV1 { program: program.clone() });
        self.known.insert(program, id);
        id
    }

    pub fn into_list(self) -> Vec<SeccompFilterV1> {
        self.list
    }
}
