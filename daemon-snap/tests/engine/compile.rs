//! Subjects from source to executable, once per content.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use test_frame::Need;

/// How a subject is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Toolchain {
    /// C against the system's shared libraries.
    Shared,
    /// C, `-static`.
    Static,
    /// C, musl, `-static` (Debian: musl-tools).
    Musl,
    /// Go without cgo, static (Debian: golang-go).
    Go,
}

impl Toolchain {
    /// What it must find here.
    pub const fn need(self) -> Need {
        match self {
            Toolchain::Shared | Toolchain::Static => Need::Program { name: "cc", package: "gcc" },
            Toolchain::Musl => Need::Program { name: "musl-gcc", package: "musl-tools" },
            Toolchain::Go => Need::Program { name: "go", package: "golang-go" },
        }
    }

    /// For names of tests; empty for the usual one.
    pub const fn name(self) -> &'static str {
        match self {
            Toolchain::Shared => "",
            Toolchain::Static => "static",
            Toolchain::Musl => "musl",
            Toolchain::Go => "go",
        }
    }
}

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/subjects");

/// The executable of a subject; compiled when this source was not compiled before.
///
/// # Panics
/// When the compiler is missing or not content.
pub fn executable(program: &str, toolchain: Toolchain) -> PathBuf {
    let extension = if toolchain == Toolchain::Go { "go" } else { "c" };
    let source = Path::new(SOURCES).join(format!("{program}.{extension}"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("subjects");
    fs::create_dir_all(&directory).expect("directory for subjects");
    let output = directory.join(format!("{program}-{:016x}", digest(&source, toolchain)));
    if output.exists() {
        return output;
    }
    let temporary =
        output.with_extension(format!("{}.{:?}", std::process::id(), std::thread::current().id()));
    let mut command = compiler(toolchain, &directory);
    command.arg("-o").arg(&temporary).arg(&source);
    let result = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; vm-tests/src/needs/table.rs names its Debian package"));
    assert!(result.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&result.stderr));
    // never over one that another test has meanwhile started
    let linked = fs::hard_link(&temporary, &output);
    fs::remove_file(&temporary).expect("remove the temporary executable");
    assert!(linked.is_ok() || output.exists(), "{linked:?}");
    output
}

fn compiler(toolchain: Toolchain, directory: &Path) -> Command {
    // Each program is a literal: a test of vm-tests looks for them, and has them installed.
    let c = |mut command: Command, more: &[&str]| {
        // Bound at once: a call while the subject waits would be a change of its memory.
        command.args(["-O1", "-Wall", "-pthread", "-Wl,-z,now"]).args(more);
        command
    };
    match toolchain {
        Toolchain::Shared => c(Command::new("cc"), &[]),
        Toolchain::Static => c(Command::new("cc"), &["-static"]),
        Toolchain::Musl => c(Command::new("musl-gcc"), &["-static"]),
        Toolchain::Go => {
            let mut command = Command::new("go");
            command.arg("build").env("CGO_ENABLED", "0").env("GO111MODULE", "off");
            command.env("GOCACHE", directory.join("go-cache")).env("GOFLAGS", "");
            command
        }
    }
}

/// Of everything the executable depends on; headers are shared by all.
fn digest(source: &Path, toolchain: Toolchain) -> u64 {
    let mut hasher = DefaultHasher::new();
    toolchain.hash(&mut hasher);
    for path in [
        source,
        &Path::new(SOURCES).join("subject.h"),
        &Path::new(SOURCES).join("common.h"),
        &Path::new(SOURCES).join("rights.h"),
    ] {
        fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).hash(&mut hasher);
    }
    hasher.finish()
}
