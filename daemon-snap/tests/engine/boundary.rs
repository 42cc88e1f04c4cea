//! What a service's own user tries against its restore.

use crate::compile::{Toolchain, executable};
use crate::fastboot::Fastboot;
use crate::running::{Outcome, Running, Subject};
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use test_frame::{Need, Skip, Test};

const USER: u32 = 65_534;
const SECRET: &str = "root's alone";

/// A subject that runs as [`USER`], dumped and gone, and its image.
fn dumped(variant: &'static str) -> Result<(Running, PathBuf), Skip> {
    let mut running = Running::ready(Subject::new("boundary", variant))?;
    let image = running.file("image");
    running.dump(&image);
    Ok((running, image))
}

/// A file that the user can neither read nor write.
fn secret(running: &Running) -> PathBuf {
    let path = running.file("secret");
    fs::write(&path, SECRET).expect("secret");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
    path
}

/// The restore fails and names what it did not like; nobody is left.
fn is_stale(running: &mut Running, image: &Path, words: &[&str]) {
    let answer = running.run(Fastboot::restore(image));
    assert_eq!(answer.code, Some(3), "{answer:?}");
    for word in words {
        assert!(answer.stderr.contains(word), "{word:?} is not in {answer:?}");
    }
    running.assert_gone("after a restore that failed");
}

fn passes(mut running: Running, image: &Path) {
    running.restore(image);
    assert_eq!(running.finish("restored"), "pass");
}

fn log_that_is_a_link_now_is_not_followed() -> Outcome {
    let (mut running, image) = dumped("own_log")?;
    let (secret, log) = (secret(&running), running.file("home/log"));
    fs::rename(&log, running.file("home/kept")).expect("move the log away");
    symlink(&secret, &log).expect("link");
    is_stale(&mut running, &image, &["home/log"]);
    // A link above it is none that root has made either.
    fs::remove_file(&log).expect("remove the link");
    fs::rename(running.file("home"), running.file("elsewhere")).expect("move the directory away");
    symlink(running.file("elsewhere"), running.file("home")).expect("link");
    fs::rename(running.file("elsewhere/kept"), running.file("elsewhere/log")).expect("put the log back");
    is_stale(&mut running, &image, &["home/log", "symbolic link"]);
    fs::remove_file(running.file("home")).expect("remove the link");
    fs::rename(running.file("elsewhere"), running.file("home")).expect("put the directory back");
    assert_eq!(fs::read_to_string(&secret).expect("secret"), SECRET);
    passes(running, &image);
    Ok(())
}

fn file_that_the_user_may_not_open_is_not_opened_for_it() -> Outcome {
    let (mut running, image) = dumped("own_log")?;
    let (secret, log) = (secret(&running), running.file("home/log"));
    fs::rename(&log, running.file("home/kept")).expect("move the log away");
    // As the user could where links to others' files are not protected (fs.protected_hardlinks).
    fs::hard_link(&secret, &log).expect("link");
    is_stale(&mut running, &image, &["home/log"]);
    assert_eq!(fs::read_to_string(&secret).expect("secret"), SECRET);
    fs::rename(running.file("home/kept"), &log).expect("put the log back");
    passes(running, &image);
    Ok(())
}

fn log_of_the_user_that_was_rotated_is_opened() -> Outcome {
    let (mut running, image) = dumped("own_log")?;
    let log = running.file("home/log");
    fs::rename(&log, running.file("home/log.1")).expect("rotate");
    fs::write(&log, "").expect("new log");
    chown(&log, Some(USER), Some(USER)).expect("chown");
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

/// The directory that a subject has made where only root may write; gone with this.
struct RootsOwn(PathBuf);

impl Drop for RootsOwn {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn log_that_was_opened_as_root_is_opened_again_where_only_root_can_put_another() -> Outcome {
    let (mut running, image) = dumped("early_log")?;
    let dir = RootsOwn(PathBuf::from(format!("/var/lib/fastboot-subject-{}", running.pid)));
    let log = dir.0.join("log");
    fs::rename(&log, dir.0.join("log.1")).expect("rotate");
    fs::write(&log, "").expect("new log");
    fs::set_permissions(&log, Permissions::from_mode(0o644)).expect("chmod");
    is_stale(&mut running, &image, &["/log", "other permissions"]);
    fs::set_permissions(&log, Permissions::from_mode(0o600)).expect("chmod");
    fs::set_permissions(&dir.0, Permissions::from_mode(0o777)).expect("chmod");
    is_stale(&mut running, &image, &["/log", "replace"]);
    fs::set_permissions(&dir.0, Permissions::from_mode(0o755)).expect("chmod");
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    assert_eq!(fs::read_to_string(&log).expect("log"), "restored\n");
    Ok(())
}

fn log_of_root_in_a_directory_of_the_user_is_not_opened() -> Outcome {
    let (mut running, image) = dumped("early_log_at_home")?;
    is_stale(&mut running, &image, &["home/log", "replace"]);
    Ok(())
}

fn name_of_a_socket_is_made_where_the_user_may_make_it_only() -> Outcome {
    let (mut running, image) = dumped("socket")?;
    let closed = running.file("closed");
    fs::create_dir(&closed).expect("directory of root");
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).expect("chmod");
    fs::rename(running.file("home"), running.file("kept")).expect("move the directory away");
    symlink(&closed, running.file("home")).expect("link");
    is_stale(&mut running, &image, &["home/sock", "symbolic link"]);
    assert_eq!(fs::read_dir(&closed).expect("list").count(), 0, "something was made there");
    // The directory itself is another one: no link, and still not the user's.
    fs::remove_file(running.file("home")).expect("remove the link");
    fs::rename(&closed, running.file("home")).expect("put root's directory there");
    let answer = running.run(Fastboot::restore(&image));
    assert!(matches!(answer.code, Some(1 | 3)), "{answer:?}");
    assert_eq!(fs::read_dir(running.file("home")).expect("list").count(), 0, "something was made there");
    fs::remove_dir(running.file("home")).expect("remove the directory");
    fs::rename(running.file("kept"), running.file("home")).expect("put the directory back");
    running.restore(&image);
    let made = fs::metadata(running.file("home/sock")).expect("the socket");
    assert_eq!((made.uid(), made.gid()), (USER, USER));
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

fn volatile_file_never_writes_through_another_name() -> Outcome {
    let (mut running, image) = dumped("volatile")?;
    let data = running.shm().join("home/data");
    let other = running.shm().join("other");
    fs::write(&other, SECRET).expect("a file of root's");
    fs::remove_file(&data).expect("remove the file");
    fs::hard_link(&other, &data).expect("link");
    running.restore(&image);
    assert_eq!(fs::read_to_string(&other).expect("the other file"), SECRET);
    assert_eq!(fs::read_to_string(&data).expect("the file"), "content");
    let found = fs::metadata(&data).expect("stat");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (USER, USER, 0o640));
    assert_eq!(running.finish("restored"), "pass");

    let (mut running, image) = dumped("volatile")?;
    let home = running.shm().join("home");
    let closed = running.shm().join("closed");
    fs::create_dir(&closed).expect("directory of root");
    fs::remove_dir_all(&home).expect("remove the directory");
    symlink(&closed, &home).expect("link");
    is_stale(&mut running, &image, &["home", "symbolic link"]);
    assert_eq!(fs::read_dir(&closed).expect("list").count(), 0, "something was made there");
    Ok(())
}

/// A program of the user that runs until this is told to end.
struct Attacker(Child);

impl Attacker {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(executable("attacker", Toolchain::Static));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("attacker");
        let mut word = [0; 6];
        child.stdout.as_mut().expect("its output").read_exact(&mut word).expect("ready");
        Self(child)
    }

    /// What it has to say, and how often it has done what it does.
    fn end(mut self) -> (String, u64) {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0.stdout.take().expect("its output").read_to_string(&mut text).expect("its words");
        self.0.wait().expect("its end");
        let times = text.lines().find_map(|line| line.strip_prefix("times: "));
        let times = times.and_then(|times| times.parse().ok()).expect("how often");
        (text, times)
    }
}

