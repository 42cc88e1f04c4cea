//! What each command says, and when.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::BOUND;
use crate::container::{Container, Output, wait_until};
use crate::fastboot::{self, STORE_DIR};

const SNAPSHOT_BOUND: Duration = Duration::from_secs(120);
/// Longest until a report is in the journal.
const REPORT_BOUND: Duration = Duration::from_secs(30);

/// As a unit of its own, as a login would.
fn fastboot(machine: &Container, arguments: &[&str]) -> Result<Output> {
    let mut command = vec!["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "fastboot"];
    command.extend(arguments);
    machine.run_for(&command, SNAPSHOT_BOUND)
}

fn shell(machine: &Container, script: &str) -> Result<String> {
    machine.run_for(&["sh", "-c", script], SNAPSHOT_BOUND)?.success()
}

pub(super) fn json(machine: &Container, arguments: &[&str]) -> Result<Value> {
    let mut command = vec!["fastboot"];
    command.extend(arguments);
    command.push("--json");
    let output = machine.run(&command)?;
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("{arguments:?}: {}{}", output.stdout, output.stderr))
}

fn has(text: &str, wanted: &[&str]) -> Result<()> {
    // However the lines are folded.
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in wanted {
        ensure!(words.contains(word), "no {word:?} in {words:?}");
    }
    Ok(())
}

/// Main PIDs of those that a snapshot might restart.
fn main_pids(machine: &Container) -> Result<Vec<u32>> {
    ["slow.service", "idle.service", "redis-server.service", "nginx.service"]
        .iter()
        .map(|unit| Ok(machine.unit(unit)?.main_pid))
        .collect()
}

pub(super) fn wrong_name(machine: &Container) -> Result<()> {
    let before = main_pids(machine)?;
    let output = fastboot(machine, &["snapshot", "slow", "rediss-server"])?;
    ensure!(output.code == Some(1), "exit code {:?}", output.code);
    has(&output.stderr, &["there is no unit rediss-server.service", "nothing was done"])?;
    let output = fastboot(machine, &["snapshot", "epmd.socket", "slow"])?;
    ensure!(output.code == Some(2), "exit code {:?}", output.code);
    has(&output.stderr, &["epmd.socket", "this is a socket", "epmd.service"])?;
    ensure!(!output.stderr.contains("socket.service"), "{}", output.stderr);
    ensure!(main_pids(machine)? == before, "somebody was restarted");
    let help = machine.run(&["fastboot", "help"])?.success()?;
    has(&help, &["Usage: fastboot", "snapshot", "refresh", "history"])
}

pub(super) fn wrong_options(machine: &Container) -> Result<()> {
    let output = machine.run(&["fastboot", "plan", "wrong"])?;
    let wrong = [
        "AllowState=maybe is not yes or no",
        "OnLostPeer=foo is not close or refuse",
        "DependsOn=relative is not an absolute path",
    ];
    has(&output.stdout, &wrong)?;
    let all = machine.run(&["fastboot", "plan", "-v", "wrong"])?;
    has(&all.stdout, &["(option): A key in [X-Fastboot] is not known", "See fastboot.unit(5)"])?;
    let pid = machine.unit("wrong.service")?.main_pid;
    let output = fastboot(machine, &["snapshot", "wrong"])?;
    ensure!(output.code == Some(3), "exit code {:?}", output.code);
    ensure!(machine.unit("wrong.service")?.main_pid == pid, "it was restarted");
    Ok(())
}

pub(super) fn lock_holder(machine: &Container) -> Result<()> {
    // Whoever writes its number into the file and locks it.
    let script = format!(
        "mkdir -p -m 700 {STORE_DIR} && exec 9>{STORE_DIR}/lock && flock 9 && echo $$ >&9 && \
         ! fastboot snapshot slow 2>/run/said && grep -q \"(PID $$)\" /run/said && cat /run/said"
    );
    has(&shell(machine, &script)?, &["is held by another fastboot (PID"])
}

