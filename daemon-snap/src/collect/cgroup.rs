//! Control groups below that of the unit (cgroups(7), Delegate= in systemd.resource-control(5)).

use super::Blockers;
use crate::error::{Error, Part, Result};
use crate::state::{CgroupV1, Pid, RawPath};
use crate::sys;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What may be set in any group, and what a new one has.
const SETTINGS: [(&str, &str); 3] =
    [("cgroup.max.depth", "max"), ("cgroup.max.descendants", "max"), ("cgroup.pressure", "1")];
/// More is no service any more.
const MAX_GROUPS: usize = 1024;

/// All groups of the unit with this directory; empty when there is none below its own and nothing is set in that. `main` is named in
/// what is refused.
pub(crate) fn collect_cgroups(unit: &Path, main: Pid, blockers: &mut Blockers) -> Result<Vec<CgroupV1>> {
    let mut found = Vec::new();
    add(unit, unit, main, &mut found, blockers)?;
    let is_plain = matches!(found.as_slice(), [own] if own.settings.is_empty());
    Ok(if is_plain { Vec::new() } else { found })
}

fn add(unit: &Path, dir: &Path, main: Pid, found: &mut Vec<CgroupV1>, blockers: &mut Blockers) -> Result<()> {
    let failed = |e: &std::io::Error| Error::io("read control group", dir.display(), e);
    let below = dir.strip_prefix(unit).unwrap_or(Path::new(""));
    let is_own = below.as_os_str().is_empty();
    let read = |name: &str| match std::fs::read_to_string(dir.join(name)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        // Not every kernel has all of them.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(&e)),
    };
    let mut refuse = |kind: String| blockers.add(main, Part::Process, kind);
    if found.len() == MAX_GROUPS {
        refuse(format!("more than {MAX_GROUPS} control groups"));
        return Ok(());
    }
    if let Some(enabled) = read("cgroup.subtree_control")?.filter(|enabled| !enabled.is_empty()) {
        refuse(format!("controllers enabled below a control group ({}: {enabled})", dir.display()));
    }
    if let Some(kind) = read("cgroup.type")?.filter(|kind| kind != "domain") {
        refuse(format!("a control group that is {kind} ({})", dir.display()));
        return Ok(());
    }
    if read("cgroup.freeze")?.is_some_and(|frozen| frozen != "0") {
        refuse(format!("a frozen control group ({})", dir.display()));
    }
    let mut settings = Vec::new();
    for (name, default) in SETTINGS {
        settings.extend(read(name)?.filter(|value| value != default).map(|value| (name.to_owned(), value)));
    }
    let (mut owners, mut dirs) = (Vec::new(), Vec::new());
    // A group below that of another is one link more (kernfs).
    let metadata = std::fs::metadata(dir).map_err(|e| failed(&e))?;
    if !is_own || metadata.nlink() > 2 {
        for entry in std::fs::read_dir(dir).map_err(|e| failed(&e))? {
            let entry = entry.map_err(|e| failed(&e))?;
            let metadata = entry.metadata().map_err(|e| failed(&e))?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if !is_own && (metadata.uid(), metadata.gid()) != (0, 0) {
                let name = entry.file_name().to_string_lossy().into_owned();
                owners.push((name, metadata.uid(), metadata.gid()));
            }
        }
    }
    let members = read("cgroup.procs")?.unwrap_or_default();
    found.push(CgroupV1 {
        path: RawPath::from_path(below),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        owners,
        settings,
        xattrs: match is_own {
            // systemd's.
            true => Vec::new(),
            false => {
                sys::xattr::all(dir).map_err(|e| Error::kernel("read attributes of", dir.display(), e))?
            }
        },
        members: members.lines().filter_map(|pid| pid.parse().ok().map(Pid)).collect(),
    });
    dirs.sort();
    dirs.iter().try_for_each(|dir| add(unit, dir, main, found, blockers))
}
