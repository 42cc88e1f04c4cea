//! Services that a client can talk to: how to ask, how to fill their memory, and what only that
//! memory knows.

mod django;
mod lives;
mod state;
mod taken;

pub use lives::{kill_main, restart};
pub use state::State;
pub use taken::{
    Taken, install_fastboot, require_cold, require_restored, snapshot_while, snapshot_while_driving,
};

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::client;
use crate::container::Container;

/// One service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Full name of its unit.
    pub unit: &'static str,
    /// Whether the unit has a `Restart=` that answers a killed main process.
    pub comes_back: bool,
    /// How to talk to it.
    pub kind: Kind,
}

/// How to talk to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx with its page at port 80 and its counters at port 8090.
    Nginx,
    /// redis at its usual port.
    Redis,
    /// The Django application with three workers at port 8000.
    Django,
    /// A server that counts in memory and shows `{"pid", "instance", "count"}`.
    Counter {
        /// Its port.
        port: u16,
        /// Path that shows the counter.
        show: &'static str,
        /// Path that adds, up to the `by=` of the query.
        bump: &'static str,
        /// Value to which it is driven.
        to: u64,
    },
}

const NGINX_PORT: u16 = 80;
const NGINX_STATUS_PORT: u16 = 8090;
const REDIS_PORT: u16 = 6379;

/// More than a few looks at nginx bring about.
const NGINX_ACCEPTED: u64 = 200;
const REDIS_KEY: &str = "fastboot:test";
const REDIS_VALUE: &str = "only in memory";

/// What a server with a counter answers.
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
            Kind::Django => expect_page(django::PORT, "/", "Django answers"),
            Kind::Counter { port, show, .. } => counter(port, show).map(drop),
        }
    }

    /// Put values into its memory that nothing else would. Done twice, it changes nothing more.
    ///
    /// # Errors
    /// The service does not answer as it should.
    pub fn drive(self, machine: &Container) -> Result<()> {
        machine.in_network(|| match self.kind {
            Kind::Nginx => {
                for _ in nginx_accepted()?..NGINX_ACCEPTED {
                    self.ask()?;
                }
                Ok(())
            }
            Kind::Redis => client::command(REDIS_PORT, &["SET", REDIS_KEY, REDIS_VALUE]).map(drop),
            Kind::Django => django::drive(machine),
            Kind::Counter { port, show, bump, to } => {
                let by = to.saturating_sub(counter(port, show)?.count);
                let now = counter(port, &format!("{bump}by={by}"))?.count;
                ensure!(now == to, "the counter is {now} and not {to}");
                Ok(())
            }
        })
    }

    /// What its memory holds now, with the processes that it consists of.
    ///
    /// # Errors
    /// The service does not answer as it should.
    pub fn observe(self, machine: &Container) -> Result<State> {
        let facts = machine.in_network(|| {
            Ok(match self.kind {
                // Looks after the snapshot count too, but not into the image: only what the filling
                // made sure of is compared.
                Kind::Nginx => facts([(State::AT_LEAST, nginx_accepted()?.min(NGINX_ACCEPTED).to_string())]),
                Kind::Redis => facts([
                    ("key", client::command(REDIS_PORT, &["GET", REDIS_KEY])?),
                    ("run_id", redis_run_id()?),
                ]),
                Kind::Django => django::workers(machine)?
                    .into_iter()
                    .map(|(pid, worker)| {
                        (format!("worker {pid}"), format!("{} {}", worker.instance, worker.count))
                    })
                    .collect(),
                Kind::Counter { port, show, .. } => {
                    let now = counter(port, show)?;
                    facts([
                        ("pid", now.pid.to_string()),
                        ("instance", now.instance),
                        ("count", now.count.to_string()),
                    ])
                }
            })
        })?;
        Ok(State { processes: machine.processes(self.unit)?, facts })
    }
}

fn facts<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
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

/// Connections that all workers together accepted; they count in memory that they share.
fn nginx_accepted() -> Result<u64> {
    let body = page(NGINX_STATUS_PORT, "/status")?;
    parse_accepted(&body).with_context(|| format!("no counters in {body:?}"))
}

fn parse_accepted(body: &str) -> Option<u64> {
    let numbers = body.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1)?;
    numbers.split_whitespace().next()?.parse().ok()
}

fn redis_run_id() -> Result<String> {
    let info = client::command(REDIS_PORT, &["INFO", "server"])?;
    let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(id.context("redis shows no run_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accepted_connections_are_read_from_the_status_page() {
        let body =
            "Active connections: 1 \nserver accepts handled requests\n 17 17 19 \nReading: 0 Writing: 1\n";
        assert_eq!(parse_accepted(body), Some(17));
        assert_eq!(parse_accepted("Active connections: 1 \n"), None);
    }
}
