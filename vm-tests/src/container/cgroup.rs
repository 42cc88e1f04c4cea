//! A cgroup per container: nspawn builds the container's tree below it, and its `cgroup.kill` ends
//! all of it.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::wait_until;
use crate::needs;

/// First part of the name of every such cgroup; the last part is the PID of the runner.
const PREFIX: &str = "fastboot-tests-";

/// Waits for a word from the runner; an end of file in its place means that the runner died,
/// however that happened. A container does not end by itself when nspawn is killed.
const GUARD: &str = r#"
    trap '' HUP INT TERM
    read word && exit 0
    echo 1 > "$0/cgroup.kill"
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
        find "$0" -depth -type d -exec rmdir {} + && exit 0
        sleep 0.2
    done
"#;

/// A cgroup in the unified hierarchy. All that runs in it ends when this is dropped, and when the
/// runner dies.
#[derive(Debug)]
pub(super) struct Cgroup {
    dir: PathBuf,
    guard: Child,
    /// Of version 1, where the controller that counts memory is not in the unified hierarchy.
    counting: Option<PathBuf>,
}

/// What everything in a container has used up since its start.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Time of processors.
    pub cpu_us: u64,
    /// Most memory at one time, with the page cache that it brought in.
    pub peak_bytes: Option<u64>,
}

impl Cgroup {
    pub(super) fn create(name: &str) -> Result<Cgroup> {
        let dir = unified_root()?.join(format!("{PREFIX}{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let guard = needs::shell(GUARD, &["find", "rmdir", "sleep"])?
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting the guard of the container")?;
        Ok(Cgroup { dir, guard, counting: None })
    }

    /// Count memory too, from here on.
    pub(super) fn count_usage(&mut self) -> Result<()> {
        let root = unified_root()?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        if controllers.split_whitespace().any(|controller| controller == "memory") {
            return fs::write(root.join("cgroup.subtree_control"), "+memory")
                .context("switching on the counting of memory");
        }
        let hierarchies = root.parent().context("the unified hierarchy has no neighbours")?;
        let name = self.dir.file_name().context("a cgroup has a name")?;
        let dir = hierarchies.join("memory").join(name);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        self.counting = Some(dir);
        Ok(())
    }

    /// What was used up so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        let read = |path: PathBuf| fs::read_to_string(path).ok();
        let cpu = read(self.dir.join("cpu.stat")).context("no cpu.stat")?;
        let cpu_us = cpu.lines().find_map(|line| line.strip_prefix("usage_usec ")?.parse().ok());
        let peak = std::iter::once(self.dir.join("memory.peak"))
            .chain(self.counting.iter().map(|dir| dir.join("memory.max_usage_in_bytes")))
            .find_map(read);
        Ok(Usage {
            cpu_us: cpu_us.context("cpu.stat does not say what was used")?,
            peak_bytes: peak.and_then(|text| text.trim().parse().ok()),
        })
    }

    /// The files that take the PID of a process that is to move here.
    pub(super) fn procs_files(&self) -> Vec<PathBuf> {
        std::iter::once(&self.dir).chain(&self.counting).map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// Kill whatever is left, and remove the cgroup with those below it.
    pub(super) fn end(&self) -> Result<()> {
        end(&self.dir)?;
        self.counting.iter().filter(|dir| dir.exists()).try_for_each(|dir| {
            wait_until(&format!("the end of {}", dir.display()), Duration::from_secs(10), || {
                Ok(remove_with_children(dir).map(Some)?)
            })
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
        // The guard is told that its work is done: the name may be used again at once.
        if let Some(mut word) = self.guard.stdin.take() {
            let _ = word.write_all(b"done\n");
        }
        let _ = self.guard.wait();
    }
}

/// End the containers of runners that are gone.
pub(super) fn end_left_over() -> Result<()> {
    for entry in fs::read_dir(unified_root()?).context("listing cgroups")? {
        let entry = entry.context("listing cgroups")?;
        let name = entry.file_name();
        let runner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.rsplit('-').next()?.parse::<u32>().ok());
        if runner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            end(&entry.path())?;
        }
    }
    Ok(())
}

fn end(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    fs::write(dir.join("cgroup.kill"), "1").with_context(|| format!("killing {}", dir.display()))?;
    // A killed process leaves its cgroup a little later.
    wait_until(&format!("the end of {}", dir.display()), Duration::from_secs(10), || {
        Ok(remove_with_children(dir).map(Some)?)
    })
}

fn remove_with_children(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_with_children(&entry.path())?;
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Mount point of the unified hierarchy, on its own or beside version 1.
fn unified_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    find_unified(&mounts).context("no cgroup2 file system is mounted")
}

fn find_unified(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, place, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_beside_version_one() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_unified(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find_unified("proc /proc proc rw 0 0\n"), None);
    }
}
