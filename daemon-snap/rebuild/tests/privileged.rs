//! What only root may do. One after the other: effective ids are those of the whole process.

use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{getegid, geteuid, getgroups};
use snap_rebuild::stand_in::as_user;
use snap_rebuild::trail::{Last, Place, kind_of, resolve, walk};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use test_frame::{Need, tests};

fn main() -> std::process::ExitCode {
    test_frame::libtest::main_one_by_one(tests![[Need::Root];
        ids_come_back_on_every_path,
        links_are_followed_where_only_root_can_have_made_them,
        a_way_is_roots_when_nobody_else_may_write_to_any_directory_of_it,
    ])
}

fn ids_come_back_on_every_path() {
    let ours = (geteuid(), getegid(), getgroups().unwrap());
    let are_ours = || (geteuid(), getegid(), getgroups().unwrap()) == ours;
    let other = || (geteuid().as_raw(), getegid().as_raw());
    assert_eq!(as_user(33, 34, &[35], || Ok(other())), Ok((33, 34)));
    assert!(are_ours(), "after success");
    assert_eq!(as_user(33, 34, &[35], || Err::<(), _>(Errno::EPERM)), Err(Errno::EPERM));
    assert!(are_ours(), "after an error");
    let what = || -> Result<(), Errno> { std::panic::resume_unwind(Box::new(())) };
    assert!(catch_unwind(AssertUnwindSafe(|| as_user(33, 34, &[35], what))).is_err());
    assert!(are_ours(), "after a panic");
    let too_many = vec![1; 100_000];
    assert_eq!(as_user(33, 34, &too_many, || Ok(())), Err(Errno::EINVAL));
    assert!(are_ours(), "after groups that cannot be set");
}

fn inode(fd: &OwnedFd) -> u64 {
    fstat(fd).map_or(0, |found| found.st_ino)
}

fn links_are_followed_where_only_root_can_have_made_them() {
    // Below /run, and not below /tmp: there anybody may put something.
    let base = tempfile::tempdir_in("/run").expect("directory");
    let dir = base.path();
    fs::create_dir(dir.join("real")).expect("directory");
    fs::write(dir.join("real/file"), "").expect("file");
    symlink("real", dir.join("link")).expect("link");
    let file = fs::metadata(dir.join("real/file")).expect("stat").ino();
    let found =
        resolve(&dir.join("link/../link/file"), Last::Itself).expect("a link of root in a directory of root");
    assert_eq!(inode(&found), file);
    let directory = resolve(&dir.join("link"), Last::Directory).expect("a directory behind a link");
    assert_eq!(inode(&directory), fs::metadata(dir.join("real")).expect("stat").ino());
    let link = resolve(&dir.join("link"), Last::Itself).expect("the link");
    assert_eq!(fstat(&link).map(|found| kind_of(found.st_mode)), Ok(SFlag::S_IFLNK));

    lchown(dir.join("link"), Some(65_534), None).expect("chown");
    assert_eq!(resolve(&dir.join("link/file"), Last::Itself).map(drop), Err(Errno::ELOOP));
    lchown(dir.join("link"), Some(0), None).expect("chown");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("chmod");
    assert_eq!(resolve(&dir.join("link/file"), Last::Itself).map(drop), Err(Errno::ELOOP));
}

fn a_way_is_roots_when_nobody_else_may_write_to_any_directory_of_it() {
    let base = tempfile::tempdir_in("/run").expect("directory");
    let dir = base.path().join("of");
    fs::create_dir(&dir).expect("directory");
    let name = dir.join("name");
    assert!(Place::is_roots(&name));
    for (mode, owner) in [(0o1777, 0), (0o775, 0), (0o755, 65_534)] {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("chmod");
        chown(&dir, Some(owner), None).expect("chown");
        assert!(!Place::is_roots(&name), "mode {mode:o}, owner {owner}");
    }
    fs::write(&name, "").expect("file");
    assert_eq!(walk(&name, Last::Itself).expect("walk").replaceable_in, Some(dir));
}