fn link_that_takes_the_place_of_a_log_at_the_last_moment_is_not_followed() -> Outcome {
    const ROUNDS: u32 = 25;
    let (mut running, image) = dumped("own_log")?;
    let (secret, log) = (secret(&running), running.file("home/log"));
    let link = running.file("home/link");
    symlink(&secret, &link).expect("link");
    let text = |path: &Path| path.to_str().expect("a path is text").to_owned();
    let attacker = Attacker::start(&["swap", &text(&link), &text(&log)]);
    let (mut restored, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let answer = running.run(Fastboot::restore(&image));
        match answer.code {
            Some(0) => {
                restored += 1;
                let fds = fs::read_dir(format!("/proc/{}/fd", running.pid)).expect("its descriptors");
                let has_it = fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == secret));
                assert!(!has_it, "round {round}: the restored process has root's file open");
                running.kill();
            }
            Some(3) => refused += 1,
            _ => panic!("round {round}: {answer:?}"),
        }
    }
    let (_, swaps) = attacker.end();
    assert!(swaps > 1000 && refused > 0, "{swaps} swaps, {restored} restored, {refused} refused");
    assert_eq!(fs::read_to_string(&secret).expect("secret"), SECRET);
    Ok(())
}

fn nobody_takes_a_descriptor_out_of_a_process_on_its_way() -> Outcome {
    let (mut running, image) = dumped("large")?;
    let pids: Vec<String> = running.members.iter().map(i32::to_string).collect();
    let image_text = image.to_str().expect("a path is text").to_owned();
    let mut arguments = vec!["take", image_text.as_str()];
    arguments.extend(pids.iter().map(String::as_str));

    // All processes have given up root and wait for the go.
    let attacker = Attacker::start(&arguments);
    let held = Fastboot::restore(&image).fault("worker.mid:sleep=1500");
    let answer = running.run(held);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    // It can do that to every process of its user: here, to the restored one.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let (said, times) = attacker.end();
    assert!(!said.contains("taken:"), "{said}");
    assert!(times > 0, "the attacker has got nothing even of the restored process, so this shows nothing");
    running.dump(&running.file("again"));

    // At full speed, while one process is ready and another still loads.
    for _ in 0..3 {
        let attacker = Attacker::start(&arguments);
        running.restore(&image);
        let (said, _) = attacker.end();
        assert!(!said.contains("taken:"), "{said}");
        running.dump(&running.file("again"));
    }
    running.restore(&image);
    assert_eq!(running.finish("restored"), "pass");
    Ok(())
}

pub fn tests() -> Vec<Test> {
    test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        log_that_is_a_link_now_is_not_followed,
        file_that_the_user_may_not_open_is_not_opened_for_it,
        log_of_the_user_that_was_rotated_is_opened,
        log_that_was_opened_as_root_is_opened_again_where_only_root_can_put_another,
        log_of_root_in_a_directory_of_the_user_is_not_opened,
        name_of_a_socket_is_made_where_the_user_may_make_it_only,
        volatile_file_never_writes_through_another_name,
        link_that_takes_the_place_of_a_log_at_the_last_moment_is_not_followed,
        nobody_takes_a_descriptor_out_of_a_process_on_its_way,
    ]
}
