//! The table of kinds of open file descriptions, and the phases of all of them.

use super::bus_claim::Claim;
use super::kind::{Adder, Birth, Context, Kind, Nature, Natures};
use super::node::Maker;
use super::status_flags::set_status_flags;
use snap_error::{Error, Result};
use snap_state::{FileKindV1, FileV1, Files, Inodes, ProcessV1};
use std::collections::HashSet;
use std::mem::discriminant;
use std::os::fd::OwnedFd;

/// The only place of this crate that tells kinds apart: a line for each.
fn kind_of(file: &FileV1) -> &dyn Kind {
    match &file.kind {
        FileKindV1::Inode(open) => open,
        FileKindV1::Pipe(open) => open,
        FileKindV1::EventFd(counter) => counter,
        FileKindV1::Epoll(set) => set,
        FileKindV1::TimerFd(timer) => timer,
        FileKindV1::SignalFd(signals) => signals,
        FileKindV1::Inotify(instance) => instance,
        FileKindV1::Unix(socket) => socket,
        FileKindV1::Inet(socket) => socket,
        FileKindV1::Tcp(connection) => connection,
        FileKindV1::LostTcp(connection) => connection,
        FileKindV1::Netlink(socket) => socket,
        FileKindV1::Packet(socket) => socket,
        FileKindV1::Vsock(socket) => socket,
        FileKindV1::PressureTrigger(trigger) => trigger,
        FileKindV1::Namespace(namespace) => namespace,
        FileKindV1::Rebind(object) => object,
        FileKindV1::Bus(connection) => connection,
        FileKindV1::PidFd(process) => process,
        FileKindV1::Ring(open) => open,
        FileKindV1::Inhibitor(inhibitor) => inhibitor,
        FileKindV1::Fanotify(group) => group,
    }
}

/// One description of each kind that there is.
fn each(files: Files<'_>) -> impl Iterator<Item = &dyn Kind> {
    let mut seen = HashSet::new();
    files.iter().filter(move |file| seen.insert(discriminant(&file.kind))).map(kind_of)
}

/// Asks every description.
pub fn natures(files: Files<'_>, inodes: Inodes<'_>) -> Natures {
    let nature = |kind: &dyn Kind| Nature {
        birth: kind.birth(inodes),
        watched_by_holder: kind.is_watched_by_holder(),
    };
    Natures::new(files.iter().map(|file| nature(kind_of(file))))
}

/// # Errors
/// As [`Kind::check`].
pub fn check(cx: &Context<'_>) -> Result<()> {
    each(cx.files).try_for_each(|kind| kind.check(cx))
}

/// Makes what there can be before there are processes, in the order of the files.
///
/// # Errors
/// As [`Kind::make`].
pub fn make(cx: &Context<'_>) -> Result<()> {
    make_those(Birth::Worker, cx)
}

/// Makes what there can be when all processes exist, and adds the watches on it.
///
/// # Errors
/// As [`Kind::make`].
pub fn make_late(cx: &Context<'_>) -> Result<()> {
    make_those(Birth::Late, cx)?;
    watch(Adder::Late, cx)
}

fn make_those(birth: Birth, cx: &Context<'_>) -> Result<()> {
    for file in cx.files.iter().filter(|file| cx.natures.birth(file.id) == birth) {
        if let Some(fd) = make_one(file, cx)? {
            cx.desk.put_file(file.id, fd)?;
        }
    }
    Ok(())
}

fn make_one(file: &FileV1, cx: &Context<'_>) -> Result<Option<OwnedFd>> {
    let kind = kind_of(file);
    let _maker = file.node.filter(|_| kind.is_made_by_owner()).map(Maker::begin);
    let Some(fd) = kind.make(file, cx)? else { return Ok(None) };
    if !kind.sets_flags() {
        set_status_flags(&fd, file)?;
    }
    Ok(Some(fd))
}

/// Makes a description of the process that this is called in.
///
/// # Errors
/// As [`Kind::make`].
pub fn make_own(file: &FileV1, cx: &Context<'_>) -> Result<OwnedFd> {
    make_one(file, cx)?.ok_or_else(|| Error::Internal {
        step: "rebuild",
        message: format!("open file {} was not made by its process", file.id),
    })
}

/// # Errors
/// As [`Kind::connect`].
pub fn connect(cx: &Context<'_>) -> Result<()> {
    each(cx.files).try_for_each(|kind| kind.connect(cx))
}

/// # Errors
/// As [`Kind::fill`].
pub fn fill(cx: &Context<'_>) -> Result<()> {
    each(cx.files).try_for_each(|kind| kind.fill(cx))
}

/// # Errors
/// As [`Kind::observe`].
pub fn observe(cx: &Context<'_>) -> Result<()> {
    each(cx.files).try_for_each(|kind| kind.observe(cx))
}

/// # Errors
/// As [`Kind::watch`].
pub fn watch(adder: Adder<'_>, cx: &Context<'_>) -> Result<()> {
    each(cx.files).try_for_each(|kind| kind.watch(adder, cx))
}

/// # Errors
/// As [`Kind::act`].
pub fn act(process: &ProcessV1, cx: &Context<'_>) -> Result<()> {
    each(cx.files).try_for_each(|kind| kind.act(process, cx))
}

/// # Errors
/// As [`Kind::settle`].
pub fn settle(cx: &Context<'_>) -> Result<Option<Claim>> {
    let mut claim = None;
    for kind in each(cx.files) {
        claim = claim.or(kind.settle(cx)?);
    }
    Ok(claim)
}
