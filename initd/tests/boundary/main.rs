//! The boundary between services and initd, which is root: each promise of docs/SECURITY.md about
//! it, tried by an unprivileged user or by a compromised process of the same unit against the real
//! programs.

mod client;
mod manager;
mod place;

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use initd::admission::PEER_TIMEOUT;
use initd::protocol::{FIRST_WORD_TIMEOUT, Hello, SOCKET_PATH};
use initd::sys::socket::{receive, send};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use test_frame::{Need, Skip, tests};

use client::{Act, Client};
use manager::USERSPACE_US;
use place::{OF_GROUP, Place, RECORDED, SHIM, Setting, USER, inside, inside_with, wait_until};

/// What a start says that has got as far as reading the image, which in these tests holds no
/// process.
const REACHED_THE_IMAGE: &str = "image-corrupt";
const A: &str = "a.service";
const B: &str = "b.service";
/// Of a unit that only shows that initd is ready.
const READY: &str = "ready.service";

/// To make the places, and for what is started in them.
const NEEDS: [Need; 5] = [
    Need::Root,
    Need::ControlGroups,
    Need::Program { name: "unshare", package: "util-linux" },
    Need::Program { name: "setpriv", package: "util-linux" },
    Need::Program { name: "perl", package: "perl-base" },
];

fn main() -> ExitCode {
    if let Some(client) = Client::of_environment() {
        return client.run();
    }
    test_frame::libtest::main(tests![NEEDS;
        the_main_process_of_a_unit_gets_as_far_as_its_image,
        a_worker_that_unshares_and_mounts_over_a_recorded_file_is_refused,
        a_worker_that_executes_the_shim_is_not_the_main_process,
        a_shim_that_is_traced_is_refused,
        connections_that_a_user_holds_keep_no_unit_from_its_image,
        whoever_connects_from_a_unit_shows_that_it_was_started,
        a_start_that_initd_never_heard_of_is_known_from_systemd,
        where_systemd_does_not_answer_nothing_is_restored,
        after_one_silence_of_initd_no_further_unit_waits,
        a_group_that_a_start_does_not_give_does_not_come_back_with_the_image,
        a_start_that_waited_in_vain_is_noted_afterwards,
        no_descriptor_is_taken_from_somebody_who_is_not_known,
        only_the_process_that_was_answered_first_has_others_ended,
        a_unit_that_has_taken_all_its_places_gets_them_back,
    ])
}

fn code_of(place: &Place, unit: &str) -> String {
    place.wait_for_status(unit).0
}

/// Without it the other tests would pass where nobody is ever answered.
fn the_main_process_of_a_unit_gets_as_far_as_its_image() {
    inside("the_main_process_of_a_unit_gets_as_far_as_its_image", &[A], |place| {
        assert!(place.main_process(A).wait().success());
        assert_eq!(code_of(place, A), REACHED_THE_IMAGE, "{}", place.log());
        assert_eq!(place.cold_starts(A), 1);
    });
}

/// In namespaces of its own a worker may mount whatever it likes over what root opens for it.
fn a_worker_that_unshares_and_mounts_over_a_recorded_file_is_refused() -> Result<(), Skip> {
    require_namespaces_of_users()?;
    inside("a_worker_that_unshares_and_mounts_over_a_recorded_file_is_refused", &[A], |place| {
        let attack = format!(
            "unshare --user --map-root-user --mount /bin/sh -c '\
             echo elsewhere > /run/out/evil && mount --bind /run/out/evil {RECORDED} && \
             grep -q elsewhere {RECORDED} && touch /run/out/is-mounted && \
             exec {SHIM} --unit {A} -- /bin/sh -c \"echo cold >> /run/out/{A}\"'"
        );
        let worker = place.process(A, USER, &attack);
        // Even where systemd takes it for the main process: it may be one that was taken over.
        place.manager.say(A, "MainPID", worker.pid().into());
        worker.go();
        place.wait_for_cold_starts(A, 1);
        assert!(fs::exists("/run/out/is-mounted").unwrap(), "the attack itself has failed");
        place.wait_for_log("is in a mnt namespace that systemd has not made");
        // Root has opened nothing there: not even the image.
        assert_eq!(place.status(A), None, "{}", place.log());
        // And that the unit had been started is known.
        place.main_process(A);
        place.wait_for_cold_starts(A, 2);
        place.wait_for_log("it was started in this boot before");
    });
    Ok(())
}

