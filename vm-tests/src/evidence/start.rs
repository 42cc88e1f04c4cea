//! The start itself is evidence: what systemd gives to a service may change without a file that the
//! service has read. Each of these services is shielded from what is changed for the others.
//!
//! Four boots of one machine: images are taken; a group, a limit, a variable and a credential
//! change; the machine gets another name; all is as it was.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use test_frame::{Body, Need, Report, Test, Together};

use crate::container::{Container, run_in_root};
use crate::fastboot::{self, StatusReport};
use crate::site::{Lab, Site};
use crate::units;

const BOUND: Duration = Duration::from_secs(180);
const SECRET: &str = "word-that-nobody-is-to-see";
const SYSTEM_CONF: &str = "/etc/systemd/system.conf.d/start.conf";
const CREDENTIAL: &str = "/etc/start-credential";
const HOST_NAME: &str = "/etc/hostname";

/// One service.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    /// What follows `[Service]`.
    text: &'static str,
    /// Code and words of its cold start.
    code: &'static str,
    named: &'static str,
}

macro_rules! case {
    ($name:literal, $text:literal, $code:literal, $named:literal) => {
        Case { name: concat!("start-", $name), text: $text, code: $code, named: $named }
    };
}

const CASES: [Case; 4] = [
    // systemd reads the files of groups and credentials in the unit's control group before it
    // executes anything, so that they would be named. Here group and credential themselves are to
    // be, as where they come from elsewhere.
    case!(
        "group",
        "User=counter\nLimitNOFILE=777\nUnsetEnvironment=START_WORD\n[X-Fastboot]\nIgnoreChanges=/etc/group\n",
        "groups-changed",
        "(start-extra) is gone"
    ),
    case!(
        "limit",
        "UnsetEnvironment=START_WORD\n",
        "limits-changed",
        "its limit of open files is \"4321 8765\""
    ),
    case!(
        "variable",
        "LimitNOFILE=777\n",
        "environment-changed",
        "its environment variable START_WORD changed"
    ),
    case!(
        "credential",
        "LimitNOFILE=777\nUnsetEnvironment=START_WORD\nLoadCredential=word:/etc/start-credential\n\
         [X-Fastboot]\nIgnoreChanges=/etc/start-credential\n",
        "credentials-changed",
        "its credential word changed"
    ),
];

/// One test for each service.
pub(super) fn tests() -> Vec<Test> {
    let machine: Rc<dyn Together> = Rc::new(OneMachine);
    let test = |case: Case| {
        let run = Body::Together(Rc::clone(&machine));
        Test::new(case.test(), &[Need::Root, Need::Container], run)
    };
    CASES.map(test).into()
}

struct OneMachine;

impl Together for OneMachine {
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let cases: Vec<Case> =
            CASES.into_iter().filter(|case| names.contains(&case.test().as_str())).collect();
        live(&cases, report)
    }
}

impl Case {
    fn test(self) -> String {
        format!("evidence/{}", self.name)
    }

    fn unit(self) -> String {
        format!("{}.service", self.name)
    }
}

fn live(cases: &[Case], report: &mut Report) -> Result<()> {
    let mut site = Lab::prepare("evidence", units::recipe)?.site("start")?;
    install(&site, cases)?;
    let running = site.boot(BOUND)?;
    let units: Vec<String> = cases.iter().map(|case| case.unit()).collect();
    let names: Vec<&str> = units.iter().map(String::as_str).collect();
    let taken = fastboot::snapshot_with_trial(&running, &names, &["--keep-slow"])?;
    for case in cases {
        let checks = report.checks(&case.test());
        let unit = taken.unit(&case.unit()).context("it is not in the report")?;
        let stored = match unit.outcome.as_str() {
            "stored" => Ok(()),
            other => Err(anyhow::anyhow!("{other}: {}", unit.reasons.join("; "))),
        };
        checks.note("an image is taken", stored);
        checks.note("what its start gave is listed, and no secret", lists_start(&running, *case));
    }
    running.poweroff()?;

    change(&site, true)?;
    let running = site.boot(BOUND)?;
    let status = fastboot::status(&running)?;
    for case in cases {
        let cold = is_cold(&status, *case, case.code, case.named);
        report.checks(&case.test()).note("its start is another one, and it starts cold", cold);
    }
    running.poweroff()?;
    change(&site, false)?;

    let was = std::fs::read_to_string(site.scratch.path(HOST_NAME)).context("the name of the machine")?;
    site.scratch.write(HOST_NAME, "another-name\n", 0o644)?;
    let running = site.boot(BOUND)?;
    let status = fastboot::status(&running)?;
    for case in cases {
        let cold = is_cold(&status, *case, "hostname-changed", "host name is \"another-name\"");
        let checks = report.checks(&case.test());
        checks.note("the machine has another name, and it starts cold", cold);
        checks.note("fastboot verify knows that too", verify_names(&running, *case, "another-name"));
    }
    running.poweroff()?;
    site.scratch.write(HOST_NAME, &was, 0o644)?;

    let running = site.boot(BOUND)?;
    let status = fastboot::status(&running)?;
    for case in cases {
        report.checks(&case.test()).note("it is restored when all is as it was", is_restored(&status, *case));
    }
    running.poweroff()
}

