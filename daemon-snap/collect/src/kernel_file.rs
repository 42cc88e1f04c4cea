//! Descriptors of /proc, /sys, control groups and namespaces: views of the kernel, opened again by
//! name.

use super::description::Description;
use super::object::{Object, Seen, Surroundings};
use crate::blockers::{Found, failed, refused};
use crate::spaces::Spaces;
use snap_error::obstacle::{DescriptorObstacle, FileObstacle};
use snap_state::{
    FileKindV1, InodeId, InodeKindV1, NamedFileV1, NamespaceOfV1, NamespaceV1, Pid, PressureTriggerV1,
    ProcessFileV1, RawPath,
};
use snap_sys::fdquery;
use snap_sys::proc;
use std::os::fd::BorrowedFd;

const PROC_MAGIC: i64 = 0x9fa0;
const SYS_MAGIC: i64 = 0x6265_6572;
const CGROUP_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Other file systems whose files are views of the kernel, and these where they are mapped.
const REFUSED: [(i64, &str); 11] = [
    (PROC_MAGIC, "/proc"),
    (SYS_MAGIC, "/sys"),
    (CGROUP2_MAGIC, "cgroup"),
    (CGROUP_MAGIC, "cgroup"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0xcafe_4a11, "bpf"),
    (0x7363_6673, "securityfs"),
    (0xde5e_81e4, "efivarfs"),
    (0x1cd1, "terminal"),
    (0x4249_4e4d, "binfmt_misc"),
];

/// A file of /proc, /sys or a control group that somebody has open.
pub(super) fn recognise(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    if !seen.handle.open { None } else { classify(seen.fs, seen.path, seen.pid) }
}

/// A view of the kernel that does not come back.
pub(super) fn refuse(seen: &Seen<'_>, _: &Surroundings<'_>) -> Option<Found<InodeKindV1>> {
    let (_, file_system) = *REFUSED.iter().find(|(magic, _)| *magic == seen.fs)?;
    Some(refused(FileObstacle::KernelFile { file_system, path: seen.shown() }))
}

fn classify(fs: i64, path: &[u8], owner: Pid) -> Option<Found<InodeKindV1>> {
    let by_path = || InodeKindV1::Path(NamedFileV1 { path: RawPath(path.to_vec()) });
    match fs {
        _ if !path.starts_with(b"/") => None,
        SYS_MAGIC | CGROUP_MAGIC | CGROUP2_MAGIC => Some(Ok(by_path())),
        PROC_MAGIC => Some(match process_of(path) {
            None => Ok(by_path()),
            Some(process) => of_process(path, process, owner),
        }),
        _ => None,
    }
}

impl Object for ProcessFileV1 {
    fn has_pages(&self) -> bool {
        false
    }

    fn is_of_process(&self) -> bool {
        true
    }
}

/// Files of a process can only be opened by itself: nobody else knows when it exists again.
fn of_process(path: &[u8], process: Pid, owner: Pid) -> Found<InodeKindV1> {
    let shown = String::from_utf8_lossy(path);
    if process != owner {
        return refused(FileObstacle::ProcOfOtherProcess { path: RawPath(path.to_vec()) });
    }
    let own_thread = format!("/proc/{process}/task/{process}");
    if shown.starts_with(&format!("/proc/{process}/task/")) && !shown.starts_with(&own_thread) {
        return refused(FileObstacle::ProcOfThread { path: RawPath(path.to_vec()) });
    }
    Ok(InodeKindV1::OfProcess(ProcessFileV1 { path: RawPath(path.to_vec()) }))
}

/// The process whose directory in /proc a path leads into.
fn process_of(path: &[u8]) -> Option<Pid> {
    let rest = std::str::from_utf8(path).ok()?.strip_prefix("/proc/")?;
    rest.split('/').next()?.parse().ok().map(Pid)
}

/// A descriptor of a namespace that the tree lives in, or that PID 1 lives in.
pub(super) fn collect_namespace(file: &Description, spaces: &Spaces) -> Found<FileKindV1> {
    let shown = String::from_utf8_lossy(&file.link).into_owned();
    let name = shown.split(':').next().unwrap_or_default();
    let is = |pid: Pid| proc::read_link(pid, &format!("ns/{name}")).is_ok_and(|link| link == file.link);
    let of = if is(Pid(1)) {
        NamespaceOfV1::Init
    } else if is(spaces.main) && !matches!(name, "user" | "pid" | "time") {
        NamespaceOfV1::Tree
    } else {
        return refused(DescriptorObstacle::ForeignNamespace { name: RawPath(file.link.clone()) });
    };
    Ok(FileKindV1::Namespace(NamespaceV1 { name: name.to_owned(), of }))
}

/// A pressure file (Documentation/accounting/psi.rst) that something was written to: the kernel
/// does not tell what, but systemd told the service what to write, and where.
pub(super) fn collect_trigger(
    file: &Description,
    fd: BorrowedFd<'_>,
    inode: InodeId,
    writable: bool,
) -> Found<Option<FileKindV1>> {
    let name = file.link.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let in_proc = file.link.starts_with(b"/proc/pressure/");
    if !writable || !(in_proc || name.ends_with(b".pressure")) {
        return Ok(None);
    }
    // Without a trigger the kernel answers with an error.
    let events = fdquery::poll_now(fd, libc::POLLIN).map_err(failed("poll", file.pid, file.fd))?;
    if events & libc::POLLERR != 0 {
        return Ok(None);
    }
    let environment = proc::read(file.pid, "environ")?;
    let value = |name: &[u8]| proc::variable(&environment, name);
    let is_watched = value(b"MEMORY_PRESSURE_WATCH") == Some(&file.link);
    match value(b"MEMORY_PRESSURE_WRITE").and_then(decode_base64).filter(|_| is_watched) {
        Some(text) => Ok(Some(FileKindV1::PressureTrigger(PressureTriggerV1 { inode, text }))),
        None => refused(FileObstacle::PressureTrigger { path: RawPath(file.link.clone()) }),
    }
}

/// Bytes of a text in base64 (RFC 4648), which systemd uses in that variable.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let body = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut bytes = Vec::new();
    for group in body.chunks(4) {
        let mut word = 0;
        for byte in group {
            word = word << 6 | value(*byte)?;
        }
        word <<= 6 * (4 - group.len() as u32);
        // Six bits a character, eight a byte.
        bytes.extend_from_slice(&word.to_be_bytes()[1..][..group.len() * 6 / 8]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_a_trigger_is_decoded() {
        assert_eq!(decode_base64(b"c29tZSAyMDAwMDAgMjAwMDAwMAA=").unwrap(), b"some 200000 2000000\0");
        assert_eq!(decode_base64(b"YQ==").unwrap(), b"a");
        assert_eq!(decode_base64(b"YWI=").unwrap(), b"ab");
        assert_eq!(decode_base64(b"a b"), None);
    }

    #[test]
    fn files_of_processes_are_told_from_others() {
        assert_eq!(process_of(b"/proc/123/status"), Some(Pid(123)));
        assert_eq!(process_of(b"/proc/sys/kernel/ostype"), None);
        let kind = |path: &[u8]| classify(PROC_MAGIC, path, Pid(5)).unwrap();
        assert!(matches!(kind(b"/proc/5/task/5/stat"), Ok(InodeKindV1::OfProcess(_))));
        assert!(kind(b"/proc/5/task/6/stat").is_err() && kind(b"/proc/6/stat").is_err());
        assert!(matches!(kind(b"/proc/meminfo"), Ok(InodeKindV1::Path(_))));
    }
}