/// Where they may not, nobody can attack in this way.
fn require_namespaces_of_users() -> Result<(), Skip> {
    let user = format!("--reuid={USER}");
    let attempt = ["unshare", "--user", "--map-root-user", "--mount", "mount", "--bind", "/usr", "/usr"];
    let done = Command::new("setpriv").args([user.as_str(), "--clear-groups"]).args(attempt).output();
    match done.unwrap() {
        done if done.status.success() => Ok(()),
        done => {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            Err(Skip::kernel(format!("users may not make namespaces here ({said})")))
        }
    }
}

fn a_worker_that_executes_the_shim_is_not_the_main_process() {
    inside("a_worker_that_executes_the_shim_is_not_the_main_process", &[A], |place| {
        place.manager.say(A, "MainPID", 1);
        let shim = format!("{SHIM} --unit {A} -- /bin/sh -c 'echo cold >> /run/out/{A}'");
        place.process(A, USER, &shim).go();
        let (code, sentence) = place.wait_for_status(A);
        assert_eq!(code, "host-unsupported");
        assert!(sentence.contains("another process"), "{sentence}");
        place.wait_for_cold_starts(A, 1);
    });
}

fn a_shim_that_is_traced_is_refused() {
    inside("a_shim_that_is_traced_is_refused", &[A], |place| {
        let shim = format!("{SHIM} --unit {A} -- /bin/sh -c 'echo cold >> /run/out/{A}'");
        let process = place.process(A, USER, &shim);
        let pid = process.pid();
        place.manager.say(A, "MainPID", pid.into());
        // Stays over what it executes.
        ptrace::seize(Pid::from_raw(pid as i32), ptrace::Options::empty()).unwrap();
        process.go();
        place.wait_for_cold_starts(A, 1);
        place.wait_for_log("is being traced");
    });
}

/// 600 are more than there are places, and none of them costs another unit its answer.
fn connections_that_a_user_holds_keep_no_unit_from_its_image() {
    inside("connections_that_a_user_holds_keep_no_unit_from_its_image", &[A], |place| {
        let hold = format!(
            "perl -MSocket -e 'for (1..600) {{ socket(my $one, AF_UNIX, SOCK_SEQPACKET, 0) or die; \
             connect($one, sockaddr_un(\"{SOCKET_PATH}\")) or die; push @held, $one }} \
             open(my $file, \">\", \"/run/out/held\"); sleep 600'"
        );
        place.process("of-a-user.service", USER, &hold).go();
        wait_until("held connections", || fs::exists("/run/out/held").unwrap().then_some(()));
        place.main_process(A);
        assert_eq!(code_of(place, A), REACHED_THE_IMAGE, "{}", place.log());
    });
}

/// Whatever becomes of the connection: the start that it belongs to has been, and a later one is a
/// restart.
fn whoever_connects_from_a_unit_shows_that_it_was_started() {
    inside("whoever_connects_from_a_unit_shows_that_it_was_started", &[A], |place| {
        let connect = format!(
            "perl -MSocket -e 'socket(my $one, AF_UNIX, SOCK_SEQPACKET, 0) or die; \
             connect($one, sockaddr_un(\"{SOCKET_PATH}\")) or die; recv($one, my $word, 1, 0); \
             open(my $file, \">\", \"/run/out/was-refused\")'"
        );
        place.process(A, USER, &connect).go();
        wait_until("a refusal", || fs::exists("/run/out/was-refused").unwrap().then_some(()));
        place.wait_for_log("is not fastboot-exec");
        place.main_process(A);
        place.wait_for_cold_starts(A, 1);
        place.wait_for_log("it was started in this boot before");
    });
}

/// Where not even the connection came about: systemd remembers.
fn a_start_that_initd_never_heard_of_is_known_from_systemd() {
    inside("a_start_that_initd_never_heard_of_is_known_from_systemd", &[A, B], |place| {
        place.manager.say(A, "InactiveEnterTimestampMonotonic", USERSPACE_US + 1);
        place.manager.say(B, "NRestarts", 1);
        for unit in [A, B] {
            place.main_process(unit);
            place.wait_for_cold_starts(unit, 1);
            let what = format!("{unit}: systemd had started it in this boot before");
            place.wait_for_log(&what);
        }
    });
}

