//! `/proc/PID/fdinfo/FD`.

use super::lock::LockLine;
use super::{read, unreadable};
use snap_error::Result;
use snap_state::{Pid, TargetFd};

/// What `fdinfo` says about every descriptor, and the rest of it as text for the kind that knows
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdInfo {
    pub pos: u64,
    /// Status flags with O_CLOEXEC taken out.
    pub flags: i32,
    pub cloexec: bool,
    /// The `lock:` lines.
    pub locks: Vec<LockLine>,
    text: String,
}

/// One `tfd:` line of an epoll descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollTarget {
    pub fd: TargetFd,
    pub events: u32,
    pub data: u64,
    pub ino: u64,
}

/// An inode as fdinfo names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedInode {
    pub ino: u64,
    /// As the kernel encodes it inside: major << 20 | minor.
    pub sdev: u32,
    pub handle_type: i32,
    pub handle: Vec<u8>,
}

/// One `inotify` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InotifyMark {
    pub wd: i32,
    pub inode: MarkedInode,
    pub mask: u32,
}

/// What a mark of a fanotify group is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkedObject {
    Inode(MarkedInode),
    /// By the mount's number.
    Mount(u32),
    /// By device, encoded as in [`MarkedInode::sdev`].
    FileSystem(u32),
}

/// One mark of a fanotify group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanotifyMark {
    pub object: MarkedObject,
    /// FAN_MARK_* that it was made with.
    pub flags: u32,
    pub mask: u64,
    pub ignored_mask: u64,
}

/// The `fanotify` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanotifyInfo {
    /// First and second argument of fanotify_init(2).
    pub flags: u32,
    pub event_flags: u32,
    pub marks: Vec<FanotifyMark>,
}

/// The lines of a timerfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerFdInfo {
    pub clock_id: i32,
    pub ticks: u64,
    pub settime_flags: i32,
    pub remaining_ns: u64,
    pub interval_ns: u64,
}

/// The lines of an io_uring ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingInfo {
    pub sq_mask: u32,
    pub cq_mask: u32,
    /// Requests that the kernel has taken.
    pub cached_sq_head: u32,
    /// Completions that the kernel has written.
    pub cached_cq_tail: u32,
    /// IORING_SETUP_SQPOLL
    pub has_thread: bool,
    /// Registered.
    pub files: u32,
    /// Registered.
    pub buffers: u32,
    pub has_personalities: bool,
    /// Requests that wait for their file to be ready.
    pub polls: usize,
    /// Completions that found no room.
    pub overflown: usize,
}

impl FdInfo {
    /// Reads `/proc/PID/fdinfo/FD`.
    ///
    /// # Errors
    /// [`snap_error::Error::Gone`] when process or descriptor are gone.
    pub fn of(pid: Pid, fd: TargetFd) -> Result<Self> {
        let text = read(pid, &format!("fdinfo/{fd}"))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Self::parse(text).ok_or_else(|| unreadable("fdinfo", format!("/proc/{pid}/fdinfo/{fd}")))
    }

    fn parse(text: String) -> Option<Self> {
        let flags = i32::from_str_radix(value(&text, "flags")?, 8).ok()?;
        Some(Self {
            pos: value(&text, "pos")?.parse().ok()?,
            flags: flags & !libc::O_CLOEXEC,
            cloexec: flags & libc::O_CLOEXEC != 0,
            locks: text
                .lines()
                .filter_map(|line| line.strip_prefix("lock:"))
                .map(LockLine::parse)
                .collect::<Option<_>>()?,
            text,
        })
    }

    /// Of a descriptor of which only the locks are known.
    #[cfg(any(test, feature = "testing"))]
    pub fn of_locks(locks: Vec<LockLine>) -> Self {
        Self { pos: 0, flags: 0, cloexec: false, locks, text: String::new() }
    }

    /// `eventfd-count`.
    pub fn eventfd_count(&self) -> Option<u64> {
        u64::from_str_radix(value(&self.text, "eventfd-count")?, 16).ok()
    }

    /// `eventfd-semaphore` (since Linux 6.5).
    pub fn eventfd_semaphore(&self) -> Option<bool> {
        Some(value(&self.text, "eventfd-semaphore")? != "0")
    }

    /// What stands behind a name, for a kind that has one field of its own.
    pub fn field(&self, name: &str) -> Option<&str> {
        value(&self.text, name)
    }

    /// `Pid` of a pidfd; -1 when the process has ended (since Linux 5.4).
    pub fn pidfd_target(&self) -> Option<i32> {
        value(&self.text, "Pid")?.parse().ok()
    }

