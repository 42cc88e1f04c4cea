//! The images of this boot: looked at before anybody asks, as far as there is time, and again when
//! somebody does.
//!
//! What may change (evidence) is compared when a unit asks, not before: a program that writes a
//! configuration file in the middle of a boot must not be missed. Looking at it earlier only brings
//! inodes and contents into memory. What cannot change under us (the image itself) is compared
//! once: ahead as far as that came, the rest by the worker when it loads.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use image_store::evidence::{Digests, MountTable};
use image_store::layout::CHECKSUM_CHUNK_LEN;
use image_store::validate::Place;
use image_store::{CatalogueEntry, FileKind, Opened, ReasonCode, Source, StaleReason, Store};
use procfs_core::{FromRead as _, Meminfo};

use crate::lanes::{LIGHT_LEN, Lanes};

/// Reading ahead takes at most this part of the memory that is available.
const MEMORY_SHARE: u64 = 4;

/// Files of a small service up to this length, in bytes, are read ahead with its image.
const SMALL_FILE: u64 = 8 << 20;
const STEP_LEN: usize = 256 << 10;

/// All images that may be asked for.
#[derive(Debug)]
pub struct Images {
    root: PathBuf,
    store: Store,
    slots: HashMap<String, Slot>,
    /// Units in the order in which they are looked at ahead: small images first.
    order: Vec<String>,
    digests: Digests,
}

#[derive(Debug)]
struct Slot {
    entry: CatalogueEntry,
    state: Mutex<State>,
    /// Chunks of pages that have been compared, from the first on.
    checked_chunks: AtomicU64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Unopened,
    Opened(Arc<Opened>),
    Bad(StaleReason),
    /// An image is used once.
    Taken,
}

/// Something that is done ahead for one unit.
#[derive(Clone, Copy, Debug)]
enum Job {
    Open,
    Pages,
    Files,
}

/// An image that may be used now.
#[derive(Debug)]
pub struct Usable {
    /// The image, and what was compared.
    pub opened: Arc<Opened>,
    /// Chunks of pages that need not be compared any more.
    pub checked_chunks: u64,
}

impl Images {
    /// Images of these units.
    pub fn new(root: &Path, store: Store, entries: impl IntoIterator<Item = CatalogueEntry>) -> Images {
        let mut entries: Vec<CatalogueEntry> = entries.into_iter().collect();
        entries.sort_by(|a, b| (a.len_bytes, &a.unit).cmp(&(b.len_bytes, &b.unit)));
        let order = entries.iter().map(|entry| entry.unit.clone()).collect();
        let slot = |entry: CatalogueEntry| Slot {
            entry,
            state: Mutex::default(),
            checked_chunks: AtomicU64::new(0),
        };
        let slots = entries.into_iter().map(|entry| (entry.unit.clone(), slot(entry))).collect();
        Images { root: root.to_owned(), store, slots, order, digests: Digests::default() }
    }

    /// The catalogue's word about a unit.
    pub fn entry(&self, unit: &str) -> Option<&CatalogueEntry> {
        self.slots.get(unit).map(|slot| &slot.entry)
    }

