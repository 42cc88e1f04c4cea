//! Another package is upgraded: who has enabled the timer has the service's image taken again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::container::{Container, Output, wait_until};
use crate::fastboot;

const UNIT: &str = "payload.service";
/// That must not be restarted by it.
const OTHER: &str = "idle.service";
const SOON: &str = "fastboot-refresh-soon.timer";
const BOUND: Duration = Duration::from_secs(120);

/// The whole story, on a machine where the other service runs and has an image.
///
/// # Errors
/// What went otherwise.
pub(super) fn run(machine: &Container) -> Result<()> {
    let told = story(machine);
    // The machine is compared with what it was, file by file.
    let cleared = shell(
        machine,
        "systemctl disable --quiet fastboot-refresh.timer; systemctl stop payload; dpkg --purge payload; \
         rm -rf /srv/payload /run/systemd/system/fastboot-refresh*; systemctl daemon-reload; \
         fastboot remove payload",
    );
    told.and(cleared.map(drop))
}

fn story(machine: &Container) -> Result<()> {
    shell(machine, "mkdir -p /srv/payload")?;
    let unit = include_str!("../../roots/package/payload.service");
    shell(machine, &format!("cat > /srv/payload/payload.service <<'END'\n{unit}END"))?;
    for version in ["1", "2", "3"] {
        let make = include_str!("../../roots/package/payload.sh");
        machine.run(&["sh", "-c", make, "sh", version])?.success()?;
    }
    shell(
        machine,
        "dpkg --install /srv/payload/1.deb && systemctl daemon-reload && systemctl start payload",
    )?;
    ensure!(!is_waiting(machine)?, "it is off, and acts");
    let taken = fastboot::snapshot_with_trial(machine, &[UNIT], &[])?;
    let outcome = taken.unit(UNIT).context("no report of the unit")?;
    ensure!(outcome.outcome == "stored", "{}: {}", outcome.outcome, outcome.reasons.join("; "));

    // Not after five minutes, and whatever else the machine has to do.
    shell(
        machine,
        "cd /run/systemd/system && mkdir fastboot-refresh-soon.timer.d fastboot-refresh.service.d && \
         printf '[Timer]\\nOnActiveSec=\\nOnActiveSec=1s\\nAccuracySec=100ms\\n' \
             > fastboot-refresh-soon.timer.d/test.conf && \
         printf '[Unit]\\nConditionIOPressure=\\nConditionMemoryPressure=\\n[Service]\\nExecStart=\\n\
                 ExecStart=/usr/sbin/fastboot refresh --background --notice 1\\n' \
             > fastboot-refresh.service.d/test.conf && \
         systemctl daemon-reload",
    )?;
    let before = image_of(machine)?;
    shell(machine, "dpkg --install /srv/payload/2.deb")?;
    ensure!(!is_waiting(machine)?, "nobody has enabled it, and it acts");
    ensure!(image_of(machine)? == before, "nobody has enabled it, and the image is another one");

    shell(machine, "systemctl enable --quiet fastboot-refresh.timer")?;
    let other = machine.unit(OTHER)?.main_pid;
    shell(machine, "dpkg --install /srv/payload/3.deb")?;
    wait_until("another image", BOUND, || Ok((image_of(machine)? != before).then_some(())))
        .with_context(|| machine.journal("fastboot-refresh.service", 30))?;
    wait_until("the end of it", BOUND, || {
        let state = machine.run(&["systemctl", "is-active", "fastboot-refresh.service"])?.stdout;
        Ok((state.trim() == "inactive").then_some(()))
    })?;
    let said = machine.journal("fastboot-refresh.service", 50);
    for words in ["/usr/share/payload/data", "these will be restarted, twice each: payload"] {
        ensure!(said.contains(words), "no {words:?} in: {said}");
    }
    ensure!(machine.unit(OTHER)?.main_pid == other, "{OTHER} was restarted too");
    let verified: Output = machine.run(&["fastboot", "verify", "payload"])?;
    ensure!(verified.code == Some(0), "{}", verified.stdout);
    Ok(())
}

/// Whether the timer of an upgrade runs.
fn is_waiting(machine: &Container) -> Result<bool> {
    Ok(machine.run(&["systemctl", "is-active", SOON])?.stdout.trim() == "active")
}

/// The id of its newest image.
fn image_of(machine: &Container) -> Result<String> {
    let listed = machine.run(&["fastboot", "list", "--json"])?.success()?;
    let listed: Value = serde_json::from_str(&listed)?;
    let images = listed["generations"][0]["images"].as_array().context("no images")?;
    let image = images.iter().find(|image| image["unit"] == UNIT).context("no image of it")?;
    Ok(image["image_id"].as_str().unwrap_or_default().to_owned())
}

fn shell(machine: &Container, script: &str) -> Result<String> {
    machine.run_for(&["sh", "-c", script], BOUND)?.success()
}
