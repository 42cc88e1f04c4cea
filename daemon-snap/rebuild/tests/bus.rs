//! Claiming a name, on a bus of our own.

use snap_bus::{BusStream, DRIVER, body};
use snap_rebuild::bus_claim::{Claim, Wanted};
use snap_sys as sys;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use test_frame::{Need, tests};

const DBUS_DAEMON: Need = Need::Program { name: "dbus-daemon", package: "dbus-daemon" };

fn main() -> std::process::ExitCode {
    test_frame::libtest::main(
        tests![[DBUS_DAEMON]; name_is_claimed_for_a_connection_that_somebody_else_reads],
    )
}

/// A bus that denies one name; ended with this.
struct Bus {
    daemon: Child,
    path: String,
    _dir: tempfile::TempDir,
}

impl Bus {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("bus").display().to_string();
        let configuration = dir.path().join("bus.conf");
        let talk = "<allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>";
        let policy = format!("{talk}<allow own=\"*\"/><deny own=\"com.example.denied\"/>");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\">{policy}<allow user=\"*\"/></policy></busconfig>"
        );
        std::fs::write(&configuration, text).expect("configuration");
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg("--print-address");
        command.arg(format!("--config-file={}", configuration.display()));
        let mut daemon = command.stdout(Stdio::piped()).spawn().expect("dbus-daemon");
        // It listens when it has said where.
        let mut line = String::new();
        let said = daemon.stdout.take().expect("what it prints");
        BufReader::new(said).read_line(&mut line).expect("its address");
        Self { daemon, path, _dir: dir }
    }

    fn connect(&self) -> OwnedFd {
        let fd = sys::rebuild::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0).expect("socket");
        let address = sys::rebuild::unix_address(self.path.as_bytes());
        sys::rebuild::connect(fd.as_fd(), &address).expect("the bus");
        fd
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn name_is_claimed_for_a_connection_that_somebody_else_reads() {
    let bus = Bus::start();
    let soon = || Instant::now() + Duration::from_secs(5);
    let client = || {
        let fd = bus.connect();
        let mut stream = BusStream::new(fd.try_clone().expect("dup"), soon());
        let unique_name = stream.greet().expect("Hello");
        (fd, stream, unique_name)
    };
    let claim = |name: &str, fd: &OwnedFd, unique_name: &str| {
        let connection = fd.try_clone().expect("dup");
        let wanted = Wanted { name: name.to_owned(), flags: 4, unique_name: unique_name.to_owned() };
        Claim { connection, own: bus.connect(), wanted }.make(soon())
    };
    let (first, mut stream, unique_name) = client();
    claim("com.example.a", &first, &unique_name).expect("a free name");
    // Nothing answers, and what the client asks next is answered as ever.
    let answer = stream.ask(DRIVER, "GetNameOwner", &"com.example.a").expect("an answer");
    assert_eq!(body::<String>(&answer).expect("a name"), unique_name);

    let (second, _, unique_name) = client();
    let taken = claim("com.example.a", &second, &unique_name).expect_err("a name of somebody else");
    assert!(taken.to_string().contains("belongs to somebody else"), "{taken}");
    let denied = claim("com.example.denied", &second, &unique_name).expect_err("a name that is denied");
    assert!(denied.to_string().contains("RequestName"), "{denied}");
}
