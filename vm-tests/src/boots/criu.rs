//! The home-made alternative: `criu dump` of each service once, and units that run `criu restore` in place of it.
//!
//! It gets what it needs: the units' sandboxes are switched off (a dump of a mount namespace of systemd's cannot be put
//! back into another), output goes nowhere (journald's end of the socket is outside), PIDs are high, and each boot
//! starts from files of the length that they had, because CRIU compares it. A service that CRIU does not bring back
//! in a trial boot starts cold, and is named with CRIU's reason.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::profile::{Profile, Served};
use crate::bench;
use crate::client::{first_answer, talk};
use crate::container::{Machine, run_in_root};
use crate::roots::{Scratch, cached};

const COPY_BOUND: Duration = Duration::from_secs(60);
const COMMAND_BOUND: Duration = Duration::from_secs(120);
const ANSWER_BOUND: Duration = Duration::from_secs(300);
/// Where CRIU is, with its own libraries: it comes from another suite.
const DIR: &str = "/opt/criu";
const PROGRAM: &str = "/opt/criu/run";
const IMAGES: &str = "/var/lib/criu";
const FIRST_PID: u32 = 20_000;
const PIDS_EACH: u32 = 1000;

/// For the dump as for the restore.
const WITHOUT_SANDBOX: &str = "StandardOutput=null\nStandardError=null\nPrivateTmp=no\nPrivateDevices=no\nPrivateUsers=no\n\
    ProtectSystem=no\nProtectHome=no\nReadWritePaths=\nReadOnlyPaths=\nInaccessiblePaths=\nProtectKernelTunables=no\n\
    ProtectKernelModules=no\nProtectKernelLogs=no\nProtectControlGroups=no\nProtectClock=no\nProtectHostname=no\n\
    ProtectProc=default\nProcSubset=all\nRestrictNamespaces=no\nRestrictAddressFamilies=\nSystemCallFilter=\n\
    NoNewPrivileges=no\n";

/// Dump what can be dumped, and make the units restore it. Returns how many.
pub(super) fn dump_all(
    scratch: &Scratch,
    machine: &Machine,
    profile: Profile,
    notes: &mut Vec<String>,
) -> Result<usize> {
    copy_program(scratch)?;
    let mut dumped = 0;
    for (number, served) in (0_u32..).zip(profile.served()) {
        match dump(scratch, machine, served, FIRST_PID + number * PIDS_EACH) {
            Ok(()) => dumped += 1,
            Err(error) => {
                let _ = fs::remove_file(drop_in(scratch, served.unit));
                notes.push(format!("criu: {}: cold: {error:#}", served.unit));
            }
        }
    }
    Ok(dumped)
}

/// How each service came up.
pub(super) fn outcomes(machine: &Machine, units: &[&str]) -> Result<Vec<String>> {
    let of = |unit: &&str| -> Result<String> {
        let main_pid = machine.unit(unit)?.main_pid;
        Ok(if main_pid >= FIRST_PID { "restored by criu" } else { "cold" }.to_owned())
    };
    units.iter().map(of).collect()
}

/// Let a unit start cold again.
pub(super) fn give_up(scratch: &Scratch, unit: &str) -> Result<()> {
    fs::remove_file(drop_in(scratch, unit)).with_context(|| format!("removing the drop-in of {unit}"))
}

/// Whether a unit is to be restored.
pub(super) fn is_taken(scratch: &Scratch, unit: &str) -> bool {
    drop_in(scratch, unit).exists()
}

