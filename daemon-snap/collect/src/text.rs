//! Program text that has been changed in place: breakpoints of uprobes and debuggers are not the
//! program's own.

use crate::blockers::failed;
use nix::errno::Errno;
use snap_error::obstacle::MemoryObstacle;
use snap_error::{Blocker, Error, Part, Result};
use snap_state::{Addr, BackingV1, PAGE_BYTES, Pid, VmaV1};
use snap_sys::pagemap::OwnPages;
use snap_sys::{mapped, vmread};
use std::fs::File;
use std::os::fd::AsFd as _;

const PROT_READ: u8 = 1;
const PROT_EXEC: u8 = 4;
/// `int3`
const BREAKPOINT: u8 = 0xcc;

/// Pages of program text without those that mapping the file again gives as they are. That is the
/// question to ask, because the kernel puts the breakpoints of its probes (uprobes, perf, bpftrace)
/// into whatever maps the file.
pub(super) fn without_probes(pid: Pid, vma: &VmaV1, own: Vec<OwnPages>) -> Result<Vec<OwnPages>> {
    let BackingV1::Inode { offset, .. } = vma.backing else { return Ok(own) };
    let is_text = vma.prot == PROT_READ | PROT_EXEC && !vma.shared;
    if !is_text || own.is_empty() {
        return Ok(own);
    }
    let path = format!("/proc/{pid}/map_files/{:x}-{:x}", vma.start.0, vma.end.0);
    let file = File::open(&path).map_err(|e| Error::io("open", &path, &e))?;
    let mut kept = Vec::new();
    for pages in own {
        let mut addr = pages.start.0;
        while addr < pages.end.0 {
            let next = Addr(addr + PAGE_BYTES);
            let page = vmread::read(pid, Addr(addr), PAGE_BYTES as usize);
            let page = page.map_err(failed("read text", pid, Addr(addr)))?;
            let fresh = match mapped::read_text(file.as_fd(), offset + (addr - vma.start.0)) {
                // Beyond the end of the file.
                Err(Errno::EFAULT) => Vec::new(),
                other => other.map_err(|e| Error::kernel("map", &path, e))?,
            };
            match compare(&page, &fresh) {
                Text::Same => {}
                Text::Changed => kept.push(OwnPages { start: Addr(addr), end: next, ..pages }),
                Text::Breakpoints => {
                    return Err(
                        Blocker::new(pid, Part::Mapping(Addr(addr)), MemoryObstacle::Breakpoint).into()
                    );
                }
            }
            addr = next.0;
        }
    }
    Ok(kept)
}

#[derive(Debug, PartialEq, Eq)]
enum Text {
    Same,
    /// By the program itself, or by its linker.
    Changed,
    /// In nothing else than that instructions are breakpoints.
    Breakpoints,
}

fn compare(page: &[u8], fresh: &[u8]) -> Text {
    let mut differences = page.iter().zip(fresh).filter(|(now, then)| now != then).peekable();
    if page.len() != fresh.len() {
        Text::Changed
    } else if differences.peek().is_none() {
        Text::Same
    } else if differences.all(|(now, _)| *now == BREAKPOINT) {
        Text::Breakpoints
    } else {
        Text::Changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakpoint_is_told_from_a_change() {
        let fresh = [0x90; 16];
        let with = |at: usize, byte: u8| {
            let mut page = fresh;
            page[at] = byte;
            page
        };
        assert_eq!(compare(&fresh, &fresh), Text::Same);
        assert_eq!(compare(&with(3, BREAKPOINT), &fresh), Text::Breakpoints);
        assert_eq!(compare(&with(3, 0xe9), &fresh), Text::Changed);
    }
}
