//! The package's life on one suite: installed, used over a reboot, removed, installed again,
//! purged.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use test_frame::Checks;

use super::tree::Tree;
use super::upgrade;
use crate::container::{Container, wait_until};
use crate::fastboot;
use crate::roots::{Recipe, RootFile, Scratch, cached};
use crate::site::Site;

/// The service that is taken and given back.
const UNIT: &str = "idle.service";
/// Where the package lies in the root.
const DEB: &str = "/srv/fastboot-services.deb";
/// Where the program's own manual pages are, and in which section.
const PAGES: &str = "/usr/share/man";
const BOUND: Duration = Duration::from_secs(60);
const APT_BOUND: Duration = Duration::from_secs(300);

/// Everything for one suite.
///
/// # Errors
/// The root cannot be built. What fails on it is noted in `checks`.
pub(super) fn run(suite: &'static str, package: &Path, checks: &mut Checks) -> Result<()> {
    let site = Site::new("package", &format!("package-{suite}"), &cached(&recipe(suite))?)?;
    fs::copy(package, site.scratch.path(DEB)).with_context(|| format!("copying {}", package.display()))?;
    let mut life = Life { suite, site, checks };
    if let Err(error) = life.live() {
        life.note("the package's life goes on to its end", Err(error));
    }
    Ok(())
}

/// The Android tool is there too: both must fit side by side.
fn recipe(suite: &'static str) -> Recipe {
    let packages = vec![
        "systemd",
        "systemd-sysv",
        "dbus",
        "procps",
        "man-db",
        "groff",
        "fastboot",
        "bash-completion",
        "zsh",
        "fish",
    ];
    let unit = include_str!("../../roots/package/idle.service");
    Recipe {
        name: "package",
        suite,
        packages,
        from_sid: Vec::new(),
        files: vec![RootFile::text("/etc/systemd/system/idle.service", unit)],
        setup: include_str!("../../roots/package/setup.sh"),
    }
}

struct Life<'a> {
    suite: &'static str,
    site: Site,
    checks: &'a mut Checks,
}

impl Life<'_> {
    fn note(&mut self, name: &str, result: Result<()>) {
        self.checks.note(format!("{}: {name}", self.suite), result);
    }

    fn boot(&mut self) -> Result<Container> {
        let running = self.site.boot(BOUND)?;
        running.wait_active(UNIT, BOUND)?;
        Ok(running)
    }

    fn live(&mut self) -> Result<()> {
        // What a first boot writes is no work of ours.
        self.boot()?.poweroff()?;
        let before = Tree::read(self.site.scratch.root())?;

        let running = self.boot()?;
        apt(&running, &["install", DEB])?;
        self.note("files are as packed", quiet(&running, &["dpkg", "--verify", "fastboot-services"]));
        self.note("root's fastboot is ours, and the version is the package's", version(&running));
        self.note("no file belongs to the Android tool's package too", only_ours(&running));
        self.note(
            "every manual page renders without a warning",
            manual_pages(&running, self.site.scratch.root()),
        );
        self.note("bash, zsh and fish complete its commands", completions(&running));
        self.note("the images' directory is root's alone", store_mode(&running));
        self.note("nothing is started without an image", stopped(&running));
        let taken = fastboot::snapshot(&running, &[UNIT], &[])?;
        let outcome = taken.unit(UNIT).context("no report of the unit")?;
        ensure!(outcome.outcome == "stored", "{}: {}", outcome.outcome, outcome.reasons.join("; "));
        let taken_pid = running.unit(UNIT)?.main_pid;
        running.poweroff()?;

        let running = self.boot()?;
        self.note("a service is restored after a reboot", restored(&running, taken_pid));
        self.note("`fastboot doctor` finds everything necessary", doctor_is_content(&running));
        self.note("`fastboot doctor` misses a generator that is masked", doctor_sees_mask(&running));
        self.note("an upgrade of a package has its service taken again", upgrade::run(&running));
        apt(&running, &["install", "--reinstall", DEB])?;
        self.note("an upgrade leaves it running and the daemon answering", upgraded(&running, taken_pid));
        apt(&running, &["remove", "fastboot-services"])?;
        self.note("removal leaves it running", same_life(&running, taken_pid));
        self.note("nothing of ours is in front of it any more", disarmed(&running));
        self.note("a restart after the removal is an ordinary start", restarts_cold(&running, taken_pid));
        self.note("removal keeps the images", kept(&self.site.scratch));
        apt(&running, &["install", DEB])?;
        self.note(
            "a restart after a new installation is not from the old image",
            restarts_cold(&running, taken_pid),
        );
        running.poweroff()?;

        let running = self.boot()?;
        self.note("kept images are used after the next reboot", restored(&running, taken_pid));
        apt(&running, &["purge", "fastboot-services"])?;
        self.note("purge leaves it running", same_life(&running, taken_pid));
        self.note("purge leaves nothing in /run", quiet(&running, &["find", "/run", "-name", "*fastboot*"]));
        running.poweroff()?;
        let differences = before.differences(&Tree::read(self.site.scratch.root())?);
        let result =
            if differences.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(differences.join("\n"))) };
        self.note("purge leaves every file as it was", result);

        let running = self.boot()?;
        self.note("nothing has failed in a boot after the purge", no_failed_units(&running));
        running.poweroff()
    }
}

