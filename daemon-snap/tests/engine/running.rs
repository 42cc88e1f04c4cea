//! A subject from start to verdict.

use crate::compile::{Toolchain, executable};
use crate::equal::assert_same_state;
use crate::fastboot::{Answer, Fastboot};
use crate::process;
use crate::view::View;
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_frame::{Need, Skip, Test};

/// Longest time from start to ready, and from `go` to the verdict.
const LIMIT: Duration = Duration::from_secs(30);

/// A program and which of its variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    pub program: &'static str,
    pub variant: &'static str,
    pub toolchain: Toolchain,
}

impl Subject {
    pub const fn new(program: &'static str, variant: &'static str) -> Self {
        Self { program, variant, toolchain: Toolchain::Shared }
    }
}

/// A subject that said ready.
#[derive(Debug)]
pub struct Running {
    /// Files of the protocol; argument of the subject, by which its processes are known.
    directory: TempDir,
    /// On a tmpfs.
    shm: TempDir,
    pub pid: i32,
    /// Until it is dumped it is our child.
    child: Option<Child>,
    /// All processes and threads of the tree when it was ready.
    pub members: BTreeSet<i32>,
    steps: u32,
}

impl Running {
    /// Starts a subject and waits until it is ready; `Err` is its verdict when it gave one before.
    pub fn start(subject: Subject) -> Result<Self, String> {
        let program = executable(subject.program, subject.toolchain);
        let directory = open_directory(&std::env::temp_dir());
        let shm = open_directory(Path::new("/dev/shm"));
        let output = File::create(directory.path().join("output")).expect("file for the subject's output");
        // Subjects become other users, and only what those may open themselves is opened again in a
        // place where anybody may put another file.
        output.set_permissions(Permissions::from_mode(0o666)).expect("open the output to all");
        let mut command = Command::new(program);
        command.arg(directory.path()).arg(shm.path());
        if !subject.variant.is_empty() {
            command.arg(subject.variant);
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").env("SUBJECT_MARK", "set by the harness");
        let other = output.try_clone().expect("duplicate the output");
        command.stdin(Stdio::null()).stdout(output).stderr(other);
        let child = process::spawn_in_band(&mut command);
        let pid = i32::try_from(child.id()).expect("a pid is positive");
        let members = BTreeSet::from([pid]);
        let mut running = Self { directory, shm, pid, child: Some(child), members, steps: 0 };
        running.await_ready()?;
        let tree = process::tree(pid);
        running.members =
            tree.iter().flat_map(|&member| process::threads(member)).chain(tree.clone()).collect();
        Ok(running)
    }

    /// The same where a verdict before that is a skip or a failure.
    pub fn ready(subject: Subject) -> Result<Self, Skip> {
        Self::start(subject).map_err(|verdict| match skip(&verdict) {
            Some(skip) => skip,
            None => panic!("{} {} was not ready: {verdict}", subject.program, subject.variant),
        })
    }

    fn await_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + LIMIT;
        while !self.directory.path().join("ready").exists() {
            if let Some(verdict) = self.verdict() {
                return Err(verdict);
            }
            let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let (Some(status), None) = (status, self.verdict()) {
                return Err(format!("fail: ended before it was ready ({status}): {}", self.output()));
            }
            if Instant::now() > deadline {
                return Err(format!("fail: not ready after {LIMIT:?}: {}", self.output()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The subject's tmpfs directory.
    pub fn shm(&self) -> &Path {
        self.shm.path()
    }

    /// A path for an image, or for whatever a test needs, that goes away with the subject.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What the refusal must mention.
    pub fn names(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("names")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Runs a command while zombies of this subject are reaped.
    pub fn run(&mut self, fastboot: Fastboot) -> Answer {
        self.steps += 1;
        let prefix = self.directory.path().join(format!("step{}", self.steps));
        let child = &mut self.child;
        fastboot.run(&prefix, || {
            if child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some())) {
                *child = None;
            }
        })
    }

    /// Dumps the tree, which must succeed and end it.
    pub fn dump(&mut self, image: &Path) {
        let answer = self.run(Fastboot::dump(self.pid, image));
        assert_eq!(answer.code, Some(0), "dump: {answer:?}");
        self.assert_gone("after the dump");
    }

    /// Restores the tree, which must come back with the same root and the same members.
    pub fn restore(&mut self, image: &Path) {
        let answer = self.run(Fastboot::restore(image));
        assert_eq!(answer.code, Some(0), "restore: {answer:?}");
        assert_eq!(answer.stdout.trim(), self.pid.to_string(), "restore printed another root: {answer:?}");
        assert!(process::exists(self.pid), "the root {} is not there: {answer:?}", self.pid);
    }

    /// Ends the tree.
    pub fn kill(&mut self) {
        process::kill_subject(&self.members, self.directory.path());
        self.assert_gone("after it was killed");
    }

    /// Nobody of the tree is left.
    pub fn assert_gone(&mut self, when: &str) {
        if let Some(mut child) = self.child.take() {
            let deadline = Instant::now() + Duration::from_secs(2);
            while child.try_wait().expect("wait for the subject").is_none() {
                assert!(Instant::now() < deadline, "the root {} runs {when}", self.pid);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let left = process::left_of(&self.members);
        assert!(left.is_empty(), "{left:?} are left {when}");
    }

    /// Lets the subject check itself and gives its verdict: `pass`, `skip: …` or `fail: …`.
    pub fn finish(mut self, how: &str) -> String {
        let go = self.directory.path().join("go");
        fs::write(go.with_extension("new"), how).expect("write go");
        fs::rename(go.with_extension("new"), go).expect("publish go");
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(verdict) = self.verdict() {
                return verdict;
            }
            let gone = match &mut self.child {
                Some(child) => child.try_wait().ok().flatten().map(|status| status.to_string()),
                None => (!process::exists(self.pid)).then(|| "it is gone".to_owned()),
            };
            if let Some(gone) = gone {
                std::thread::sleep(Duration::from_millis(5));
                let verdict = self.verdict();
                return verdict.unwrap_or_else(|| format!("fail: no verdict, {gone}: {}", self.output()));
            }
            if Instant::now() > deadline {
                return format!("fail: no verdict after {LIMIT:?}: {}{}", self.output(), self.where_it_is());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn verdict(&self) -> Option<String> {
        fs::read_to_string(self.directory.path().join("result")).ok()
    }

    fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    /// Which system call each thread is in, for a subject that hangs.
    fn where_it_is(&self) -> String {
        let line = |tid: &i32| {
            let read = |name: &str| fs::read_to_string(format!("/proc/{tid}/{name}")).unwrap_or_default();
            format!("\n  {tid} {}: {}", read("comm").trim(), read("syscall").trim())
        };
        self.members.iter().map(line).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let members = self.members.iter().flat_map(|&pid| process::tree(pid)).collect();
        process::kill_subject(&members, self.directory.path());
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A temporary directory that every user can write to.
fn open_directory(parent: &Path) -> TempDir {
    let directory =
        tempfile::Builder::new().prefix("subject-").tempdir_in(parent).expect("temporary directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("open the directory to all");
    directory
}

/// The whole way: start, dump, restore, a second dump that leaves it running, verdict.
pub fn dump_and_restore(subject: Subject, between: fn(&Running)) -> Outcome {
    let _numbers_stay = crate::process::NUMBERS.read();
    let mut running = Running::ready(subject)?;
    let (first, second) = (running.file("first.image"), running.file("second.image"));
    let before = View::of(&running.members);
    running.dump(&first);
    between(&running);
    running.restore(&first);
    let answer = running.run(Fastboot::dump(running.pid, &second).leave_running());
    assert_eq!(answer.code, Some(0), "second dump, of the restored tree: {answer:?}");
    // Only now: who has been frozen has the last instructions of the restore behind it.
    let different = lasting_differences(&before, &running, subject.program);
    assert_same_state(subject.program, &first, &second);
    judge(subject, &running.finish("restored"))?;
    assert!(different.is_empty(), "{} {}:\n{}", subject.program, subject.variant, different.join("\n"));
    Ok(())
}

/// What differs and goes on to differ. Who has just been let go is seen in its system call (with
/// the signal mask of ppoll(2), asleep or not) only when it has run for a moment.
fn lasting_differences(before: &View, running: &Running, program: &str) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let different = before.unexplained(&View::of(&running.members), program);
        if different.is_empty() || Instant::now() > deadline {
            return different;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a test ends that does not panic.
pub type Outcome = Result<(), Skip>;

/// The verdict on a subject becomes that of the test.
pub fn judge(subject: Subject, verdict: &str) -> Outcome {
    match skip(verdict) {
        Some(skip) => Err(skip),
        None => {
            assert_eq!(verdict, "pass", "{} {}", subject.program, subject.variant);
            Ok(())
        }
    }
}

/// What a subject lacks that does not go on.
fn skip(verdict: &str) -> Option<Skip> {
    let kernel = verdict.strip_prefix("skip: ").map(Skip::kernel);
    let processor = || verdict.strip_prefix("skip for the processor: ").map(Skip::processor);
    let capability = || verdict.strip_prefix("skip for a capability: ").map(Skip::capability);
    kernel.or_else(processor).or_else(capability)
}

/// A test with a subject: engine tests need root, and something that compiles the subject.
pub fn of_subject(name: &str, subject: Subject, run: impl Fn() -> Outcome + Send + 'static) -> Test {
    Test::beside(name, &[Need::Root, subject.toolchain.need()], move || Ok(run()?))
}

/// The control: each of the subjects passes when nothing is done to it. Each once.
pub fn without_dump(subjects: impl IntoIterator<Item = Subject>) -> Vec<Test> {
    without_dump_holding(subjects, || ())
}

/// The same for those that need something held while they run.
pub fn without_dump_holding<Guard: 'static>(
    subjects: impl IntoIterator<Item = Subject>,
    hold: fn() -> Guard,
) -> Vec<Test> {
    let subjects: BTreeSet<Subject> = subjects.into_iter().collect();
    let control = |subject: Subject| {
        let of = [subject.variant, subject.toolchain.name()].into_iter().filter(|word| !word.is_empty());
        let of: String = of.map(|word| format!("_{word}")).collect();
        let name = format!("{}{of}_passes_without_dump", subject.program);
        of_subject(&name, subject, move || {
            let _held = hold();
            let verdict = Running::start(subject).map_or_else(|early| early, |r| r.finish("control"));
            judge(subject, &verdict)
        })
    };
    subjects.into_iter().map(control).collect()
}
