//! What only tests may switch does nothing in programs that are shipped. Each check is made of the
//! programs for tests as well, in which the switches work: otherwise it would find nothing.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use test_frame::{Need, Once, Test};

use crate::fastboot;
use crate::needs;

const FAULT: &str = "FASTBOOT_FAULT";
const SOCKET: &str = "FASTBOOT_TEST_SOCKET";
/// Each program with the switch that it knows when it is built for tests.
const PROGRAMS: [(&str, Option<&str>); 4] = [
    ("fastboot", Some(FAULT)),
    ("fastboot-initd", Some(FAULT)),
    ("fastboot-exec", Some(SOCKET)),
    ("fastboot-generator", None),
];

/// What is open in whoever started the test would be held outside of the tree.
const WITHOUT_DESCRIPTORS: &str = r#"for fd in /proc/$$/fd/*; do
    number=${fd##*/}; [ "$number" -gt 2 ] && eval "exec $number>&-"
done; exec sleep 600"#;

/// Directories of the programs that are shipped, and of those for tests.
#[derive(Debug)]
struct Builds {
    shipped: PathBuf,
    for_tests: PathBuf,
}

/// All of them.
pub fn tests() -> Vec<Test> {
    let builds =
        Once::new(|| Ok(Builds { shipped: fastboot::build()?, for_tests: fastboot::build_with_faults()? }));
    let test = |name: &str, needs: &[Need], run: fn(&Builds) -> Result<()>| {
        let builds = builds.clone();
        Test::alone(format!("shipped/{name}"), needs, move |_| run(builds.get()?))
    };
    vec![
        test("programs_do_not_hold_the_names_of_switches", &[], names),
        test("a_fault_that_is_switched_on_fails_no_dump", &[Need::Root], dump),
        test("a_fault_that_is_switched_on_does_not_end_initd", &[], initd),
        test("the_shim_speaks_on_no_socket_that_it_is_told", &[], shim),
    ]
}

fn names(builds: &Builds) -> Result<()> {
    for (program, own) in PROGRAMS {
        let bytes = |dir: &Path| std::fs::read(dir.join(program)).with_context(|| program.to_owned());
        let (shipped, for_tests) = (bytes(&builds.shipped)?, bytes(&builds.for_tests)?);
        let holds = |bytes: &[u8], name: &str| bytes.windows(name.len()).any(|part| part == name.as_bytes());
        for name in [FAULT, SOCKET] {
            ensure!(!holds(&shipped, name), "{program} knows {name}");
        }
        if let Some(name) = own {
            ensure!(holds(&for_tests, name), "{program} for tests does not know {name}");
        }
    }
    Ok(())
}

fn dump(builds: &Builds) -> Result<()> {
    let dir = tempfile::tempdir().context("making a directory")?;
    let mut subject = needs::command("bash")?;
    subject.args(["-c", WITHOUT_DESCRIPTORS]);
    subject.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut subject = subject.spawn().context("starting the subject")?;
    let comm = format!("/proc/{}/comm", subject.id());
    let began = Instant::now();
    while std::fs::read_to_string(&comm).context("looking at the subject")? != "sleep\n" {
        ensure!(began.elapsed() < Duration::from_secs(60), "the subject does not become sleep");
        std::thread::sleep(Duration::from_millis(5));
    }
    let dump = |programs: &Path| -> Result<Output> {
        needs::own(programs.join("fastboot"))
            .args(["dump", "--leave-running", "--pid", &subject.id().to_string(), "--output"])
            .arg(dir.path().join("image"))
            .env(FAULT, "image.write.header")
            .output()
            .context("running fastboot")
    };
    let (shipped, for_tests) = (dump(&builds.shipped), dump(&builds.for_tests));
    subject.kill().and_then(|()| subject.wait()).context("ending sleep")?;
    let (shipped, for_tests) = (shipped?, for_tests?);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(shipped.status.success(), "{}: {}", shipped.status, said(&shipped));
    let (what, has_failed) = (said(&for_tests), !for_tests.status.success());
    ensure!(has_failed && what.contains("image.write.header"), "the fault does nothing at all: {what}");
    Ok(())
}

/// Without its socket it ends soon in any case; what counts is how.
fn initd(builds: &Builds) -> Result<()> {
    let ended = |programs: &Path| -> Result<Output> {
        let mut initd = needs::own(programs.join("fastboot-initd"));
        initd.env(FAULT, "initd.start:abort").env_remove("LISTEN_FDS").stdin(Stdio::null());
        initd.output().context("running fastboot-initd")
    };
    let (shipped, for_tests) = (ended(&builds.shipped)?, ended(&builds.for_tests)?);
    let said = String::from_utf8_lossy(&shipped.stderr);
    ensure!(shipped.status.code() == Some(1), "{}: {said}", shipped.status);
    ensure!(said.contains("fastboot-initd.socket"), "{said}");
    ensure!(
        for_tests.status.signal() == Some(Signal::SIGABRT as i32),
        "the fault does nothing: {}",
        for_tests.status
    );
    Ok(())
}

fn shim(builds: &Builds) -> Result<()> {
    for (programs, connects) in [(&builds.shipped, false), (&builds.for_tests, true)] {
        let dir = tempfile::tempdir().context("making a directory")?;
        let path = dir.path().join("socket");
        let listener = listening_at(&path)?;
        let output = needs::own(programs.join("fastboot-exec"))
            .args(["--unit", "a.service", "--limit-ms", "100", "--", "/bin/sh", "-c", "echo cold"])
            .env(SOCKET, &path)
            .stdin(Stdio::null())
            .output()
            .context("running fastboot-exec")?;
        ensure!(output.status.success() && output.stdout == b"cold\n", "{output:?}");
        // A connection waits there although its other end has gone.
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let has_connected = poll(&mut polled, PollTimeout::ZERO).context("polling")? > 0;
        ensure!(has_connected == connects, "connected: {has_connected}, expected: {connects}");
    }
    Ok(())
}

/// A socket as initd's, on which nobody takes connections.
fn listening_at(path: &Path) -> Result<OwnedFd> {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&listener, Backlog::new(1)?)?;
    Ok(listener)
}
