//! A program that initd takes for the shim and that asks otherwise than the shim would: this one,
//! in the shim's place.

use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use initd::protocol::{Answer, Greeting, Hello};
use initd::sys::socket::{receive, send};

const ACT: &str = "FASTBOOT_TEST_CLIENT";
const UNIT: &str = "FASTBOOT_TEST_UNIT";
/// Who asks twice waits for this file in between.
pub const GO: &str = "/run/out/go";
/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(600);

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ask, and later ask again.
    AskTwice,
    /// Say that it has asked before, which it has not.
    AskAgain,
    /// Connect and ask nothing.
    Hold,
}

const ACTS: [(&str, Act); 3] = [("twice", Act::AskTwice), ("again", Act::AskAgain), ("hold", Act::Hold)];

/// Who it is, and what it does.
#[derive(Debug)]
pub struct Client {
    pub unit: String,
    pub act: Act,
}

impl Client {
    /// The one that this process is.
    pub fn of_environment() -> Option<Client> {
        let word = std::env::var(ACT).ok()?;
        let (_, act) = ACTS.into_iter().find(|(name, _)| *name == word)?;
        Some(Client { unit: std::env::var(UNIT).ok()?, act })
    }

    /// What makes a process it, as words of env(1).
    pub fn environment(&self) -> String {
        let name = ACTS.into_iter().find(|(_, act)| *act == self.act).map_or("", |(name, _)| name);
        format!("{ACT}={name} {UNIT}={}", self.unit)
    }

    /// Do it; what it is told is printed, a line each. It stays.
    pub fn run(&self) -> ExitCode {
        match self.act {
            Act::AskTwice => {
                println!("{}", self.ask(false));
                while !std::fs::exists(GO).unwrap() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                println!("{}", self.ask(true));
            }
            Act::AskAgain => println!("{}", self.ask(true)),
            Act::Hold => {
                let connection = crate::connection();
                let (packet, _) = receive(&connection, 4096).unwrap();
                assert_eq!(Greeting::decode(&packet), Ok(Greeting));
                println!("greeted");
                std::thread::sleep(FOR_EVER);
            }
        }
        std::thread::sleep(FOR_EVER);
        ExitCode::SUCCESS
    }

    /// The code of the answer.
    fn ask(&self, is_again: bool) -> String {
        let connection = crate::connection();
        let code = |packet: &[u8]| match Answer::decode(packet) {
            Ok(Answer::Cold { code, .. }) => code,
            other => format!("{other:?}"),
        };
        let (packet, _) = receive(&connection, 4096).unwrap();
        if Greeting::decode(&packet).is_err() {
            return code(&packet);
        }
        let unit = self.unit.clone();
        let hello = Hello { unit, has_notify_socket: true, is_again, listen_names: Vec::new() };
        let own = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        send(&connection, &hello.encode(), &[own.0.as_fd(), own.1.as_fd(), own.2.as_fd()]).unwrap();
        code(&receive(&connection, 4096).unwrap().0)
    }
}
