//! Everything the worker holds open while it builds, above the recorded descriptor numbers.

use crate::rights::Rights;
use crate::sysv::Made;
use crate::unix_nameless::NamelessSockets;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use snap_error::{Error, Result};
use snap_state::check::{Corrupt, Wanted};
use snap_state::{FileId, Files, InodeId, ProcessV1};
use snap_sys as sys;
use snap_sys::procfs_own::OwnProc;
use std::cell::{OnceCell, Ref, RefCell};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// The worker's table of descriptors.
#[derive(Debug)]
pub struct Desk {
    /// Lowest number of ours; every recorded number is below, those of watches too.
    pub first_own_fd: i32,
    pub proc: OwnProc,
    /// Open file descriptions by id.
    files: Vec<OnceCell<OwnedFd>>,
    /// Other ends of recorded connections that only we have.
    far_ends: RefCell<HashMap<FileId, OwnedFd>>,
    /// Objects that have been made again (memfd, deleted file, shared memory), opened for reading
    /// and writing.
    objects: HashMap<InodeId, OwnedFd>,
    /// What mappings and executables are taken from; second part of the key: writable.
    mapped: HashMap<(InodeId, bool), OwnedFd>,
    /// System V segments: object, id, and where we have it attached.
    pub segments: Vec<(InodeId, i32, u64)>,
    /// What is to be removed when the restore fails.
    pub made: Rc<Made>,
    /// io_uring rings, and whether this kernel maps them where it is told to.
    pub rings: Vec<(InodeId, bool)>,
    /// Whose rights recorded paths are opened with.
    pub rights: Rights,
    pub nameless_sockets: NamelessSockets,
}

impl Desk {
    /// An empty desk above all descriptor numbers of the tree. `moves`: namespaces of somebody else
    /// will be entered.
    ///
    /// # Errors
    /// Not enough descriptors allowed, or no proc instance (privilege).
    pub fn new(processes: &[ProcessV1], recorded: Files<'_>, moves: bool) -> Result<Self> {
        sys::limits::raise_all();
        let open = processes.iter().flat_map(|p| &p.fds).map(|fd| fd.fd.0);
        // A watch keeps the number that it was made under, open or not.
        let watched = recorded.iter().flat_map(|file| file.kind.watches()).map(|watch| watch.fd.0);
        let highest = open.chain(watched).max().unwrap_or(0);
        let first_own_fd = (highest + 1).max(64);
        // One more instance takes 0.1 ms to be given up, which is worth it only where /proc will be
        // another one.
        let at_hand = if moves { None } else { OwnProc::at_hand() };
        let proc = match at_hand {
            Some(proc) => proc,
            None => OwnProc::mount().map_err(|e| Error::kernel("mounting a proc instance", "proc", e))?,
        };
        let proc = OwnProc::from_fd(raise(proc.into_fd(), first_own_fd)?);
        let files = recorded.iter().map(|_| OnceCell::new()).collect();
        Ok(Self {
            first_own_fd,
            proc,
            files,
            far_ends: RefCell::default(),
            objects: HashMap::new(),
            mapped: HashMap::new(),
            segments: Vec::new(),
            made: Rc::default(),
            rings: Vec::new(),
            rights: Rights::default(),
            nameless_sockets: NamelessSockets::default(),
        })
    }

    /// Moves a descriptor above the recorded numbers.
    ///
    /// # Errors
    /// Too many descriptors.
    pub fn raise(&self, fd: OwnedFd) -> Result<OwnedFd> {
        raise(fd, self.first_own_fd)
    }

    /// Takes the description of a recorded file.
    ///
    /// # Errors
    /// Too many descriptors; it was made before (a defect).
    pub fn put_file(&self, id: FileId, fd: OwnedFd) -> Result<()> {
        let fd = self.raise(fd)?;
        let message = || format!("open file {id} was made twice");
        self.files[id.index()].set(fd).map_err(|_| Error::Internal { step: "rebuild", message: message() })
    }

    /// Takes the other end of a recorded connection, which nobody of the tree has.
    ///
    /// # Errors
    /// Too many descriptors.
    pub fn put_far_end(&self, id: FileId, fd: OwnedFd) -> Result<()> {
        let fd = self.raise(fd)?;
        self.far_ends.borrow_mut().insert(id, fd);
        Ok(())
    }

