//! Build script of the packages whose programs are linked statically.
//!
//! A restore forks its own process and throws it away again, and the shim stands before every cold
//! start. Of the 1.2 ms that such a program took from exec to exit, 0.6 ms were the dynamic linker:
//! three libraries to map, some hundred pages to relocate, each a page fault, and half of them once
//! more in every fork.
//!
//! `-C target-feature=+crt-static` would be the plain way. But without `--target` it reaches build
//! scripts and procedural macros too, which cannot be static, and with `--target` everything is
//! built in another place. So the programs are compiled as ever, and the linker is shown archives
//! where it looks for `libc.so`, `libm.so` and `libgcc_s.so`. They are in the packages of a C
//! compiler (libc6-dev, libgcc-dev). Where they are not, or with `FASTBOOT_LINK=dynamic` in the
//! environment, the linker does what it always does.
//!
//! Position-independent are those that live long and read what others send; the others do not pay
//! for the relocation.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name that the linker looks for, and the archives that it gets.
const LIBRARIES: [(&str, &[&str]); 3] = [
    ("libc.so", &["libc.a", "libgcc_eh.a", "libgcc.a"]),
    ("libm.so", &["libm.a"]),
    ("libgcc_s.so", &["libgcc_eh.a", "libgcc.a", "libc.a"]),
];
/// Programs that run for as long as the machine does.
const POSITION_INDEPENDENT: [&str; 1] = ["fastboot-initd"];

fn main() {
    println!("cargo::rerun-if-changed=../systemd-units/static-link.rs");
    println!("cargo::rerun-if-env-changed=FASTBOOT_LINK");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    if !is_wanted() || write_scripts(&out).is_none() {
        return;
    }
    for program in programs() {
        let kind = match POSITION_INDEPENDENT.contains(&program.as_str()) {
            true => &["-static-pie"][..],
            false => &["-no-pie", "-static"],
        };
        println!("cargo::rustc-link-arg-bin={program}=-L{}", out.display());
        for argument in kind {
            println!("cargo::rustc-link-arg-bin={program}={argument}");
        }
    }
}

/// Only where the host's own C library is linked, and nobody has asked for something else.
fn is_wanted() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && env::var("TARGET") == env::var("HOST")
        && !features.split(',').any(|feature| feature == "crt-static")
        && !is("FASTBOOT_LINK", "dynamic")
}

/// Linker scripts that stand where libraries are looked for. `None` when an archive is missing.
fn write_scripts(dir: &Path) -> Option<()> {
    for (name, archives) in LIBRARIES {
        let paths = archives.iter().map(|archive| find(archive)).collect::<Option<Vec<_>>>()?;
        fs::write(dir.join(name), format!("GROUP ( {} )\n", paths.join(" "))).ok()?;
    }
    Some(())
}

/// Where the C compiler has an archive; it answers with the bare name when it has none.
fn find(archive: &str) -> Option<String> {
    let output = Command::new("cc").arg(format!("-print-file-name={archive}")).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    Path::new(&path).is_absolute().then_some(path)
}

/// Names of this package's programs, as Cargo has them: `[[bin]]` tables of its manifest.
fn programs() -> Vec<String> {
    println!("cargo::rerun-if-changed=Cargo.toml");
    let manifest = fs::read_to_string("Cargo.toml").unwrap_or_default();
    let tables = manifest.split("[[bin]]").skip(1);
    let name = |table: &str| {
        let line = table.lines().find_map(|line| line.strip_prefix("name = "))?;
        Some(line.trim().trim_matches('"').to_owned())
    };
    tables.filter_map(name).collect()
}
