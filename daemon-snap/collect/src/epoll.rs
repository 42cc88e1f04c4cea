//! epoll(7): watches and the descriptions that they mean, whatever their number is used for today.

use super::description::Description;
use crate::blockers::{Found, failed, refused};
use snap_error::obstacle::DescriptorObstacle;
use snap_state::{EpollV1, EpollWatchV1, FileId, FileKindV1, Pid, RawPath, TargetFd};
use snap_sys::proc::FdInfo;
use snap_sys::{fdquery, kcmp};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;

/// Where descriptions can be found: by the number they have in a process, and by inode number.
#[derive(Debug)]
pub(super) struct Targets<'a> {
    pub by_number: &'a HashMap<(Pid, TargetFd), FileId>,
    pub files: &'a [Description],
}

impl Targets<'_> {
    /// Whether the watch has to be added by a process that has it: of a signalfd, and of what only
    /// that process can open.
    fn is_of_process(&self, id: FileId) -> bool {
        let link = &self.files[id.index()].link;
        link == b"anon_inode:[signalfd]" || link.starts_with(b"/proc/")
    }

    fn have_both(&self, set: FileId, target: FileId) -> bool {
        let users = |wanted| {
            let of = move |(&(pid, _), &id): (&(Pid, TargetFd), &FileId)| (id == wanted).then_some(pid);
            self.by_number.iter().filter_map(of)
        };
        users(set).any(|pid| users(target).any(|other| other == pid))
    }
}

/// The watches of one epoll set.
pub(super) fn collect(
    file: &Description,
    fd: BorrowedFd<'_>,
    info: &FdInfo,
    targets: &Targets<'_>,
) -> Found<FileKindV1> {
    let Some(lines) = info.epoll_targets() else {
        return refused(DescriptorObstacle::EpollUntold);
    };
    let mut seen: HashMap<TargetFd, u32> = HashMap::new();
    let mut watches = Vec::with_capacity(lines.len());
    for line in lines {
        let nth = seen.entry(line.fd).or_default();
        let (this, fd) = (*nth, line.fd);
        *nth += 1;
        let is_target = |candidate: &Description| {
            kcmp::is_epoll_target((candidate.pid, candidate.fd), (file.pid, file.fd), fd, this)
                .map_err(failed("kcmp", file.pid, file.fd))
        };
        let mut found = None;
        // Nearly always the number still means the same description.
        if let Some(&id) = targets.by_number.get(&(file.pid, fd))
            && is_target(&targets.files[id.index()])?
        {
            found = Some(id);
        }
        if found.is_none() {
            for candidate in targets.files.iter().filter(|candidate| candidate.ino == line.ino) {
                if is_target(candidate)? {
                    found = Some(candidate.id);
                    break;
                }
            }
        }
        let Some(id) = found else {
            return refused(DescriptorObstacle::EpollClosedWatch { fd });
        };
        if targets.is_of_process(id) && !targets.have_both(file.id, id) {
            let target = RawPath(targets.files[id.index()].link.clone());
            return refused(DescriptorObstacle::EpollForeignWatch { target });
        }
        watches.push(EpollWatchV1 { file: id, fd, events: line.events, data: line.data });
    }
    // The kernel lists them by the addresses of its objects.
    watches.sort_by_key(|watch| (watch.fd, watch.file));
    Ok(FileKindV1::Epoll(EpollV1 { watches, busy_poll: fdquery::busy_poll(fd) }))
}
