//! The home-made alternative: `criu dump` of each service once, and units that run `criu restore`
//! in place of it.
//!
//! It gets what it needs: the units' sandboxes are switched off (a dump of a mount namespace of
//! systemd's cannot be put back into another), output goes nowhere (journald's end of the socket is
//! outside), PIDs are high, Go leaves out MPTCP (which CRIU does not know), connections to others
//! may be lost, and each boot starts from files of the length that they had, because CRIU compares
//! it. Where root may not read the limits of another user's processes (CAP_SYS_RESOURCE is missing)
//! services run as root for it. A service that CRIU does not bring back in a trial boot starts
//! cold, and is named with CRIU's reason.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::profile::{Profile, Served};
use crate::bench;
use crate::container::Output;
use crate::needs;
use crate::roots::cached;

const COMMAND_BOUND: Duration = Duration::from_secs(300);
const ANSWER_BOUND: Duration = Duration::from_secs(300);
/// Longest for an answer after a trial.
const TRIAL_BOUND: Duration = Duration::from_secs(20);
/// Where CRIU is, with its own libraries: it comes from another suite.
pub(super) const DIR: &str = "/opt/criu";
const PROGRAM: &str = "/opt/criu/run";
const IMAGES: &str = "/var/lib/criu";
const FIRST_PID: u32 = 20_000;
const PIDS_EACH: u32 = 1000;
/// capability.h
const CAP_SYS_RESOURCE: u64 = 24;

/// For the dump as for the restore: no mount namespace, no user namespace, no filters, and CRIU's
/// own capabilities.
const WITHOUT_SANDBOX: &str = "StandardOutput=null\nStandardError=null\nDynamicUser=no\nPrivateTmp=no\nPrivateDevices=no\n\
    PrivateUsers=no\nPrivateMounts=no\nPrivateNetwork=no\nPrivateIPC=no\nMountAPIVFS=no\n\
    ProtectSystem=no\nProtectHome=no\nReadWritePaths=\nReadOnlyPaths=\nInaccessiblePaths=\nExecPaths=\nNoExecPaths=\n\
    TemporaryFileSystem=\nBindPaths=\nBindReadOnlyPaths=\nProtectKernelTunables=no\n\
    ProtectKernelModules=no\nProtectKernelLogs=no\nProtectControlGroups=no\nProtectClock=no\nProtectHostname=no\n\
    ProtectProc=default\nProcSubset=all\nRestrictNamespaces=no\nRestrictAddressFamilies=\nSystemCallFilter=\n\
    SystemCallArchitectures=\nMemoryDenyWriteExecute=no\nLockPersonality=no\nRestrictRealtime=no\nRestrictSUIDSGID=no\n\
    CapabilityBoundingSet=~\nNoNewPrivileges=no\nEnvironment=GODEBUG=multipathtcp=0\n";
/// nginx chooses the user of its workers itself.
const NGINX_CONF: &str = "/etc/nginx/nginx.conf";
const AS_ROOT: &str = "User=root\nGroup=root\n";

/// What both need to be told.
const OPTIONS: &str = "--manage-cgroups=ignore --file-locks --ext-unix-sk --link-remap --network-lock=skip";
/// Mounts of another namespace are found again by themselves; connections are written down.
const DUMP_OPTIONS: &str = "--leave-running --tcp-established --enable-external-masters --enable-external-sharing --external=mnt[]:ms \
     --ghost-limit=256M";
/// The other ends are gone.
const RESTORE_OPTIONS: &str = "--restore-detached --tcp-close --external=mnt[]:ms";

/// Where the services run.
pub(super) trait Guest {
    /// Run a command there.
    fn command(&self, words: &[&str], bound: Duration) -> Result<Output>;
    /// Wait for a service's right answer.
    fn answer(&self, served: &Served, bound: Duration) -> Result<()>;
    /// Have the next process numbered from here on.
    fn set_last_pid(&self, pid: u32) -> Result<()>;
}

