//! The services of the demo: how a client talks to each, and what only its memory knows.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::state::State;
use crate::client;
use crate::container::Machine;

/// One service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Full name of its unit.
    pub unit: &'static str,
    /// Whether the unit has a `Restart=` that answers a killed main process.
    pub comes_back: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Redis,
    Tomcat,
    Django,
    Go,
}

/// All, in the order of the tables.
pub const SERVICES: [Service; 5] = [
    Service { unit: "nginx.service", comes_back: false, kind: Kind::Nginx },
    Service { unit: "redis-server.service", comes_back: true, kind: Kind::Redis },
    Service { unit: "tomcat10.service", comes_back: true, kind: Kind::Tomcat },
    Service { unit: "django-demo.service", comes_back: true, kind: Kind::Django },
    Service { unit: "go-demo.service", comes_back: true, kind: Kind::Go },
];

const NGINX_PORT: u16 = 80;
const NGINX_STATUS_PORT: u16 = 8090;
const REDIS_PORT: u16 = 6379;
const TOMCAT_PORT: u16 = 8080;
const DJANGO_PORT: u16 = 8000;
const GO_PORT: u16 = 8081;
const DJANGO_WORKERS: usize = 3;

/// With the pause, requests that come at once are spread over the workers.
const DJANGO_STATE: &str = "/state?pause_ms=20";
const MAX_ROUNDS: usize = 500;

/// Counts that no service reaches by itself.
const NGINX_ACCEPTED: u64 = 200;
const TOMCAT_COUNT: u64 = 4711;
const GO_COUNT: u64 = 815;
const DJANGO_COUNTS: [u64; DJANGO_WORKERS] = [1009, 2003, 3001];
const REDIS_KEY: &str = "fastboot:demo";
const REDIS_VALUE: &str = "only in memory";

/// What the three servers with a counter answer.
#[derive(Debug, Clone, Deserialize)]
struct Counter {
    pid: u32,
    instance: String,
    count: u64,
}

impl Service {
    /// Ask once, as a client would, and look at the answer. Runs inside the container's network.
    ///
    /// # Errors
    /// No answer, or a wrong one.
    pub fn ask(self) -> Result<()> {
        match self.kind {
            Kind::Nginx => expect_page(NGINX_PORT, "/", "nginx answers"),
            Kind::Redis => match client::command(REDIS_PORT, &["PING"])?.as_str() {
                "PONG" => Ok(()),
                other => bail!("redis answered {other:?}"),
            },
            Kind::Tomcat => counter(TOMCAT_PORT, "/counter.jsp").map(drop),
            Kind::Django => expect_page(DJANGO_PORT, "/", "Django answers"),
            Kind::Go => counter(GO_PORT, "/state").map(drop),
        }
    }

    /// Put values into its memory that nothing else would. Done twice, it changes nothing more.
    ///
    /// # Errors
    /// The service does not answer as it should.
    pub fn drive(self, machine: &Machine) -> Result<()> {
        machine.in_network(|| match self.kind {
            Kind::Nginx => {
                for _ in nginx_accepted()?..NGINX_ACCEPTED {
                    self.ask()?;
                }
                Ok(())
            }
            Kind::Redis => client::command(REDIS_PORT, &["SET", REDIS_KEY, REDIS_VALUE]).map(drop),
            Kind::Tomcat => raise(TOMCAT_PORT, "/counter.jsp", "/counter.jsp?", TOMCAT_COUNT),
            Kind::Go => raise(GO_PORT, "/state", "/bump?", GO_COUNT),
            Kind::Django => drive_django(machine),
        })
    }

    /// What its memory holds now, with the processes that it consists of.
    ///
    /// # Errors
    /// The service does not answer as it should.
    pub fn observe(self, machine: &Machine) -> Result<State> {
        let facts = machine.in_network(|| {
            Ok(match self.kind {
                Kind::Nginx => facts([(State::AT_LEAST, nginx_accepted()?.to_string())]),
                Kind::Redis => facts([
                    ("key", client::command(REDIS_PORT, &["GET", REDIS_KEY])?),
                    ("run_id", redis_run_id()?),
                ]),
                Kind::Tomcat => counter_facts(&counter(TOMCAT_PORT, "/counter.jsp")?),
                Kind::Go => counter_facts(&counter(GO_PORT, "/state")?),
                Kind::Django => django_workers(machine)?
                    .into_iter()
                    .map(|(pid, worker)| {
                        (format!("worker {pid}"), format!("{} {}", worker.instance, worker.count))
                    })
                    .collect(),
            })
        })?;
        Ok(State { processes: machine.processes(self.unit)?, facts })
    }
}

