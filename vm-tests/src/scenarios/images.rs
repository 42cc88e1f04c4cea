//! Images and evidence that do not hold at the next boot.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::service_failures::HANGING_BOUND;
use super::service_site::{COUNTER, Expected, NGINX, REDIS, ScenarioLab, ServiceSite};
use crate::container::{BootOptions, Container};
use crate::fastboot;
use crate::roots::flip_middle_byte;
use crate::service::{Service, Taken};

pub(super) fn intact(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("intact")?;
    for _ in 0..2 {
        let running = site.boot()?;
        site.require(&running, &taken, |_| Expected::Restored)?;
        running.wait_booted(HANGING_BOUND)?;
        chart_shows(&site, &running, &taken)?;
        running.poweroff()?;
    }
    Ok(())
}

/// `fastboot chart` knows who was restored, where the time went, and who started beside them.
fn chart_shows(site: &ServiceSite, running: &Container, taken: &[Taken]) -> Result<()> {
    let told = running.run(&["fastboot", "chart", "--json"])?.success()?;
    let boot: Value = serde_json::from_str(&told).context("what `fastboot chart --json` prints")?;
    let services = boot["services"].as_array().context("services")?;
    let moment = |value: &Value| value.as_u64().unwrap_or(0);
    ensure!(services.iter().any(|service| service["how"] == "other"), "nobody started beside them: {told}");
    for taken in taken.iter().filter(|taken| !site.has_lost_number(running, taken.service)) {
        let unit = taken.service.unit;
        let service = services.iter().find(|service| service["unit"] == unit).context(unit)?;
        let (start, ready) = (moment(&service["start_us"]), moment(&service["ready_us"]));
        let phases = service["phases_ms"].as_array().context(unit)?;
        let sum: f64 = phases.iter().filter_map(|phase| phase["ms"].as_f64()).sum();
        let whole = (ready.saturating_sub(start)) as f64 / 1e3;
        ensure!(service["how"] == "restored" && start > moment(&boot["userspace_us"]), "{unit}: {service}");
        ensure!((sum - whole).abs() <= whole / 10.0 + 1.0, "{unit}: {sum} ms of {whole}: {service}");
    }
    let drawn = running.run(&["fastboot", "chart"])?.success()?;
    for taken in taken {
        let name = taken.service.unit.trim_end_matches(".service");
        ensure!(drawn.starts_with("<svg") && drawn.contains(name), "{name} is not in the picture");
    }
    Ok(())
}

/// redis has a user namespace of its own: its threads get their ids by counter, in a race with
/// everybody who forks.
pub(super) fn amid_forks(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("amid-forks")?;
    site.machine.scratch.write("/etc/systemd/system/forks.service", FORKS, 0o644)?;
    let wanted = site.machine.scratch.path("/etc/systemd/system/sysinit.target.wants/forks.service");
    fs::create_dir_all(wanted.parent().context("a directory")?)?;
    symlink("../forks.service", wanted)?;
    for _ in 0..2 {
        let running = site.boot()?;
        site.require(&running, &taken, |_| Expected::Restored)?;
        running.poweroff()?;
    }
    Ok(())
}

/// Some hundred forks a second on each processor, from the beginning of the boot.
const FORKS: &str = "[Unit]\nDefaultDependencies=no\nBefore=redis-server.service\n\n[Service]\n\
    ExecStart=/bin/sh -c 'while :; do /bin/true; done & while :; do /bin/true; done'\n";

pub(super) fn damaged(lab: &ScenarioLab) -> Result<()> {
    only_one_is_cold(lab, "damaged", REDIS, &["image-corrupt"], |site| {
        flip_middle_byte(&fastboot::image_path(site.machine.scratch.root(), REDIS.unit)?)
    })
}

pub(super) fn truncated(lab: &ScenarioLab) -> Result<()> {
    only_one_is_cold(lab, "truncated", NGINX, &["image-corrupt"], |site| {
        let path = fastboot::image_path(site.machine.scratch.root(), NGINX.unit)?;
        halve(&path).with_context(|| format!("cutting {}", path.display()))
    })
}

fn halve(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(file.metadata()?.len() / 2)
}

pub(super) fn missing(lab: &ScenarioLab) -> Result<()> {
    only_one_is_cold(lab, "missing", COUNTER, &["image-missing"], |site| {
        let path = fastboot::image_path(site.machine.scratch.root(), COUNTER.unit)?;
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    })
}

pub(super) fn damaged_catalogue(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("catalogue")?;
    site.machine.scratch.write(
        &format!("{}/catalogue.json", fastboot::STORE_DIR),
        "{\"format\": 1, \"gen",
        0o600,
    )?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Cold(&[]))?;
    let error = fastboot::status(&running)?.error.unwrap_or_default();
    ensure!(error.contains("catalogue.json is damaged"), "fastboot status says {error:?}");
    running.poweroff()
}

