//! One image for many equal machines: images are taken in the root of a machine, its machine id is
//! emptied as whoever builds an image of a disk does it, and copies of the root are booted.

mod place;

use std::collections::BTreeSet;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use test_frame::{Body, Need, Report, Test, Together};

use crate::container::Container;
use crate::fastboot::{self, SnapshotReport};
use crate::scenarios::service_site::recipe;
use crate::site::Lab;
use place::{Answer, CONFIGURED, Copy, NAMES, READER, RENEWED, Seen, UNHOOKED};

const REFUSED: &str = "golden/what_is_of_one_machine_refuses_a_service_by_name";
const RESTORED: &str = "golden/copies_with_ids_of_their_own_are_restored";
const SECRET: &str = "golden/no_two_copies_draw_the_same_secret";
const IDENTITY: &str = "golden/a_service_that_renews_its_identity_has_that_of_its_machine";
const EDITED: &str = "golden/an_edited_file_in_one_copy_makes_that_one_cold";
const BOUND_TO_ONE: &str = "golden/an_image_of_one_machine_is_refused_by_its_copies";
const HOST_NAME: &str = "golden/another_host_name_counts_unless_the_unit_says_otherwise";
const TOLD: &str = "golden/commands_say_which_images_are_golden";

const TESTS: [&str; 8] = [REFUSED, RESTORED, SECRET, IDENTITY, EDITED, BOUND_TO_ONE, HOST_NAME, TOLD];

/// Those that have an image for all.
const SHARED: [&str; 3] = [NAMES, RENEWED, CONFIGURED];
/// Has one for the machine that made it.
const OF_ONE: &str = "counter.service";
/// Refused for what they have mapped.
const LIBRARIES: [&str; 2] = ["nginx.service", "redis-server.service"];
const EDITED_COPY: &str = "second";
const CONFIGURATION: &str = "/etc/configured.conf";

/// All on four machines.
pub fn tests() -> Vec<Test> {
    let machines: Rc<dyn Together> = Rc::new(FourMachines);
    let needs = [Need::Root, Need::Container];
    TESTS.iter().map(|name| Test::new(*name, &needs, Body::Together(Rc::clone(&machines)))).collect()
}

struct FourMachines;

impl Together for FourMachines {
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let mut note = |name: &str, what: &str, result: Result<()>| {
            if names.contains(&name) {
                report.checks(name).note(what, result);
            }
        };
        live(&mut note)
    }
}

/// Told of each thing that was looked at: of which test, what, and how it came out.
type Note<'a> = dyn FnMut(&str, &str, Result<()>) + 'a;

fn live(note: &mut Note<'_>) -> Result<()> {
    let mut maker = Lab::prepare("golden", recipe)?.site("maker")?;
    place::install(&maker.scratch)?;
    let running = maker.boot(place::BOUND)?;
    take(&running, note)?;
    let born = SHARED.map(|unit| place::ask(&running, unit).map(|answer| answer.born));
    let born = born.into_iter().collect::<Result<BTreeSet<_>>>()?;
    running.poweroff()?;
    place::forget_identity(&maker.scratch)?;

    // All are copied before one is booted.
    let copies = ["first", EDITED_COPY, "third"].map(|name| Copy::of(&maker.scratch, name));
    let mut copies = copies.into_iter().collect::<Result<Vec<Copy>>>()?;
    for copy in copies.iter().filter(|copy| copy.name == EDITED_COPY) {
        copy.site.scratch.write(CONFIGURATION, "edited\n", 0o644)?;
    }
    let seen: Vec<Seen> = copies.iter_mut().map(Copy::live).collect::<Result<_>>()?;
    judge(&seen, &born, note);

    let mut renamed = copies.pop().context("there is no third copy")?;
    renamed.site.scratch.write("/etc/hostname", "renamed\n", 0o644)?;
    let seen = renamed.live()?;
    note(HOST_NAME, "one that may have asked is cold", seen.is_cold(NAMES, "hostname-changed", "renamed"));
    note(HOST_NAME, "one with Identity= is restored", seen.is_restored(RENEWED));
    Ok(())
}

