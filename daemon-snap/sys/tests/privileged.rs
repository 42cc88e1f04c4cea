//! What only root may do. One after the other: identities are those of a thread, and children are
//! made as this process is.

use nix::sys::prctl::{get_pdeathsig, set_pdeathsig};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use snap_sys::fork::{Side, exit_now, fork};
use snap_sys::fs_identity::FsIdentity;
use snap_sys::netns::mount_list;
use std::fs::{File, Permissions, read_to_string, set_permissions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use test_frame::{Need, tests};

fn main() -> std::process::ExitCode {
    test_frame::libtest::main_one_by_one(tests![[Need::Root];
        another_identity_opens_what_it_may_and_ours_comes_back,
        signal_of_the_parents_death_survives_a_change_of_identity,
        mounts_of_our_own_namespace_are_those_that_we_see,
    ])
}

/// In a process of its own, so that whatever goes wrong stays there.
fn in_child(what: impl FnOnce() -> bool) -> bool {
    match fork(None, 0, None).expect("fork") {
        Side::Child => exit_now(i32::from(!what())),
        Side::Parent { child } => {
            let ended = waitpid(nix::unistd::Pid::from_raw(child), Some(WaitPidFlag::__WALL));
            matches!(ended, Ok(WaitStatus::Exited(_, 0)))
        }
    }
}

fn another_identity_opens_what_it_may_and_ours_comes_back() {
    let dir = tempfile::tempdir().expect("directory");
    set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("chmod");
    let (closed, open) = (dir.path().join("closed"), dir.path().join("open"));
    for (path, mode) in [(&closed, 0o600), (&open, 0o640)] {
        File::create(path).expect("file");
        set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    }
    chown(&open, Some(0), Some(4_321)).expect("chown");
    let nobody = FsIdentity { uid: 65_534, gid: 65_534, groups: vec![4_321], caps: 0 };
    const CAP_DAC_OVERRIDE: u64 = 1 << 1;
    let mighty = FsIdentity { caps: CAP_DAC_OVERRIDE, ..nobody.clone() };
    assert!(in_child(|| {
        let opens = |who: &FsIdentity, path| who.act(|| File::open(path).is_ok()).expect("identity");
        let as_nobody = (opens(&nobody, &closed), opens(&nobody, &open));
        as_nobody == (false, true) && opens(&mighty, &closed) && File::open(&closed).is_ok()
    }));
}

fn signal_of_the_parents_death_survives_a_change_of_identity() {
    let nobody = FsIdentity { uid: 65_534, gid: 65_534, groups: Vec::new(), caps: 0 };
    assert!(in_child(|| {
        let signal = nix::sys::signal::Signal::SIGTERM;
        set_pdeathsig(signal).expect("prctl");
        nobody.act(|| ()).expect("identity");
        get_pdeathsig() == Ok(Some(signal))
    }));
}

fn mounts_of_our_own_namespace_are_those_that_we_see() {
    let own = File::open("/proc/self/ns/mnt").unwrap();
    let mut text = String::new();
    File::from(mount_list(own.as_fd()).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, read_to_string("/proc/self/mountinfo").unwrap());
}
