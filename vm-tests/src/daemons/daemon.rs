//! A service of Debian as a value: what it takes to have it, and how its clients know that it
//! works.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use crate::client::{self, Turn};
use crate::container::Container;

/// Longest part of a wrong answer in messages.
const MAX_SHOWN: usize = 200;

/// One service. Most of it is optional: `..Daemon::DEFAULT`.
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    /// What people call it.
    pub name: &'static str,
    /// Kind of service, for the table.
    pub family: &'static str,
    /// Full name of its unit.
    pub unit: &'static str,
    /// Debian packages.
    pub packages: &'static [&'static str],
    /// Path and content of files that are written before the first boot.
    pub files: &'static [(&'static str, &'static str)],
    /// Shell script that runs in the root before the first boot.
    pub setup: &'static str,
    /// Shell script that runs once in the booted machine, when the service is up.
    pub provision: &'static str,
    /// How a client asks, and what is the right answer.
    pub ask: Ask,
    /// Something that only its memory holds.
    pub memory: Option<Memory>,
    /// What a second image may have otherwise, because the service itself goes on changing it.
    pub goes_on: &'static [GoesOn],
    /// What must come of it.
    pub expected: Expected,
}

/// A difference between the image of a service and one of the restored service that is the
/// service's own doing.
#[derive(Debug, Clone, Copy)]
pub struct GoesOn {
    /// Texts that all stand in the line that tells of it.
    pub has: &'static [&'static str],
    /// For who reads the list.
    #[allow(dead_code, reason = "read in the source")]
    pub why: &'static str,
}

impl Daemon {
    /// Nothing but empty fields, to be filled up.
    pub const DEFAULT: Daemon = Daemon {
        name: "",
        family: "",
        unit: "",
        packages: &[],
        files: &[],
        setup: "",
        provision: "",
        ask: Ask::Shell { script: "false", has: "" },
        memory: None,
        goes_on: &[],
        expected: Expected::Restored,
    };
}

/// What must come of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It is restored.
    Restored,
    /// It is not taken, and one of the reasons has these words.
    Refused(&'static str),
}

/// A value that a client puts into a service, and that is gone after a cold start.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Puts it there.
    pub put: Ask,
    /// Passes while it is there, and only then.
    pub shows: Ask,
}

/// A question with its right answer.
#[derive(Debug, Clone, Copy)]
pub enum Ask {
    /// `GET path`: status 200 and this text in the body.
    Http { port: u16, path: &'static str, has: &'static str },
    /// A conversation over TCP.
    Talk { port: u16, turns: &'static [Turn] },
    /// A DNS question.
    Dns { port: u16, name: &'static str, address: Ipv4Addr },
    /// A datagram, and how the one that comes back begins.
    Udp { port: u16, say: &'static [u8], starts: &'static [u8] },
    /// A shell script in the machine, with Debian's own client: exit code 0 and this text in its
    /// output.
    Shell { script: &'static str, has: &'static str },
}

impl Ask {
    /// Ask once.
    ///
    /// # Errors
    /// No answer, or a wrong one.
    pub fn ask(self, machine: &Container) -> Result<()> {
        match self {
            Ask::Shell { script, has } => {
                let said = machine.run(&["sh", "-c", script])?.success()?;
                ensure!(said.contains(has), "`{script}` printed {said:?}");
                Ok(())
            }
            wire => machine.in_network(|| wire.ask_here()),
        }
    }

    /// Whether an attempt costs so much that it is not made every millisecond.
    pub fn is_costly(self) -> bool {
        matches!(self, Ask::Shell { .. })
    }

    /// On a thread that is in the machine's network.
    fn ask_here(self) -> Result<()> {
        match self {
            Ask::Http { port, path, has } => {
                let response = client::get(port, path)?;
                let right = response.status == 200 && response.body.contains(has);
                let shown: String = response.body.chars().take(MAX_SHOWN).collect();
                ensure!(right, "port {port} answered {path} with {}, {shown:?}", response.status);
                Ok(())
            }
            Ask::Talk { port, turns } => client::talk(port, turns),
            Ask::Dns { port, name, address } => {
                let answer = client::resolve(port, name)?;
                ensure!(answer == address, "port {port} says that {name} is {answer}");
                Ok(())
            }
            Ask::Udp { port, say, starts } => {
                let answer = client::exchange(port, say)?;
                ensure!(answer.starts_with(starts), "port {port} answered {answer:02x?}");
                Ok(())
            }
            Ask::Shell { .. } => unreachable!("asked by `ask`"),
        }
    }
}
