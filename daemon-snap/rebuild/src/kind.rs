//! What a kind of open file description does in each phase of a restore.
//!
//! A kind is one file of this crate with an implementation of [`Kind`]. The phases that it takes no
//! part in do nothing.

use super::bus_claim::Claim;
use super::context::UnitContext;
use super::desk::Desk;
use snap_error::Result;
use snap_state::{FileId, FileV1, Files, Inodes, Pipes, ProcessV1, Tree};
use std::os::fd::OwnedFd;
use std::time::Instant;

/// By whom a description is made, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// By the worker before there are processes, which inherit it.
    Worker,
    /// By the process that has it, because nobody else can.
    Process,
    /// By the worker when all processes exist; it is sent to those that have it.
    Late,
}

/// What others have to know of a description before they deal with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nature {
    pub birth: Birth,
    /// What a watch on it reports depends on who adds the watch (epoll(7)).
    pub watched_by_holder: bool,
}

/// The nature of each description of a tree.
#[derive(Clone, Debug, Default)]
pub struct Natures(Vec<Nature>);

impl Natures {
    /// In the order of the files.
    pub fn new(natures: impl Iterator<Item = Nature>) -> Self {
        Self(natures.collect())
    }

    /// By whom the description is made.
    pub fn birth(&self, id: FileId) -> Birth {
        self.0[id.index()].birth
    }

    /// Whether a process that has the description must add the watches on it.
    pub fn is_watched_by_holder(&self, id: FileId) -> bool {
        let nature = self.0[id.index()];
        nature.watched_by_holder || nature.birth == Birth::Process
    }

    /// Whether something can be made only when all processes exist.
    pub fn has_late(&self) -> bool {
        self.0.iter().any(|nature| nature.birth == Birth::Late)
    }
}

/// What this restore meets.
#[derive(Clone, Copy, Debug)]
pub struct Today<'a> {
    /// `None`: not for a unit.
    pub unit: Option<&'a UnitContext>,
    pub deadline: Instant,
}

/// What the phases work with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub desk: &'a Desk,
    pub files: Files<'a>,
    pub inodes: Inodes<'a>,
    pub pipes: Pipes<'a>,
    pub processes: &'a [ProcessV1],
    pub natures: &'a Natures,
    pub today: Today<'a>,
}

impl<'a> Context<'a> {
    /// Of a tree.
    pub fn new(desk: &'a Desk, tree: &'a Tree, natures: &'a Natures, today: Today<'a>) -> Self {
        let (files, inodes, pipes) = (tree.files(), tree.inodes(), tree.pipes());
        Self { desk, files, inodes, pipes, processes: &tree.processes, natures, today }
    }
}

/// Who adds watches.
#[derive(Clone, Copy, Debug)]
pub enum Adder<'a> {
    /// The worker, when everything that it makes is there.
    Worker,
    /// A process, whose descriptors are in place.
    Process(&'a ProcessV1),
    /// The worker, when what is made late exists.
    Late,
}

/// A kind of open file description. [`Kind::make`] and the questions are about one description;
/// each other phase is called once for all descriptions of the kind, on any of them.
///
/// 1. `check`: whether today's machine can have it at all. Nothing has been made.
/// 2. `make`: each description by itself.
/// 3. `connect`: what several of them become together.
/// 4. `fill`: what lay in them unread, which may be any other description.
/// 5. `observe`: watching files, which the restore has stopped touching.
/// 6. `watch`: watching other descriptions, by the worker; later by processes for themselves.
/// 7. `act`: in each process, in its own name, before its descriptors are in place.
/// 8. `settle`: the last before the go, when all processes wait for it.
pub trait Kind {
    /// By whom it is made.
    fn birth(&self, inodes: Inodes<'_>) -> Birth {
        let _ = inodes;
        Birth::Worker
    }

    /// What a watch on it reports depends on who adds the watch.
    fn is_watched_by_holder(&self) -> bool {
        false
    }

    /// Made with the file system ids of its owner, where it has one (sockets).
    fn is_made_by_owner(&self) -> bool {
        true
    }

    /// [`Kind::make`], or a later phase, gives it its status flags, or there are none to give.
    fn sets_flags(&self) -> bool {
        false
    }

    /// # Errors
    /// `Stale`: the machine of today cannot have it.
    fn check(&self, cx: &Context<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Makes it, when [`Kind::birth`] says. `None`: it is on the desk already.
    ///
    /// # Errors
    /// `Stale` where today's world does not have what the daemon held, kernel errors otherwise.
    fn make(&self, file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>>;

    /// # Errors
    /// As [`Kind::make`].
    fn connect(&self, cx: &Context<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// # Errors
    /// As [`Kind::make`].
    fn fill(&self, cx: &Context<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// # Errors
    /// As [`Kind::make`].
    fn observe(&self, cx: &Context<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// # Errors
    /// As [`Kind::make`].
    fn watch(&self, adder: Adder<'_>, cx: &Context<'_>) -> Result<()> {
        let _ = (adder, cx);
        Ok(())
    }

    /// Called in the process, while it still may become any user.
    ///
    /// # Errors
    /// As [`Kind::make`].
    fn act(&self, process: &ProcessV1, cx: &Context<'_>) -> Result<()> {
        let _ = (process, cx);
        Ok(())
    }

    /// Gives what is to be claimed when nothing is left that could fail.
    ///
    /// # Errors
    /// As [`Kind::make`].
    fn settle(&self, cx: &Context<'_>) -> Result<Option<Claim>> {
        let _ = cx;
        Ok(None)
    }
}