fn run(guest: &dyn Guest, words: &[&str]) -> Result<String> {
    guest.command(words, COMMAND_BOUND)?.success()
}

/// Put CRIU and its libraries into a directory that is to be [`DIR`].
pub(super) fn put_program(dir: &Path) -> Result<()> {
    let root = cached(&bench::recipe()?)?;
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    // Not in a container: another benchmark may be doing the same, and nspawn lets only one into a
    // root.
    let listed = needs::command("chroot")?
        .arg(&root)
        .args(["ldd", "/usr/sbin/criu"])
        .output()
        .context("running ldd")?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain(["/usr/sbin/criu"]) {
        let real = fs::canonicalize(root.join(file.trim_start_matches('/')))
            .or_else(|_| fs::canonicalize(root.join("usr").join(file.trim_start_matches('/'))));
        let real = real.with_context(|| format!("finding {file}"))?;
        let name = Path::new(file).file_name().context("a library has a name")?;
        fs::copy(&real, dir.join(name)).with_context(|| format!("copying {}", real.display()))?;
    }
    let script =
        format!("#!/bin/sh\nexec {DIR}/ld-linux-x86-64.so.2 --library-path {DIR} {DIR}/criu \"$@\"\n");
    let path = dir.join("run");
    fs::write(&path, script).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

/// Dump what can be dumped, and make the units restore it. Returns which.
pub(super) fn dump_all(
    guest: &dyn Guest,
    profile: Profile,
    notes: &mut Vec<String>,
) -> Result<Vec<&'static str>> {
    let as_root = !may_read_limits(guest)?;
    if as_root {
        notes.push(
            "criu: services run as root for it: without CAP_SYS_RESOURCE it cannot read the limits of other users' processes"
                .to_owned(),
        );
    }
    if as_root {
        run(guest, &["sed", "-i", "s/^user .*/user root;/", NGINX_CONF])?;
    }
    let mut taken = Vec::new();
    for (number, served) in (0_u32..).zip(profile.served()) {
        match dump(guest, served, FIRST_PID + number * PIDS_EACH, as_root) {
            Ok(()) => taken.push(served.unit),
            Err(error) => {
                run(guest, &["rm", "-f", &drop_in(served.unit)])?;
                notes.push(format!("criu: {}: cold: {error:#}", served.unit));
            }
        }
    }
    Ok(taken)
}

/// Those of `taken` that have not come back in this boot; CRIU's reason goes to the notes.
pub(super) fn lost(
    guest: &dyn Guest,
    profile: Profile,
    taken: &[&'static str],
    notes: &mut Vec<String>,
) -> Result<Vec<&'static str>> {
    let outcomes = outcomes(guest, &profile.units())?;
    let mut lost = Vec::new();
    for (served, outcome) in profile.served().iter().zip(outcomes) {
        if !taken.contains(&served.unit) {
            continue;
        }
        let answer = guest.answer(served, TRIAL_BOUND);
        if outcome == "cold" || answer.is_err() {
            let said = last_error(guest, served.unit, "restore.log");
            notes.push(format!("criu: {}: cold: criu restore: {said}", served.unit));
            lost.push(served.unit);
        }
    }
    Ok(lost)
}

/// How each service came up.
pub(super) fn outcomes(guest: &dyn Guest, units: &[&str]) -> Result<Vec<String>> {
    let of = |unit: &&str| -> Result<String> {
        Ok(if main_pid(guest, unit)? >= FIRST_PID { "restored by criu" } else { "cold" }.to_owned())
    };
    units.iter().map(of).collect()
}

/// The file that makes a unit restore.
pub(super) fn drop_in(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}.d/zz-criu.conf")
}

fn main_pid(guest: &dyn Guest, unit: &str) -> Result<u32> {
    let text = run(guest, &["systemctl", "show", "--property=MainPID", "--value", unit])?;
    text.trim().parse().with_context(|| format!("the main PID of {unit} is {text:?}"))
}

