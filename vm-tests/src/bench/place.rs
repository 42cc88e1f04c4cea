//! Where both tools and their subjects run: a copy of a Debian root, in namespaces of its own.
//!
//! Own PID namespace: nobody else takes the numbers of a subject while it is away, and everything
//! in it ends with its PID 1, which waits for the runner and reaps orphans. Own mount namespace
//! with a private tmpfs on /run, where CRIU keeps what it found out about the kernel. Own network:
//! ports are free. Dump and restore happen inside, so neither tool meets a namespace that is not
//! its own.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, getppid, pivot_root};

use crate::needs;
use crate::roots::{Language, Recipe, RootFile, compiled};

/// Images and what subjects write, in the place. On the disk, not on a tmpfs.
pub(super) const WORK_DIR: &str = "/var/tmp/bench";

/// Descriptors that the caller's caller forgot would be dumped with every subject.
const CLOSE_AND_RUN: &str = r#"
for path in /proc/self/fd/*; do
    fd=${path##*/}
    if [ "$fd" -gt 2 ] && [ "$fd" != 255 ]; then eval "exec $fd>&-"; fi
done
exec "$@""#;

/// PID 1: waits for the runner, and takes away every orphan meanwhile, as init does on a machine.
const INIT: &str = r#""$@"; exit $?"#;

/// What the root is made of. Compiles the C subjects if that has not been done yet.
///
/// # Errors
/// A subject does not compile.
pub(crate) fn recipe() -> Result<Recipe> {
    let tiny = compiled(Language::C, include_str!("../../roots/bench/tiny.c")).context("tiny.c")?;
    let memory = compiled(Language::C, include_str!("../../roots/bench/memory.c")).context("memory.c")?;
    let shape = compiled(Language::C, include_str!("../../roots/bench/shape.c")).context("shape.c")?;
    Ok(Recipe {
        name: "bench",
        suite: "trixie",
        packages: vec!["iproute2", "redis-server", "default-jdk-headless"],
        // Of trixie's 4.1 every dump of a TCP listener fails on Linux 6.18 (SO_PASSCRED is for unix
        // sockets only there).
        from_sid: vec!["criu"],
        files: vec![
            RootFile::program("/usr/local/bin/bench-tiny", tiny),
            RootFile::program("/usr/local/bin/bench-memory", memory),
            RootFile::program("/usr/local/bin/bench-shape", shape),
            RootFile::text("/usr/local/src/Server.java", include_str!("../../roots/bench/Server.java")),
        ],
        setup: include_str!("../../roots/bench/setup.sh"),
    })
}

/// A command that runs `program` below an init in new namespaces, with no descriptors but the
/// standard ones.
pub(super) fn in_namespaces(program: &Path) -> Result<Command> {
    let mut command = needs::command("bash")?;
    command
        .args(["-c", CLOSE_AND_RUN, "bash"])
        .arg(needs::path("unshare")?)
        .args(["--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--"])
        .arg(needs::path("bash")?)
        .args(["-c", INIT, "init"])
        .arg(program);
    Ok(command)
}

/// Make `root` the root of all that is in the namespaces, with everything mounted that programs
/// expect. Called once, by the child of PID 1.
///
/// # Errors
/// A mount fails.
pub(super) fn enter(root: &Path) -> Result<()> {
    ensure!(getppid().as_raw() == 1, "only for the child of PID 1 of new namespaces");
    let none = None::<&str>;
    let at = |name: &str| root.join(name);
    mount(Some(root), root, none, MsFlags::MS_BIND, none).context("binding the root")?;
    mount(Some("/dev"), &at("dev"), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .context("binding /dev")?;
    for (kind, place) in [("proc", "proc"), ("sysfs", "sys"), ("tmpfs", "run")] {
        mount(Some(kind), &at(place), Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("mounting {kind} on /{place}"))?;
    }
    chdir(root).context("going to the root")?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).context("unmounting the old root")?;
    chdir("/").context("going to /")?;
    fs::create_dir_all(WORK_DIR).with_context(|| format!("making {WORK_DIR}"))?;
    let status = program("ip").args(["link", "set", "lo", "up"]).status().context("running ip")?;
    ensure!(status.success(), "the loopback interface does not come up");
    Ok(())
}

/// A program of the root with a plain environment and nothing on its standard descriptors.
pub(super) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = needs::of_entered_root(name);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The same in a session of its own, as a daemon. setsid(1) becomes the program: the PID is the
/// child's.
pub(super) fn daemon(arguments: &[&str]) -> Command {
    let mut command = program("setsid");
    command.args(arguments);
    command
}

/// Let the next PID be `pid`, if it is free.
///
/// # Errors
/// /proc/sys is not writable.
pub(super) fn set_next_pid(pid: u32) -> Result<()> {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).context("writing ns_last_pid")
}

/// How busy the processors are with everything, in percent, over a second in which this process
/// sleeps.
///
/// # Errors
/// /proc/stat cannot be read.
pub(super) fn busy_percent() -> Result<f64> {
    let before = processor_ticks()?;
    std::thread::sleep(Duration::from_secs(1));
    let after = processor_ticks()?;
    let all = (after.0 - before.0).max(1.0);
    Ok(100.0 * (1.0 - (after.1 - before.1) / all))
}

/// Ticks of all processors since boot, and those of them that were idle.
fn processor_ticks() -> Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    parse_ticks(&stat).context("no processor line in /proc/stat")
}

fn parse_ticks(stat: &str) -> Option<(f64, f64)> {
    // user, nice, system, idle, iowait, irq, softirq, steal; guest time is part of user.
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    Some((ticks.iter().sum(), ticks.get(3)? + ticks.get(4)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_is_a_part_of_all_ticks_and_guests_count_once() {
        let stat = "cpu  10 1 20 300 40 0 5 4 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_ticks(stat), Some((380.0, 340.0)));
        assert_eq!(parse_ticks("intr 1\n"), None);
    }
}
