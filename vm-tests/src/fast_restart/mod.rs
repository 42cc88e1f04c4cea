//! Services that are taken when the machine goes down and go on at the next boot, once: whatever
//! comes between has them start cold, with the reason.

mod place;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Need, Once, Test};

use crate::container::{BootOptions, Container, wait_until};
use crate::fastboot;
use crate::site::Lab;
use place::{BOUND, LEDGER, Ledger, Place, REDIS, recipe};

struct Case {
    /// A sentence that holds when it passes.
    name: &'static str,
    run: fn(&Lab) -> Result<()>,
}

const CASES: &[Case] = &[
    Case { name: "services_go_on_over_reboots_with_writes_in_between", run: cycles },
    Case { name: "whatever_comes_between_has_a_service_start_cold", run: interventions },
    Case { name: "an_image_whose_restore_was_begun_is_never_used_again", run: consumed },
    Case { name: "an_edited_configuration_is_named_before_and_read_after", run: edited },
    Case { name: "an_interrupted_reboot_leaves_everything_running", run: interrupted },
];

/// All of them.
pub fn tests() -> Vec<Test> {
    let lab = Once::new(|| Lab::prepare_with_faults("fast-restart", recipe));
    let test = |case: &'static Case| {
        let lab = lab.clone();
        let name = format!("fast-restart/{}", case.name);
        Test::alone(name, &[Need::Root, Need::Container], move |_| (case.run)(lab.get()?))
    };
    CASES.iter().map(test).collect()
}

/// Both services, by `fastboot reboot`, `fastboot poweroff` and a plain `systemctl reboot`.
fn cycles(lab: &Lab) -> Result<()> {
    let mut place = Place::enabled(lab, "cycles")?;
    let mut running = place.boot()?;
    let first = place.enable(&running)?;
    running.run(&["systemctl", "enable", "--now", "fastboot-restart.service"])?.success()?;
    let commands: [&[&str]; 4] = [
        &["fastboot", "reboot"],
        &["fastboot", "poweroff"],
        &["systemctl", "reboot"],
        &["fastboot", "reboot"],
    ];
    for (round, command) in (1_u32..).zip(commands) {
        let before = Ledger::add(&running)?;
        redis(&running, &["INCR", "rounds"])?;
        let said = place.go_down(running, command)?;
        running = place.boot()?;
        let status = fastboot::status(&running)?;
        for unit in [LEDGER, REDIS] {
            let outcome = status.unit(unit).with_context(|| format!("{unit} is not named; {said}"))?;
            ensure!(outcome.outcome == "restored", "round {round}: {outcome:?}; {said}");
        }
        let now = Ledger::look(&running)?;
        ensure!(now == before && now.token == first.token, "it was {before:?} and is {now:?}");
        ensure!(now.count == round, "{now:?} in round {round}");
        let rounds = redis(&running, &["GET", "rounds"])?;
        ensure!(rounds == round.to_string(), "redis has {rounds} rounds and not {round}");
    }
    // Its file has all of it too.
    running.run(&["systemctl", "restart", REDIS])?.success()?;
    let rounds = wait_until("redis", BOUND, || Ok(Some(redis(&running, &["GET", "rounds"])?)))?;
    ensure!(rounds == "4", "its file has {rounds} rounds");
    let marks = running.run(&["sh", "-c", "cat /var/lib/ledger/stopped 2>&1 || true"])?.success()?;
    ensure!(marks.contains("No such file"), "its stop commands were run: {marks}");
    running.poweroff()
}

fn redis(running: &Container, words: &[&str]) -> Result<String> {
    Ok(running.run(&[&["redis-cli"], words].concat())?.success()?.trim().to_owned())
}

/// A change while the machine is off, or a boot.
struct Between {
    code: &'static str,
    /// What the reason has to name.
    named: &'static str,
    change: fn(&mut Place) -> Result<()>,
}

const BETWEEN: &[Between] = &[
    Between { code: "boot-between", named: "one more came between", change: another_boot },
    Between {
        code: "state-changed",
        named: "/var/lib/ledger/ledger.db-wal",
        change: |place| place.append("/var/lib/ledger/ledger.db-wal"),
    },
    Between {
        code: "state-changed",
        named: "/var/lib/ledger/ledger.db",
        change: |place| place.put_back("/var/lib/ledger/ledger.db"),
    },
    Between {
        code: "state-changed",
        named: "/var/lib/ledger",
        change: |place| place.site.scratch.write("/var/lib/ledger/new", "", 0o644),
    },
    Between {
        code: "file-changed",
        named: "/etc/ledger.conf",
        change: |place| place.site.scratch.write("/etc/ledger.conf", "edited-while-off\n", 0o644),
    },
];

fn another_boot(place: &mut Place) -> Result<()> {
    let options = BootOptions { arguments: vec!["fastboot=0".to_owned()], ..BootOptions::default() };
    let running = place.site.start(&options)?;
    running.wait_booted(BOUND)?;
    // It does not touch the state of the ledger: only the boot itself tells.
    running.poweroff()
}

fn interventions(lab: &Lab) -> Result<()> {
    let mut place = Place::enabled(lab, "between")?;
    // Else the boot in between would write to its files.
    place.leave_to_us()?;
    let mut running = place.boot()?;
    place.start(&running)?;
    let mut life = place.enable(&running)?;
    for between in BETWEEN {
        Ledger::add(&running)?;
        let said = place.go_down(running, &["fastboot", "poweroff"])?;
        ensure!(said.contains(&format!("{LEDGER}: taken")), "before {}: {said}", between.named);
        (between.change)(&mut place).with_context(|| between.named.to_owned())?;
        running = place.boot()?;
        place.start(&running)?;
        place.is_cold(&running, between.code, between.named)?;
        let now = Ledger::look(&running)?;
        ensure!(now.token != life.token, "{}: it is the same life: {now:?}", between.named);
        life = now;
        if between.code == "file-changed" {
            ensure!(life.config == "edited-while-off", "{life:?}");
        }
    }
    running.poweroff()
}

