//! Becoming the original command, and the few words that the shim may say.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use super::{ShimArguments, notify};
use crate::sys::exec::{exec, in_child};

/// Where systemd looks for a program without a path (`systemd-path search-binaries-default`).
const SEARCH_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// systemd's own, `EXIT_FORK` of systemd.exec(5).
const EXIT_FORK: i32 = 212;

/// What nobody but the service may have. `ExecStartPre=` gets none of it from systemd either.
const OF_THE_SERVICE: [&str; 7] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "MAINPID",
];

/// Run the commands that come before a cold start, one after the other.
///
/// # Errors
/// The exit status of one that failed, with which the start fails as it would have in systemd's
/// hands.
pub fn run_pre(arguments: &ShimArguments) -> Result<(), i32> {
    for command in &arguments.pre {
        let run = || find(&command.program, &command.argv, &OF_THE_SERVICE);
        let status = match in_child(run) {
            Ok(0) => continue,
            Ok(status) => status,
            Err(error) => {
                say(&format!("{}: cannot fork: {error}", arguments.unit));
                EXIT_FORK
            }
        };
        if !command.may_fail {
            say(&format!("{}: {} failed ({status})", arguments.unit, command.program.to_string_lossy()));
            return Err(status);
        }
    }
    Ok(())
}

/// Execute the original command in this process. Returns only when that failed.
pub fn start(arguments: &ShimArguments) -> io::Error {
    if arguments.says_ready {
        // Without the word systemd gives up on the service after its time; with an error here it
        // would not have come either.
        let told = notify::tell(Some(std::process::id() as i32), true, "", &[]);
        let _ = told.map(|told| told.wait_for_systemd());
    }
    let without: &[&str] = if arguments.hides_notify_socket { &["NOTIFY_SOCKET"] } else { &[] };
    find(&arguments.program, &arguments.argv, without)
}

/// Execute a program where it is, or where systemd would look for it.
fn find(program: &CStr, argv: &[CString], without: &[&str]) -> io::Error {
    if program.to_bytes().contains(&b'/') {
        return exec(program, argv, without);
    }
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for dir in SEARCH_PATH {
        let candidate = [dir.as_bytes(), b"/", program.to_bytes()].concat();
        let Ok(candidate) = CString::new(candidate) else { continue };
        let failed = exec(&candidate, argv, without);
        // The last word belongs to a file that was there.
        if failed.kind() != io::ErrorKind::NotFound {
            error = failed;
        }
    }
    error
}

/// Say something where only a failure follows.
pub fn say(text: &str) {
    // If stderr is closed nobody listens.
    let _ = io::stderr().write_all(format!("fastboot-exec: {text}\n").as_bytes());
}

/// Say something only if stderr is the journal: a service may use stderr for its own purposes.
pub fn say_to_journal(text: &str) {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    if stderr.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino())) {
        say(text);
    }
}