fn install(site: &Site, cases: &[Case]) -> Result<()> {
    let setup = "groupadd --system start-extra && gpasswd -a counter start-extra";
    run_in_root(site.scratch.root(), &[], setup, BOUND).context("a group for the user")?;
    // Its own name, and not that of the container.
    site.scratch.write(HOST_NAME, "first-name\n", 0o644)?;
    change(site, false)?;
    for case in cases {
        let unit = case.unit();
        let text = format!("[Service]\nType=exec\nExecStart=/usr/bin/sleep infinity\n{}", case.text);
        site.scratch.write(&format!("/etc/systemd/system/{unit}"), &text, 0o644)?;
        let wants = site.scratch.path("/etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants)?;
        std::os::unix::fs::symlink(format!("../{unit}"), wants.join(&unit))
            .with_context(|| format!("enabling {unit}"))?;
    }
    Ok(())
}

/// Everything at once, or as it was.
fn change(site: &Site, is_changed: bool) -> Result<()> {
    let (limit, word, secret) = match is_changed {
        true => ("4321:8765", "two", "another-word"),
        false => ("1234:5678", "one", SECRET),
    };
    let conf = format!("[Manager]\nDefaultLimitNOFILE={limit}\nDefaultEnvironment=START_WORD={word}\n");
    site.scratch.write(SYSTEM_CONF, &conf, 0o644)?;
    site.scratch.write(CREDENTIAL, secret, 0o600)?;
    let path = site.scratch.path("/etc/group");
    let groups = std::fs::read_to_string(&path).context("reading /etc/group")?;
    let members = |line: &str| match line.strip_prefix("start-extra:") {
        Some(rest) => {
            let given = rest.rsplit_once(':').map_or(rest, |(given, _)| given);
            format!("start-extra:{given}:{}", if is_changed { "" } else { "counter" })
        }
        None => line.to_owned(),
    };
    let groups: Vec<String> = groups.lines().map(members).collect();
    std::fs::write(&path, groups.join("\n") + "\n").context("writing /etc/group")
}

fn lists_start(machine: &Container, case: Case) -> Result<()> {
    let text = machine.run(&["fastboot", "show", &case.unit(), "--evidence"])?.success()?;
    for wanted in ["open files", "bounding set of capabilities", "host name", "first-name", "PATH"] {
        ensure!(text.contains(wanted), "{wanted} is not in it: {text}");
    }
    let json = machine.run(&["fastboot", "show", &case.unit(), "--evidence", "--json"])?.success()?;
    let catalogue = machine.run(&["cat", "/var/lib/fastboot/catalogue.json"])?.success()?;
    ensure!(json.contains("\"limit\"") && !json.contains("\"start\":null"), "the start is not in {json}");
    for text in [text, json, catalogue] {
        ensure!(!text.contains(SECRET), "the credential can be read in {text}");
    }
    Ok(())
}

fn is_cold(status: &StatusReport, case: Case, code: &str, named: &str) -> Result<()> {
    let said = status.unit(&case.unit()).context("fastboot status does not know it")?;
    let reason = said.reason.as_deref().unwrap_or_default();
    let is = said.reason_code.as_deref().unwrap_or_default();
    ensure!(said.outcome == "cold" && is == code, "it is {} ({is}: {reason})", said.outcome);
    ensure!(reason.contains(named), "the reason is {reason:?} and does not name {named}");
    Ok(())
}

fn is_restored(status: &StatusReport, case: Case) -> Result<()> {
    let said = status.unit(&case.unit()).context("fastboot status does not know it")?;
    ensure!(said.outcome == "restored", "{}: {:?}", said.outcome, said.reason);
    Ok(())
}

fn verify_names(machine: &Container, case: Case, named: &str) -> Result<()> {
    let said = machine.run(&["fastboot", "verify", &case.unit(), "--json"])?;
    if said.code != Some(3) || !said.stdout.contains(named) {
        bail!("exit code {:?}: {}{}", said.code, said.stdout, said.stderr);
    }
    Ok(())
}