pub(super) fn store_mode(machine: &Container) -> Result<()> {
    shell(machine, "mkdir -m 755 /srv/open && mkdir /srv/writable && chmod 777 /srv/writable")?;
    let doctor = |store: &str| machine.run(&["fastboot", "doctor", "--store", store]);
    let fine = doctor("/srv/open")?;
    has(&fine.stdout, &["/srv/open is 755, of uid 0; the next snapshot makes it 700"])?;
    ensure!(!fine.stdout.contains("MISSING  store-permissions"), "{}", fine.stdout);
    let bad = doctor("/srv/writable")?;
    has(&bad.stdout, &["MISSING store-permissions /srv/writable is 777"])?;
    ensure!(bad.code == Some(1), "exit code {:?}", bad.code);
    let refused = fastboot(machine, &["snapshot", "idle", "--no-trial", "--store", "/srv/writable"])?;
    ensure!(refused.code == Some(1), "exit code {:?}: {}", refused.code, refused.stdout);
    has(&refused.stderr, &["mode 777"])
}

pub(super) fn other_store(machine: &Container) -> Result<()> {
    let before = main_pids(machine)?;
    let refused = fastboot(machine, &["snapshot", "idle", "--store", "/srv/open"])?;
    ensure!(refused.code == Some(1), "exit code {:?}", refused.code);
    has(&refused.stderr, &["cannot be tried", "--no-trial", "nothing was done"])?;
    ensure!(main_pids(machine)? == before, "somebody was restarted");
    let taken = fastboot(machine, &["snapshot", "idle", "--no-trial", "--store", "/srv/open"])?;
    let said = taken.success()?;
    has(
        &said,
        &["1 of 1 service taken", "A boot uses images in /var/lib/fastboot only, and none in /srv/open"],
    )?;
    ensure!(!said.contains("from the next boot on"), "{said}");
    has(&shell(machine, "stat -c %a /srv/open")?, &["700"])
}

