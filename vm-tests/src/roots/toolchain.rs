//! Small programs for roots, compiled once in a root that has Debian's compilers; the host needs
//! none.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{CACHE_DIR, Recipe, cached};
use crate::container::run_in_root;

/// Longest for one compilation.
const BOUND: Duration = Duration::from_secs(300);

/// A language, by its compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// C, linked dynamically against glibc.
    C,
    /// Go without cgo: a static executable.
    Go,
    /// C, linked statically: for guests of any suite.
    StaticC,
    /// C with sd-bus, linked dynamically.
    SdBus,
}

impl Language {
    fn source_name(self) -> &'static str {
        match self {
            Language::C | Language::StaticC | Language::SdBus => "main.c",
            Language::Go => "main.go",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Language::C => "cd /build && exec cc -O2 -Wall -Werror -pthread -o program main.c",
            Language::StaticC => "cd /build && exec cc -O2 -Wall -Werror -static -pthread -o program main.c",
            Language::SdBus => "cd /build && exec cc -O2 -Wall -Werror -o program main.c -lsystemd",
            Language::Go => {
                "cd /build && export HOME=/build GOCACHE=/build/cache GOFLAGS=-trimpath CGO_ENABLED=0 && \
                 exec go build -o program main.go"
            }
        }
    }

    fn toolchain(self) -> Recipe {
        let (name, packages) = match self {
            Language::C | Language::StaticC => ("toolchain-c", vec!["gcc", "libc6-dev"]),
            Language::SdBus => ("toolchain-sd-bus", vec!["gcc", "libc6-dev", "libsystemd-dev"]),
            Language::Go => ("toolchain-go", vec!["golang-go"]),
        };
        Recipe { name, suite: "trixie", packages, from_sid: Vec::new(), files: Vec::new(), setup: "true" }
    }
}

/// The executable that `source` compiles to.
///
/// # Errors
/// The toolchain cannot be had; the source does not compile.
pub fn compiled(language: Language, source: &str) -> Result<Vec<u8>> {
    let toolchain = language.toolchain();
    let hash =
        blake3::hash(format!("{}\0{}\0{source}", toolchain.key(), language.script()).as_bytes()).to_hex();
    let programs = Path::new(CACHE_DIR).join("programs");
    fs::create_dir_all(&programs).with_context(|| format!("making {}", programs.display()))?;
    let program = programs.join(&hash[..16]);
    if !program.exists() {
        let root = cached(&toolchain)?;
        let build = tempfile::tempdir_in(&programs).context("making a build directory")?;
        fs::write(build.path().join(language.source_name()), source).context("writing the source")?;
        let bind = format!("--bind={}:/build", build.path().display());
        run_in_root(&root, &[&bind], language.script(), BOUND).context("compiling")?;
        fs::rename(build.path().join("program"), &program)
            .with_context(|| format!("renaming to {}", program.display()))?;
    }
    fs::read(&program).with_context(|| format!("reading {}", program.display()))
}
