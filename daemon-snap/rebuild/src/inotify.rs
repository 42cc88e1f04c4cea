//! inotify(7).

use super::bus_claim::Claim;
use super::desk::Desk;
use super::kind::{Context, Kind};
use super::rights;
use super::trail::{self, Last};
use super::working_directory::WorkingDirectory;
use image_store::ReasonCode;
use nix::errno::Errno;
use nix::unistd::read;
use snap_error::{Error, Result};
use snap_state::{FileId, FileKindV1, FileV1, Files, InotifyV1, InotifyWatchV1};
use snap_sys as sys;
use std::os::fd::{AsFd, OwnedFd};

impl Kind for InotifyV1 {
    /// Without watches.
    fn make(&self, file: &FileV1, _: &Context<'_>) -> Result<Option<OwnedFd>> {
        sys::rebuild::inotify().map(Some).map_err(|e| Error::kernel("inotify", file.id, e))
    }

    fn observe(&self, cx: &Context<'_>) -> Result<()> {
        instances(cx.files).try_for_each(|(id, instance)| add_watches(cx.desk, id, &instance.watches))
    }

    /// Takes out what the restore itself has done to watched files. The daemon runs only
    /// afterwards.
    fn settle(&self, cx: &Context<'_>) -> Result<Option<Claim>> {
        for (id, _) in instances(cx.files) {
            let fd = cx.desk.file(id)?;
            let mut buffer = [0; 4096];
            while sys::fdquery::unread_bytes(fd).is_ok_and(|bytes| bytes > 0)
                && matches!(read(fd, &mut buffer), Ok(n) if n > 0)
            {}
        }
        Ok(None)
    }
}

fn instances(files: Files<'_>) -> impl Iterator<Item = (FileId, &InotifyV1)> {
    files.iter().filter_map(|file| match &file.kind {
        FileKindV1::Inotify(instance) => Some((file.id, instance)),
        _ => None,
    })
}

/// The same watches under the same numbers. We have opened and closed by now what would be seen in
/// them.
///
/// # Errors
/// `Stale`: a watched path is gone.
fn add_watches(desk: &Desk, id: FileId, watches: &[InotifyWatchV1]) -> Result<()> {
    let fd = desk.file(id)?;
    let failed = |e| Error::kernel("inotify", id, e);
    let mut ordered: Vec<&InotifyWatchV1> = watches.iter().collect();
    ordered.sort_by_key(|w| w.wd);
    // What a path has led to is named by our descriptor of it, below this directory.
    let _there = WorkingDirectory::enter(desk.proc.as_fd())?;
    for watch in ordered {
        sys::rebuild::inotify_set_next(fd, watch.wd).map_err(failed)?;
        let path = watch.path.as_path();
        let add = || {
            let found = trail::resolve(path, Last::Itself)?;
            sys::rebuild::inotify_add(fd, Desk::name_of(found.as_fd()).as_bytes(), watch.mask)
        };
        let got = desk.rights.act(path, add).map_err(|e| match e {
            Errno::ELOOP => rights::failed(&watch.path, e),
            Errno::ENOENT => {
                Error::stale(ReasonCode::FileMissing, format!("watched path {} is missing", watch.path))
            }
            e => Error::kernel("inotify_add_watch", &watch.path, e),
        })?;
        if got != watch.wd {
            return Err(Error::stale(
                ReasonCode::HostUnsupported,
                format!("inotify watch {} of {} got number {got}", watch.wd, watch.path),
            ));
        }
    }
    Ok(())
}