fn where_systemd_does_not_answer_nothing_is_restored() {
    inside("where_systemd_does_not_answer_nothing_is_restored", &[A], |place| {
        fs::remove_file(initd::systemd::PRIVATE_SOCKET).unwrap();
        place.main_process(A);
        let (code, sentence) = place.wait_for_status(A);
        assert_eq!(code, "host-unsupported", "{sentence}");
        place.wait_for_cold_starts(A, 1);
    });
}

/// Until it answers like one that has been there for long.
fn wait_for_initd(place: &Place) {
    place.main_process(READY);
    place.wait_for_status(READY);
}

/// The first unit waits for a moment, the next one does not; and both starts are noted.
fn after_one_silence_of_initd_no_further_unit_waits() {
    inside("after_one_silence_of_initd_no_further_unit_waits", &[A, B, READY], |place| {
        wait_for_initd(place);
        place.signal(Signal::SIGSTOP, false);
        // It stays: on a busy machine its shim may have given up before the zygote looks who it is.
        let shim = format!("{SHIM} --unit {A} -- /bin/sh -c 'echo cold >> /run/out/{A}; exec sleep 600'");
        let first = place.process(A, USER, &shim).go();
        place.wait_for_cold_starts(A, 1);
        place.wait_for_log("a.service: initd does not answer; starting it cold");
        first.kill();
        // One that waited would wait for nearly as long as a shim does.
        const FURTHER: usize = 6;
        let began = Instant::now();
        for _ in 0..FURTHER {
            place.main_process(B).wait();
        }
        let took = began.elapsed();
        assert_eq!(place.cold_starts(B), FURTHER);
        assert!(took < FIRST_WORD_TIMEOUT * (FURTHER as u32 - 1), "{took:?}");
        place.signal(Signal::SIGCONT, false);
        for (unit, before) in [(A, 1), (B, FURTHER)] {
            assert!(fs::exists(format!("/run/fastboot/asked/{unit}")).unwrap(), "{unit}");
            // Whoever of the two answers by now.
            assert!(place.main_process(unit).wait().success());
            assert_eq!((place.cold_starts(unit), place.status(unit)), (before + 1, None), "{}", place.log());
        }
    });
}

/// The user of these tests has no supplementary group, and the image has one: it was taken away, or
/// the image was taken without a trial that would have shown it.
fn a_group_that_a_start_does_not_give_does_not_come_back_with_the_image() {
    inside("a_group_that_a_start_does_not_give_does_not_come_back_with_the_image", &[OF_GROUP], |place| {
        assert!(place.main_process(OF_GROUP).wait().success());
        let (code, sentence) = place.wait_for_status(OF_GROUP);
        assert_eq!(code, "groups-changed", "{}", place.log());
        assert!(sentence.starts_with("the group 61112, which processes of its image hold"), "{sentence}");
        assert_eq!(place.cold_starts(OF_GROUP), 1);
    });
}

/// Nobody answers at all, and the shim gives up. What it became is still there when initd comes to
/// itself.
fn a_start_that_waited_in_vain_is_noted_afterwards() {
    inside("a_start_that_waited_in_vain_is_noted_afterwards", &[A, READY], |place| {
        wait_for_initd(place);
        place.signal(Signal::SIGSTOP, true);
        let began = Instant::now();
        let shim = format!("{SHIM} --unit {A} -- /bin/sh -c 'echo cold >> /run/out/{A}; exec sleep 600'");
        let process = place.process(A, USER, &shim);
        place.manager.say(A, "MainPID", process.pid().into());
        process.go();
        place.wait_for_cold_starts(A, 1);
        assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());
        place.signal(Signal::SIGCONT, true);
        wait_until("a note", || fs::exists(format!("/run/fastboot/asked/{A}")).unwrap().then_some(()));
        place.main_process(A);
        place.wait_for_cold_starts(A, 2);
        place.wait_for_log("it was started in this boot before");
    });
}

