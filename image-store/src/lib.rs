//! What fastboot keeps on disk.
//!
//! An image is one file: a fixed header, an area of memory pages, and a table of checksummed
//! sections whose content belongs to the callers. Images are grouped into generations by a
//! catalogue that is published with one rename. Evidence says what must still be true for an image
//! to be usable; quarantine says which images have failed.
//!
//! This crate knows files, sections and pages. Processes, units as running things, D-Bus and
//! restoring may not live here, and nothing here logs above debug: callers get an [`Error`] with a
//! [`kind`](Error::kind) and decide.
//!
//! The byte layout is documented in `docs/image-format.md`.

mod background;
pub mod catalogue;
mod clock;
mod digest;
mod error;
pub mod evidence;
pub mod fault;
pub mod layout;
pub mod load;
pub mod mountinfo;
pub mod once;
mod publish;
pub mod quarantine;
pub mod reader;
pub mod refresh;
pub mod store;
mod sys;
pub mod validate;
pub mod writer;

pub use catalogue::{Catalogue, CatalogueEntry, Generation, HookChannel, ServiceRecord};
pub use clock::now_unix_s;
pub use digest::Digest;
pub use error::{Error, ErrorKind, Part, Result};
pub use evidence::{
    CheckDepth, EvidenceV1, EvidenceV2, FileEvidence, FileItem, FileKind, MachineEvidence, Observation,
    ReasonCode, Rule, Source, StaleReason, SystemdEvidence, UnitEvidence,
};
pub use layout::{ImageId, PAGE_SIZE, SectionKind};
pub use once::{BootMark, FileSystemMark, Once, OnceGeneration, OnceImage, StateEvidence};
pub use quarantine::QuarantineRecord;
pub use reader::{Image, Stamp, UncheckedImage};
pub use refresh::{Circumstances, RefreshAttempts};
pub use store::{DEFAULT_ROOT, PendingGeneration, Store, StoreLock};
pub use validate::Opened;
pub use writer::{Durability, ImageInfo, ImageWriter};