fn apt(running: &Container, arguments: &[&str]) -> Result<()> {
    let mut command = vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet", "--yes"];
    command.extend(arguments);
    running.run_for(&command, APT_BOUND)?.success().map(drop)
}

/// The command ends well and prints nothing.
fn quiet(running: &Container, command: &[&str]) -> Result<()> {
    let output = running.run(command)?;
    ensure!(output.stderr.is_empty(), "{}", output.stderr.trim());
    let printed = output.success()?;
    ensure!(printed.is_empty(), "{}", printed.trim());
    Ok(())
}

fn version(running: &Container) -> Result<()> {
    let place = running.run(&["sh", "-c", "command -v fastboot"])?.success()?;
    ensure!(place.trim() == "/usr/sbin/fastboot", "it is {}", place.trim());
    let says = running.run(&["fastboot", "--version"])?.success()?;
    let packed =
        running.run(&["dpkg-query", "--show", "--showformat=${Version}", "fastboot-services"])?.success()?;
    ensure!(says.trim() == format!("fastboot {packed}"), "the program says {says:?}, the package {packed:?}");
    Ok(())
}

fn files_of(running: &Container, package: &str) -> Result<Vec<String>> {
    let list = running.run(&["dpkg", "--listfiles", package])?.success()?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn only_ours(running: &Container) -> Result<()> {
    let (ours, theirs) = (files_of(running, "fastboot-services")?, files_of(running, "fastboot")?);
    ensure!(theirs.iter().any(|path| path == "/usr/bin/fastboot"), "the Android tool is not installed");
    for path in ours.iter().filter(|path| theirs.contains(path)) {
        // Directories are shared by all packages.
        running.run(&["test", "-d", path])?.success().with_context(|| format!("{path} is in both"))?;
    }
    Ok(())
}

fn manual_pages(running: &Container, root: &Path) -> Result<()> {
    let files = files_of(running, "fastboot-services")?;
    let pages: Vec<&String> =
        files.iter().filter(|path| path.starts_with(PAGES) && path.ends_with(".gz")).collect();
    for path in &pages {
        let output = running.run(&["man", "--warnings", "-E", "UTF-8", "-P", "cat", "-l", path])?;
        ensure!(output.stderr.is_empty(), "{path}: {}", output.stderr.trim());
        let text = output.success()?;
        ensure!(text.contains("NAME") && text.contains("SEE ALSO"), "{path} lacks its sections");
    }
    let has = |name: &str| root.join(format!("usr/share/man/{name}.gz")).exists();
    let commands = running.run(&["fastboot", "--help"])?.success()?;
    let commands =
        commands.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut count = 0;
    // What is said of a command may go on in a line of its own, further to the right.
    let first = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).map(str::to_owned);
    for command in commands.filter_map(first) {
        let command = command.split_whitespace().next().unwrap_or_default();
        ensure!(has(&format!("man8/fastboot-{command}.8")), "{command} has no page");
        count += 1;
    }
    ensure!(count >= 9, "only {count} commands are listed");
    for page in [
        "man8/fastboot.8",
        "man8/fastboot-initd.8",
        "man8/fastboot-exec.8",
        "man8/fastboot-generator.8",
        "man5/fastboot.unit.5",
        "man7/fastboot.7",
    ] {
        ensure!(has(page), "there is no {page}");
    }
    Ok(())
}

fn completions(running: &Container) -> Result<()> {
    let bash = "source /usr/share/bash-completion/completions/fastboot.bash && COMP_WORDS=(fastboot sna) && \
                COMP_CWORD=1 && _fastboot fastboot sna fastboot && echo ${COMPREPLY[*]}";
    let fish = "complete --do-complete 'fastboot sna'";
    let bash_unit = "source /usr/share/bash-completion/completions/fastboot.bash && \
                     COMP_WORDS=(fastboot plan idl) && COMP_CWORD=2 && \
                     _fastboot_with_units fastboot idl plan && echo ${COMPREPLY[*]}";
    let fish_unit = "complete --do-complete 'fastboot snapshot idl'";
    let zsh = "autoload -U compinit && compinit -D && echo $_comps[fastboot] && autoload +X _fastboot && echo loaded";
    for (shell, script, wanted) in [
        ("bash", bash, "snapshot"),
        ("bash", bash_unit, UNIT),
        ("fish", fish, "snapshot"),
        ("fish", fish_unit, UNIT),
        ("zsh", zsh, "_fastboot\nloaded"),
    ] {
        // fish makes itself at home in the directory of whoever runs it.
        let said = running.run(&["env", "HOME=/tmp", shell, "-c", script])?.success()?;
        ensure!(said.trim().starts_with(wanted), "{shell} says {said:?}");
    }
    Ok(())
}