/// The power fails in the middle of the restore.
fn consumed(lab: &Lab) -> Result<()> {
    let mut place = Place::enabled(lab, "consumed")?;
    let running = place.boot()?;
    let first = place.enable(&running)?;
    Ledger::add(&running)?;
    place.go_down(running, &["fastboot", "poweroff"])?;
    place.set_fault("fastboot-initd.service", "once.consumed:sleep=60000")?;
    let running = place.site.start(&BootOptions::default())?;
    wait_until("the mark", BOUND, || Ok(place.consumed_marks()?.checked_sub(1).map(drop)))
        .with_context(|| running.console_tail())?;
    // Killed, as it stands.
    drop(running);
    place.set_fault("fastboot-initd.service", "")?;
    let running = place.boot()?;
    place.is_cold(&running, "image-consumed", "may be used once")?;
    let now = Ledger::look(&running)?;
    ensure!(now.token != first.token && now.count == 1, "{now:?}");
    // And in the boot after that.
    running.poweroff()?;
    let running = place.boot()?;
    place.is_cold(&running, "image-consumed", "may be used once")?;
    running.poweroff()
}

fn edited(lab: &Lab) -> Result<()> {
    let mut place = Place::enabled(lab, "edited")?;
    let running = place.boot()?;
    let first = place.enable(&running)?;
    running.run(&["sh", "-c", "echo edited > /etc/ledger.conf"])?.success()?;
    let said = running.run(&["fastboot", "reboot", "--dry-run"])?.success()?;
    let names_it = |said: &str| said.contains(&format!("{LEDGER}: stops as ever: /etc/ledger.conf changed"));
    ensure!(names_it(&said), "{said}");
    // A golden image is not what the unit wants.
    let refused = fastboot::snapshot(&running, &[LEDGER], &[])?;
    let refused = refused.unit(LEDGER).context("it is not in the report")?;
    ensure!(refused.obstacles.iter().any(|one| one.code == "fast-restart-unit"), "{refused:?}");
    let said = place.go_down(running, &["fastboot", "reboot"])?;
    ensure!(names_it(&said) && said.contains(&format!("{REDIS}: taken")), "{said}");
    let running = place.boot()?;
    let now = Ledger::look(&running)?;
    ensure!(now.config == "edited" && now.token != first.token, "{now:?}");
    // What it reads now is not what was observed, until somebody looks on again.
    let said = running.run(&["fastboot", "reboot", "--dry-run"])?.success()?;
    ensure!(names_it(&said), "{said}");
    let second = place.enable(&running)?;
    let said = place.go_down(running, &["fastboot", "reboot"])?;
    let running = place.boot()?;
    let now = Ledger::look(&running)?;
    ensure!(now.token == second.token && now.config == "edited", "{now:?}; {said}");
    // Out of the mode again, it stops and starts as ever.
    running.run(&["fastboot", "disable", LEDGER])?.success()?;
    place.go_down(running, &["fastboot", "reboot"])?;
    let running = place.boot()?;
    let last = Ledger::look(&running)?;
    ensure!(last.token != now.token && last.count == now.count, "{last:?}");
    running.poweroff()
}

fn interrupted(lab: &Lab) -> Result<()> {
    let mut place = Place::enabled(lab, "interrupted")?;
    let running = place.boot()?;
    let first = place.enable(&running)?;
    for (point, signal) in
        [("restart.written", "INT"), ("restart.before-end", "TERM"), ("restart.before-end", "KILL")]
    {
        let fault = format!("--setenv=FASTBOOT_FAULT={point}:sleep=1500");
        let unit = format!("--unit=down-{point}-{signal}");
        running.run(&["systemd-run", "--quiet", &unit, &fault, "fastboot", "reboot"])?.success()?;
        let frozen = "kill -0 $(systemctl show -P MainPID ledger) && \
                      grep -q 'TracerPid:\t[1-9]' /proc/$(systemctl show -P MainPID ledger)/status";
        wait_until("the freeze", BOUND, || {
            Ok((running.run(&["sh", "-c", frozen])?.code == Some(0)).then_some(()))
        })?;
        let signal = format!("--signal={signal}");
        let kill = ["systemctl", "kill", "--kill-whom=main", &signal, &unit["--unit=".len()..]];
        running.run(&kill)?.success()?;
        let now = Ledger::look(&running)?;
        ensure!(now.token == first.token, "{point} {signal}: {now:?}");
        wait_until("its end", BOUND, || {
            let state = running.unit(&format!("{}.service", &unit["--unit=".len()..]))?;
            Ok((!state.is_active()).then_some(()))
        })?;
    }
    // What was killed has left its mark, and the next one clears it away.
    let fault = "--setenv=FASTBOOT_FAULT=restart.before-end";
    let failed = running.run(&["systemd-run", "--quiet", "--wait", "--pipe", fault, "fastboot", "reboot"])?;
    ensure!(failed.code != Some(0), "{failed:?}");
    ensure!(Ledger::look(&running)?.token == first.token, "a failure has ended it");
    let drop_ins = running.run(&["systemctl", "show", "-P", "DropInPaths", LEDGER])?.success()?;
    ensure!(!drop_ins.contains("going-down"), "{drop_ins}");
    // It still goes down afterwards, and comes back.
    let said = place.go_down(running, &["fastboot", "reboot"])?;
    let running = place.boot()?;
    let now = Ledger::look(&running)?;
    ensure!(now.token == first.token, "{now:?}; {said}");
    running.poweroff()
}