pub(super) fn full_disk(machine: &Container) -> Result<()> {
    const STORE: &str = "/run/small-store";
    shell(machine, &format!("mkdir {STORE} && mount -t tmpfs -o size=4m,mode=700 small {STORE}"))?;
    fastboot(machine, &["snapshot", "idle", "--no-trial", "--store", STORE])?.success()?;
    let fill =
        format!("dd if=/dev/zero of={STORE}/ballast bs=4k 2>/dev/null; df --output=avail {STORE} | tail -1");
    let room = shell(machine, &fill)?;
    ensure!(room.trim() == "0", "{room} KiB are left");
    let said = machine.run(&["fastboot", "remove", "idle", "--store", STORE])?.success()?;
    has(&said, &["idle.service: images removed"])?;
    fastboot(machine, &["snapshot", "idle", "--no-trial", "--store", STORE])?;
    shell(machine, &format!("rm {STORE}/ballast"))?;
    fastboot(machine, &["snapshot", "idle", "--no-trial", "--store", STORE])?.success()?;
    shell(machine, &fill)?;
    let said = machine.run(&["fastboot", "remove", "--all", "--store", STORE])?.success()?;
    has(&said, &["idle.service: images removed"])?;
    let left =
        shell(machine, &format!("find {STORE} -name '*.img' -o -name catalogue.json; umount {STORE}"))?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

pub(super) fn asks(machine: &Container) -> Result<()> {
    let before = main_pids(machine)?;
    // script(1) makes a terminal.
    let script = "echo n | script --quiet --return --command 'fastboot snapshot' /dev/null; echo code $?";
    let said = shell(machine, script)?;
    has(&said, &["restarted twice each", "slow (its start:", "Go on? [y/N]", "nothing was done", "code 1"])?;
    ensure!(!said.contains("idle (its"), "{said}");
    ensure!(main_pids(machine)? == before, "somebody was restarted");
    Ok(())
}

pub(super) fn takes_what_gains(machine: &Container) -> Result<()> {
    let plan = json(machine, &["plan"])?;
    let units = plan["units"].as_array().context("no units")?;
    let row = |name: &str| units.iter().find(|row| row["unit"] == name).with_context(|| name.to_owned());
    let gains = |row: &&Value| row["by_default"] == true;
    let taken: Vec<&str> = units.iter().filter(gains).filter_map(|row| row["unit"].as_str()).collect();
    ensure!(taken.first() == Some(&"slow.service"), "what gains most is not first: {taken:?}");
    ensure!(row("idle.service")?["by_default"] == false, "an idle service gains nothing");
    ensure!(row("idle.service")?["eligible"] == true, "it can be taken");
    ensure!(row("slow.service")?["expected_gain_ms"].as_f64() > Some(500.0), "{}", row("slow.service")?);
    ensure!(row("dbus.service")?["dirty_bytes"].is_null(), "it was not looked at");
    let text = machine.run(&["fastboot", "plan"])?.success()?;
    has(
        &text,
        &["would gain by an image", "a boot would be about", "parts of the boot itself", "~ estimated"],
    )?;

    let idle = machine.unit("idle.service")?.main_pid;
    let output = fastboot(machine, &["snapshot"])?;
    has(&output.stderr, &["`fastboot plan` says why", "restarted twice each", "slow (its start:"])?;
    has(&output.stdout, &["slow.service stored", "They are used from the next boot on."])?;
    ensure!(machine.unit("idle.service")?.main_pid == idle, "it was restarted for nothing");
    ensure!(matches!(output.code, Some(0 | 3)), "exit code {:?}: {}", output.code, output.stdout);
    // With the figures of the trial.
    let plan = json(machine, &["plan", "slow"])?;
    let slow = &plan["units"][0];
    ensure!(slow["cold_by"] == "snapshot" && slow["restore_ms"].is_number(), "{slow}");
    Ok(())
}

pub(super) fn carried_over(machine: &Container) -> Result<()> {
    fastboot(machine, &["snapshot", "idle", "--keep-slow"])?.success()?;
    let list = json(machine, &["list"])?;
    let images = list["generations"][0]["images"].as_array().context("no images")?;
    let from = |unit: &str| images.iter().find(|image| image["unit"] == unit).map(|i| &i["carried_from"]);
    ensure!(from("idle.service").is_some_and(Value::is_null), "{list}");
    ensure!(from("slow.service").is_some_and(Value::is_u64), "{list}");
    has(&machine.run(&["fastboot", "list"])?.success()?, &["kept from before", "kept from 1"])
}

pub(super) fn left_over(machine: &Container) -> Result<()> {
    // As a snapshot that is killed leaves it.
    shell(
        machine,
        &format!("mkdir {STORE_DIR}/images/99 && head -c 5M /dev/zero > {STORE_DIR}/images/99/x.img"),
    )?;
    let doctor = machine.run(&["fastboot", "doctor"])?;
    has(&doctor.stdout, &["store-leftovers", "6 MB of a snapshot that was killed"])
}

pub(super) fn swept(machine: &Container) -> Result<()> {
    wait_until("an empty rest", REPORT_BOUND, || {
        let left = machine.run(&["test", "-e", &format!("{STORE_DIR}/images/99/x.img")])?;
        Ok((left.code == Some(1)).then_some(()))
    })
}

/// Entries of this boot with all their fields.
fn journal(machine: &Container, filter: &[&str]) -> Result<Vec<Value>> {
    let mut command = vec!["journalctl", "--boot", "--output=json", "--no-pager"];
    command.extend(filter);
    let text = machine.run(&command)?.success()?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

const BOOT_ID: &str = "MESSAGE_ID=0f1c7ab29d1e4d3b8a35c2f6e47d9b10";

fn boot_entry(machine: &Container) -> Result<Value> {
    wait_until("the report of the boot", REPORT_BOUND, || Ok(journal(machine, &[BOOT_ID])?.pop()))
}

pub(super) fn boot_in_journal(machine: &Container) -> Result<()> {
    let entry = boot_entry(machine)?;
    let said = entry["MESSAGE"].as_str().context("no message")?;
    let status = json(machine, &["status"])?;
    ensure!(status["summary"] == said, "status says {}, the journal {said}", status["summary"]);
    has(said, &["services restored, boot", "faster than cold"])?;
    let restored = entry["FASTBOOT_RESTORED"].as_str().and_then(|count| count.parse::<usize>().ok());
    ensure!(restored >= Some(1) && entry["FASTBOOT_GAIN_MS"].is_string(), "{entry}");
    ensure!(journal(machine, &[BOOT_ID])?.len() == 1, "it is there more than once");
    let text = machine.run(&["fastboot", "status"])?.success()?;
    has(&text, &[said, "slow.service restored"])?;
    machine.run(&["journalctl", "--update-catalog"])?.success()?;
    let explained = machine.run(&["journalctl", "--boot", "-x", "--no-pager", BOOT_ID])?.success()?;
    has(&explained, &["Subject: What fastboot did in this boot", "Defined-By: fastboot"])
}

pub(super) fn unit_in_journal(machine: &Container) -> Result<()> {
    let lines = machine.run(&["journalctl", "--boot", "--no-pager", "-u", "slow.service"])?.success()?;
    has(&lines, &["slow.service: restored as pid"])?;
    let entries = journal(machine, &["-u", "slow.service", "FASTBOOT_OUTCOME=restored"])?;
    ensure!(entries.len() == 1 && entries[0]["OBJECT_SYSTEMD_UNIT"] == "slow.service", "{entries:?}");
    let status = machine.run(&["systemctl", "status", "--no-pager", "slow.service"])?.success()?;
    has(&status, &["Status: \"Restored from its image by fastboot\"", "slow.service: restored as pid"])
}

pub(super) fn changed_file(machine: &Container) -> Result<()> {
    let entry = boot_entry(machine)?;
    has(entry["MESSAGE"].as_str().unwrap_or_default(), &["slow started cold: /etc/slow.conf"])?;
    let explained = machine.run(&["journalctl", "--boot", "-x", "--no-pager", "-u", "slow.service"])?;
    has(
        &explained.success()?,
        &["/etc/slow.conf", "starting it cold", "Subject: slow.service started cold: file-changed"],
    )?;
    let status = machine.run(&["fastboot", "status"])?.success()?;
    has(&status, &["slow started cold: /etc/slow.conf", "slow.service cold", "(file-changed)"])?;
    let verified = machine.run(&["fastboot", "verify"])?;
    ensure!(verified.code == Some(3), "exit code {:?}", verified.code);
    has(&verified.stdout, &["`fastboot refresh` takes slow again"])
}

pub(super) fn for_root(machine: &Container) -> Result<()> {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "fastboot"];
    for command in [&["enable", "slow"][..], &["disable", "slow"], &["reboot"], &["poweroff", "--dry-run"]] {
        let output = machine.run(&[&nobody[..], command].concat())?;
        ensure!(output.code == Some(1), "{command:?}: exit code {:?}", output.code);
        let said: Vec<&str> = output.stderr.lines().collect();
        ensure!(said.len() == 2 && said[1] == "fastboot: this is for root to do", "{command:?}: {said:?}");
    }
    Ok(())
}

/// In the minute between what it says and what it does.
pub(super) fn refresh_stopped(machine: &Container) -> Result<()> {
    let before = main_pids(machine)?;
    shell(
        machine,
        "set -e
         dir=/run/systemd/system/fastboot-refresh.service.d
         mkdir -p $dir; printf '[Unit]\\nConditionIOPressure=\\nConditionMemoryPressure=\\n' > $dir/test.conf
         systemctl daemon-reload
         systemctl start --no-block fastboot-refresh
         said() { journalctl --boot -u fastboot-refresh | grep -q 'these will be restarted'; }
         for i in $(seq 300); do said && break; sleep 0.1; done
         said
         systemctl stop fastboot-refresh
         rm -r $dir; systemctl daemon-reload",
    )?;
    let state = shell(machine, "systemctl show --property=ActiveState --value fastboot-refresh")?;
    ensure!(state.trim() == "inactive", "it is {state}");
    ensure!(main_pids(machine)? == before, "somebody was restarted");
    Ok(())
}

pub(super) fn refresh(machine: &Container) -> Result<()> {
    let idle = machine.unit("idle.service")?.main_pid;
    let dry = machine.run(&["fastboot", "refresh", "--dry-run"])?.success()?;
    has(&dry, &["would be taken again", "slow.service", "/etc/slow.conf"])?;
    ensure!(!dry.contains("idle.service"), "{dry}");
    let slow = machine.unit("slow.service")?.main_pid;
    let done = fastboot(machine, &["refresh"])?.success()?;
    has(&done, &["1 of 1 service taken", "slow.service stored"])?;
    ensure!(machine.unit("slow.service")?.main_pid != slow, "it was not taken again");
    ensure!(machine.unit("idle.service")?.main_pid == idle, "another one was restarted");
    let again = fastboot(machine, &["refresh"])?.success()?;
    has(&again, &["there is nothing to take again"])
}

/// Lines in a drop-in of the slow service.
fn drop_in(machine: &Container, text: &str) -> Result<()> {
    let dir = "/etc/systemd/system/slow.service.d";
    shell(machine, &format!("mkdir -p {dir} && printf '{text}' > {dir}/test.conf && systemctl daemon-reload"))
        .map(drop)
}

pub(super) fn refresh_as_the_unit_says(machine: &Container) -> Result<()> {
    drop_in(machine, "[X-Fastboot]\\nRefresh=no\\n")?;
    let before = main_pids(machine)?;
    let left = fastboot(machine, &["refresh"])?;
    has(&left.stderr, &["Refresh=no leaves it alone", "drop-in"])?;
    has(&left.success()?, &["Stale, and left as they are: 1 of 2 images"])?;

    drop_in(machine, "[X-Fastboot]\\nRefresh=as-it-runs\\nDependsOn=/etc/slow.conf\\n")?;
    let taken = fastboot(machine, &["refresh"])?.success()?;
    has(&taken, &["1 of 1 service taken", "slow.service stored"])?;
    ensure!(main_pids(machine)? == before, "somebody was restarted");

    // What runs has not got it, and an image of it would be used as if it had.
    let edited =
        "[Service]\\nEnvironment=WORD=new\\n[X-Fastboot]\\nRefresh=as-it-runs\\nDependsOn=/etc/slow.conf\\n";
    drop_in(machine, edited)?;
    let refused = fastboot(machine, &["refresh"])?;
    ensure!(refused.code == Some(3), "exit code {:?}", refused.code);
    has(
        &refused.stdout,
        &["slow.service refused", "test.conf, of its unit, changed after the service had started"],
    )?;

    drop_in(machine, "")?;
    let taken = fastboot(machine, &["refresh", "--background", "--notice", "1"])?;
    has(&taken.stderr, &["in 1 s these will be restarted, twice each: slow"])?;
    has(&taken.success()?, &["1 of 1 service taken", "slow.service stored"])
}

/// Which start of the slow service it is. Its PID does not tell: a generation that came to nothing
/// leaves its numbers to the next.
fn start_of(machine: &Container) -> Result<String> {
    shell(machine, "systemctl show --property=InvocationID slow.service")
}

/// Nothing warms it up, today and tomorrow. (That something gains nothing would be a matter of the
/// load.)
pub(super) fn refresh_in_vain(machine: &Container) -> Result<()> {
    drop_in(machine, "[X-Fastboot]\\nWarmUp=/usr/bin/false\\n")?;
    let before = start_of(machine)?;
    let first = fastboot(machine, &["refresh", "--background"])?;
    has(&first.stdout, &["slow.service failed", "/usr/bin/false"])?;
    let after = start_of(machine)?;
    ensure!(after != before, "it was not tried");
    let second = fastboot(machine, &["refresh", "--background"])?;
    has(&second.stderr, &["slow: could not be taken before for the same reasons"])?;
    has(&second.success()?, &["Stale, and left as they are: 1 of 2 images"])?;
    ensure!(start_of(machine)? == after, "it was restarted once more");
    // An operator who asks may.
    fastboot(machine, &["refresh"])?;
    ensure!(start_of(machine)? != after, "it was not tried again");
    // With its own text back, the image from before fits again.
    drop_in(machine, "")?;
    let verified = fastboot(machine, &["refresh"])?;
    let why = verified.stderr.clone();
    has(&verified.success()?, &["there is nothing to take again"]).context(why)
}

/// Ctrl-C while it waits for the restarted service, and in the trial.
pub(super) fn interrupted(machine: &Container) -> Result<()> {
    let look = "find /var/lib/fastboot ! -name lock -type f | sort; fastboot list --json | \
                sed 's/\"age_s\":[0-9]*//g'; ls -R /run/systemd/system /run/fastboot/trial 2>/dev/null; true";
    let before = shell(machine, look)?;
    for phase in ["restart", "trial"] {
        // The shell itself reads what is said: programs that end at once may count as the unit's,
        // and this file changes.
        let script = format!(
            "rm -f /srv/fifo /srv/err; mkfifo /srv/fifo
             systemd-run --quiet --pipe --wait --collect --unit=interrupted \
             fastboot snapshot slow > /srv/out 2> /srv/fifo &
             while read -r line; do
                 echo \"$line\" >> /srv/err
                 case \"$line\" in *'{phase} 1/1: slow'*)
                     [ -n \"$sent\" ] || systemctl kill --signal=INT interrupted; sent=1;;
                 esac
             done < /srv/fifo
             wait $!; echo \"ended $?\"; cat /srv/out /srv/err"
        );
        let said = shell(machine, &script)?;
        has(&said, &["ended 1", "slow.service failed", "interrupted by the operator", "Nothing was stored"])
            .with_context(|| phase)?;
        has(&said, &["SIGINT: undoing what has been begun"])?;
        let after = shell(machine, look)?;
        ensure!(after == before, "{phase}: {before} became {after}");
        machine.wait_active("slow.service", BOUND)?;
    }
    let taken = fastboot(machine, &["snapshot", "slow"])?.success()?;
    has(&taken, &["slow.service stored"])
}

/// Two snapshots are four starts at least, and another one by the operator must be possible.
pub(super) fn start_limit(machine: &Container) -> Result<()> {
    drop_in(machine, "[Unit]\\nStartLimitBurst=1\\nStartLimitIntervalSec=1h\\n")?;
    for _ in 0..2 {
        let taken = fastboot(machine, &["snapshot", "slow"])?.success()?;
        has(&taken, &["slow.service stored"])?;
        ensure!(machine.unit("slow.service")?.is_active(), "it does not run");
    }
    drop_in(machine, "")
}

pub(super) fn down(machine: &Container) -> Result<()> {
    drop_in(machine, "[Service]\\nExecStartPre=/usr/bin/false\\n")?;
    let output = fastboot(machine, &["snapshot", "slow"])?;
    has(&output.stdout, &["Nothing was stored. slow does not run any more after the restart"])?;
    drop_in(machine, "")?;
    shell(machine, "systemctl restart slow").map(drop)?;
    let taken = fastboot(machine, &["snapshot", "slow"])?.success()?;
    has(&taken, &["slow.service stored"])
}

pub(super) fn history(machine: &Container) -> Result<()> {
    let boots = json(machine, &["history"])?;
    let boots = boots["boots"].as_array().context("no boots")?;
    ensure!(boots.len() == 2, "{boots:?}");
    ensure!(boots[0]["gain_ms"].as_f64() > Some(100.0), "{}", boots[0]);
    ensure!(boots[1]["cold"][0]["code"] == "file-changed", "{}", boots[1]);
    let text = machine.run(&["fastboot", "history"])?.success()?;
    has(&text, &["2 boots; the last:", "before (median)", "slow: /etc/slow.conf"])
}

pub(super) fn switched_off(machine: &Container) -> Result<()> {
    let before = main_pids(machine)?;
    let status = machine.run(&["fastboot", "status"])?.success()?;
    has(&status, &["switched off for this boot by fastboot=0 on the kernel command line"])?;
    let output = fastboot(machine, &["snapshot", "slow"])?;
    ensure!(output.code == Some(1), "exit code {:?}", output.code);
    has(&output.stderr, &["fastboot=0", "nothing was done", "--no-trial"])?;
    ensure!(main_pids(machine)? == before, "somebody was restarted");
    fastboot::status(machine).map(drop)
}