fn store_mode(running: &Container) -> Result<()> {
    let mode = running.run(&["stat", "--format=%a %U:%G", fastboot::STORE_DIR])?.success()?;
    ensure!(mode.trim() == "700 root:root", "it is {}", mode.trim());
    Ok(())
}

fn stopped(running: &Container) -> Result<()> {
    for unit in ["fastboot-initd.service", "fastboot-initd.socket"] {
        let state = running.run(&["systemctl", "is-active", unit])?.stdout;
        ensure!(state.trim() == "inactive", "{unit} is {}", state.trim());
    }
    Ok(())
}

fn restored(running: &Container, taken_pid: u32) -> Result<()> {
    let status = fastboot::status(running)?;
    let unit = status.unit(UNIT).context("not in the status")?;
    ensure!(unit.outcome == "restored", "{}: {}", unit.outcome, unit.reason.as_deref().unwrap_or_default());
    same_life(running, taken_pid)
}

/// The process of the snapshot is still the main one.
fn same_life(running: &Container, taken_pid: u32) -> Result<()> {
    let unit = running.unit(UNIT)?;
    ensure!(unit.is_active() && unit.main_pid == taken_pid, "{} as {}", unit.active, unit.main_pid);
    let program = running.run(&["readlink", &format!("/proc/{taken_pid}/exe")])?.success()?;
    ensure!(program.trim() == "/usr/bin/sleep", "it is {}", program.trim());
    Ok(())
}

fn upgraded(running: &Container, taken_pid: u32) -> Result<()> {
    same_life(running, taken_pid)?;
    let daemon = running.unit("fastboot-initd.service")?;
    ensure!(daemon.is_active() && daemon.main_pid > 0, "the daemon is {}", daemon.active);
    let program = running.run(&["readlink", &format!("/proc/{}/exe", daemon.main_pid)])?.success()?;
    ensure!(!program.contains("deleted"), "the daemon still runs as {}", program.trim());
    restored(running, taken_pid)
}

fn disarmed(running: &Container) -> Result<()> {
    let drop_ins =
        running.run(&["systemctl", "show", "--property=DropInPaths,ExecStart", UNIT])?.success()?;
    ensure!(!drop_ins.contains("fastboot"), "{}", drop_ins.trim());
    let mask = "/run/systemd/system-generators/fastboot-generator";
    ensure!(running.run(&["test", "-L", mask])?.code == Some(1), "{mask} is still there");
    Ok(())
}

fn doctor_is_content(running: &Container) -> Result<()> {
    let output = running.run(&["fastboot", "doctor"])?;
    ensure!(output.code == Some(0), "exit code {:?}:\n{}{}", output.code, output.stdout, output.stderr);
    // A finding that only a container has, so that this is the answer of this one.
    ensure!(output.stdout.contains("systemd-nspawn, a container"), "{}", output.stdout);
    Ok(())
}

fn doctor_sees_mask(running: &Container) -> Result<()> {
    let mask = "/run/systemd/system-generators/fastboot-generator";
    running.run(&["mkdir", "-p", "/run/systemd/system-generators"])?.success()?;
    running.run(&["ln", "-s", "/dev/null", mask])?.success()?;
    let output = running.run(&["env", "COLUMNS=200", "fastboot", "doctor"])?;
    running.run(&["rm", mask])?.success()?;
    ensure!(output.code == Some(1), "exit code {:?}", output.code);
    ensure!(output.stdout.contains(&format!("masked by {mask}")), "{}", output.stdout);
    Ok(())
}

fn restarts_cold(running: &Container, taken_pid: u32) -> Result<()> {
    let before = running.unit(UNIT)?.main_pid;
    running.run(&["systemctl", "restart", UNIT])?.success()?;
    let unit = running.wait_active(UNIT, BOUND)?;
    // Active as soon as it exists; until it is executed it is systemd's own, by the name of
    // `(sleep)`.
    let age = wait_until("the program", BOUND, || {
        let pid = unit.main_pid.to_string();
        let age = running.run(&["ps", "-o", "etimes=,comm=", "-p", &pid])?.success()?;
        Ok((!age.trim_end().ends_with(')')).then_some(age))
    })?;
    match age.split_whitespace().collect::<Vec<_>>()[..] {
        [seconds, "sleep"]
            if ![before, taken_pid].contains(&unit.main_pid)
                && seconds.parse::<u64>().is_ok_and(|s| s < 30) =>
        {
            Ok(())
        }
        _ => bail!("PID {before} became {}: {}", unit.main_pid, age.trim()),
    }
}

fn kept(scratch: &Scratch) -> Result<()> {
    fastboot::image_path(scratch.root(), UNIT).map(drop)
}

fn no_failed_units(running: &Container) -> Result<()> {
    quiet(running, &["systemctl", "list-units", "--failed", "--no-legend", "--plain"])
}