/// Nothing that somebody sends is waited for, and nothing taken, before it is known who that is.
fn no_descriptor_is_taken_from_somebody_who_is_not_known() {
    inside("no_descriptor_is_taken_from_somebody_who_is_not_known", &[A], |place| {
        let began = Instant::now();
        // PID 1, which this is, is in no service.
        for _ in 0..50 {
            let silent = connection();
            assert!(!matches!(receive(&silent, 4096), Ok((packet, _)) if !packet.is_empty()));
        }
        assert!(began.elapsed() < PEER_TIMEOUT, "somebody was waited for: {:?}", began.elapsed());
        let marked = File::open(RECORDED).unwrap();
        let hello =
            Hello { unit: A.to_owned(), has_notify_socket: true, is_again: true, listen_names: Vec::new() };
        for _ in 0..50 {
            let connection = connection();
            // It is refused already, or will be.
            let _ = send(&connection, &hello.encode(), &[marked.as_fd(); 3]);
            assert!(!matches!(receive(&connection, 4096), Ok((packet, _)) if !packet.is_empty()));
        }
        let initd = format!("/proc/{}/fd", place.initd.id());
        let open = fs::read_dir(initd).unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        assert!(!open.into_iter().any(|target| target == Path::new(RECORDED)));
        assert_eq!((place.status(A), place.log().as_str()), (None, ""));
    });
}

fn connection() -> OwnedFd {
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&connection, sockopt::ReceiveTimeout, &TimeVal::new(20, 0)).unwrap();
    connect(connection.as_raw_fd(), &UnixAddr::new(SOCKET_PATH).unwrap()).unwrap();
    connection
}

/// Numbers that processes of a place get: somebody with one of these may be of a restored tree.
const SMALL_PIDS: std::ops::Range<i32> = 2..2000;

/// Whoever says that it asks again has initd end the others of its unit. A worker that was taken
/// over must not be able to.
fn only_the_process_that_was_answered_first_has_others_ended() {
    let shim = std::env::current_exe().unwrap();
    let setting = Setting { units: &[A], shim, pids: SMALL_PIDS.collect() };
    inside_with("only_the_process_that_was_answered_first_has_others_ended", &setting, |place| {
        let other = place.process(A, USER, "sleep 600").go();
        wait_until("another process of the unit", || place.members(A).contains(&other.pid()).then_some(()));
        let first = client(place, "first", Act::AskTwice);
        // It has got past who was first: a number that is recorded is somebody's.
        assert_eq!(answers(1, "first"), ["pid-taken"]);
        let worker = client(place, "worker", Act::AskAgain);
        assert_eq!(answers(1, "worker"), ["not-first-start"]);
        let members = place.members(A);
        for one in [&other, &first, &worker] {
            assert!(members.contains(&one.pid()), "somebody was ended");
        }
        fs::write(client::GO, "").unwrap();
        assert_eq!(answers(2, "first"), ["pid-taken", "initd-unavailable"]);
        assert_eq!(place.members(A), [first.pid()]);
    });
}

/// Its places are not lost with connections that end without a question.
fn a_unit_that_has_taken_all_its_places_gets_them_back() {
    let shim = std::env::current_exe().unwrap();
    let setting = Setting { units: &[A], shim, pids: Vec::new() };
    inside_with("a_unit_that_has_taken_all_its_places_gets_them_back", &setting, |place| {
        let held = ["one", "two"].map(|name| client(place, name, Act::Hold));
        for name in ["one", "two"] {
            assert_eq!(answers(1, name), ["greeted"]);
        }
        client(place, "three", Act::AskAgain);
        assert_eq!(answers(1, "three"), ["initd-unavailable"]);
        held.into_iter().for_each(place::Started::kill);
        // initd sees the end of a connection in its own time.
        let mut tries = 0;
        wait_until("a free place", || {
            tries += 1;
            let name = format!("try-{tries}");
            client(place, &name, Act::AskAgain);
            (answers(1, &name) == ["not-first-start"]).then_some(())
        });
    });
}

/// A process of the unit that initd takes for the shim. What it is told goes to a file of this
/// name.
fn client(place: &Place, name: &str, act: Act) -> place::Started {
    let program =
        format!("env {} {SHIM} > /run/out/{name}", Client { unit: A.to_owned(), act }.environment());
    place.process(A, USER, &program).go()
}

/// What a client has been told, as soon as it is so much.
fn answers(count: usize, name: &str) -> Vec<String> {
    wait_until(&format!("{count} answers to {name}"), || {
        let text = fs::read_to_string(format!("/run/out/{name}")).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count && text.ends_with('\n')).then_some(lines)
    })
}
