//! Groups with controllers and limits below that of a unit (Delegate=): containers on the hosts of
//! these tests have no controllers.

use anyhow::{Context as _, Result, ensure};

use super::steps;
use crate::fastboot::{self, SnapshotReport};
use crate::machine::Running;

const UNIT: &str = "groups.service";
/// The same where systemd makes the group of its main process.
const IN_SUBGROUP: &str = "groups-subgroup.service";
/// Those that are restored.
const TAKEN: [&str; 2] = [UNIT, IN_SUBGROUP];
/// The same with a setting that is not carried.
const REFUSED: &str = "groups-refused.service";
pub(super) const UNITS: [&str; 3] = [UNIT, IN_SUBGROUP, REFUSED];
const PROGRAM: &str = "/srv/groups.sh";
/// As long as it is there no restore succeeds.
const OBSTACLE: &str = "/srv/groups.obstacle";

/// All that can be set in the groups below that of a unit, who is in which, whose they are.
const STATE: &str = "\
     find . -mindepth 2 -type f -perm -600 ! -name '*.pressure' ! -name '*.peak' -exec grep -H . {} + | sort; \
     grep -H . cgroup.procs cgroup.subtree_control; find . -mindepth 1 -printf '%p %u %m\\n' | sort";

/// The units, started, and enabled for later boots.
pub(super) fn install(running: &Running) -> Result<()> {
    let unit = |program: &str, more: &str| {
        format!(
            "[Service]\nType=exec\nDelegate=yes\nExecStart=/bin/sh {program}\n[Install]\nWantedBy=multi-user.target\n{more}"
        )
    };
    let hook = format!("[X-Fastboot]\nAfterRestore=test ! -e {OBSTACLE}\n");
    let files = [
        (PROGRAM.to_owned(), include_str!("../../roots/machine/groups.sh").to_owned()),
        (format!("/etc/systemd/system/{UNIT}"), unit(PROGRAM, &hook)),
        (
            format!("/etc/systemd/system/{IN_SUBGROUP}"),
            unit(PROGRAM, &format!("{hook}[Service]\nDelegateSubgroup=main\n")),
        ),
        (format!("/etc/systemd/system/{REFUSED}"), unit(&format!("{PROGRAM} leaf/../cpu.idle 1"), "")),
    ];
    for (path, text) in files {
        running.shell(&format!("cat > {path} <<'END'\n{text}END\n"))?;
    }
    let names = UNITS.join(" ");
    running.shell(&format!("systemctl daemon-reload; systemctl enable --quiet --now {names}"))?;
    Ok(())
}

/// Ended, and gone from the root.
pub(super) fn remove(running: &Running) -> Result<()> {
    let names = UNITS.join(" ");
    running.shell(&format!(
        "systemctl disable --quiet --now {names}; rm /etc/systemd/system/groups*.service; systemctl daemon-reload"
    ))?;
    Ok(())
}

/// State and main PID of each at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Groups(Vec<(String, String)>);

impl Groups {
    pub(super) fn look(running: &Running) -> Result<Groups> {
        TAKEN
            .iter()
            .map(|unit| look_at(running, unit).with_context(|| (*unit).to_owned()))
            .collect::<Result<_>>()
            .map(Groups)
    }

    /// In a restored boot: all as it was.
    pub(super) fn require_kept(&self, running: &Running) -> Result<()> {
        let status = steps::status(running)?;
        for unit in TAKEN {
            let said = status.unit(unit).context("fastboot status does not know it")?;
            ensure!(said.outcome == "restored", "{unit} is {}: {:?}", said.outcome, said.reason);
        }
        let now = Groups::look(running)?;
        for ((before, pid_before), (after, pid_after)) in self.0.iter().zip(&now.0) {
            ensure!(
                before == after && pid_before == pid_after,
                "it was\n{pid_before}\n{before}\nand is\n{pid_after}\n{after}"
            );
        }
        Ok(())
    }
}

fn look_at(running: &Running, unit: &str) -> Result<(String, String)> {
    let main_pid = running.shell(&format!("systemctl show --property=MainPID --value {unit}"))?;
    let state = running.shell(&format!("cd /sys/fs/cgroup/system.slice/{unit}; {STATE}"))?;
    // What the service does at its start; the test would show nothing without it.
    for word in ["limited/memory.max:67108864", "limited/leaf/pids.max:7", "limited/cpuset.cpus:0"] {
        ensure!(state.contains(word), "there is no {word} in\n{state}");
    }
    Ok((state, main_pid.trim().to_owned()))
}

/// Two are stored, the other is refused for what it has set.
pub(super) fn were_taken(report: &SnapshotReport) -> Result<()> {
    for unit in TAKEN {
        let unit = report.unit(unit).with_context(|| format!("{unit} is not in the report"))?;
        ensure!(unit.outcome == "stored", "{}: {}: {}", unit.unit, unit.outcome, unit.reasons.join("; "));
    }
    let unit = report.unit(REFUSED).context("the other one is not in the report")?;
    let reasons = unit.reasons.join("; ");
    let is_named = reasons.contains("a control group with cpu.idle set to \"1\"");
    ensure!(unit.outcome == "refused" && is_named, "{}: {reasons}", unit.outcome);
    Ok(())
}

/// Before a boot: restores will fail when the groups are made and processes are in them.
pub(super) fn obstruct(running: &Running) -> Result<()> {
    running.shell(&format!("touch {OBSTACLE}")).map(drop)
}

/// In that boot: the shim is back where systemd had put it, and the cold one has made its groups
/// itself.
pub(super) fn is_cold(running: &Running) -> Result<()> {
    let status = steps::status(running)?;
    for (unit, (_, main_pid)) in TAKEN.into_iter().zip(Groups::look(running)?.0) {
        let said = status.unit(unit).context("fastboot status does not know it")?;
        let reason = said.reason.as_deref().unwrap_or_default();
        ensure!(
            said.outcome == "cold" && reason.contains(OBSTACLE),
            "{unit} is {}: {reason:?}",
            said.outcome
        );
        let place = running.shell(&format!("cat /proc/{main_pid}/cgroup"))?;
        ensure!(place.trim() == format!("0::/system.slice/{unit}/main"), "it is in {place:?}");
    }
    Ok(())
}

/// The trial of a snapshot stops the service and restores it on the same machine, where systemd has
/// to have cleared its groups away.
pub(super) fn bear_a_trial(running: &Running) -> Result<()> {
    running.shell(&format!("rm {OBSTACLE}"))?;
    let command = ["fastboot", "snapshot", "--keep-slow", "--json", UNIT, IN_SUBGROUP];
    let report: SnapshotReport = fastboot::parse(&running.run(&command)?.success()?)?;
    for unit in TAKEN {
        let unit = report.unit(unit).with_context(|| format!("{unit} is not in the report"))?;
        let restored = unit.outcome == "stored" && unit.restore_ms.is_some();
        ensure!(restored, "{}: {}: {}", unit.unit, unit.outcome, unit.reasons.join("; "));
    }
    Groups::look(running).map(drop)
}
