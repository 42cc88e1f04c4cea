//! Images whose evidence no longer holds: each service starts cold, for the right reason, and the
//! others do not care.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use test_frame::Checks;

use super::boot::Provisioned;
use super::note_answers;
use crate::container::Container;
use crate::fastboot::{self, StatusReport};
use crate::roots::flip_middle_byte;
use crate::service::{Taken, require_cold, require_restored};

/// What is done to a service's image or files, and what `fastboot status` must say of it.
struct Change {
    unit: &'static str,
    what: &'static str,
    code: &'static str,
    /// Words that the sentence must have.
    named: &'static str,
}

const NGINX_CONF: &str = "/etc/nginx/nginx.conf";
/// The package's redis-server is a link to this.
const REDIS_BINARY: &str = "/usr/bin/redis-check-rdb";

const CHANGES: [Change; 4] = [
    Change {
        unit: "nginx.service",
        what: "its configuration was edited",
        code: "file-changed",
        named: NGINX_CONF,
    },
    Change {
        unit: "redis-server.service",
        what: "its binary was replaced",
        code: "file-changed",
        named: REDIS_BINARY,
    },
    Change {
        unit: "tomcat10.service",
        what: "one byte of its image was flipped",
        code: "image-corrupt",
        named: "",
    },
    Change { unit: "go-demo.service", what: "its image was deleted", code: "image-missing", named: "" },
];

pub(super) fn run(machine: &mut Provisioned, taken: &[Taken], checks: &mut Checks) -> Result<()> {
    append(&machine.scratch.path(NGINX_CONF), b"\n# edited by the demo\n")?;
    replace_with_longer(&machine.scratch.path(REDIS_BINARY))?;
    let root = machine.scratch.root();
    flip_middle_byte(&fastboot::image_path(root, "tomcat10.service")?)?;
    let image = fastboot::image_path(root, "go-demo.service")?;
    fs::remove_file(&image).with_context(|| format!("removing {}", image.display()))?;

    let (running, times) = machine.boot()?;
    note_answers(checks, "boot with stale images", &times);
    let status = fastboot::status(&running)?;
    for taken in taken {
        let unit = taken.service.unit;
        match CHANGES.iter().find(|change| change.unit == unit) {
            Some(change) => {
                let name = format!("{unit} starts cold, because {}", change.what);
                checks.note(name, require_reason(&running, &status, change, taken));
            }
            None => {
                checks.note(
                    format!("{unit} is restored all the same"),
                    require_restored(&running, &status, taken),
                );
            }
        }
    }
    running.poweroff()
}

fn require_reason(running: &Container, status: &StatusReport, change: &Change, taken: &Taken) -> Result<()> {
    let said = status.unit(change.unit).context("fastboot status does not name it")?;
    ensure!(said.outcome == "cold", "fastboot status says {}", said.outcome);
    let code = said.reason_code.as_deref().unwrap_or("none");
    let sentence = said.reason.as_deref().unwrap_or_default();
    ensure!(code == change.code, "the reason is {code} and not {} ({sentence})", change.code);
    ensure!(sentence.contains(change.named), "the reason does not name {}: {sentence}", change.named);
    require_cold(running, taken)
}

fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().append(true).open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("appending to {}", path.display()))
}

/// As an upgrade does it: a new file takes the place of the old one.
fn replace_with_longer(path: &Path) -> Result<()> {
    let new = path.with_extension("new");
    fs::copy(path, &new).with_context(|| format!("copying {}", path.display()))?;
    append(&new, b"\0appended by the demo\0")?;
    fs::rename(&new, path).with_context(|| format!("renaming to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_binary_is_another_inode() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, "x").unwrap();
        let before = fs::metadata(&path).unwrap();
        replace_with_longer(&path).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert!(after.len() > before.len() && after.ino() != before.ino());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
