//! What an operator sees: every command's output fits, has its documented JSON and says what it
//! should, over four boots of one machine.

mod json;
mod screens;
mod stages;

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use test_frame::{Body, Need, Report, Test, Together};

use crate::container::{BootOptions, Container};
use crate::roots::Scratch;
use crate::scenarios::service_site::recipe;
use crate::site::Lab;

pub(super) const BOUND: Duration = Duration::from_secs(60);

/// A stage: a sentence that holds when it passes.
struct Stage {
    name: &'static str,
    run: fn(&Container) -> Result<()>,
}

const fn stage(name: &'static str, run: fn(&Container) -> Result<()>) -> Stage {
    Stage { name, run }
}

/// Before there are images.
const FIRST: &[Stage] = &[
    stage("a_wrong_name_is_told_before_anything_is_touched", stages::wrong_name),
    stage("wrong_options_of_a_unit_are_named_by_plan", stages::wrong_options),
    stage("a_lock_names_its_holder", stages::lock_holder),
    stage("doctor_and_snapshot_judge_a_store_alike", stages::store_mode),
    stage("a_store_that_no_boot_uses_is_said_to_be_one", stages::other_store),
    stage("images_are_removed_on_a_full_disk", stages::full_disk),
    stage("what_is_for_root_is_refused_to_others_before_anything_is_said", stages::for_root),
    stage("a_snapshot_without_names_asks_on_a_terminal", stages::asks),
    stage("a_snapshot_without_names_takes_what_the_plan_says", stages::takes_what_gains),
    stage("a_generation_marks_what_it_has_kept", stages::carried_over),
    stage("what_a_killed_snapshot_left_is_named", stages::left_over),
];

/// After a boot from images.
const SECOND: &[Stage] = &[
    stage("a_boot_is_told_in_one_sentence_in_the_journal", stages::boot_in_journal),
    stage("the_journal_of_a_unit_says_that_it_was_restored", stages::unit_in_journal),
    stage("parts_of_images_are_gone_after_a_boot", stages::swept),
    stage("no_output_is_wider_than_the_terminal", screens::fit),
    stage("colours_and_the_pager_are_for_terminals", screens::terminal),
    stage("every_json_has_its_documented_form", json::documented),
];

/// After a configuration file was edited.
const THIRD: &[Stage] = &[
    stage("a_changed_file_is_named_everywhere", stages::changed_file),
    stage("a_refresh_that_is_stopped_has_not_failed", stages::refresh_stopped),
    stage("a_refresh_takes_only_what_is_stale", stages::refresh),
    stage("a_refresh_does_as_the_unit_says", stages::refresh_as_the_unit_says),
    stage("a_refresh_in_the_background_tries_nothing_in_vain", stages::refresh_in_vain),
    stage("an_interrupted_snapshot_undoes_what_it_has_begun", stages::interrupted),
    stage("a_snapshot_spends_no_start_limit", stages::start_limit),
    stage("a_service_that_does_not_come_back_is_said_to_be_down", stages::down),
    stage("the_history_has_every_boot", stages::history),
];

/// With `fastboot=0`.
const FOURTH: &[Stage] = &[stage("a_boot_that_is_switched_off_says_so", stages::switched_off)];

/// One test for each stage.
pub fn tests() -> Vec<Test> {
    let machine: Rc<dyn Together> = Rc::new(OneMachine);
    let stages = [FIRST, SECOND, THIRD, FOURTH].into_iter().flatten();
    let test = |stage: &Stage| {
        let run = Body::Together(Rc::clone(&machine));
        Test::new(test_name(stage), &[Need::Root, Need::Container], run)
    };
    stages.map(test).collect()
}

fn test_name(stage: &Stage) -> String {
    format!("operator/{}", stage.name)
}

struct OneMachine;

impl Together for OneMachine {
    /// All stages run whichever are named: each needs those before it.
    fn run(&self, names: &[&str], report: &mut Report) -> Result<()> {
        let mut site = Lab::prepare("operator", recipe)?.site("operator")?;
        install(&site.scratch)?;
        let off = vec!["fastboot=0".to_owned()];
        let boots = [(FIRST, Vec::new()), (SECOND, Vec::new()), (THIRD, Vec::new()), (FOURTH, off)];
        for (stages, arguments) in boots {
            let running = site.start(&BootOptions { arguments, ..BootOptions::default() })?;
            running.wait_booted(BOUND)?;
            for stage in stages {
                let name = test_name(stage);
                let done = (stage.run)(&running);
                if names.contains(&name.as_str()) {
                    report.checks(&name).note(stage.name, done);
                } else {
                    done.with_context(|| name)?;
                }
            }
            running.poweroff()?;
            // What the second boot has not seen, and the third one finds.
            if std::ptr::eq(stages, SECOND) {
                site.scratch.write("/etc/slow.conf", "changed\n", 0o644)?;
            }
        }
        Ok(())
    }
}

/// A service that starts slowly, one with wrong options, and an idle one.
fn install(scratch: &Scratch) -> Result<()> {
    let units = [
        ("slow", "Type=notify\nExecStart=/usr/bin/python3 /srv/slow.py\nTimeoutStopSec=5\n"),
        ("idle", "ExecStart=/usr/bin/sleep infinity\n"),
        (
            "wrong",
            "ExecStart=/usr/bin/sleep infinity\n[X-Fastboot]\nAllowState=maybe\nOnLostPeer=foo\nDependsOn=relative\n",
        ),
    ];
    scratch.write("/srv/slow.py", include_str!("../../roots/operator/slow.py"), 0o644)?;
    scratch.write("/etc/slow.conf", "first\n", 0o644)?;
    let wants = scratch.path("/etc/systemd/system/multi-user.target.wants");
    for (name, service) in units {
        let file = format!("/etc/systemd/system/{name}.service");
        scratch.write(&file, &format!("[Service]\n{service}"), 0o644)?;
        std::os::unix::fs::symlink(&file, wants.join(format!("{name}.service")))
            .with_context(|| format!("enabling {name}"))?;
    }
    Ok(())
}
