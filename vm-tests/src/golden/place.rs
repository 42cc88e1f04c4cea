//! The machine that makes the images, its copies, and what is asked of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::SHARED;
use crate::container::{Container, wait_until};
use crate::fastboot::{self, StatusReport};
use crate::roots::Scratch;
use crate::site::Site;

pub(super) const BOUND: Duration = Duration::from_secs(90);
/// Draws names.
pub(super) const NAMES: &str = "names.service";
/// Has read the machine id, and reads it again after a restore.
pub(super) const RENEWED: &str = "renewed.service";
/// Has read a file that is edited in one copy.
pub(super) const CONFIGURED: &str = "configured.service";
/// Has read the machine id.
pub(super) const READER: &str = "reader.service";
/// Says that it renews it, and does not.
pub(super) const UNHOOKED: &str = "unhooked.service";

struct Subject {
    unit: &'static str,
    port: u16,
    reads: &'static str,
    options: &'static str,
}

const SUBJECTS: [Subject; 5] = [
    Subject { unit: NAMES, port: 7401, reads: "/etc/debian_version", options: "" },
    Subject {
        unit: RENEWED,
        port: 7402,
        reads: "/etc/machine-id",
        options: "Identity=renewed\nAfterRestore=kill -HUP $MAINPID\n",
    },
    Subject { unit: CONFIGURED, port: 7403, reads: super::CONFIGURATION, options: "" },
    Subject { unit: READER, port: 7404, reads: "/etc/machine-id", options: "" },
    Subject { unit: UNHOOKED, port: 7405, reads: "/etc/machine-id", options: "Identity=renewed\n" },
];

/// Files of one machine that whoever builds an image of a disk removes.
const OF_ONE: [&str; 2] = ["/var/lib/systemd/random-seed", "/run/machine-id"];

/// Their program, and units that start it at boot.
pub(super) fn install(scratch: &Scratch) -> Result<()> {
    scratch.write("/srv/who.py", include_str!("../../roots/golden/who.py"), 0o644)?;
    scratch.write(super::CONFIGURATION, "first\n", 0o644)?;
    let wants = scratch.path("/etc/systemd/system/multi-user.target.wants");
    for Subject { unit, port, reads, options } in &SUBJECTS {
        let text = format!(
            "[Service]\nType=notify\nExecStart=/usr/bin/python3 /srv/who.py {port} {reads}\n[X-Fastboot]\n{options}"
        );
        let file = format!("/etc/systemd/system/{unit}");
        scratch.write(&file, &text, 0o644)?;
        symlink(&file, wants.join(unit)).with_context(|| format!("enabling {unit}"))?;
    }
    Ok(())
}

/// As docs/golden-images.md says: an empty machine id has the next boot make one.
pub(super) fn forget_identity(scratch: &Scratch) -> Result<()> {
    scratch.write("/etc/machine-id", "", 0o444)?;
    for path in OF_ONE {
        match fs::remove_file(scratch.path(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {path}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// One machine with a copy of the root.
pub(super) struct Copy {
    pub(super) name: &'static str,
    pub(super) site: Site,
}

impl Copy {
    /// File by file: inodes and change times are others.
    pub(super) fn of(maker: &Scratch, name: &'static str) -> Result<Copy> {
        Ok(Copy { name, site: Site::new("golden", name, maker.root())? })
    }

    /// Boots it, looks, and switches it off.
    pub(super) fn live(&mut self) -> Result<Seen> {
        let running = self.site.boot(BOUND)?;
        let machine_id = running.run(&["cat", "/etc/machine-id"])?.success()?.trim().to_owned();
        // Its hook has only sent the signal.
        wait_until("the renewal", BOUND, || Ok((ask(&running, RENEWED)?.read == machine_id).then_some(())))
            .with_context(|| running.journal(RENEWED, 20))?;
        let answers = SHARED.iter().map(|unit| Ok(((*unit).to_owned(), ask(&running, unit)?)));
        let answers = answers.collect::<Result<_>>()?;
        let status = fastboot::status(&running)?;
        running.poweroff()?;
        Ok(Seen { name: self.name.to_owned(), machine_id, status, answers })
    }
}

/// One answer of a service.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// When it was started, nanoseconds since 1970.
    pub(super) born: u64,
    /// Drawn for this answer.
    pub(super) secret: String,
    /// What it has read.
    pub(super) read: String,
}

/// Asks a service.
pub(super) fn ask(running: &Container, unit: &str) -> Result<Answer> {
    let subject = SUBJECTS.iter().find(|subject| subject.unit == unit).context("there is no such service")?;
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}; cat <&3", subject.port);
    let said = running.run(&["bash", "-c", &script])?.success()?;
    let mut words = said.split_whitespace();
    let mut next = || words.next().map(str::to_owned).with_context(|| format!("{unit} says {said:?}"));
    Ok(Answer { born: next()?.parse().context("when it was started")?, secret: next()?, read: next()? })
}

/// What one boot of a copy has shown.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) machine_id: String,
    pub(super) answers: BTreeMap<String, Answer>,
    status: StatusReport,
}

impl Seen {
    pub(super) fn answer(&self, unit: &str) -> Result<&Answer> {
        self.answers.get(unit).with_context(|| format!("nobody has asked {unit}"))
    }

    pub(super) fn has_read(&self, unit: &str, wanted: &str) -> Result<()> {
        let answer = self.answer(unit)?;
        ensure!(answer.read == wanted, "{unit} has read {:?} and not {wanted:?}", answer.read);
        Ok(())
    }

    pub(super) fn is_restored(&self, unit: &str) -> Result<()> {
        let said = self.status.unit(unit).with_context(|| format!("{unit} is not named"))?;
        ensure!(said.outcome == "restored", "{said:?}");
        Ok(())
    }

    pub(super) fn is_cold(&self, unit: &str, code: &str, named: &str) -> Result<()> {
        let said = self.status.unit(unit).with_context(|| format!("{unit} is not named"))?;
        let is = (said.outcome.as_str(), said.reason_code.as_deref().unwrap_or_default());
        let reason = said.reason.as_deref().unwrap_or_default();
        ensure!(is == ("cold", code) && reason.contains(named), "{said:?}");
        Ok(())
    }
}
