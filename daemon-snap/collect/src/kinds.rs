//! The table of kinds of open file descriptions: what the link of one in /proc looks like, and who
//! collects it.

use super::description::{Description, Open, Slot};
use super::epoll::Targets;
use super::pipe::Pipes;
use super::socket::Sockets;
use crate::blockers::{Found, refused};
use crate::inode::Inodes;
use crate::spaces::Spaces;
use crate::{bus, epoll, eventfd, fanotify, inotify, kernel_file, open_file, pidfd, ring, signalfd, timerfd};
use snap_error::Obstacle;
use snap_error::obstacle::DescriptorObstacle;
use snap_state::{FileKindV1, OpenRingV1, RawPath};

/// What the kinds need to know of each other.
pub(super) struct Kinds<'a> {
    pub tasks: pidfd::Tasks,
    pub spaces: &'a Spaces,
    pub targets: Targets<'a>,
    pub pipes: Pipes,
    pub sockets: Sockets<'a>,
}

/// What a link looks like.
enum Link {
    Is(&'static [u8]),
    Begins(&'static [u8]),
}

/// Reads one description from outside. Whatever the kernel does not tell is refused, never left
/// out.
type Collect = fn(&mut Kinds<'_>, Open<'_>, &mut Inodes<'_>) -> Found<FileKindV1>;

/// A kind, by its link.
struct Row {
    link: Link,
    collect: Collect,
    /// Whoever has such a description would be told when files are opened to be read.
    watches_files: bool,
    /// Why it cannot be sent before there are processes.
    in_flight: Confined,
    /// Why several processes cannot have it.
    shared: Confined,
}

/// What ties a description to the process that has it; most have nothing.
type Confined = fn(&Description, &FileKindV1, &Inodes<'_>) -> Option<Obstacle>;

impl Row {
    const fn watching_files(self) -> Self {
        Self { watches_files: true, ..self }
    }

    const fn in_flight(self, in_flight: Confined) -> Self {
        Self { in_flight, ..self }
    }

    const fn shared(self, shared: Confined) -> Self {
        Self { shared, ..self }
    }
}

const fn row(link: Link, collect: Collect) -> Row {
    const FREE: Confined = |_, _, _| None;
    Row { link, collect, watches_files: false, in_flight: FREE, shared: FREE }
}

const fn is(link: &'static [u8], collect: Collect) -> Row {
    row(Link::Is(link), collect)
}

const fn begins(link: &'static [u8], collect: Collect) -> Row {
    row(Link::Begins(link), collect)
}

/// A line for each kind, and below them one for each that we cannot carry. The first that
/// fits counts.
static TABLE: &[Row] = &[
    begins(b"/", |kinds, open, inodes| open_file::collect(open, &mut kinds.pipes, inodes))
        .in_flight(|_, kind, inodes| open_file::in_flight(kind, inodes))
        .shared(open_file::shared),
    begins(b"pipe:[", |kinds, open, _| Ok(kinds.pipes.add(open.file, open.info.flags, None))),
    begins(b"socket:[", |kinds, open, inodes| kinds.sockets.collect(open, inodes))
        .in_flight(|_, kind, _| bus::in_flight(kind)),
    is(ring::LINK, collect_ring).in_flight(|_, _, _| Some(DescriptorObstacle::RingInFlight.into())),
    is(b"anon_inode:[eventfd]", |_, open, _| eventfd::collect(open.file, open.fd, open.info)),
    is(b"anon_inode:[eventpoll]", |kinds, open, _| {
        epoll::collect(open.file, open.fd, open.info, &kinds.targets)
    })
    .in_flight(|_, _, _| Some(DescriptorObstacle::EpollInFlight.into())),
    is(b"anon_inode:[timerfd]", |_, open, _| timerfd::collect(open.file, open.fd, open.info)),
    is(b"anon_inode:[signalfd]", |_, open, _| signalfd::collect(open.info)),
    is(b"anon_inode:inotify", collect_inotify).watching_files(),
    is(b"anon_inode:[inotify]", collect_inotify).watching_files(),
    is(b"anon_inode:[fanotify]", |kinds, open, _| {
        fanotify::collect(open.file, open.fd, open.info, kinds.spaces)
    })
    .watching_files(),
    is(b"anon_inode:[pidfd]", |kinds, open, _| kinds.tasks.collect(open.info, open.fd))
        .in_flight(|_, kind, _| pidfd::in_flight(kind)),
    begins(b"pidfd:", |kinds, open, _| kinds.tasks.collect(open.info, open.fd))
        .in_flight(|_, kind, _| pidfd::in_flight(kind)),
    begins(b"mnt:[", collect_namespace),
    begins(b"net:[", collect_namespace),
    begins(b"uts:[", collect_namespace),
    begins(b"ipc:[", collect_namespace),
    begins(b"pid:[", collect_namespace),
    begins(b"user:[", collect_namespace),
    begins(b"cgroup:[", collect_namespace),
    begins(b"time:[", collect_namespace),
    // Refused by the name that the kernel has for it.
    begins(b"anon_inode:[userfaultfd]", |_, _, _| refused(DescriptorObstacle::Userfaultfd)),
    begins(b"anon_inode:[perf_event]", |_, _, _| refused(DescriptorObstacle::PerfEvent)),
    begins(b"anon_inode:bpf", |_, _, _| refused(DescriptorObstacle::Ebpf)),
    begins(b"anon_inode:btf", |_, _, _| refused(DescriptorObstacle::Ebpf)),
    begins(b"anon_inode:seccomp", |_, _, _| refused(DescriptorObstacle::SeccompListener)),
    begins(b"anon_inode:landlock", |_, _, _| refused(DescriptorObstacle::LandlockRuleset)),
    begins(b"anon_inode:[landlock", |_, _, _| refused(DescriptorObstacle::LandlockRuleset)),
    begins(b"anon_inode:kvm", |_, _, _| refused(DescriptorObstacle::Kvm)),
    begins(b"anon_inode:dmabuf", |_, _, _| refused(DescriptorObstacle::DmaBuffer)),
    begins(b"anon_inode:[fscontext]", |_, _, _| refused(DescriptorObstacle::FileSystemContext)),
];

fn row_of(link: &[u8]) -> Option<&'static Row> {
    TABLE.iter().find(|row| match row.link {
        Link::Is(whole) => link == whole,
        Link::Begins(prefix) => link.starts_with(prefix),
    })
}

fn collect_inotify(kinds: &mut Kinds<'_>, open: Open<'_>, _: &mut Inodes<'_>) -> Found<FileKindV1> {
    inotify::collect(open.file, open.fd, open.info, kinds.spaces)
}

fn collect_ring(_: &mut Kinds<'_>, open: Open<'_>, inodes: &mut Inodes<'_>) -> Found<FileKindV1> {
    match ring::collect(open.file, open.fd, open.info)? {
        Ok(ring) => Ok(FileKindV1::Ring(OpenRingV1 { ring: inodes.add_ring(open.file, open.fd, ring)? })),
        Err(obstacle) => {
            inodes.refuse_ring(open.file, &obstacle);
            refused(obstacle)
        }
    }
}

fn collect_namespace(kinds: &mut Kinds<'_>, open: Open<'_>, _: &mut Inodes<'_>) -> Found<FileKindV1> {
    kernel_file::collect_namespace(open.file, kinds.spaces)
}

impl Kinds<'_> {
    /// What a description is.
    pub fn collect(&mut self, open: Open<'_>, inodes: &mut Inodes<'_>) -> Found<FileKindV1> {
        match row_of(&open.file.link) {
            Some(row) => (row.collect)(self, open, inodes),
            None => refused(DescriptorObstacle::Unknown { name: RawPath(open.file.link.clone()) }),
        }
    }
}

/// Why this description cannot be sent before there are processes.
pub(super) fn in_flight(file: &Description, kind: &FileKindV1, inodes: &Inodes<'_>) -> Option<Obstacle> {
    row_of(&file.link).and_then(|row| (row.in_flight)(file, kind, inodes))
}

/// Why this description cannot be one of several processes.
pub(super) fn shared(file: &Description, kind: &FileKindV1, inodes: &Inodes<'_>) -> Option<Obstacle> {
    row_of(&file.link).and_then(|row| (row.shared)(file, kind, inodes))
}

/// Whether somebody would be told when files are opened to be read.
pub(super) fn watches_files(slots: &[Slot]) -> bool {
    let watches = |slot: &Slot| row_of(&slot.description.link).is_some_and(|row| row.watches_files);
    slots.iter().any(watches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_the_table_stands_behind_one_that_fits_its_links_too() {
        for row in TABLE {
            let (Link::Is(link) | Link::Begins(link)) = row.link;
            let found = row_of(link).unwrap();
            assert!(std::ptr::eq(found, row), "{}", String::from_utf8_lossy(link));
        }
        assert!(row_of(b"anon_inode:[clockfd]").is_none());
    }
}