    /// The lines of a timerfd.
    pub fn timerfd(&self) -> Option<TimerFdInfo> {
        let time = |name| {
            let (s, ns) = value(&self.text, name)?.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
            Some(s.parse::<u64>().ok()? * 1_000_000_000 + ns.parse::<u64>().ok()?)
        };
        Some(TimerFdInfo {
            clock_id: value(&self.text, "clockid")?.parse().ok()?,
            ticks: value(&self.text, "ticks")?.parse().ok()?,
            settime_flags: i32::from_str_radix(value(&self.text, "settime flags")?, 8).ok()?,
            remaining_ns: time("it_value")?,
            interval_ns: time("it_interval")?,
        })
    }

    /// The lines of an io_uring ring; `None` also when the kernel leaves them out because the ring
    /// is busy.
    pub fn ring(&self) -> Option<RingInfo> {
        let number = |name| value(&self.text, name)?.parse().ok();
        let mask = |name| u32::from_str_radix(value(&self.text, name)?.strip_prefix("0x")?, 16).ok();
        // Indented lines below a heading.
        let listed = |name: &str| {
            let lines = self.text.lines().skip_while(|line| line.trim_end() != name).skip(1);
            lines.take_while(|line| line.starts_with(' ')).count()
        };
        Some(RingInfo {
            sq_mask: mask("SqMask")?,
            cq_mask: mask("CqMask")?,
            cached_sq_head: number("CachedSqHead")?,
            cached_cq_tail: number("CachedCqTail")?,
            has_thread: value(&self.text, "SqThread")? != "-1",
            files: number("UserFiles")?,
            buffers: number("UserBufs")?,
            has_personalities: listed("Personalities:") > 0,
            polls: listed("PollList:"),
            overflown: listed("CqOverflowList:"),
        })
    }

    /// The `tfd:` lines, in the kernel's order.
    pub fn epoll_targets(&self) -> Option<Vec<EpollTarget>> {
        self.text.lines().filter(|line| line.starts_with("tfd:")).map(epoll_target).collect()
    }

    /// The `fanotify` lines; `None` when there is one of a kind that is not known.
    pub fn fanotify(&self) -> Option<FanotifyInfo> {
        let mut lines = self.text.lines().filter_map(|line| line.strip_prefix("fanotify "));
        let group = lines.next()?;
        let number = |name| u32::from_str_radix(word(group, name)?, 16).ok();
        let (flags, event_flags) = (number("flags:")?, number("event-flags:")?);
        Some(FanotifyInfo { flags, event_flags, marks: lines.map(fanotify_mark).collect::<Option<_>>()? })
    }

    /// The `inotify` lines.
    pub fn inotify_marks(&self) -> Option<Vec<InotifyMark>> {
        self.text.lines().filter(|line| line.starts_with("inotify ")).map(inotify_mark).collect()
    }
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// `tfd: %8d events: %8x data: %16llx  pos:%lli ino:%lx sdev:%x`
fn epoll_target(line: &str) -> Option<EpollTarget> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let after = |name| words.iter().position(|&word| word == name).and_then(|at| words.get(at + 1)).copied();
    let ino = words.iter().find_map(|word| word.strip_prefix("ino:"))?;
    Some(EpollTarget {
        fd: TargetFd(after("tfd:")?.parse().ok()?),
        events: u32::from_str_radix(after("events:")?, 16).ok()?,
        data: u64::from_str_radix(after("data:")?, 16).ok()?,
        ino: u64::from_str_radix(ino, 16).ok()?,
    })
}

fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name))
}

fn hex(line: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(word(line, name)?, 16).ok()
}

/// `inotify wd:%x ino:%lx sdev:%x mask:%x ignored_mask:0 fhandle-bytes:%x fhandle-type:%x
/// f_handle:…`
fn inotify_mark(line: &str) -> Option<InotifyMark> {
    let (wd, mask) = (hex(line, "wd:")? as i32, hex(line, "mask:")? as u32);
    Some(InotifyMark { wd, inode: marked_inode(line)?, mask })
}

/// `ino:%lx sdev:%x … fhandle-bytes:%x fhandle-type:%x f_handle:…`
fn marked_inode(line: &str) -> Option<MarkedInode> {
    let handle = word(line, "f_handle:").unwrap_or_default().as_bytes();
    Some(MarkedInode {
        ino: hex(line, "ino:")?,
        sdev: hex(line, "sdev:")? as u32,
        handle_type: hex(line, "fhandle-type:").unwrap_or_default() as i32,
        handle: handle
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<_>>()?,
    })
}

