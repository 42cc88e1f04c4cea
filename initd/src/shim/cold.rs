//! Becoming the original command, and the few words that the shim may say.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use super::{ShimArguments, notify};
use crate::sys::exec::exec;

/// Where systemd looks for a program without a path (`systemd-path search-binaries-default`).
const SEARCH_PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Execute the original command in this process. Returns only when that failed.
pub fn start(arguments: &ShimArguments) -> io::Error {
    if arguments.says_ready {
        // Without the word systemd gives up on the service after its time; with an error here it would not have come either.
        let told = notify::tell(std::process::id() as i32, true);
        let _ = told.map(|told| told.wait_for_systemd());
    }
    let without: &[&str] = if arguments.hides_notify_socket { &["NOTIFY_SOCKET"] } else { &[] };
    if arguments.program.to_bytes().contains(&b'/') {
        return exec(&arguments.program, &arguments.argv, without);
    }
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for dir in SEARCH_PATH {
        let candidate = [dir.as_bytes(), b"/", arguments.program.to_bytes()].concat();
        let Ok(candidate) = CString::new(candidate) else { continue };
        let failed = exec(&candidate, &arguments.argv, without);
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
