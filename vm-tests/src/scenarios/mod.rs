//! What goes wrong on real machines, each on a machine of its own. Whatever it is, the boot ends
//! with every service active and answering, and `fastboot status` names the reason.
//!
//! A new scenario is a function here or beside, and a line in [`SCENARIOS`].

mod clock;
mod images;
mod late_var;
mod lives;
mod numbers;
mod prefork;
mod service_failures;
pub(crate) mod service_site;
mod storing;
mod trial;

use anyhow::Result;
use test_frame::{Need, Once, Test};

use service_site::{REDIS, ScenarioLab};

/// One scenario.
struct Scenario {
    /// A sentence that holds when it passes.
    name: &'static str,
    run: fn(&ScenarioLab) -> Result<()>,
    /// A service that may be cold in one of its boots, because one of its numbers was taken.
    may_lose_number: Option<&'static str>,
}

const fn plain(name: &'static str, run: fn(&ScenarioLab) -> Result<()>) -> Scenario {
    Scenario { name, run, may_lose_number: None }
}

/// redis has threads in a user namespace, which are numbered by counter (docs/limits.md): whoever
/// forks in that moment may get a number, and redis is cold in that boot. A scenario in which it is
/// restored says so when that has happened.
const fn losing(name: &'static str, run: fn(&ScenarioLab) -> Result<()>) -> Scenario {
    Scenario { name, run, may_lose_number: Some(REDIS.unit) }
}

const SCENARIOS: &[Scenario] = &[
    plain("a_machine_without_images_boots_as_ever", storing::no_images),
    losing("intact_images_are_restored_twice", images::intact),
    losing("images_are_restored_on_a_machine_that_is_busy_forking", images::amid_forks),
    plain("a_damaged_image_ends_in_a_cold_start", images::damaged),
    losing("a_truncated_image_ends_in_a_cold_start", images::truncated),
    losing("a_missing_image_ends_in_a_cold_start", images::missing),
    plain("a_damaged_catalogue_ends_in_cold_starts", images::damaged_catalogue),
    plain("images_of_another_machine_end_in_cold_starts", images::another_machine),
    plain("another_systemd_than_at_the_snapshot_ends_in_cold_starts", images::another_systemd),
    losing("a_unit_edited_after_the_snapshot_starts_cold_as_edited", images::edited_unit),
    losing("a_unit_whose_text_cannot_be_read_starts_cold", images::unreadable_unit),
    plain("fastboot=0_starts_everything_cold", images::switched_off),
    plain("a_full_disk_while_storing_leaves_the_units_running", storing::full_disk),
    plain("a_containers_seccomp_filter_is_met_with_refusals_by_name", storing::container_filter),
    losing("images_are_restored_under_a_containers_seccomp_filter", storing::images_under_filter),
    plain("an_initd_that_is_masked_ends_in_cold_starts", service_failures::initd_masked),
    plain("an_initd_whose_binary_is_gone_ends_in_cold_starts", service_failures::initd_removed),
    losing("an_initd_killed_in_mid-restore_ends_in_cold_starts", service_failures::initd_killed),
    losing(
        "an_initd_that_falls_silent_is_ended_by_systemd_and_started_again",
        service_failures::initd_silent,
    ),
    losing("a_worker_that_dies_in_mid-restore_ends_in_a_cold_start", service_failures::worker_dies),
    losing("a_restore_past_its_deadline_ends_in_a_cold_start", service_failures::deadline_passes),
    losing(
        "an_initd_that_dies_with_its_zygote_after_the_go_leaves_no_second_life",
        service_failures::all_killed_after_the_go,
    ),
    losing("a_restore_that_hangs_leaves_a_unit_its_TimeoutStartSec", service_failures::short_timeout),
    plain("an_image_that_failed_in_two_boots_is_not_tried_in_the_third", service_failures::quarantined),
    plain("a_clock_that_is_behind_the_snapshots_continues_and_needs_CAP_SYS_TIME", clock::continues),
    plain("a_trial_keeps_what_gains_and_drops_what_does_not", trial::gain_decides),
    plain("a_trial_that_fails_leaves_the_service_running", trial::failure),
    plain("a_trial_finds_a_service_that_ends_at_its_next_request", trial::next_request),
    losing("images_on_a_var_that_is_mounted_late_are_restored", late_var::restored),
    plain("processes_share_after_a_restore_what_they_shared_before", prefork::stays_shared),
    losing("a_daemon-reload_changes_nothing_for_running_units", lives::daemon_reload),
    losing("a_restart_of_a_restored_unit_is_a_cold_start", lives::restart),
    losing("a_crash_of_a_restored_unit_is_followed_by_a_cold_start", lives::crash),
    losing("a_soft_reboot_restores_everything_again", lives::soft_reboot),
    losing("what_survives_a_soft_reboot_is_left_alone", lives::survivor),
];

/// All scenarios.
pub fn tests() -> Vec<Test> {
    let lab = Once::new(ScenarioLab::prepare);
    let test = |scenario: &'static Scenario| {
        let lab = lab.clone();
        let name = format!("scenarios/{}", scenario.name);
        let mut test = Test::alone(name, &[Need::Root, Need::Container], move |checks| {
            let lab = lab.get()?;
            lab.numbers.begin(scenario.may_lose_number);
            let result = (scenario.run)(lab);
            if let Some(lost) = lab.numbers.lost() {
                checks.remark(lost);
            }
            result
        });
        test.may_lose_number = scenario.may_lose_number;
        test
    };
    SCENARIOS.iter().map(test).collect()
}