    /// The image of a unit that starts now.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn take(&self, unit: &str) -> Result<Usable, StaleReason> {
        let missing = || StaleReason::new(ReasonCode::NoImage, "there is no image of it");
        let slot = self.slots.get(unit).ok_or_else(missing)?;
        let opened = match std::mem::replace(&mut *slot.lock(), State::Taken) {
            State::Opened(opened) => opened,
            State::Unopened => Arc::new(Opened::open(&self.store, &slot.entry)?),
            State::Bad(reason) => return Err(reason),
            State::Taken => return Err(missing()),
        };
        self.check_now(&slot.entry, &opened)?;
        Ok(Usable { opened, checked_chunks: slot.checked_chunks.load(Ordering::Acquire) })
    }

    /// Look at an image that is in no catalogue yet (the trial of a snapshot).
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open_once(&self, entry: &CatalogueEntry) -> Result<Usable, StaleReason> {
        let opened = Arc::new(Opened::open(&self.store, entry)?);
        self.check_now(entry, &opened)?;
        Ok(Usable { opened, checked_chunks: 0 })
    }

    fn check_now(&self, entry: &CatalogueEntry, opened: &Opened) -> Result<(), StaleReason> {
        opened.require_now(self.place())?;
        match entry.service.pids.iter().find(|pid| is_taken(**pid)) {
            Some(pid) => Err(StaleReason::new(ReasonCode::PidTaken, format!("process id {pid} is in use"))),
            None => Ok(()),
        }
    }

    fn place(&self) -> Place<'_> {
        Place { root: &self.root, store: &self.store, digests: &self.digests }
    }

    /// Do ahead what can be done, until all is done. Several threads may share the work; `next`
    /// says how far they are.
    pub fn look_ahead(&self, lanes: &Lanes, next: &AtomicUsize) {
        // What is small comes first, of all images; their pages; then the files that small services
        // map: their commands before the start and their first steps want them.
        let (light, heavy): (Vec<&String>, Vec<&String>) =
            self.order.iter().partition(|unit| self.slots[*unit].entry.len_bytes <= LIGHT_LEN);
        let of = |units: &[&String], job| units.iter().map(|unit| ((*unit).clone(), job)).collect::<Vec<_>>();
        let jobs = [
            of(&light, Job::Open),
            of(&heavy, Job::Open),
            of(&light, Job::Pages),
            of(&light, Job::Files),
            of(&heavy, Job::Pages),
        ]
        .concat();
        let mut chunks_left = available_memory() / MEMORY_SHARE / CHECKSUM_CHUNK_LEN as u64;
        while let Some((unit, job)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            lanes.wait_idle();
            let Some(slot) = self.slots.get(unit) else { continue };
            match job {
                Job::Open => self.open_ahead(slot),
                Job::Pages => slot.check_pages_ahead(lanes, &mut chunks_left),
                Job::Files => self.read_files_ahead(slot, lanes),
            }
        }
    }

    fn read_files_ahead(&self, slot: &Slot, lanes: &Lanes) {
        let opened = match &*slot.lock() {
            State::Opened(opened) => Arc::clone(opened),
            _ => return,
        };
        // What was read and closed is not wanted by a service that is restored.
        let held = opened.evidence.files.iter().filter(|item| item.source == Source::Held);
        let mounts = MountTable::read(&self.root);
        let small = held
            .map(|item| &item.file)
            .filter(|file| file.kind == FileKind::File && file.size <= SMALL_FILE)
            .filter(|file| mounts.remote(&file.path).is_none());
        let mut buffer = vec![0; STEP_LEN];
        for file in small {
            let Ok(mut open) = File::open(self.root.join(file.path.strip_prefix("/").unwrap_or(&file.path)))
            else {
                continue;
            };
            while slot.lock().is_opened() && matches!(open.read(&mut buffer), Ok(len) if len > 0) {
                lanes.wait_idle();
            }
        }
    }

    fn open_ahead(&self, slot: &Slot) {
        if !matches!(*slot.lock(), State::Unopened) {
            return;
        }
        let state = match Opened::open(&self.store, &slot.entry) {
            Ok(opened) => {
                // For the sake of what it brings into memory; the verdict comes when the unit asks.
                let _ = opened.require_now(self.place());
                // Reading ahead of the reader is what we do ourselves, in steps between which
                // others come.
                let _ = opened.image.read_only_what_is_asked();
                State::Opened(Arc::new(opened))
            }
            Err(reason) => State::Bad(reason),
        };
        slot.replace(State::is_unopened, state);
    }
}

impl State {
    fn is_unopened(&self) -> bool {
        matches!(self, State::Unopened)
    }

    fn is_opened(&self) -> bool {
        matches!(self, State::Opened(_))
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unless somebody was quicker.
    fn replace(&self, expected: impl Fn(&State) -> bool, state: State) {
        let mut now = self.lock();
        if expected(&now) {
            *now = state;
        }
    }

    /// Compare pages, one chunk at a time, as long as nobody waits for anything and there is room
    /// for them.
    fn check_pages_ahead(&self, lanes: &Lanes, chunks_left: &mut u64) {
        let opened = match &*self.lock() {
            State::Opened(opened) => Arc::clone(opened),
            _ => return,
        };
        let mut check = || -> image_store::Result<()> {
            let sums = opened.image.page_sums()?;
            let mut buffer = Vec::new();
            for index in 0..sums.chunk_count() {
                lanes.wait_idle();
                if !self.lock().is_opened() || *chunks_left == 0 {
                    break;
                }
                opened.image.verify_chunk(&sums, index, &mut buffer)?;
                self.checked_chunks.store(index + 1, Ordering::Release);
                *chunks_left -= 1;
            }
            Ok(())
        };
        if let Err(error) = check() {
            self.replace(State::is_opened, State::Bad(error.to_stale_reason()));
        }
    }
}

/// Whether a process or thread has this number; /proc lists only processes, but finds both.
pub fn is_taken(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// In bytes; 0 when it cannot be read.
fn available_memory() -> u64 {
    let memory = Meminfo::from_file("/proc/meminfo").ok();
    memory.and_then(|memory| memory.mem_available).unwrap_or(0)
}
