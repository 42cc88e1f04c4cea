//! Control groups below that of the unit (cgroups(7), Delegate= in systemd.resource-control(5)).

use super::controller::Fresh;
use crate::blockers::Blockers;
use snap_error::obstacle::SandboxObstacle;
use snap_error::{Error, Part, Result};
use snap_state::{CgroupV1, Pid, RawPath, SUBTREE_CONTROL};
use snap_sys as sys;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What may be set in any group, and what a new one has.
const SETTINGS: [(&str, &str); 3] =
    [("cgroup.max.depth", "max"), ("cgroup.max.descendants", "max"), ("cgroup.pressure", "1")];
/// More is no service any more.
const MAX_GROUPS: usize = 1024;

/// All groups of the unit with this directory; empty when there is none below its own and nothing
/// is set in that. `main` is named in what is refused.
pub(crate) fn collect_cgroups(unit: &Path, main: Pid, blockers: &mut Blockers) -> Result<Vec<CgroupV1>> {
    let mut walk = Walk { unit, main, fresh: None, found: Vec::new(), blockers };
    walk.add(unit, false)?;
    let is_plain = matches!(walk.found.as_slice(), [own] if own.settings.is_empty());
    Ok(if is_plain { Vec::new() } else { walk.found })
}

/// From the unit's own group downwards.
struct Walk<'a> {
    unit: &'a Path,
    main: Pid,
    /// Made when the first group with controllers is met.
    fresh: Option<Fresh>,
    found: Vec<CgroupV1>,
    blockers: &'a mut Blockers,
}

impl Walk<'_> {
    fn refuse(&mut self, obstacle: SandboxObstacle) {
        self.blockers.add(self.main, Part::Process, obstacle);
    }

    /// A group and those below it. `has_controllers`: the one above enables some for it.
    fn add(&mut self, dir: &Path, has_controllers: bool) -> Result<()> {
        let failed = |e: &std::io::Error| Error::io("read control group", dir.display(), e);
        let below = dir.strip_prefix(self.unit).unwrap_or(Path::new(""));
        let is_own = below.as_os_str().is_empty();
        let read = |name: &str| match std::fs::read_to_string(dir.join(name)) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            // Not every kernel has all of them.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(&e)),
        };
        if self.found.len() == MAX_GROUPS {
            self.refuse(SandboxObstacle::TooManyCgroups { most: MAX_GROUPS });
            return Ok(());
        }
        if let Some(kind) = read("cgroup.type")?.filter(|kind| kind != "domain") {
            self.refuse(SandboxObstacle::CgroupType { kind, path: RawPath::from_path(dir) });
            return Ok(());
        }
        if read("cgroup.freeze")?.is_some_and(|frozen| frozen != "0") {
            self.refuse(SandboxObstacle::CgroupFrozen { path: RawPath::from_path(dir) });
        }
        let mut settings = Vec::new();
        for (name, default) in SETTINGS {
            settings
                .extend(read(name)?.filter(|value| value != default).map(|value| (name.to_owned(), value)));
        }
        if has_controllers {
            settings.extend(self.controllers(dir)?);
        }
        // Behind what is set in the group itself.
        let enabled = read(SUBTREE_CONTROL)?.filter(|enabled| !enabled.is_empty());
        settings.extend(enabled.iter().map(|enabled| (SUBTREE_CONTROL.to_owned(), enabling(enabled))));
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
        self.found.push(CgroupV1 {
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
        dirs.iter().try_for_each(|dir| self.add(dir, enabled.is_some()))
    }

    /// What is set in the files of the controllers that a group has.
    fn controllers(&mut self, dir: &Path) -> Result<Vec<(String, String)>> {
        let fresh = match self.fresh.take() {
            Some(fresh) => fresh,
            None => Fresh::make(self.unit)?,
        };
        let found = fresh.compare(dir)?;
        self.fresh = Some(fresh);
        for (name, value) in found.foreign {
            self.refuse(SandboxObstacle::CgroupSetting { name, value, path: RawPath::from_path(dir) });
        }
        Ok(found.settings)
    }
}

/// What is written to enable controllers that are listed.
fn enabling(enabled: &str) -> String {
    let words: Vec<String> = enabled.split_whitespace().map(|controller| format!("+{controller}")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn controllers_are_enabled_by_the_names_they_are_listed_under() {
        assert_eq!(super::enabling("cpu memory pids"), "+cpu +memory +pids");
    }
}