fn facts<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn counter_facts(counter: &Counter) -> BTreeMap<String, String> {
    facts([("instance", counter.instance.clone()), ("count", counter.count.to_string())])
}

fn page(port: u16, path: &str) -> Result<String> {
    let response = client::get(port, path)?;
    ensure!(response.status == 200, "port {port} answered {path} with status {}", response.status);
    Ok(response.body)
}

fn expect_page(port: u16, path: &str, text: &str) -> Result<()> {
    let body = page(port, path)?;
    ensure!(body.contains(text), "port {port} answered {path} with {body:?}");
    Ok(())
}

fn counter(port: u16, path: &str) -> Result<Counter> {
    let body = page(port, path)?;
    serde_json::from_str(&body).with_context(|| format!("port {port} answered {path} with {body:?}"))
}

/// Raise a counter to `to`.
fn raise(port: u16, show: &str, bump: &str, to: u64) -> Result<()> {
    let by = to.saturating_sub(counter(port, show)?.count);
    let now = counter(port, &format!("{bump}by={by}"))?.count;
    ensure!(now == to, "the counter is {now} and not {to}");
    Ok(())
}

/// Connections that all workers together accepted; they count in memory that they share.
fn nginx_accepted() -> Result<u64> {
    let body = page(NGINX_STATUS_PORT, "/status")?;
    let numbers = body.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1);
    let accepted = numbers.and_then(|line| line.split_whitespace().next()?.parse().ok());
    accepted.with_context(|| format!("no counters in {body:?}"))
}

fn redis_run_id() -> Result<String> {
    let info = client::command(REDIS_PORT, &["INFO", "server"])?;
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(id.context("redis shows no run_id")?.trim().to_owned())
}

/// What each worker answers, by PID. Which one takes a request is the kernel's choice: several at once, until all
/// have been seen.
fn django_workers(machine: &Machine) -> Result<BTreeMap<u32, Counter>> {
    let mut seen = BTreeMap::new();
    for _ in 0..MAX_ROUNDS {
        let answers = ask_at_once(machine, &[DJANGO_STATE; DJANGO_WORKERS + 1])?;
        seen.extend(answers.into_iter().map(|answer| (answer.pid, answer)));
        if seen.len() >= DJANGO_WORKERS {
            return Ok(seen);
        }
    }
    bail!("of {DJANGO_WORKERS} workers only {:?} answered", seen.keys())
}

fn drive_django(machine: &Machine) -> Result<()> {
    for (worker, to) in django_workers(machine)?.into_values().zip(DJANGO_COUNTS) {
        if worker.count < to {
            bump_worker(machine, &worker, to)?;
        }
    }
    Ok(())
}

/// One bump at a time until the right worker has taken it, while the others are kept busy.
fn bump_worker(machine: &Machine, worker: &Counter, to: u64) -> Result<()> {
    let bump = format!("/bump?pid={}&by={}&pause_ms=20", worker.pid, to - worker.count);
    for _ in 0..MAX_ROUNDS {
        let answers = ask_at_once(machine, &[&bump, DJANGO_STATE, DJANGO_STATE])?;
        if answers.iter().any(|answer| answer.pid == worker.pid && answer.count == to) {
            return Ok(());
        }
    }
    bail!("worker {} did not take a request", worker.pid)
}

fn ask_at_once(machine: &Machine, paths: &[&str]) -> Result<Vec<Counter>> {
    std::thread::scope(|scope| {
        let ask = |path: &&str| {
            let path = (*path).to_owned();
            scope.spawn(move || machine.in_network(|| counter(DJANGO_PORT, &path)))
        };
        let threads: Vec<_> = paths.iter().map(ask).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}
