//! The command under test.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longest time that one command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// What a command said. Its output goes to files: a restored process that kept a pipe open could
/// not block us.
#[derive(Debug)]
pub struct Answer {
    /// `None`: ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A `fastboot` command before it runs.
#[derive(Debug)]
pub struct Fastboot {
    command: Command,
}

impl Fastboot {
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fastboot"));
        command.args(arguments).stdin(Stdio::null());
        Self { command }
    }

    pub fn dump(pid: i32, output: &Path) -> Self {
        Self::new(&["dump", "--pid", &pid.to_string(), "--output", path_text(output)])
    }

    /// The content of this directory travels.
    pub fn volatile(mut self, directory: &Path) -> Self {
        self.command.arg("--volatile").arg(directory);
        self
    }

    /// Connections to others end.
    pub fn close_lost_peers(mut self) -> Self {
        self.command.arg("--close-lost-peers");
        self
    }

    /// What it says goes to stdout as JSON.
    pub fn json(mut self) -> Self {
        self.command.arg("--json");
        self
    }

    pub fn restore(image: &Path) -> Self {
        Self::new(&["restore", path_text(image), "--detach"])
    }

    pub fn leave_running(mut self) -> Self {
        self.command.arg("--leave-running");
        self
    }

    /// A fault point: `name:action`, as the engine's debug builds know them.
    pub fn fault(mut self, fault: &str) -> Self {
        self.command.env("FASTBOOT_FAULT", fault);
        self
    }

    /// Starts it; stdout and stderr go to `PREFIX.out` and `PREFIX.err`.
    pub fn start(mut self, prefix: &Path) -> Started {
        let create =
            |extension: &str| File::create(prefix.with_extension(extension)).expect("file for output");
        self.command.stdout(create("out")).stderr(create("err"));
        let child = self.command.spawn().unwrap_or_else(|e| panic!("{:?}: {e}", self.command));
        Started { child, prefix: prefix.to_path_buf() }
    }

    /// Runs it. `reap` is called while it runs, to take away zombies of ours that it may be waiting
    /// for.
    pub fn run(self, prefix: &Path, mut reap: impl FnMut()) -> Answer {
        let mut started = self.start(prefix);
        let deadline = Instant::now() + LIMIT;
        loop {
            reap();
            if let Some(status) = started.child.try_wait().expect("wait for fastboot") {
                return started.answer(status);
            }
            if Instant::now() > deadline {
                started.child.kill().expect("kill fastboot");
                let status = started.child.wait().expect("wait for fastboot");
                panic!("not done after {LIMIT:?}: {:?}", started.answer(status));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A `fastboot` command that runs.
#[derive(Debug)]
pub struct Started {
    pub child: Child,
    prefix: std::path::PathBuf,
}

impl Started {
    pub fn answer(&self, status: ExitStatus) -> Answer {
        let read = |extension: &str| fs::read(self.prefix.with_extension(extension)).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Answer { code: status.code(), stdout: text(read("out")), stderr: text(read("err")) }
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("paths of the tests are text")
}
