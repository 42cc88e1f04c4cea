//! Dump and restore ten times in a row: nothing grows.

use crate::compile::Toolchain;
use crate::equal::State;
use crate::fastboot::Fastboot;
use crate::process::{NUMBERS, tree};
use crate::running::{Outcome, Running, Subject, judge};
use std::fs;
use std::path::Path;
use test_frame::{Need, Test};

const ROUNDS: usize = 10;
/// The first thread of each process runs between two images: stack, tables of lazy binding.
const IMAGE_SLACK_BYTES: u64 = 64 << 10;
const RESIDENT_SLACK_KIB: u64 = 256;

#[derive(Debug)]
struct Size {
    image_bytes: u64,
    areas: usize,
    descriptors: usize,
    files: usize,
    resident_kib: u64,
}

/// Of a tree that an image has just been made of and that runs on.
fn measure(root: i32, image: &Path) -> Size {
    let state = State::read(image).tree;
    let resident = |pid: i32| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Size {
        image_bytes: fs::metadata(image).expect("an image").len(),
        areas: state.processes.iter().map(|process| process.mm.vmas.len()).sum(),
        descriptors: state.processes.iter().map(|process| process.fds.len()).sum(),
        files: state.files.len(),
        resident_kib: tree(root).into_iter().map(resident).sum(),
    }
}

fn ten_times(program: &'static str, variant: &'static str) -> Outcome {
    let _numbers_stay = NUMBERS.read();
    let subject = Subject::new(program, variant);
    let mut running = Running::ready(subject)?;
    let image = running.file("image");
    let mut sizes = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        running.dump(&image);
        running.restore(&image);
        fs::remove_file(&image).expect("remove the image");
        let answer = running.run(Fastboot::dump(running.pid, &image).leave_running());
        assert_eq!(answer.code, Some(0), "{answer:?}");
        sizes.push(measure(running.pid, &image));
        fs::remove_file(&image).expect("remove the image");
    }
    judge(subject, &running.finish("restored"))?;
    let (first, last) = (&sizes[0], &sizes[ROUNDS - 1]);
    assert_eq!(
        (first.areas, first.descriptors, first.files),
        (last.areas, last.descriptors, last.files),
        "{sizes:#?}"
    );
    assert!(last.image_bytes <= first.image_bytes + IMAGE_SLACK_BYTES, "{sizes:#?}");
    assert!(last.resident_kib <= first.resident_kib + RESIDENT_SLACK_KIB, "{sizes:#?}");
    Ok(())
}

fn tree_of_processes_does_not_grow_in_ten_restores() -> Outcome {
    ten_times("process_tree", "")
}

fn shared_memory_and_epoll_do_not_grow_in_ten_restores() -> Outcome {
    ten_times("epoll_shared", "")
}

fn pages_shared_by_fork_do_not_grow_in_ten_restores() -> Outcome {
    ten_times("prefork", "data")
}

fn rings_do_not_grow_in_ten_restores() -> Outcome {
    ten_times("io_uring", "half_way")
}

fn sockets_do_not_grow_in_ten_restores() -> Outcome {
    ten_times("unix_listener", "path")
}

fn threads_do_not_grow_in_ten_restores() -> Outcome {
    ten_times("threads_64", "")
}

fn pidfds_and_zombies_do_not_grow_in_ten_restores() -> Outcome {
    ten_times("pidfd", "tree")
}

pub fn tests() -> Vec<Test> {
    test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        tree_of_processes_does_not_grow_in_ten_restores,
        shared_memory_and_epoll_do_not_grow_in_ten_restores,
        pages_shared_by_fork_do_not_grow_in_ten_restores,
        rings_do_not_grow_in_ten_restores,
        sockets_do_not_grow_in_ten_restores,
        threads_do_not_grow_in_ten_restores,
        pidfds_and_zombies_do_not_grow_in_ten_restores,
    ]
}