/// CRIU's last word on a restore.
pub(super) fn last_error(scratch: &Scratch, unit: &str, log: &str) -> String {
    let text = fs::read(scratch.path(&format!("{IMAGES}/{unit}/{log}"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // Without CAP_SYS_RESOURCE the first is about a limit, which it gets over; those behind the second repeat it.
    let error = text.lines().find(|line| line.contains("Error") && !line.contains("RLIMIT_NOFILE"));
    error.unwrap_or("no error in its log").trim().to_owned()
}

fn copy_program(scratch: &Scratch) -> Result<()> {
    let root = cached(&bench::recipe()?)?;
    let list =
        run_in_root(&root, &[], "ldd /usr/sbin/criu | grep -o '/[^ ]*'; echo /usr/sbin/criu", COPY_BOUND)?;
    for file in list.lines() {
        let real = fs::canonicalize(root.join(file.trim_start_matches('/')))
            .or_else(|_| fs::canonicalize(root.join("usr").join(file.trim_start_matches('/'))));
        let real = real.with_context(|| format!("finding {file}"))?;
        let name = Path::new(file).file_name().context("a library has a name")?;
        let to = scratch.path(DIR).join(name);
        fs::create_dir_all(scratch.path(DIR)).context("making a directory for CRIU")?;
        fs::copy(&real, &to).with_context(|| format!("copying {}", real.display()))?;
    }
    let script =
        format!("#!/bin/sh\nexec {DIR}/ld-linux-x86-64.so.2 --library-path {DIR} {DIR}/criu \"$@\"\n");
    scratch.write(PROGRAM, &script, 0o755)
}

fn drop_in(scratch: &Scratch, unit: &str) -> std::path::PathBuf {
    scratch.path(&format!("/etc/systemd/system/{unit}.d/zz-criu.conf"))
}

fn dump(scratch: &Scratch, machine: &Machine, served: &Served, pid: u32) -> Result<()> {
    let unit = served.unit;
    let inside = format!("/etc/systemd/system/{unit}.d/zz-criu.conf");
    scratch.write(&inside, &format!("[Service]\n{WITHOUT_SANDBOX}"), 0o644)?;
    machine.run(&["systemctl", "daemon-reload"])?.success()?;
    machine.run_for(&["systemctl", "stop", unit], COMMAND_BOUND)?.success()?;
    set_last_pid(machine, pid)?;
    machine
        .run_for(&["systemctl", "start", unit], COMMAND_BOUND)?
        .success()
        .context("without its sandbox")?;
    let (port, turn) = (served.port, served.turn);
    machine.in_network(|| first_answer(ANSWER_BOUND, || talk(port, &[turn])))?;
    let main_pid = machine.unit(unit)?.main_pid.to_string();
    let images = format!("{IMAGES}/{unit}");
    machine.run(&["mkdir", "-p", &images])?.success()?;
    let mut command =
        vec![PROGRAM, "dump", "-t", &main_pid, "-D", &images, "-o", "dump.log", "--leave-running"];
    command.extend(["--manage-cgroups=ignore", "--file-locks", "--ext-unix-sk", "--link-remap"]);
    let done = machine.run_for(&command, COMMAND_BOUND)?;
    ensure!(done.code == Some(0), "criu dump: {}", last_error(scratch, unit, "dump.log"));
    let restore = format!(
        "[Service]\n{WITHOUT_SANDBOX}Type=forking\nPIDFile=/run/criu-{unit}.pid\nUser=\nGroup=\nExecStartPre=\nExecStartPost=\nExecStart=\n\
         ExecStart={PROGRAM} restore -D {images} -o restore.log --restore-detached --pidfile /run/criu-{unit}.pid \
         --manage-cgroups=ignore --file-locks --ext-unix-sk --link-remap\n"
    );
    scratch.write(&inside, &restore, 0o644)
}

/// From outside: /proc/sys is read-only in a container.
fn set_last_pid(machine: &Machine, pid: u32) -> Result<()> {
    let status = Command::new("nsenter")
        .args(["--pid", "--target", &machine.leader().to_string(), "--", "sh", "-c"])
        .arg(format!("echo {pid} > /proc/sys/kernel/ns_last_pid"))
        .status()
        .context("running nsenter")?;
    ensure!(status.success(), "the counter of PIDs cannot be set");
    Ok(())
}