pub(super) fn another_machine(lab: &ScenarioLab) -> Result<()> {
    all_are_cold(lab, "another-machine", &BootOptions::default(), &["machine-changed"], |site| {
        site.machine.scratch.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444)
    })
}

/// As after an upgrade: the program that becomes PID 1 has another version in it. (A real upgrade,
/// by Debian's packages: `reboots`.)
pub(super) fn another_systemd(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("another-systemd")?;
    let path = site.machine.scratch.path("/usr/lib/systemd/systemd");
    let mut program = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let was = end_of_version(&mut program).context("systemd says no version")?.to_string();
    fs::write(&path, &program).with_context(|| format!("writing {}", path.display()))?;
    let running = site.boot()?;
    site.require(&running, &taken, |_| Expected::Cold(&["systemd-changed"]))?;
    for unit in fastboot::status(&running)?.units {
        let reason = unit.reason.unwrap_or_default();
        let names = reason.starts_with("systemd is ") && reason.ends_with(&format!("{was} at the snapshot"));
        ensure!(names, "the reason of {} is {reason:?}", unit.unit);
    }
    running.poweroff()
}

/// Change the last character of the version in what PID 1 says of itself, and return what it was.
fn end_of_version(program: &mut [u8]) -> Option<char> {
    let behind = b" running in %ssystem mode";
    let at = program.windows(behind.len()).position(|window| window == behind)?.checked_sub(1)?;
    let was = char::from(program[at]);
    program[at] = if program[at] == b'9' { b'8' } else { b'9' };
    Some(was)
}

pub(super) fn switched_off(lab: &ScenarioLab) -> Result<()> {
    let options = BootOptions { arguments: vec!["fastboot=0".to_owned()], ..BootOptions::default() };
    all_are_cold(lab, "switched-off", &options, &[], |_| Ok(()))
}

pub(super) fn edited_unit(lab: &ScenarioLab) -> Result<()> {
    let (mut site, taken) = lab.site_with_images("edited")?;
    // The administrator's own command line must win over whatever the generator says.
    site.drop_in(
        COUNTER.unit,
        "[Service]\nEnvironment=EDITED=1\nExecStart=\nExecStart=/usr/local/bin/counter 8082\n",
    )?;
    let running = site.boot()?;
    site.require(&running, &taken, |service| cold_if(*service == COUNTER, &["unit-changed"]))?;
    let shown = running.run(&["systemctl", "show", "--property=Environment", COUNTER.unit])?.success()?;
    ensure!(shown.contains("EDITED=1"), "the edit has no effect: {shown}");
    running.poweroff()
}

pub(super) fn unreadable_unit(lab: &ScenarioLab) -> Result<()> {
    only_one_is_cold(lab, "unreadable", COUNTER, &["unit-changed"], |site| {
        let dir = site.machine.scratch.path(&format!("/etc/systemd/system/{}.d", COUNTER.unit));
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        // A comment that is no UTF-8, and a drop-in that leads nowhere: systemd starts the unit all
        // the same.
        fs::write(dir.join("60-bytes.conf"), b"[Service]\n# \xff\xfe\x80\n")
            .context("writing the drop-in")?;
        std::os::unix::fs::symlink("/nonexistent", dir.join("61-nowhere.conf")).context("making the link")
    })
}

fn cold_if(cold: bool, codes: &'static [&'static str]) -> Expected {
    if cold { Expected::Cold(codes) } else { Expected::Restored }
}

/// After `meddle`, `victim` is cold for one of `codes`; the others are restored.
fn only_one_is_cold(
    lab: &ScenarioLab,
    name: &str,
    victim: Service,
    codes: &'static [&'static str],
    meddle: impl Fn(&ServiceSite) -> Result<()>,
) -> Result<()> {
    let (mut site, taken) = lab.site_with_images(name)?;
    meddle(&site)?;
    let running = site.boot()?;
    site.require(&running, &taken, |service| cold_if(*service == victim, codes))?;
    running.poweroff()
}

/// After `meddle`, every service is cold for one of `codes`.
fn all_are_cold(
    lab: &ScenarioLab,
    name: &str,
    options: &BootOptions,
    codes: &'static [&'static str],
    meddle: impl Fn(&ServiceSite) -> Result<()>,
) -> Result<()> {
    let (mut site, taken): (ServiceSite, Vec<Taken>) = lab.site_with_images(name)?;
    meddle(&site)?;
    let running = site.boot_with(options)?;
    site.require(&running, &taken, |_| Expected::Cold(codes))?;
    running.poweroff()
}
