//! The shim against a made-up initd, and what the original command finds when there is none.

use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use initd::protocol::{Adopted, Answer, FIRST_WORD_TIMEOUT, Greeting, Hello, StoredName};
use initd::shim::SOCKET_ENV;
use initd::sys::socket::{own, receive, send};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket};
use test_frame::{Need, tests};

const SETPRIV: Need = Need::Program { name: "setpriv", package: "util-linux" };
const SHIM: &str = env!("CARGO_BIN_EXE_fastboot-exec");
/// Prints what a program can see of how it was started, in a stable form.
const CHECKER: &str = "tr '\\0' '\\n' < /proc/self/environ; \
    grep -E '^(Sig(Blk|Ign|Cgt)|Cap[A-Za-z]+|NoNewPrivs|Seccomp):' /proc/self/status; \
    readlink /proc/self/fd/* | sed 's/:.*//'; umask; ulimit -a";

fn main() -> std::process::ExitCode {
    let as_another_user = tests![[Need::Root, SETPRIV]; nobody_of_the_same_user_may_look_into_the_shim];
    let mut all = tests![[];
        without_initd_the_command_finds_everything_as_if_there_were_no_shim,
        arguments_arrive_as_written_and_argv0_can_differ,
        the_process_id_stays,
        a_notify_socket_that_is_only_ours_is_taken_away_again,
        a_command_that_cannot_be_executed_ends_as_in_systemd,
        a_refusal_starts_the_command_at_once,
        a_cold_start_finds_its_descriptors_as_systemd_gave_them,
        an_initd_that_says_nothing_costs_a_moment,
        a_refusal_may_be_the_first_word,
        a_closed_connection_and_nonsense_start_the_command,
        a_restored_forking_service_ends_the_shim_without_a_word_to_systemd,
        systemd_hears_of_the_main_process_before_the_shim_ends,
        systemd_gets_back_what_it_kept_before_it_hears_that_the_service_is_ready,
        a_shim_that_does_not_get_all_descriptors_starts_cold,
        a_shim_that_cannot_reach_systemd_gives_the_tree_back_and_starts_cold,
        standard_and_activation_descriptors_are_handed_over_with_their_names,
    ];
    all.extend(as_another_user);
    test_frame::libtest::main(all)
}

