//! Dumps that fail, and one that leaves the tree running: in each case the tree goes on as if
//! nothing had happened.

use crate::compile::Toolchain;
use crate::fastboot::Fastboot;
use crate::process;
use crate::running::{Outcome, Running, Subject, judge};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use test_frame::{Need, Test};

/// A tree of several processes with threads' worth of state, and one with much memory.
const TREE: Subject = Subject::new("process_tree", "");
const LARGE: Subject = Subject::new("anon_memory", "");

fn dump_that_leaves_running_changes_nothing() -> Outcome {
    for subject in [TREE, LARGE, Subject::new("interrupted", "futex"), Subject::new("pending_signals", "")] {
        let mut running = Running::ready(subject)?;
        for round in 0..3 {
            let image = running.file(&format!("image{round}"));
            let answer = running.run(Fastboot::dump(running.pid, &image).leave_running());
            assert_eq!(answer.code, Some(0), "{answer:?}");
            assert!(process::exists(running.pid), "the root is gone");
        }
        judge(subject, &running.finish("untouched"))?;
    }
    Ok(())
}

fn dump_of_missing_pid_fails() -> Outcome {
    let directory = tempfile::tempdir().expect("temporary directory");
    let image = directory.path().join("image");
    let answer = Fastboot::dump(4_194_000, &image).run(&directory.path().join("step"), || {});
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("4194000"), "{answer:?}");
    assert!(!image.exists(), "an image of nothing");
    Ok(())
}

fn dump_of_thread_id_fails() -> Outcome {
    let mut running = Running::ready(Subject::new("thread_join", ""))?;
    let thread = *running.members.iter().find(|&&tid| tid != running.pid).expect("another thread");
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(thread, &image));
    assert!(answer.code.is_some_and(|code| code != 0), "a thread is not a tree: {answer:?}");
    judge(TREE, &running.finish("untouched"))
}

fn wrong_usage_is_told_apart() -> Outcome {
    let directory = tempfile::tempdir().expect("temporary directory");
    let wrong: &[&[&str]] = &[
        &["dump"],
        &["dump", "--pid", "1"],
        &["dump", "--pid", "many", "--output", "x"],
        &["dump", "--pid", "0", "--output", "x"],
        &["dump", "--pid", "-5", "--output", "x"],
        &["restore"],
        &["restore", "a", "b"],
        &["no-such-command"],
        &["dump", "--no-such-option"],
    ];
    for arguments in wrong {
        let answer = Fastboot::new(arguments).run(&directory.path().join("step"), || {});
        assert_eq!(answer.code, Some(2), "{arguments:?}: {answer:?}");
        assert!(!answer.stderr.is_empty(), "{arguments:?}: no word of explanation");
    }
    Ok(())
}

/// A tmpfs of a few pages, unmounted when dropped.
struct TinyFileSystem(PathBuf);

impl TinyFileSystem {
    fn mount(at: PathBuf, options: &str) -> Self {
        fs::create_dir(&at).expect("mount point");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &at, Some("tmpfs"), flags, Some(options)).expect("mount a tmpfs");
        Self(at)
    }

    /// Names of what is on it.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("list").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for TinyFileSystem {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn dump_to_full_disk_fails_and_leaves_the_tree() -> Outcome {
    for subject in [TREE, LARGE] {
        let mut running = Running::ready(subject)?;
        let tiny = TinyFileSystem::mount(running.file("tiny"), "size=64k");
        let answer = running.run(Fastboot::dump(running.pid, &tiny.0.join("image")));
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert_eq!(tiny.files(), Vec::<String>::new(), "left on the full disk");
        judge(subject, &running.finish("untouched"))?;
    }
    Ok(())
}

fn dump_to_missing_directory_fails_and_leaves_the_tree() -> Outcome {
    let mut running = Running::ready(TREE)?;
    let answer = running.run(Fastboot::dump(running.pid, Path::new("/no/such/directory/image")));
    assert_eq!(answer.code, Some(1), "{answer:?}");
    judge(TREE, &running.finish("untouched"))
}

fn dump_that_fails_keeps_the_older_image() -> Outcome {
    let mut running = Running::ready(Subject::new("refused", "netlink_queued"))?;
    let image = running.file("image");
    fs::write(&image, "older").expect("older image");
    let answer = running.run(Fastboot::dump(running.pid, &image));
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert_eq!(fs::read(&image).expect("older image"), b"older");
    Ok(())
}

fn image_is_for_its_owner_only() -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let mut running = Running::ready(TREE)?;
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image).leave_running());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(fs::metadata(&image).expect("image").mode() & 0o7777, 0o600);
    Ok(())
}

fn dump_that_is_killed_leaves_the_tree() -> Outcome {
    // killed at several moments; whatever was injected must not stay behind
    for delay_us in [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000] {
        let running = Running::ready(LARGE)?;
        let image = running.file("image");
        let mut started = Fastboot::dump(running.pid, &image).leave_running().start(&running.file("killed"));
        std::thread::sleep(Duration::from_micros(delay_us));
        started.child.kill().expect("kill fastboot");
        started.child.wait().expect("wait for fastboot");
        judge(LARGE, &running.finish("untouched"))?;
    }
    Ok(())
}

pub fn tests() -> Vec<Test> {
    let mut tests = test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        dump_that_leaves_running_changes_nothing,
        dump_of_missing_pid_fails,
        dump_of_thread_id_fails,
        dump_to_full_disk_fails_and_leaves_the_tree,
        dump_to_missing_directory_fails_and_leaves_the_tree,
        dump_that_fails_keeps_the_older_image,
        image_is_for_its_owner_only,
        dump_that_is_killed_leaves_the_tree,
    ];
    tests.extend(test_frame::tests![[]; wrong_usage_is_told_apart]);
    tests
}