    /// The other end of a recorded connection, where nobody of the tree has it.
    pub fn far_end(&self, id: FileId) -> Option<Ref<'_, OwnedFd>> {
        Ref::filter_map(self.far_ends.borrow(), |ends| ends.get(&id)).ok()
    }

    /// Ends the connections that had nobody at their other end.
    pub fn close_far_ends(&self) {
        self.far_ends.borrow_mut().clear();
    }

    /// Whether the description has been made.
    pub fn has_file(&self, id: FileId) -> bool {
        self.files[id.index()].get().is_some()
    }

    /// Our descriptor of a recorded file.
    ///
    /// # Errors
    /// Nobody made it: a defect, never ignored.
    pub fn file(&self, id: FileId) -> Result<BorrowedFd<'_>> {
        self.files[id.index()].get().map(AsFd::as_fd).ok_or_else(|| Corrupt::NotMade(Wanted::File(id)).into())
    }

    /// Takes an object that was made again.
    ///
    /// # Errors
    /// Too many descriptors.
    pub fn put_object(&mut self, id: InodeId, fd: OwnedFd) -> Result<()> {
        let fd = self.raise(fd)?;
        self.objects.insert(id, fd);
        Ok(())
    }

    /// An object that was made again, if it was.
    pub fn object(&self, id: InodeId) -> Option<BorrowedFd<'_>> {
        self.objects.get(&id).map(AsFd::as_fd)
    }

    /// The same of one that is always made again.
    ///
    /// # Errors
    /// Nobody made it: a defect, never ignored.
    pub fn made_object(&self, id: InodeId) -> Result<BorrowedFd<'_>> {
        self.object(id).ok_or_else(|| Corrupt::NotMade(Wanted::Object(id)).into())
    }

    /// Gives up our own descriptions of these objects.
    pub fn close_objects(&mut self, closes: impl Fn(InodeId) -> bool) {
        self.objects.retain(|id, _| !closes(*id));
    }

    /// Takes the descriptor that an object is mapped or executed through.
    ///
    /// # Errors
    /// Too many descriptors.
    pub fn put_mapped(&mut self, id: InodeId, writable: bool, fd: OwnedFd) -> Result<()> {
        let fd = self.raise(fd)?;
        self.mapped.insert((id, writable), fd);
        Ok(())
    }

    /// Number of the descriptor that an object is mapped or executed through.
    ///
    /// # Errors
    /// Nobody opened it: a defect, never ignored.
    pub fn mapped(&self, id: InodeId, writable: bool) -> Result<i32> {
        self.mapped
            .get(&(id, writable))
            .map(AsRawFd::as_raw_fd)
            .ok_or_else(|| Corrupt::NotMade(Wanted::Mapped(id)).into())
    }

    /// Id of a System V segment, when the object is one.
    pub fn segment(&self, id: InodeId) -> Option<i32> {
        self.segments.iter().find(|(inode, ..)| *inode == id).map(|(_, segment, _)| *segment)
    }

    /// Whether the kernel chooses where the object is mapped.
    pub fn is_unplaceable(&self, id: InodeId) -> bool {
        self.rings.contains(&(id, false))
    }

    /// Detaches the segments: the processes have theirs.
    pub fn release_segments(&self) {
        self.segments.iter().for_each(|(.., at)| sys::sysvipc::detach(*at));
    }

    /// The name of one of our own descriptors below [`Desk::proc`]: a path that leads to what it is
    /// open on, and nowhere else.
    pub fn name_of(fd: BorrowedFd<'_>) -> String {
        format!("self/fd/{}", fd.as_raw_fd())
    }

    /// Opens one of our own descriptors once more with other flags.
    ///
    /// # Errors
    /// open(2).
    pub fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlag) -> std::result::Result<OwnedFd, Errno> {
        self.proc.open(&Self::name_of(fd), flags)
    }
}

fn raise(fd: OwnedFd, min: i32) -> Result<OwnedFd> {
    if fd.as_raw_fd() >= min {
        return Ok(fd);
    }
    sys::rebuild::duplicate_above(fd.as_fd(), min)
        .map_err(|e| Error::kernel("moving a descriptor", fd.as_raw_fd(), e))
}
