//! The thread that reads events.

use std::ffi::OsString;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use image_store::evidence::Gap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MaskFlags};
use nix::sys::stat::{SFlag, fstat};

use crate::book::{Book, Event, Stamp, UnitLog};
use crate::marks::Marks;

/// How long the thread sleeps when nothing happens: as long a request may wait.
const PAUSE_MS: u16 = 10;
/// Why a plain file could not be opened for us.
const IS_LOST: [Errno; 6] =
    [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EIO, Errno::EACCES, Errno::EPERM];
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Longest wait for the events that lie in the queue.
const DRAIN_BOUND: Duration = Duration::from_secs(10);

/// Why nothing can be observed here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root, or a kernel or container without it.
    #[error("cannot {step}: {errno}")]
    Kernel { step: &'static str, errno: Errno },
    /// Too many events for too little processor.
    #[error("events were still waiting after {after_s} s")]
    Busy { after_s: u64 },
}

/// Records what units do until it is dropped. One at a time in a process: each would take the
/// other's marks in the queue for its own.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// What cannot be watched.
    blind: Vec<Gap>,
}

#[derive(Debug)]
struct Shared {
    group: Arc<Fanotify>,
    marks: Marks,
    book: Mutex<Book>,
    ends: AtomicBool,
    /// How often somebody has asked for an empty queue, and which request has seen it.
    asked: AtomicU64,
    drained: AtomicU64,
    /// Device and inode of our own program: an event of it that we bring about ourselves comes
    /// behind everything before it.
    own_program: (u64, u64),
}

impl Recorder {
    /// Begins. `band`: numbers that only processes get which are started from now on.
    ///
    /// # Errors
    /// [`Error::Kernel`], without CAP_SYS_ADMIN in the first user namespace.
    pub fn start(band: Range<i32>) -> Result<Self, Error> {
        let fail = |step| move |errno| Error::Kernel { step, errno };
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS;
        // The kernel opens what an event is about for us: a FIFO must not wait, an atime not
        // change.
        let open = EventFFlags::O_RDONLY
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_NONBLOCK
            | EventFFlags::O_NOATIME;
        let group = Arc::new(Fanotify::init(flags, open).map_err(fail("make a fanotify group"))?);
        let (marks, blind) =
            Marks::of_this_process(Arc::clone(&group)).map_err(fail("watch the root file system"))?;
        let own = File::open(OWN_PROGRAM).and_then(|file| file.metadata());
        let own = own.map_err(|e| Error::Kernel { step: "open our own program", errno: errno_of(&e) })?;
        let shared = Arc::new(Shared {
            group,
            marks,
            book: Mutex::new(Book::new(band)),
            ends: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            drained: AtomicU64::new(0),
            own_program: (own.dev(), own.ino()),
        });
        let reading = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("observe".into())
            .spawn(move || reading.run())
            .map_err(|e| Error::Kernel { step: "start a thread", errno: errno_of(&e) })?;
        Ok(Self { shared, thread: Some(thread), blind })
    }

    /// Watches the unit of this control group, as systemd names it.
    pub fn watch(&self, control_group: &str) {
        self.shared.book().watch(control_group);
    }