/// Whether prlimit(2) lets root look at everybody's limits.
fn may_read_limits(guest: &dyn Guest) -> Result<bool> {
    let status = run(guest, &["cat", "/proc/1/status"])?;
    parse_capability(&status, CAP_SYS_RESOURCE).with_context(|| format!("no CapBnd in {status:?}"))
}

fn parse_capability(status: &str, capability: u64) -> Option<bool> {
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    Some(u64::from_str_radix(bounding.trim(), 16).ok()? >> capability & 1 == 1)
}

/// CRIU's own word on why it failed.
fn last_error(guest: &dyn Guest, unit: &str, log: &str) -> String {
    let text = guest.command(&["cat", &format!("{IMAGES}/{unit}/{log}")], COMMAND_BOUND);
    decisive(&text.map(|output| output.stdout).unwrap_or_default()).to_owned()
}

/// Without CAP_SYS_RESOURCE the first is about a limit, which it gets over; those behind the second
/// repeat it.
fn decisive(log: &str) -> &str {
    let error = log.lines().find(|line| line.contains("Error") && !line.contains("RLIMIT_NOFILE"));
    error.unwrap_or("no error in its log").trim()
}

fn write(guest: &dyn Guest, path: &str, text: &str) -> Result<()> {
    let script = r#"mkdir -p "${0%/*}"; printf %s "$1" > "$0""#;
    run(guest, &["/bin/sh", "-euc", script, path, text]).map(drop)
}

fn dump(guest: &dyn Guest, served: &Served, pid: u32, as_root: bool) -> Result<()> {
    let unit = served.unit;
    let user = if as_root { AS_ROOT } else { "" };
    write(guest, &drop_in(unit), &format!("[Service]\n{WITHOUT_SANDBOX}{user}"))?;
    run(guest, &["systemctl", "daemon-reload"])?;
    run(guest, &["systemctl", "stop", unit])?;
    guest.set_last_pid(pid)?;
    run(guest, &["systemctl", "start", unit]).context("without its sandbox")?;
    guest.answer(served, ANSWER_BOUND)?;
    let main_pid = main_pid(guest, unit)?.to_string();
    let images = format!("{IMAGES}/{unit}");
    run(guest, &["mkdir", "-p", &images])?;
    let mut command = vec![PROGRAM, "dump", "-t", &main_pid, "-D", &images, "-o", "dump.log"];
    command.extend(OPTIONS.split(' ').chain(DUMP_OPTIONS.split_whitespace()));
    let done = guest.command(&command, COMMAND_BOUND)?;
    ensure!(done.code == Some(0), "criu dump: {}", last_error(guest, unit, "dump.log"));
    // A slow machine would try again for ever, and its boot never be over.
    let restore = format!(
        "[Service]\n{WITHOUT_SANDBOX}Type=forking\nRestart=no\nPIDFile=/run/criu-{unit}.pid\nUser=\nGroup=\nExecStartPre=\nExecStartPost=\nExecStart=\n\
         ExecStart={PROGRAM} restore -D {images} -o restore.log --pidfile /run/criu-{unit}.pid {OPTIONS} {RESTORE_OPTIONS}\n"
    );
    write(guest, &drop_in(unit), &restore)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_is_a_bit_of_the_bounding_set() {
        let status = "Name:\tsystemd\nCapPrm:\t0\nCapBnd:\t000001fffeffffff\n";
        assert_eq!(parse_capability(status, CAP_SYS_RESOURCE), Some(false));
        assert_eq!(parse_capability(status, 21), Some(true));
        assert_eq!(parse_capability("Name:\tsystemd\n", 21), None);
    }

    #[test]
    fn the_first_error_that_counts_is_the_decisive_one() {
        let log =
            "(0.1) Error (a): RLIMIT_NOFILE\n(0.2) Warn x\n(0.3) Error (b): no\n(0.4) Error (c): failed\n";
        assert_eq!(decisive(log), "(0.3) Error (b): no");
        assert_eq!(decisive(""), "no error in its log");
    }
}
