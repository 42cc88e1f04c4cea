//! The shim's life: ask, then end or become the original command.
//!
//! It runs inside the unit's sandbox. Whatever goes wrong ends in the original command; nothing here may keep a
//! service from starting.

mod arguments;
mod cold;
mod notify;
mod talk;

use std::panic::catch_unwind;

pub use arguments::ShimArguments;
pub use talk::SOCKET_ENV;

/// Exit status of systemd for a program that cannot be executed, `systemd.exec(5)`.
const EXIT_EXEC: i32 = 203;
const EXIT_USAGE: i32 = 2;

/// The whole program. Returns the exit status; a cold start does not return.
pub fn main() -> i32 {
    // A message of ours has no business in what may be the service's protocol on stderr.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments = match ShimArguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            cold::say(&format!(
                "{error}\nusage: fastboot-exec --unit UNIT [--argv0] [--no-notify] [--say-ready] -- PROGRAM [ARGUMENT…]"
            ));
            return EXIT_USAGE;
        }
    };
    match catch_unwind(|| talk::ask(&arguments)) {
        Ok(Ok(())) => return 0,
        // initd has logged why.
        Ok(Err(talk::Cold::Told)) => {}
        Ok(Err(talk::Cold::NoAnswer(why))) => {
            cold::say_to_journal(&format!("{}: no restore: {why}; starting it cold", arguments.unit));
        }
        Err(_) => {
            cold::say_to_journal(&format!("{}: no restore: internal error; starting it cold", arguments.unit))
        }
    }
    let error = cold::start(&arguments);
    cold::say(&format!(
        "{}: cannot execute {}: {error}",
        arguments.unit,
        arguments.program.to_string_lossy()
    ));
    EXIT_EXEC
}