    /// The unit is about to start: what it did before is forgotten.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn begin(&self, control_group: &str) -> Result<(), Error> {
        self.drain()?;
        self.shared.book().begin(control_group);
        Ok(())
    }

    /// All units are up.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn end_starts(&self) -> Result<(), Error> {
        self.drain()?;
        self.shared.book().end_starts();
        Ok(())
    }

    /// Everything that the unit did until now.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn log(&self, control_group: &str) -> Result<UnitLog, Error> {
        self.drain()?;
        Ok(self.shared.book().log(control_group).cloned().unwrap_or_default())
    }

    /// What cannot be watched, in words.
    pub fn blind(&self) -> &[Gap] {
        &self.blind
    }

    /// Waits until every event of before has been read.
    fn drain(&self) -> Result<(), Error> {
        let request = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        // Where events never cease the queue is never empty; what we do ourselves is told in its
        // turn.
        let own = File::open(OWN_PROGRAM);
        own.map_err(|e| Error::Kernel { step: "open our own program", errno: errno_of(&e) })?;
        let deadline = Instant::now() + DRAIN_BOUND;
        while self.shared.drained.load(Ordering::SeqCst) < request {
            if Instant::now() >= deadline {
                return Err(Error::Busy { after_s: DRAIN_BOUND.as_secs() });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::debug!("the thread that observes has panicked");
        }
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while !self.ends.load(Ordering::SeqCst) {
            let asked = self.asked.load(Ordering::SeqCst);
            match self.group.read_events() {
                Ok(events) => events.iter().for_each(|event| self.take(event)),
                Err(Errno::EAGAIN) => {
                    self.drained.fetch_max(asked, Ordering::SeqCst);
                    self.wait();
                }
                Err(errno) if IS_LOST.contains(&errno) => {
                    self.book().gap(&Gap::Unread { errno: errno as i32 });
                }
                // What an event is about cannot be opened a second time: a device without a driver,
                // a socket, a file of the kernel that lets nobody read it. No file on a disk is
                // like that.
                Err(_) => {}
            }
        }
    }

    fn wait(&self) {
        let mut fds = [PollFd::new(self.group.as_fd(), PollFlags::POLLIN)];
        // Whatever it says, reading tells.
        let _ = poll(&mut fds, PollTimeout::from(PAUSE_MS));
    }

    fn take(&self, event: &FanotifyEvent) {
        let mask = event.mask();
        if mask.contains(MaskFlags::FAN_Q_OVERFLOW) {
            return self.book().gap(&Gap::Dropped);
        }
        let pid = event.pid();
        if pid == std::process::id() as i32 {
            let is_program = |fd| {
                let stamp = stamp(fd);
                (stamp.dev, stamp.ino) == self.own_program
            };
            if event.fd().is_some_and(is_program) {
                self.drained.fetch_max(self.asked.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            return;
        }
        // 0: of another PID namespace.
        if pid <= 0 {
            return;
        }
        let (units, by_number) = self.book().owners(pid, || group_of(pid));
        let Some(fd) = event.fd().filter(|_| !units.is_empty()) else { return };
        let executed = mask.contains(MaskFlags::FAN_OPEN_EXEC);
        // systemd has made the namespaces of a unit before it executes the program.
        let late = if executed { self.marks.of_process(pid) } else { Vec::new() };
        let Some(path) = path_of(fd) else { return };
        // FAN_ONDIR is not told where events come with descriptors.
        let stamp = stamp(fd);
        let is_dir = SFlag::from_bits_truncate(stamp.mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR;
        let opened = mask.contains(MaskFlags::FAN_OPEN);
        let listed = mask.contains(MaskFlags::FAN_ACCESS) || opened && !self.marks.tells_listing();
        let event = Event {
            pid,
            path,
            opened: opened || executed,
            executed,
            listed: is_dir && listed,
            written: mask.contains(MaskFlags::FAN_CLOSE_WRITE),
            stamp,
        };
        let mut book = self.book();
        for unit in units {
            book.add(unit, &event, by_number);
            late.iter().for_each(|gap| book.add_gap(unit, gap.clone()));
        }
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// The control group of a process below the root of the hierarchy that systemd uses; `None` when it
/// is gone.
pub fn group_of(pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let of = |prefix: &str| {
        let line =
            text.lines().find(|line| line.split_once(':').is_some_and(|(_, rest)| rest.starts_with(prefix)));
        line.and_then(|line| line.splitn(3, ':').nth(2)).map(str::to_owned)
    };
    // One that has ended and was not waited for is in the root group, whatever it was in.
    let is_gone = || std::fs::read_link(format!("/proc/{pid}/exe")).is_err();
    let group = of(":").filter(|group| group != "/").or_else(|| of("name=systemd:")).or_else(|| of(":"))?;
    (group != "/" || !is_gone()).then_some(group)
}

/// As in the mount namespace in which it was opened.
fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
    let bytes = link.into_os_string().into_vec();
    let name = bytes.strip_suffix(b" (deleted)").unwrap_or(&bytes);
    name.starts_with(b"/").then(|| PathBuf::from(OsString::from_vec(name.to_vec())))
}

fn stamp(fd: BorrowedFd<'_>) -> Stamp {
    let Ok(stat) = fstat(fd) else { return Stamp::default() };
    Stamp {
        dev: stat.st_dev,
        ino: stat.st_ino,
        mode: stat.st_mode,
        size: stat.st_size as u64,
        mtime_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec),
    }
}