/// Takes all images, and looks at who is refused.
fn take(running: &Container, note: &mut Note<'_>) -> Result<()> {
    let all = [&SHARED[..], &LIBRARIES, &[READER, UNHOOKED]].concat();
    let golden = fastboot::snapshot_with_trial(running, &all, &["--golden", "--keep-slow"])?;
    for unit in SHARED {
        ensure!(golden.unit(unit).is_some_and(|row| row.outcome == "stored"), "{unit}: {golden:#?}");
    }
    note(
        REFUSED,
        "it has read the machine id",
        refused(&golden, READER, "reads-identity", "/etc/machine-id"),
    );
    note(REFUSED, "nobody renews it", refused(&golden, UNHOOKED, "identity-not-renewed", "AfterRestore="));
    for unit in LIBRARIES {
        note(REFUSED, "its library repeats", refused(&golden, unit, "repeats-random", "libcrypto.so.3"));
    }
    let of_one = fastboot::snapshot(running, &[OF_ONE, READER], &[])?;
    for unit in [OF_ONE, READER] {
        let row = of_one.unit(unit).with_context(|| format!("{unit} is not in the report"))?;
        ensure!(row.outcome == "stored", "for this machine alone {unit} is taken as ever: {row:?}");
    }
    note(TOLD, "list", told(running, &["list"], "golden"));
    note(TOLD, "show", told(running, &["show", NAMES], "golden: for every machine that is equal"));
    note(TOLD, "doctor", told(running, &["doctor"], "images of 5 services, 3 golden"));
    Ok(())
}

fn refused(report: &SnapshotReport, unit: &str, code: &str, named: &str) -> Result<()> {
    let row = report.unit(unit).with_context(|| format!("{unit} is not in the report"))?;
    let has_code = row.obstacles.iter().any(|obstacle| obstacle.code == code);
    let is_named = row.reasons.iter().any(|reason| reason.contains(named));
    ensure!(row.outcome == "refused" && has_code && is_named, "{row:?}");
    Ok(())
}

fn told(running: &Container, command: &[&str], wanted: &str) -> Result<()> {
    let output = running.run(&[&["fastboot"], command].concat())?;
    // However the lines are folded.
    let words = output.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(words.contains(wanted), "no {wanted:?} in {words:?}");
    Ok(())
}

/// What the first boots of three copies have shown. `born`: when the services were started of which
/// there are images.
fn judge(seen: &[Seen], born: &BTreeSet<u64>, note: &mut Note<'_>) {
    let ids: BTreeSet<&str> = seen.iter().map(|seen| seen.machine_id.as_str()).collect();
    let distinct = match ids.len() == seen.len() && ids.iter().all(|id| id.len() == 32) {
        true => Ok(()),
        false => Err(anyhow::anyhow!("machine ids: {ids:?}")),
    };
    note(RESTORED, "each has an id of its own", distinct);
    for one in seen {
        for unit in SHARED {
            if one.name == EDITED_COPY && unit == CONFIGURED {
                note(EDITED, "it is named", one.is_cold(unit, "file-changed", CONFIGURATION));
                note(EDITED, "it has read what is there", one.has_read(unit, "edited"));
                continue;
            }
            note(RESTORED, &format!("{} of {}", unit, one.name), one.is_restored(unit));
            let is_of_image = one.answer(unit).and_then(|answer| {
                ensure!(born.contains(&answer.born), "it was started in this boot: {answer:?}");
                Ok(())
            });
            note(RESTORED, &format!("memory of {} in {}", unit, one.name), is_of_image);
        }
        note(IDENTITY, &one.name, one.has_read(RENEWED, &one.machine_id));
        note(BOUND_TO_ONE, &one.name, one.is_cold(OF_ONE, "machine-changed", "/etc/machine-id"));
    }
    let answers: Vec<&Answer> = seen.iter().flat_map(|one| one.answers.values()).collect();
    let secrets: BTreeSet<&str> = answers.iter().map(|answer| answer.secret.as_str()).collect();
    let fresh = match secrets.len() == answers.len() && answers.len() >= 3 * SHARED.len() {
        true => Ok(()),
        false => Err(anyhow::anyhow!("{} secrets in {} answers", secrets.len(), answers.len())),
    };
    note(SECRET, "all are different", fresh);
}
