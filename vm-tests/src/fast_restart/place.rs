//! A machine with the two services, and what is asked of it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::container::{Container, wait_until};
use crate::fastboot;
use crate::roots::{Recipe, RootFile};
use crate::site::{Lab, Site};

pub(super) const LEDGER: &str = "ledger.service";
pub(super) const REDIS: &str = "redis-server.service";
/// Longest for a boot, and for anything else that is waited for.
pub(super) const BOUND: Duration = Duration::from_secs(60);
/// What the command that ends the machine has said.
const SAID: &str = "/var/lib/said-at-the-end";

pub(super) fn recipe() -> Result<Recipe> {
    Ok(Recipe {
        name: "fast-restart",
        suite: "trixie",
        packages: vec![
            "systemd",
            "systemd-sysv",
            "dbus",
            "procps",
            "iproute2",
            "redis-server",
            "redis-tools",
            "python3",
        ],
        from_sid: Vec::new(),
        files: vec![
            RootFile::text("/srv/ledger.py", include_str!("../../roots/fast-restart/ledger.py")),
            RootFile::text(
                "/etc/systemd/system/ledger.service",
                include_str!("../../roots/fast-restart/ledger.service"),
            ),
        ],
        setup: include_str!("../../roots/fast-restart/setup.sh"),
    })
}

/// One machine.
pub(super) struct Place {
    pub(super) site: Site,
}

impl Place {
    /// Both services start at boot; nobody is in the mode yet.
    pub(super) fn enabled(lab: &Lab, name: &str) -> Result<Place> {
        Ok(Place { site: lab.site(name)? })
    }

    pub(super) fn boot(&mut self) -> Result<Container> {
        self.site.boot(BOUND)
    }

    /// Where it is not started by the boot.
    pub(super) fn start(&self, running: &Container) -> Result<()> {
        running.run(&["systemctl", "start", LEDGER])?.success().map(drop)
    }

    /// Puts both into the mode; what the ledger is from then on.
    pub(super) fn enable(&self, running: &Container) -> Result<Ledger> {
        let enable = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "fastboot", "enable"];
        running.run(&[&enable[..], &[LEDGER, REDIS, "--mode", "fast-restart"]].concat())?.success()?;
        // Of the restart that observed it.
        running.run(&["rm", "-f", "/var/lib/ledger/stopped"])?.success()?;
        Ledger::look(running)
    }

    /// Runs a command that ends the machine, and waits until it has ended. What the command said.
    pub(super) fn go_down(&self, running: Container, command: &[&str]) -> Result<String> {
        let _ = fs::remove_file(self.site.scratch.path(SAID));
        let output = format!("--property=StandardOutput=append:{SAID}");
        let error = format!("--property=StandardError=append:{SAID}");
        let run = ["systemd-run", "--quiet", "--unit=down", &output, &error];
        running.run(&[&run[..], command].concat())?.success()?;
        let ended = running.wait_end();
        let said = fs::read_to_string(self.site.scratch.path(SAID)).unwrap_or_default();
        ended.with_context(|| said.clone())?;
        Ok(said)
    }

    /// A few bytes more at the end of a file of the machine, which is off.
    pub(super) fn append(&self, path: &str) -> Result<()> {
        let file = OpenOptions::new().append(true).open(self.site.scratch.path(path));
        file.and_then(|mut file| file.write_all(b"x")).with_context(|| format!("writing to {path}"))
    }

    /// As a backup does it: the file has the same size, content and time, and was written.
    pub(super) fn put_back(&self, path: &str) -> Result<()> {
        let file = self.site.scratch.path(path);
        let put = || {
            let (content, time) = (fs::read(&file)?, fs::metadata(&file)?.modified()?);
            fs::write(&file, content)?;
            OpenOptions::new().write(true).open(&file)?.set_modified(time)
        };
        put().with_context(|| format!("putting {path} back"))
    }

    /// The ledger is started by hand from now on.
    pub(super) fn leave_to_us(&self) -> Result<()> {
        let link = self.site.scratch.path(&format!("/etc/systemd/system/multi-user.target.wants/{LEDGER}"));
        fs::remove_file(link).context("having the ledger left alone at boot")
    }

    pub(super) fn set_fault(&self, unit: &str, fault: &str) -> Result<()> {
        let text = format!("[Service]\nEnvironment=FASTBOOT_FAULT={fault}\n");
        self.site.scratch.write(&format!("/etc/systemd/system/{unit}.d/fault.conf"), &text, 0o644)
    }

    /// How many images have been used up.
    pub(super) fn consumed_marks(&self) -> Result<usize> {
        let dir = self.site.scratch.path(&format!("{}/once/consumed", fastboot::STORE_DIR));
        match fs::read_dir(&dir) {
            Ok(entries) => Ok(entries.count()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).context("listing marks"),
        }
    }

    /// The ledger has started cold, for this reason.
    pub(super) fn is_cold(&self, running: &Container, code: &str, named: &str) -> Result<()> {
        let status = fastboot::status(running)?;
        let said = status.unit(LEDGER).with_context(|| format!("{LEDGER} is not named: {status:?}"))?;
        let is = (said.outcome.as_str(), said.reason_code.as_deref().unwrap_or_default());
        let reason = said.reason.as_deref().unwrap_or_default();
        ensure!(is == ("cold", code) && reason.contains(named), "{is:?} and not {code}, {named}: {reason}");
        Ok(())
    }
}

/// What the ledger says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    /// Of this life.
    pub(super) token: String,
    /// In its memory.
    pub(super) count: u32,
    rows: u32,
    pub(super) config: String,
}

impl Ledger {
    pub(super) fn look(running: &Container) -> Result<Ledger> {
        Ledger::ask(running, "look")
    }

    /// One more entry.
    pub(super) fn add(running: &Container) -> Result<Ledger> {
        let before = Ledger::look(running)?;
        let after = Ledger::ask(running, "add")?;
        ensure!(after.count == before.count + 1, "{before:?}, {after:?}");
        Ok(after)
    }

    fn ask(running: &Container, word: &str) -> Result<Ledger> {
        let ask = format!("exec 3<>/dev/tcp/127.0.0.1/7301 && echo {word} >&3 && cat <&3");
        let answer = wait_until("the ledger", BOUND, || {
            let output = running.run(&["bash", "-c", &ask])?;
            Ok((output.code == Some(0)).then_some(output.stdout))
        })
        .with_context(|| running.journal(LEDGER, 20))?;
        let words: Vec<&str> = answer.split_whitespace().collect();
        let [token, count, rows, last, sound, config] = words[..] else {
            bail!("its answer is {answer:?}");
        };
        let number = |word: &str| if word == "None" { Ok(0) } else { word.parse::<u32>() };
        let ledger = Ledger {
            token: token.to_owned(),
            count: number(count)?,
            rows: number(rows)?,
            config: config.to_owned(),
        };
        ensure!(sound == "ok", "its database is not sound: {answer}");
        ensure!(
            ledger.count == ledger.rows && number(last)? == ledger.rows,
            "memory and file differ: {answer}"
        );
        Ok(ledger)
    }
}
