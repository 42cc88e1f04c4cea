//! Restores that fail: nothing of the tree is left, and who was there before is not harmed.

use crate::compile::Toolchain;
use crate::equal::State;
use crate::fastboot::{Answer, Fastboot};
use crate::process;
use crate::running::{Outcome, Running, Subject};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use snap_sys::sysv_queue;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use test_frame::{Need, Skip, Test};

const TREE: Subject = Subject::new("process_tree", "");

/// A subject that was dumped and is gone, and its image.
fn dumped(subject: Subject) -> Result<(Running, PathBuf), Skip> {
    let mut running = Running::ready(subject)?;
    let image = running.file("image");
    running.dump(&image);
    Ok((running, image))
}

/// The restore fails with one of these codes, says why, and leaves nobody.
fn fails(running: &mut Running, image: &Path, codes: &[i32]) -> Answer {
    let answer = running.run(Fastboot::restore(image));
    assert!(answer.code.is_some_and(|code| codes.contains(&code)), "wanted one of {codes:?}: {answer:?}");
    assert!(!answer.stderr.trim().is_empty(), "no word of explanation");
    assert!(answer.stdout.is_empty(), "printed a root: {answer:?}");
    running.assert_gone("after a restore that failed");
    answer
}

fn restore_of_damaged_image_is_refused() -> Outcome {
    let (mut running, image) = dumped(TREE)?;
    let content = fs::read(&image).expect("image");
    let damaged = running.file("damaged");
    let len = content.len();
    // header, state, tables, pages, end
    for at in [0, 9, 70, 200, len / 8, len / 4, len / 2, len * 3 / 4, len - 100, len - 1] {
        let mut bytes = content.clone();
        bytes[at] ^= 0x41;
        fs::write(&damaged, &bytes).expect("damaged image");
        let answer = running.run(Fastboot::restore(&damaged));
        if answer.code == Some(0) {
            // padding between sections may be anything; then what came back must be whole
            panic!("byte {at} of {len} was flipped and nobody noticed: {answer:?}");
        }
        assert!(matches!(answer.code, Some(1 | 3)), "byte {at}: {answer:?}");
        running.assert_gone("after the restore of a damaged image");
    }
    running.restore(&image); // the sound one still works
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

fn restore_is_stale_when_a_lock_is_taken() -> Outcome {
    let (mut running, image) = dumped(Subject::new("file_locks", "flock"))?;
    let file = fs::File::open(running.file("file")).expect("the file that the subject had locked");
    let lock =
        Flock::lock(file, FlockArg::LockSharedNonblock).map_err(|(_, e)| e).expect("its lock went with it");
    let answer = fails(&mut running, &image, &[3]);
    assert!(answer.stderr.contains("file lock"), "{answer:?}");
    drop(lock);
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

/// A daemon that starts cold makes its own.
fn restore_that_fails_removes_the_sysv_objects_that_it_made() -> Outcome {
    let queue = |id: i32| sysv_queue::max_bytes(id);
    let (mut running, image) = dumped(Subject::new("sysv_queue", "messages"))?;
    let id = State::read(&image).tree.sysv.queues[0].identity.id;
    assert!(queue(id).is_ok(), "a queue outlives its users");
    sysv_queue::remove(id).expect("remove the queue");
    let answer = running.run(Fastboot::restore(&image).fault("worker.mid:error"));
    assert_eq!(answer.code, Some(1), "{answer:?}");
    running.assert_gone("after a restore that failed");
    assert_eq!(queue(id), Err(Errno::EINVAL), "the queue of a restore that failed");
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

fn restore_is_stale_when_a_sysv_queue_has_been_changed() -> Outcome {
    let (mut running, image) = dumped(Subject::new("sysv_queue", "messages"))?;
    let queue = State::read(&image).tree.sysv.queues[0].clone();
    sysv_queue::remove(queue.identity.id).expect("remove the queue");
    let another = sysv_queue::create(queue.identity.key, 0o600).expect("another queue with its key");
    let answer = fails(&mut running, &image, &[3]);
    assert!(answer.stderr.contains("SysV message queue"), "{answer:?}");
    sysv_queue::remove(another).expect("the queue is still there");
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

fn restore_of_truncated_image_is_refused() -> Outcome {
    let (mut running, image) = dumped(TREE)?;
    let len = fs::metadata(&image).expect("image").len();
    for keep in [0, 1, 63, 4095, 4096, len / 2, len - 4096, len - 1] {
        let cut = running.file("cut");
        fs::copy(&image, &cut).expect("copy");
        fs::OpenOptions::new().write(true).open(&cut).and_then(|f| f.set_len(keep)).expect("truncate");
        fails(&mut running, &cut, &[1, 3]);
    }
    Ok(())
}

fn restore_of_missing_image_fails() -> Outcome {
    let directory = tempfile::tempdir().expect("temporary directory");
    let answer = Fastboot::restore(&directory.path().join("none")).run(&directory.path().join("step"), || {});
    assert_eq!(answer.code, Some(1), "{answer:?}");
    Ok(())
}

fn restore_of_something_else_is_refused() -> Outcome {
    let directory = tempfile::tempdir().expect("temporary directory");
    let other = directory.path().join("other");
    for content in [&b"#!/bin/sh\n"[..], &[0u8; 8192], &[0xff; 70000]] {
        fs::write(&other, content).expect("a file");
        let answer = Fastboot::restore(&other).run(&directory.path().join("step"), || {});
        assert!(matches!(answer.code, Some(1 | 3)), "{answer:?}");
    }
    Ok(())
}

/// Starts a process that has this number.
fn take_pid(pid: i32) -> std::process::Child {
    for _ in 0..100 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("write ns_last_pid");
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().expect("sleep");
        if child.id() == pid.unsigned_abs() {
            return child;
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("could not take pid {pid}");
}

fn restore_to_taken_pid_fails_and_harms_nobody() -> Outcome {
    let _alone = process::NUMBERS.write();
    let (mut running, image) = dumped(TREE)?;
    let members: Vec<i32> = running.members.iter().copied().collect();
    for pid in [running.pid, members[members.len() - 1]] {
        let mut squatter = take_pid(pid);
        // Tests beside this one may have another number of the tree for a moment; that is named
        // then.
        let mut names_it = || {
            let answer = running.run(Fastboot::restore(&image));
            assert!(matches!(answer.code, Some(1 | 3)), "{answer:?}");
            assert!(
                members.iter().any(|member| answer.stderr.contains(&member.to_string())),
                "no taken number is named: {answer:?}"
            );
            answer.stderr.contains(&pid.to_string())
        };
        assert!((0..5).any(|_| names_it()), "the taken number {pid} is not named");
        assert!(squatter.try_wait().expect("look at the squatter").is_none(), "the squatter was ended");
        let others = members.iter().copied().filter(|&member| member != pid).collect();
        let left = process::left_of(&others);
        squatter.kill().expect("end the squatter");
        squatter.wait().expect("wait for the squatter");
        assert!(left.is_empty(), "{left:?} are left");
    }
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

fn restore_without_a_recorded_file_fails() -> Outcome {
    for (program, file) in [("file_offset", "log"), ("private_file", "data"), ("directory_offset", "many")] {
        let (mut running, image) = dumped(Subject::new(program, ""))?;
        fs::rename(running.file(file), running.file("moved-away")).expect("move the file away");
        let answer = fails(&mut running, &image, &[1, 3]);
        assert!(answer.stderr.contains(file), "the missing file is not named: {answer:?}");
    }
    Ok(())
}

fn restore_to_taken_port_fails() -> Outcome {
    let mut running = Running::ready(Subject::new("epoll_exclusive", ""))?;
    let ports = listening_ports();
    let image = running.file("image");
    running.dump(&image);
    let free: Vec<u16> = ports.into_iter().filter(|port| !listening_ports().contains(port)).collect();
    let taken: Vec<_> =
        free.iter().filter_map(|&port| std::net::TcpListener::bind(("127.0.0.1", port)).ok()).collect();
    assert!(!taken.is_empty(), "found no port of the subject");
    fails(&mut running, &image, &[1, 3]);
    drop(taken);
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

/// Ports of 127.0.0.1 that somebody listens on (/proc/net/tcp, state 0A).
fn listening_ports() -> Vec<u16> {
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let port = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let local = words.get(1)?.strip_prefix("0100007F:")?;
        (words.get(3) == Some(&"0A")).then(|| u16::from_str_radix(local, 16).ok()).flatten()
    };
    table.lines().filter_map(port).collect()
}

fn restore_over_changed_mapped_file_is_refused() -> Outcome {
    let (mut running, image) = dumped(Subject::new("private_file", ""))?;
    // the mapped file changed behind the image's back; its clean pages are not in the image
    let data = fs::OpenOptions::new().write(true).open(running.file("data")).expect("data");
    data.write_at(b"changed", 4096 * 6).expect("change the file");
    drop(data);
    let answer = fails(&mut running, &image, &[3]);
    assert!(answer.stderr.contains("data"), "the changed file is not named: {answer:?}");
    Ok(())
}

fn restore_that_is_killed_leaves_nothing() -> Outcome {
    let (mut running, image) = dumped(TREE)?;
    for round in 0..4 {
        let prefix = running.file(&format!("killed{round}"));
        let mut started = Fastboot::restore(&image).fault("worker.mid:sleep").start(&prefix);
        let deadline = Instant::now() + Duration::from_secs(10);
        // rounds differ in how far the worker has come
        while round > 0
            && !running.members.iter().any(|&pid| process::exists(pid))
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(round * 5));
        started.child.kill().expect("kill fastboot");
        started.child.wait().expect("wait for fastboot");
        running.assert_gone("after fastboot was killed");
    }
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

/// A restore that cannot go on says within seconds who is waited for, and leaves nothing.
fn assert_stalls(running: &mut Running, answer: &Answer, took: Duration, waits: &str) {
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let named = format!("process {} {waits}", running.pid);
    assert!(answer.stderr.contains(&named), "`{named}` is not said: {answer:?}");
    // The deadline of the restore is 60 s.
    assert!(took < Duration::from_secs(30), "said after {took:?}");
    running.assert_gone("after a restore that did not go on");
}

fn restore_that_does_not_go_on_names_process_and_system_call() -> Outcome {
    let (mut running, image) = dumped(Subject::new("epoll_exclusive", ""))?;
    let begun = Instant::now();
    let answer = running.run(Fastboot::restore(&image).fault("worker.process:sleep=100000"));
    assert_stalls(&mut running, &answer, begun.elapsed(), "is in system call");
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

fn restore_that_does_not_go_on_names_the_step() -> Outcome {
    let (mut running, image) = dumped(Subject::new("epoll_exclusive", ""))?;
    let prefix = running.file("stalled");
    // Everybody waits for the go meanwhile.
    let mut started = Fastboot::restore(&image).fault("worker.mid:sleep=3000").start(&prefix);
    let root = nix::unistd::Pid::from_raw(running.pid);
    let waits_for_go = || {
        let call = fs::read_to_string(format!("/proc/{root}/syscall")).unwrap_or_default();
        call.starts_with("0 ")
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !waits_for_go() {
        assert!(Instant::now() < deadline, "the process does not come to wait for the go");
        std::thread::sleep(Duration::from_millis(1));
    }
    nix::sys::signal::kill(root, nix::sys::signal::Signal::SIGSTOP).expect("stop it");
    let begun = Instant::now();
    let status = started.child.wait().expect("wait for fastboot");
    let answer = started.answer(status);
    let waits = "has been stopped by somebody, waiting for the go";
    assert_stalls(&mut running, &answer, begun.elapsed(), waits);
    Ok(())
}

fn image_can_be_restored_more_than_once() -> Outcome {
    let (mut running, image) = dumped(TREE)?;
    for round in 0..3 {
        running.restore(&image);
        let again = running.file(&format!("again{round}"));
        running.dump(&again);
    }
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

pub fn tests() -> Vec<Test> {
    test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        restore_of_damaged_image_is_refused,
        restore_is_stale_when_a_lock_is_taken,
        restore_that_fails_removes_the_sysv_objects_that_it_made,
        restore_is_stale_when_a_sysv_queue_has_been_changed,
        restore_of_truncated_image_is_refused,
        restore_of_missing_image_fails,
        restore_of_something_else_is_refused,
        restore_to_taken_pid_fails_and_harms_nobody,
        restore_without_a_recorded_file_fails,
        restore_to_taken_port_fails,
        restore_over_changed_mapped_file_is_refused,
        restore_that_is_killed_leaves_nothing,
        restore_that_does_not_go_on_names_process_and_system_call,
        restore_that_does_not_go_on_names_the_step,
        image_can_be_restored_more_than_once,
    ]
}
