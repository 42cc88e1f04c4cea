//! What short-lived programs do, as the kernel tells it. One recorder at a time in a process.

use nix::errno::Errno;
use snap_observe::{Error, Recorder, group_of};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use test_frame::{Need, Skip, tests};

fn main() -> std::process::ExitCode {
    test_frame::libtest::main_one_by_one(tests![[Need::Root];
        what_short_lived_programs_read_list_and_write_is_recorded,
        a_mount_that_only_the_unit_has_is_watched_from_its_next_program_on,
    ])
}

/// A recorder of our own control group, which is told.
fn recorder() -> Result<(Recorder, String), Skip> {
    let recorder = match Recorder::start(1..i32::MAX) {
        Ok(recorder) => recorder,
        Err(error @ Error::Kernel { errno: Errno::EPERM, .. }) => {
            return Err(Skip::capability(format!("CAP_SYS_ADMIN outside of containers: {error}")));
        }
        Err(error @ Error::Kernel { errno: Errno::ENOSYS, .. }) => {
            return Err(Skip::kernel(error.to_string()));
        }
        Err(error) => panic!("{error}"),
    };
    let group = group_of(std::process::id() as i32).unwrap();
    recorder.watch(&group);
    recorder.begin(&group).unwrap();
    Ok((recorder, group))
}

fn shell(script: &str, dir: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(dir);
    shell
}

fn what_short_lived_programs_read_list_and_write_is_recorded() -> Result<(), Skip> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("app.conf"), "a\n").unwrap();
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    std::fs::create_dir(dir.path().join("entered")).unwrap();
    let (recorder, group) = recorder()?;
    let script = "cat app.conf > out; ls conf.d; cd entered";
    assert!(shell(script, dir.path()).status().unwrap().success());
    let log = recorder.log(&group).unwrap();
    let seen = |name: &str| log.files.get(&dir.path().join(name)).copied().unwrap_or_default();
    assert!(seen("app.conf").opened && !seen("app.conf").written);
    assert!(seen("conf.d").listed, "{log:?}");
    assert!(!seen("entered").listed);
    assert!(seen("out").written);
    let stamp = seen("app.conf").first;
    assert_eq!((stamp.size, stamp.mode & 0o170_000), (2, 0o100_000));
    assert!(log.written.contains(&(seen("out").first.dev, seen("out").first.ino)));
    assert!(log.files.iter().any(|(path, seen)| path.ends_with("cat") && seen.executed), "{log:?}");
    assert!(log.gaps.is_empty(), "{:?}", log.gaps);
    Ok(())
}

fn a_mount_that_only_the_unit_has_is_watched_from_its_next_program_on() -> Result<(), Skip> {
    let dir = tempfile::tempdir().unwrap();
    let (recorder, group) = recorder()?;
    // A file system of its own that may hold configuration would be a gap; one in memory is not.
    let next = "echo next; read go; cat a; read end";
    let script = format!(
        "exec unshare --mount sh -c 'mount -t tmpfs none . && cd \"$PWD\" && echo done > a && exec sh -c \"{next}\"'"
    );
    let mut unit = shell(&script, dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut tell, mut said) = (unit.stdin.take().unwrap(), BufReader::new(unit.stdout.take().unwrap()));
    let mut line = || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(line(), "next\n");
    // The recorder has come to the execution of that program when it has come to here: what is
    // opened from now on is watched, however busy the machine is.
    recorder.log(&group).unwrap();
    tell.write_all(b"go\n").unwrap();
    assert_eq!(line(), "done\n");
    // As of a service, the namespace is there when its paths are looked at.
    let log = recorder.log(&group).unwrap();
    tell.write_all(b"end\n").unwrap();
    assert!(unit.wait().unwrap().success());
    let seen = log.files.get(&dir.path().join("a"));
    assert!(seen.is_some_and(|seen| seen.opened), "{:?}", log.files.keys());
    assert!(log.gaps.is_empty(), "{:?}", log.gaps);
    Ok(())
}