/// A shell that becomes `program`, so that signals, descriptors and limits can be prepared.
fn run(prepare: &str, program: &str) -> Output {
    let script = format!("{prepare} exec {program}");
    let mut command = Command::new("/bin/bash");
    command.args(["--norc", "-c", &script]).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("B", "2").env("A", "x=y").env("EMPTY", "");
    command.env(SOCKET_ENV, "/nonexistent/socket").env("CHECKER", CHECKER);
    command.stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn without_initd_the_command_finds_everything_as_if_there_were_no_shim() {
    let prepares =
        ["", "umask 027; ulimit -n 64; exec 7</etc/passwd 5>/dev/null;", "trap '' PIPE HUP;", "exec 0<&-;"];
    let signals =
        ["env", "env --default-signal=PIPE --block-signal=USR1,RTMIN", "env --ignore-signal=PIPE,CHLD"];
    for prepare in prepares {
        for signals in signals {
            let plain = run(prepare, &format!("{signals} /bin/sh -c \"$CHECKER\""));
            let shim = format!("{SHIM} --unit a.service -- ");
            let through = run(prepare, &format!("{signals} {shim} /bin/sh -c \"$CHECKER\""));
            assert_eq!(text(&through), text(&plain), "after {prepare:?} {signals:?}");
        }
    }
}

fn arguments_arrive_as_written_and_argv0_can_differ() {
    let arguments = |options: &str, command: &str| {
        let output = run("", &format!("{SHIM} --unit a.service {options} -- {command}"));
        text(&output).split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = arguments("", "/bin/cat /proc/self/cmdline");
    assert_eq!(plain, ["/bin/cat", "/proc/self/cmdline", ""]);
    let named = arguments("--argv0", "/bin/cat 'my name' /proc/self/cmdline");
    assert_eq!(named, ["my name", "/proc/self/cmdline", ""]);
    let searched = arguments("", "cat -- /proc/self/cmdline");
    assert_eq!(searched, ["cat", "--", "/proc/self/cmdline", ""]);
}

fn the_process_id_stays() {
    let output = run("echo $$;", &format!("{SHIM} --unit a.service -- /bin/sh -c 'echo $$'"));
    let text = text(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], lines[1]);
}

fn a_notify_socket_that_is_only_ours_is_taken_away_again() {
    let environment = |option: &str| {
        text(&run(
            "export NOTIFY_SOCKET=/run/x NOTIFY_SOCKET_2=y;",
            &format!("{SHIM} --unit a.service {option} -- env"),
        ))
    };
    assert!(environment("").contains("\nNOTIFY_SOCKET=/run/x\n"));
    let hidden = environment("--no-notify");
    assert!(!hidden.contains("NOTIFY_SOCKET=") && hidden.contains("NOTIFY_SOCKET_2=y\n"));
}

fn a_command_that_cannot_be_executed_ends_as_in_systemd() {
    for program in ["/nonexistent/d", "nonexistent-program", "/etc"] {
        let output = run("", &format!("{SHIM} --unit a.service -- {program}"));
        assert_eq!(output.status.code(), Some(203), "{program}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(program));
    }
}

/// initd for one connection: `answer` gets it with the question.
struct Initd {
    path: PathBuf,
    thread: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

/// A socket on which nobody takes connections.
fn silent(path: &Path) -> OwnedFd {
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&listener, Backlog::new(4).unwrap()).unwrap();
    listener
}

impl Initd {
    fn new(answer: impl FnOnce(OwnedFd, Hello, Vec<OwnedFd>) + Send + 'static) -> Initd {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = silent(&path);
        let thread = std::thread::spawn(move || {
            let connection = own(accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap());
            send(&connection, &Greeting.encode(), &[]).unwrap();
            let (packet, fds) = receive(&connection, 65536).unwrap();
            answer(connection, Hello::decode(&packet).unwrap(), fds);
        });
        Initd { path, thread, _dir: dir }
    }

    fn start(&self, notify: Option<&Path>, arguments: &[&str]) -> Child {
        let mut command = Command::new(SHIM);
        command.args(["--unit", "a.service", "--"]).args(arguments).env(SOCKET_ENV, &self.path);
        command.env_remove("NOTIFY_SOCKET").envs(notify.map(|path| ("NOTIFY_SOCKET", path)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// What the shim, or the command that it became, has printed.
    fn finish(self, child: Child) -> (Option<i32>, String) {
        let output = child.wait_with_output().unwrap();
        self.thread.join().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

fn cold() -> Answer {
    Answer::Cold { code: "file-changed".to_owned(), sentence: "x changed".to_owned() }
}

fn a_refusal_starts_the_command_at_once() {
    let initd = Initd::new(|connection, hello, fds| {
        assert_eq!((hello.unit.as_str(), hello.has_notify_socket, fds.len()), ("a.service", false, 3));
        send(&connection, &cold().encode(), &[]).unwrap();
    });
    let child = initd.start(None, &["/bin/echo", "cold"]);
    assert_eq!(initd.finish(child), (Some(0), "cold\n".to_owned()));
}

fn a_cold_start_finds_its_descriptors_as_systemd_gave_them() {
    let initd = Initd::new(|connection, _, fds| {
        // As a worker does that fails later on.
        let before = OFlag::from_bits_retain(fcntl(&fds[1], FcntlArg::F_GETFL).unwrap());
        fcntl(&fds[1], FcntlArg::F_SETFL(before | OFlag::O_NONBLOCK)).unwrap();
        send(&connection, &cold().encode(), &[]).unwrap();
    });
    let child = initd.start(None, &["/bin/grep", "flags:", "/proc/self/fdinfo/1"]);
    assert_eq!(initd.finish(child), (Some(0), "flags:\t01\n".to_owned()));
}

fn an_initd_that_says_nothing_costs_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = silent(&path);
    let mut command = Command::new(SHIM);
    command.args(["--unit", "a.service", "--", "/bin/echo", "cold"]).env(SOCKET_ENV, &path);
    let began = Instant::now();
    let output = command.output().unwrap();
    let took = began.elapsed();
    assert_eq!(output.stdout, b"cold\n");
    assert!(took >= FIRST_WORD_TIMEOUT && took < FIRST_WORD_TIMEOUT * 10, "{took:?}");
    // Nothing was said before anybody was there to hear it, and no descriptor handed over.
    let connection = own(accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap());
    assert_eq!(receive(&connection, 4096).unwrap().0, b"");
}

fn a_refusal_may_be_the_first_word() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = silent(&path);
    let mut command = Command::new(SHIM);
    command.args(["--unit", "a.service", "--", "/bin/echo", "cold"]).env(SOCKET_ENV, &path);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let connection = own(accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap());
    send(&connection, &cold().encode(), &[]).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"cold\n");
    assert_eq!(receive(&connection, 4096).unwrap().0, b"", "it asked all the same");
}

/// A worker of the same service, or another service of the same user, could speak in its name.
fn nobody_of_the_same_user_may_look_into_the_shim() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = silent(&path);
    for path in [dir.path(), &path] {
        std::fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let shim = dir.path().join("shim");
    std::fs::copy(SHIM, &shim).unwrap();
    let as_user = |program: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=61112", "--regid=61112", "--clear-groups"]).args(program);
        command
    };
    let mut command = as_user(&[shim.to_str().unwrap(), "--unit", "a.service", "--", "/bin/sleep", "60"]);
    let mut child = command.env(SOCKET_ENV, &path).spawn().unwrap();
    let connection = own(accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap());
    send(&connection, &Greeting.encode(), &[]).unwrap();
    receive(&connection, 4096).unwrap();
    // What tracing and pidfd_getfd(2) ask for, too.
    let environment = format!("/proc/{}/environ", child.id());
    let looked = as_user(&["cat", &environment]).output().unwrap();
    assert!(!looked.status.success(), "{looked:?}");
    // The command itself is as open to its user as ever.
    send(&connection, &cold().encode(), &[]).unwrap();
    let began = Instant::now();
    while !as_user(&["cat", &environment]).output().unwrap().status.success() {
        assert!(began.elapsed() < Duration::from_secs(20), "the command is closed to its user");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

fn a_closed_connection_and_nonsense_start_the_command() {
    for packet in [None, Some(&b"nonsense"[..])] {
        let initd = Initd::new(move |connection, _, _| {
            if let Some(packet) = packet {
                send(&connection, packet, &[]).unwrap();
            }
        });
        let child = initd.start(None, &["/bin/echo", "cold"]);
        assert_eq!(initd.finish(child), (Some(0), "cold\n".to_owned()));
    }
}

fn a_restored_forking_service_ends_the_shim_without_a_word_to_systemd() {
    let initd = Initd::new(|connection, _, _| {
        let answer = Answer::Restored {
            main_pid: 4711,
            send_main_pid: false,
            send_ready: false,
            status: String::new(),
            stored: Vec::new(),
        };
        send(&connection, &answer.encode(), &[]).unwrap();
        let (packet, _) = receive(&connection, 4096).unwrap();
        assert_eq!(Adopted::decode(&packet), Ok(Adopted::Done));
    });
    let child = initd.start(None, &["/bin/echo", "cold"]);
    assert_eq!(initd.finish(child), (Some(0), String::new()));
}

fn systemd_hears_of_the_main_process_before_the_shim_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let initd = Initd::new(|connection, hello, _| {
        assert!(hello.has_notify_socket);
        let answer = Answer::Restored {
            main_pid: 4711,
            send_main_pid: true,
            send_ready: true,
            status: "serving".to_owned(),
            stored: Vec::new(),
        };
        send(&connection, &answer.encode(), &[]).unwrap();
        assert_eq!(Adopted::decode(&receive(&connection, 4096).unwrap().0), Ok(Adopted::Done));
    });
    let mut child = initd.start(Some(&path), &["/bin/echo", "cold"]);
    assert_eq!(receive(&systemd, 4096).unwrap().0, b"MAINPID=4711\nREADY=1\nSTATUS=serving");
    let (barrier, fds) = receive(&systemd, 4096).unwrap();
    assert_eq!((barrier.as_slice(), fds.len()), (&b"BARRIER=1"[..], 1));
    assert!(child.try_wait().unwrap().is_none(), "the shim did not wait");
    drop(fds);
    assert_eq!(initd.finish(child), (Some(0), String::new()));
}

fn systemd_gets_back_what_it_kept_before_it_hears_that_the_service_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let initd = Initd::new(|connection, _, _| {
        let name = |name: &str, polled| StoredName { name: name.to_owned(), polled };
        let answer = Answer::Restored {
            main_pid: 4711,
            send_main_pid: true,
            send_ready: true,
            status: String::new(),
            stored: vec![name("last", true), name("first", false)],
        };
        let fds = ["/etc/group", "/etc/passwd"].map(|path| File::open(path).unwrap());
        send(&connection, &answer.encode(), &[fds[0].as_fd(), fds[1].as_fd()]).unwrap();
        assert_eq!(Adopted::decode(&receive(&connection, 4096).unwrap().0), Ok(Adopted::Done));
    });
    let child = initd.start(Some(&path), &["/bin/echo", "cold"]);
    for (text, target) in
        [("FDSTORE=1\nFDNAME=first\nFDPOLL=0", "/etc/passwd"), ("FDSTORE=1\nFDNAME=last", "/etc/group")]
    {
        let (packet, fds) = receive(&systemd, 4096).unwrap();
        assert_eq!((packet.as_slice(), fds.len()), (text.as_bytes(), 1));
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).unwrap();
        assert_eq!(link, Path::new(target));
    }
    assert_eq!(receive(&systemd, 4096).unwrap().0, b"MAINPID=4711\nREADY=1");
    drop(receive(&systemd, 4096).unwrap());
    assert_eq!(initd.finish(child), (Some(0), String::new()));
}

fn a_shim_that_does_not_get_all_descriptors_starts_cold() {
    let initd = Initd::new(|connection, _, _| {
        let answer = Answer::Restored {
            main_pid: 4711,
            send_main_pid: false,
            send_ready: false,
            status: String::new(),
            stored: vec![StoredName { name: "lost".to_owned(), polled: true }],
        };
        send(&connection, &answer.encode(), &[]).unwrap();
    });
    let child = initd.start(None, &["/bin/echo", "cold"]);
    assert_eq!(initd.finish(child), (Some(0), "cold\n".to_owned()));
}

fn a_shim_that_cannot_reach_systemd_gives_the_tree_back_and_starts_cold() {
    let initd = Initd::new(|connection, _, _| {
        let answer = Answer::Restored {
            main_pid: 4711,
            send_main_pid: true,
            send_ready: false,
            status: String::new(),
            stored: Vec::new(),
        };
        send(&connection, &answer.encode(), &[]).unwrap();
        let adopted = Adopted::decode(&receive(&connection, 4096).unwrap().0).unwrap();
        assert!(matches!(adopted, Adopted::Failed(_)));
        send(&connection, &cold().encode(), &[]).unwrap();
    });
    let child = initd.start(Some(Path::new("/nonexistent/notify")), &["/bin/echo", "cold"]);
    assert_eq!(initd.finish(child), (Some(0), "cold\n".to_owned()));
}

fn standard_and_activation_descriptors_are_handed_over_with_their_names() {
    let initd = Initd::new(|connection, hello, fds| {
        assert_eq!(hello.listen_names, ["web", ""]);
        let targets: Vec<PathBuf> = fds
            .iter()
            .map(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap())
            .collect();
        assert_eq!(targets[3..], [Path::new("/etc/passwd"), Path::new("/etc/group")]);
        send(&connection, &cold().encode(), &[]).unwrap();
    });
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web exec {SHIM} --unit a.service -- /bin/cat /proc/self/fd/4 3</etc/passwd 4</etc/group"
    );
    let mut command = Command::new("/bin/bash");
    command.args(["--norc", "-c", &script]).env(SOCKET_ENV, &initd.path).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    assert!(first.starts_with("root:"), "{first:?}");
    lines.read_to_string(&mut first).unwrap();
    assert_eq!(initd.finish(child).0, Some(0));
}
