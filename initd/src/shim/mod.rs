//! The shim's life: ask, then end or become the original command.
//!
//! It runs inside the unit's sandbox. Whatever goes wrong ends in the original command; nothing
//! here may keep a service from starting.

mod arguments;
mod cold;
mod flags;
mod notify;
mod talk;

use std::panic::catch_unwind;

use nix::sys::prctl::set_dumpable;

pub use arguments::ShimArguments;
pub use talk::SOCKET_ENV;

/// Exit status of systemd for a program that cannot be executed, `systemd.exec(5)`.
const EXIT_EXEC: i32 = 203;
const EXIT_USAGE: i32 = 2;
/// systemd ends the rest of the unit and does what `Restart=` says.
const EXIT_OCCUPIED: i32 = 1;

/// The whole program. Returns the exit status; a cold start does not return.
pub fn main() -> i32 {
    // A message of ours has no business in what may be the service's protocol on stderr.
    std::panic::set_hook(Box::new(|_| {}));
    if std::env::args_os().skip(1).eq(["--version"]) {
        println!("fastboot-exec {}", env!("CARGO_PKG_VERSION"));
        return 0;
    }
    let arguments = match ShimArguments::parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => {
            cold::say(&format!(
                "{error}\nusage: fastboot-exec --unit UNIT [--argv0] [--no-notify] [--say-ready] [--limit-ms MS] -- PROGRAM [ARGUMENT…]"
            ));
            return EXIT_USAGE;
        }
    };
    // Other processes of the same user cannot trace us, nor take what we have open. What we execute
    // is as ever.
    let _ = set_dumpable(false);
    let no_restore = |why: &str| {
        cold::say_to_journal(&format!("{}: no restore: {why}; starting it cold", arguments.unit));
    };
    match catch_unwind(|| talk::ask(&arguments)) {
        Ok(talk::Asked::Restored) => return 0,
        Ok(talk::Asked::Occupied) => {
            let text = "a restored service is left over that cannot be ended; not starting another one";
            cold::say(&format!("{}: {text}", arguments.unit));
            return EXIT_OCCUPIED;
        }
        // initd has logged why.
        Ok(talk::Asked::Cold(talk::Cold::Told)) => {}
        Ok(talk::Asked::Cold(talk::Cold::NoAnswer(why))) => no_restore(&why),
        Err(_) => no_restore("internal error"),
    }
    if let Err(status) = cold::run_pre(&arguments) {
        return status;
    }
    let error = cold::start(&arguments);
    cold::say(&format!(
        "{}: cannot execute {}: {error}",
        arguments.unit,
        arguments.program.to_string_lossy()
    ));
    EXIT_EXEC
}
