//! What goes wrong on real machines, each on a machine of its own. Whatever it is, the boot ends with every service
//! active and answering, and `fastboot status` names the reason.
//!
//! A new scenario is a function here or beside, and a line in [`SCENARIOS`].

mod clock;
mod images;
mod late_var;
mod lives;
mod prefork;
mod service_failures;
mod site;
mod storing;
mod trial;

use std::time::Instant;

use anyhow::Result;

use crate::container::end_left_over_machines;
use crate::needs::{self, Purpose};
use crate::roots::sweep;
use site::Lab;

/// One scenario.
struct Scenario {
    /// A sentence that holds when it passes; `--only` looks for words in it.
    name: &'static str,
    run: fn(&Lab) -> Result<()>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "a machine without images boots as ever", run: storing::no_images },
    Scenario { name: "intact images are restored, twice", run: images::intact },
    Scenario { name: "images are restored on a machine that is busy forking", run: images::amid_forks },
    Scenario { name: "a damaged image ends in a cold start", run: images::damaged },
    Scenario { name: "a truncated image ends in a cold start", run: images::truncated },
    Scenario { name: "a missing image ends in a cold start", run: images::missing },
    Scenario { name: "a damaged catalogue ends in cold starts", run: images::damaged_catalogue },
    Scenario { name: "images of another machine end in cold starts", run: images::another_machine },
    Scenario {
        name: "another systemd than at the snapshot ends in cold starts",
        run: images::another_systemd,
    },
    Scenario { name: "a unit edited after the snapshot starts cold as edited", run: images::edited_unit },
    Scenario { name: "a unit whose text cannot be read starts cold", run: images::unreadable_unit },
    Scenario { name: "fastboot=0 starts everything cold", run: images::switched_off },
    Scenario { name: "a full disk while storing leaves the units running", run: storing::full_disk },
    Scenario {
        name: "a container's seccomp filter is met with refusals by name",
        run: storing::container_filter,
    },
    Scenario {
        name: "images are restored under a container's seccomp filter",
        run: storing::images_under_filter,
    },
    Scenario { name: "an initd that is masked ends in cold starts", run: service_failures::initd_masked },
    Scenario {
        name: "an initd whose binary is gone ends in cold starts",
        run: service_failures::initd_removed,
    },
    Scenario {
        name: "an initd killed in mid-restore ends in cold starts",
        run: service_failures::initd_killed,
    },
    Scenario {
        name: "a worker that dies in mid-restore ends in a cold start",
        run: service_failures::worker_dies,
    },
    Scenario {
        name: "a restore past its deadline ends in a cold start",
        run: service_failures::deadline_passes,
    },
    Scenario {
        name: "an initd that dies with its zygote after the go leaves no second life",
        run: service_failures::all_killed_after_the_go,
    },
    Scenario {
        name: "a restore that hangs leaves a unit its TimeoutStartSec",
        run: service_failures::short_timeout,
    },
    Scenario {
        name: "an image that failed in two boots is not tried in the third",
        run: service_failures::quarantined,
    },
    Scenario {
        name: "a clock that is behind the snapshot's continues, and needs CAP_SYS_TIME",
        run: clock::continues,
    },
    Scenario { name: "a trial keeps what gains and drops what does not", run: trial::gain_decides },
    Scenario { name: "a trial that fails leaves the service running", run: trial::failure },
    Scenario { name: "a trial finds a service that ends at its next request", run: trial::next_request },
    Scenario { name: "images on a /var that is mounted late are restored", run: late_var::restored },
    Scenario { name: "processes share after a restore what they shared before", run: prefork::stays_shared },
    Scenario { name: "a daemon-reload changes nothing for running units", run: lives::daemon_reload },
    Scenario { name: "a restart of a restored unit is a cold start", run: lives::restart },
    Scenario { name: "a crash of a restored unit is followed by a cold start", run: lives::crash },
    Scenario { name: "a soft reboot restores everything again", run: lives::soft_reboot },
    Scenario { name: "what survives a soft reboot is left alone", run: lives::survivor },
];

/// How the scenarios came out.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Scenarios that passed.
    pub passed: usize,
    /// Scenarios that failed.
    pub failed: usize,
}

/// Run the scenarios whose name has `only` in it (all without). Each result is printed when it is there.
///
/// # Errors
/// The root cannot be built, or fastboot cannot.
pub fn run(only: Option<&str>) -> Result<Tally> {
    let mut tally = Tally::default();
    let chosen = SCENARIOS.iter().filter(|scenario| only.is_none_or(|only| scenario.name.contains(only)));
    let chosen: Vec<&Scenario> = chosen.collect();
    if chosen.is_empty() {
        return Ok(tally);
    }
    needs::install(&[Purpose::Roots])?;
    end_left_over_machines()?;
    sweep()?;
    let lab = Lab::prepare()?;
    for scenario in chosen {
        let started = Instant::now();
        let mut result = (scenario.run)(&lab);
        if let Some(lost) = result.as_ref().err().and_then(lost_number) {
            println!("  again {} ({lost})", scenario.name);
            result = (scenario.run)(&lab);
        }
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                tally.passed += 1;
                println!("  ok    {} ({seconds:.1} s)", scenario.name);
            }
            Err(error) => {
                tally.failed += 1;
                println!("  FAIL  {} ({seconds:.1} s): {error:#}", scenario.name);
            }
        }
    }
    Ok(tally)
}

/// redis has threads in a user namespace, which are numbered by counter (README, Limits): whoever forks in that moment may get a number, and
/// redis is cold in that boot. Such a scenario says so and is tried once more.
fn lost_number(error: &anyhow::Error) -> Option<String> {
    let text = format!("{error:#}");
    (text.contains("redis-server.service") && text.contains(" of a thread of process ")).then_some(text)
}

/// Whether some scenario's name has `text` in it.
pub fn any_named(text: &str) -> bool {
    SCENARIOS.iter().any(|scenario| scenario.name.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenario_names_are_sentences_of_their_own() {
        for (index, scenario) in SCENARIOS.iter().enumerate() {
            assert!(scenario.name.contains(' '));
            assert!(SCENARIOS[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        }
        assert!(any_named("damaged image") && !any_named("no such scenario"));
    }
}