/// `mnt_id:%x`, or `ino:%lx sdev:%x …`, or `sdev:%x`; then `mflags:%x mask:%x ignored_mask:%x`,
/// before the handle of an inode.
fn fanotify_mark(line: &str) -> Option<FanotifyMark> {
    let object = match line.split(':').next()? {
        "ino" => MarkedObject::Inode(marked_inode(line)?),
        "mnt_id" => MarkedObject::Mount(hex(line, "mnt_id:")? as u32),
        "sdev" => MarkedObject::FileSystem(hex(line, "sdev:")? as u32),
        _ => return None,
    };
    Some(FanotifyMark {
        object,
        flags: hex(line, "mflags:")? as u32,
        mask: hex(line, "mask:")?,
        ignored_mask: hex(line, "ignored_mask:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(rest: &str) -> FdInfo {
        FdInfo::parse(format!("pos:\t7\nflags:\t02004002\nmnt_id:\t15\nino:\t1\n{rest}")).unwrap()
    }

    #[test]
    fn fdinfo_separates_cloexec_from_status_flags() {
        let info = info("");
        assert_eq!((info.pos, info.flags, info.cloexec), (7, libc::O_RDWR | libc::O_NONBLOCK, true));
    }

    #[test]
    fn fdinfo_of_epoll_lists_targets_in_order() {
        let info = info(
            "tfd:        5 events:       19 data:         ffffffff00000005  pos:0 ino:61af sdev:7\n\
             tfd:      412 events: 40000001 data:                1  pos:0 ino:1f sdev:d\n",
        );
        let targets = info.epoll_targets().unwrap();
        let expected =
            EpollTarget { fd: TargetFd(5), events: 0x19, data: 0xffff_ffff_0000_0005, ino: 0x61af };
        assert_eq!(targets[0], expected);
        assert_eq!((targets[1].fd, targets[1].events), (TargetFd(412), 0x4000_0001));
    }

    #[test]
    fn fdinfo_of_timerfd_is_understood() {
        let info = info(
            "clockid: 1\nticks: 3\nsettime flags: 01\nit_value: (49406, 829198946)\nit_interval: (1, 0)\n",
        );
        let timer = info.timerfd().unwrap();
        assert_eq!((timer.clock_id, timer.ticks, timer.settime_flags), (1, 3, 1));
        assert_eq!((timer.remaining_ns, timer.interval_ns), (49_406_829_198_946, 1_000_000_000));
    }

    #[test]
    fn fdinfo_of_inotify_is_understood() {
        let info = info(
            "inotify wd:1 ino:2b sdev:fd00000 mask:fce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:2b00000087654321\n",
        );
        let marks = info.inotify_marks().unwrap();
        assert_eq!((marks[0].wd, marks[0].mask, marks[0].inode.handle_type), (1, 0xfce, 1));
        assert_eq!(marks[0].inode.handle, [0x2b, 0, 0, 0, 0x87, 0x65, 0x43, 0x21]);
    }

    #[test]
    fn fdinfo_of_fanotify_is_understood() {
        let info = info(
            "fanotify flags:c10 event-flags:8000\n\
             fanotify ino:98c095 sdev:fe00000 mflags:200 mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:95c09800d1709829\n\
             fanotify mnt_id:1e mflags:0 mask:8 ignored_mask:0\n\
             fanotify sdev:1b mflags:440 mask:0 ignored_mask:20\n",
        );
        let group = info.fanotify().unwrap();
        assert_eq!((group.flags, group.event_flags), (0xc10, 0x8000));
        let seen: Vec<_> =
            group.marks.iter().map(|mark| (mark.flags, mark.mask, mark.ignored_mask)).collect();
        assert_eq!(seen, [(0x200, 0x100, 0), (0, 8, 0), (0x440, 0, 0x20)]);
        assert!(matches!(&group.marks[0].object, MarkedObject::Inode(inode) if inode.ino == 0x98c095));
        assert_eq!(group.marks[1].object, MarkedObject::Mount(0x1e));
        assert_eq!(group.marks[2].object, MarkedObject::FileSystem(0x1b));
    }

    #[test]
    fn marks_of_a_kind_that_is_not_known_are_not_passed_over() {
        let info = info(
            "fanotify flags:4000 event-flags:0\nfanotify mnt_ns:f0000001 mflags:0 mask:1000000 ignored_mask:0\n",
        );
        assert_eq!(info.fanotify(), None);
    }

    #[test]
    fn lines_of_a_ring_are_understood() {
        let text = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t1\nSqMask:\t0xff\nSqHead:\t7\nSqTail:\t7\nCachedSqHead:\t7\n\
                    CqMask:\t0x1ff\nCqHead:\t6\nCqTail:\t6\nCachedCqTail:\t6\nSQEs:\t0\nCQEs:\t0\nSqThread:\t-1\nSqThreadCpu:\t-1\n\
                    UserFiles:\t0\nUserBufs:\t2\n    0: 0x1/4096\nPollList:\n  op=6, task_works=0\nCqOverflowList:\nNAPI:\tdisabled\n";
        let ring = FdInfo::parse(text.to_owned()).unwrap().ring().unwrap();
        let expected = RingInfo {
            sq_mask: 255,
            cq_mask: 511,
            cached_sq_head: 7,
            cached_cq_tail: 6,
            buffers: 2,
            polls: 1,
            ..RingInfo::default()
        };
        assert_eq!(ring, expected);
    }
}
