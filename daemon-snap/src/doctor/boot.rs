//! The boot side: whether its parts are installed, and nobody has switched them off.

use super::finding::{Finding, Seen};
use fastboot_runtime::{GeneratorRecord, RunDir, cmdline};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const GENERATOR: &str = "fastboot-generator";
/// Where systemd looks for generators, strongest first; a file of the same name hides the later
/// ones.
const GENERATOR_DIRS: [&str; 4] = [
    "run/systemd/system-generators",
    "etc/systemd/system-generators",
    "usr/local/lib/systemd/system-generators",
    "usr/lib/systemd/system-generators",
];
/// Where systemd looks for units of the administrator, then of packages.
const UNIT_DIRS: [&str; 4] =
    ["etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"];
const PROGRAMS: [(&str, &str); 2] =
    [("initd", "usr/lib/fastboot/fastboot-initd"), ("shim", "usr/lib/fastboot/fastboot-exec")];
const UNITS: [&str; 2] = ["fastboot-initd.socket", "fastboot-initd.service"];

const ALL_COLD: &str = "every service starts cold";

pub(super) fn examine(root: &Path) -> Vec<Finding> {
    let mut findings = vec![Finding::necessary("generator", generator(root), ALL_COLD)];
    for (name, path) in PROGRAMS {
        findings.push(Finding::necessary(name, executable(&root.join(path)), ALL_COLD));
    }
    findings.push(Finding::necessary("units", units(root), ALL_COLD));
    findings.push(Finding::useful("this-boot", this_boot(root), "nothing is restored before the next boot"));
    findings
}

/// What the generator left behind at the beginning of this boot.
fn this_boot(root: &Path) -> Seen {
    let run_dir = RunDir::below(root);
    match GeneratorRecord::load(&run_dir) {
        Ok(Some(GeneratorRecord { error: None, .. })) => Ok("the generator has decided".to_owned()),
        Ok(Some(GeneratorRecord { error: Some(error), .. })) => Err(error),
        Ok(None) if cmdline::is_off(&cmdline::read(root)) => {
            Err("switched off by fastboot=0 on the kernel command line".to_owned())
        }
        Ok(None) => Err("the generator did not run".to_owned()),
        Err(error) => Err(format!("{}: {error}", GeneratorRecord::path(&run_dir).display())),
    }
}

fn generator(root: &Path) -> Seen {
    let mut candidates = GENERATOR_DIRS.iter().map(|dir| root.join(dir).join(GENERATOR));
    let first = candidates.find(|path| path.symlink_metadata().is_ok());
    let first = first.ok_or_else(|| format!("{GENERATOR} is not installed"))?;
    if is_masked(&first) {
        return Err(format!("masked by {}", first.display()));
    }
    executable(&first)
}

fn units(root: &Path) -> Seen {
    for unit in UNITS {
        let mut candidates = UNIT_DIRS.iter().map(|dir| root.join(dir).join(unit));
        let first = candidates.find(|path| path.symlink_metadata().is_ok());
        let first = first.ok_or_else(|| format!("{unit} is not installed"))?;
        if is_masked(&first) {
            return Err(format!("{unit} is masked by {}", first.display()));
        }
    }
    Ok("installed, and pulled in by the generator when there is an image".to_owned())
}

/// An empty file or a link to /dev/null.
fn is_masked(path: &PathBuf) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new("/dev/null"))
        || fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

fn executable(path: &Path) -> Seen {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => {
            Ok(path.display().to_string())
        }
        Ok(_) => Err(format!("{} is not executable", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(root: &Path, path: &str, mode: u32) {
        write_text(root, path, mode, "x");
    }

    fn write_text(root: &Path, path: &str, mode: u32, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn missing(root: &Path) -> Vec<&'static str> {
        examine(root).into_iter().filter(|finding| !finding.ok).map(|finding| finding.name).collect()
    }

    #[test]
    fn each_part_that_is_missing_or_masked_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(missing(root), ["generator", "initd", "shim", "units", "this-boot"]);
        write(root, "usr/lib/systemd/system-generators/fastboot-generator", 0o755);
        write(root, "usr/lib/fastboot/fastboot-initd", 0o755);
        write(root, "usr/lib/fastboot/fastboot-exec", 0o644);
        UNITS.iter().for_each(|unit| write(root, &format!("usr/lib/systemd/system/{unit}"), 0o644));
        assert_eq!(missing(root), ["shim", "this-boot"]);
        let record = GeneratorRecord::path(&RunDir::at("run/fastboot"));
        let record = record.to_str().unwrap();
        write_text(root, record, 0o600, r#"{"version":1,"error":"no catalogue","units":[]}"#);
        assert_eq!(missing(root), ["shim", "this-boot"]);
        write_text(root, record, 0o600, r#"{"version":1,"error":null,"units":[]}"#);
        assert_eq!(missing(root), ["shim"]);
        write(root, "usr/lib/fastboot/fastboot-exec", 0o755);
        assert_eq!(missing(root), Vec::<&str>::new());

        fs::create_dir_all(root.join("etc/systemd/system-generators")).unwrap();
        symlink("/dev/null", root.join("etc/systemd/system-generators/fastboot-generator")).unwrap();
        fs::create_dir_all(root.join("etc/systemd/system")).unwrap();
        symlink("/dev/null", root.join("etc/systemd/system/fastboot-initd.socket")).unwrap();
        assert_eq!(missing(root), ["generator", "units"]);
    }
}
