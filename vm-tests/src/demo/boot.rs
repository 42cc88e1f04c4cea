//! A boot that is measured: from PID 1's start to the last service's first answer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::root::SERVICES;
use crate::client::{Answer, first_answer};
use crate::container::{BootOptions, Container};
use crate::host;
use crate::roots::Scratch;
use crate::service::Service;

/// Longest for a service to answer after the boot began.
const ANSWER_BOUND: Duration = Duration::from_secs(90);
/// Longest for systemd to be done.
const BOOT_BOUND: Duration = Duration::from_secs(90);

/// The provisioned machine: a root that keeps what happens to it, and a console log per boot.
#[derive(Debug)]
pub struct Provisioned {
    /// Its root.
    pub scratch: Scratch,
    /// Directory of the console logs.
    pub logs: PathBuf,
    boots: u32,
}

/// What one boot took, in ms.
#[derive(Debug)]
pub struct BootTimes {
    /// Per service, in the order of [`SERVICES`]: from the start of the unit to the first correct
    /// answer.
    pub services: Vec<Result<f64>>,
    /// From PID 1's start until all have answered; `None` when one did not.
    pub all: Option<f64>,
}

impl Provisioned {
    /// A machine that has not been booted yet.
    pub fn new(scratch: Scratch, logs: PathBuf) -> Provisioned {
        Provisioned { scratch, logs, boots: 0 }
    }

    /// Boot with nothing in the page cache and take the times. The machine is given back running.
    ///
    /// # Errors
    /// The container does not boot. A service that does not answer is in the times.
    pub fn boot(&mut self) -> Result<(Container, BootTimes)> {
        self.boot_with(&BootOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`boot`](Provisioned::boot).
    pub fn boot_with(&mut self, options: &BootOptions) -> Result<(Container, BootTimes)> {
        host::drop_page_cache()?;
        self.boots += 1;
        let console = self.logs.join(format!("boot-{}.log", self.boots));
        let machine = Container::boot(self.scratch.root(), "demo", &console, options)?;
        let answers = first_answers(&machine);
        machine.wait_booted(BOOT_BOUND)?;
        let boot_start_us = machine.boot_start_us()?;
        let mut all_us = Some(0);
        let mut services = Vec::new();
        for (service, answer) in SERVICES.iter().zip(answers) {
            all_us = all_us.zip(answer.as_ref().ok()).map(|(latest, answer)| answer.at_us.max(latest));
            services.push(answer.and_then(|answer| {
                let start_us = machine.unit(service.unit)?.start_us;
                let took_us = answer.at_us.checked_sub(start_us).filter(|_| start_us > 0);
                Ok(ms(took_us.with_context(|| format!("{} answered before it was started", service.unit))?))
            }));
        }
        let all = all_us.and_then(|us| us.checked_sub(boot_start_us)).map(ms);
        Ok((machine, BootTimes { services, all }))
    }
}

/// One client per service, each on its own thread, from the first moment on.
fn first_answers(machine: &Container) -> Vec<Result<Answer>> {
    let client = |service: &Service| {
        let service = *service;
        machine.in_network(|| first_answer(ANSWER_BOUND, || service.ask()))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = SERVICES.iter().map(|service| scope.spawn(move || client(service))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[expect(clippy::cast_precision_loss, reason = "durations of a boot are far below 2^52 µs")]
fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}
