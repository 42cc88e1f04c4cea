//! Images that were committed when their layout was made, restored: real processes of a program
//! that needs nothing of the machine (`daemon-snap/image/tests/programs/tiny.c`).
//!
//! An image is bound to the vDSO of its kernel. The program does not use it, so on another kernel
//! it is restored without one; that it also runs exactly as recorded can only be seen on the kernel
//! that it was recorded on, or on one with the same vDSO.

mod own_vdso;

use image_store::{ReasonCode, UncheckedImage};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use snap_error::Error;
use snap_rebuild::restore::{Request, restore};
use snap_state::{BackingV1, Tree, TreeV1};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use test_frame::{Need, Skip};

/// What the program ends with when all is as it was.
const ALL_WELL: i32 = 42;
/// Layouts of state that are still read, the last of them is today's.
const LAYOUTS: [&str; 3] = ["1", "2", "3"];
const VARIANTS: [&str; 4] = ["descriptors", "memory", "processes", "sockets"];

/// Where the program lay when it was recorded; nothing else of the file system is in the images but
/// `/`.
const PROGRAM: &str = "/var/tmp/fastboot-committed/tiny";

/// Puts the program there, unless it is.
fn install_program() {
    let bytes = include_bytes!("../image/tests/programs/tiny");
    let path = Path::new(PROGRAM);
    let dir = path.parent().unwrap();
    if std::fs::read(path).is_ok_and(|found| found == bytes) {
        return;
    }
    std::fs::create_dir_all(dir).unwrap();
    let new = tempfile::NamedTempFile::new_in(dir).unwrap();
    std::fs::write(new.path(), bytes).unwrap();
    std::fs::set_permissions(new.path(), Permissions::from_mode(0o755)).unwrap();
    new.persist(path).unwrap();
}

fn image(layout: &str, variant: &str) -> PathBuf {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/tests/images");
    images.join(layout).join(format!("tiny-{variant}.img"))
}

/// What is done with the vDSO of a recorded tree before it is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vdso {
    AsRecorded,
    /// The processes have none any more.
    Without,
    /// That of a kernel that nobody has.
    OfAnother,
}

const CHOICES: [(&str, Vdso); 3] =
    [("as-recorded", Vdso::AsRecorded), ("without", Vdso::Without), ("of-another", Vdso::OfAnother)];

/// How many processes and pending signals a user may have follows from the memory of the machine
/// that recorded the images. Where less is allowed here, and raising it too, that is what they get.
fn fit_limits(tree: &mut TreeV1) {
    for resource in [Resource::RLIMIT_NPROC, Resource::RLIMIT_SIGPENDING] {
        let (_, most) = getrlimit(resource).unwrap();
        for process in &mut tree.processes {
            let (soft, hard) = &mut process.rlimits[resource as usize];
            (*soft, *hard) = ((*soft).min(most), (*hard).min(most));
        }
    }
}

fn change(tree: &mut TreeV1, vdso: Vdso) {
    fit_limits(tree);
    match vdso {
        Vdso::AsRecorded => {}
        Vdso::Without => {
            let is_kernels =
                |backing: &BackingV1| matches!(backing, BackingV1::Vdso | BackingV1::Vvar { .. });
            for process in &mut tree.processes {
                process.mm.vmas.retain(|vma| !is_kernels(&vma.backing));
            }
            tree.vdso.digest = own_vdso::digest();
        }
        Vdso::OfAnother => tree.vdso.digest = own_vdso::digest().map(|byte| !byte),
    }
}

/// Restores an image in a process of its own, which has one thread as the engine wants, lets its
/// root check itself and gives the status that that ended with; `Err` is the code of the refusal and
/// its sentence.
fn run(path: &Path, vdso: Vdso) -> Result<i32, (String, String)> {
    // All images of a variant have the same process numbers.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::write("/proc/sys/kernel/pid_max", "4194304").unwrap();
    install_program();
    let (word, _) = CHOICES.iter().find(|(_, choice)| *choice == vdso).unwrap();
    let mut own = Command::new(std::env::current_exe().unwrap());
    let output = own.arg(RESTORE).arg(path).arg(word).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    match text.trim().strip_prefix("exit ") {
        Some(code) => Ok(code.parse().unwrap()),
        None => {
            let (code, sentence) = text.split_once('\n').unwrap_or((&text, "nothing was reported"));
            let said = String::from_utf8_lossy(&output.stderr);
            Err((code.to_owned(), format!("{}{said}", sentence.trim())))
        }
    }
}

/// The word that makes this program restore an image in place of testing.
const RESTORE: &str = "--restore";

fn restore_here(path: &Path, vdso: Vdso) -> String {
    let image = UncheckedImage::open(path).unwrap().check().unwrap();
    let mut tree = snap_image::read_tree(&image).unwrap().into_inner();
    change(&mut tree, vdso);
    let tree = Tree::check(tree, &image.page_area()).unwrap();
    let root = Pid::from_raw(tree.processes[0].pid.0);
    let (stamp, deadline) = (image.stamp(), Instant::now() + Duration::from_secs(60));
    match restore(Request { image: &image, tree, unit: None, checked_chunks: 0, stamp, deadline }) {
        Ok(_) => match kill(root, Signal::SIGUSR1).and_then(|()| end_of(root)) {
            Ok(WaitStatus::Exited(_, code)) => format!("exit {code}"),
            other => format!("ended\n{other:?}"),
        },
        Err(Error::Stale(reason)) => format!("{}\n{}", reason.code.as_str(), reason.sentence),
        Err(error) => format!("failed\n{error}"),
    }
}

/// How it ends, or that it has not for a minute.
fn end_of(root: Pid) -> nix::Result<WaitStatus> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match waitpid(root, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive if Instant::now() > deadline => {
                kill(root, Signal::SIGKILL)?;
                return Ok(WaitStatus::StillAlive);
            }
            WaitStatus::StillAlive => std::thread::sleep(Duration::from_millis(1)),
            ended => return Ok(ended),
        }
    }
}

/// A processor that lacks what the registers of then need, and it alone, is no failure.
fn judge(path: &Path, ended: Result<i32, (String, String)>) -> Result<(), Skip> {
    match ended {
        Err((code, sentence)) if code == ReasonCode::CpuChanged.as_str() => Err(Skip::processor(sentence)),
        other => {
            assert_eq!(other, Ok(ALL_WELL), "{}: else the line of tiny.c, plus 128", path.display());
            Ok(())
        }
    }
}

fn each(mut body: impl FnMut(&Path) -> Result<(), Skip>) -> Result<(), Skip> {
    let all = LAYOUTS.into_iter().flat_map(|layout| VARIANTS.map(|variant| image(layout, variant)));
    all.into_iter().try_for_each(|path| body(&path))
}

fn committed_images_of_every_layout_run_again_on_any_kernel() -> Result<(), Skip> {
    each(|path| judge(path, run(path, Vdso::Without)))
}

fn committed_images_run_exactly_as_recorded_on_their_kernel() -> Result<(), Skip> {
    let own = own_vdso::digest();
    each(|path| {
        let image = UncheckedImage::open(path).unwrap().check().unwrap();
        let tree =
            snap_image::read_tree(&image).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if tree.vdso.digest != own {
            let name = path.file_name().unwrap_or_default().display();
            return Err(Skip::recorded_kernel(format!("{name} was recorded on a kernel with another vDSO")));
        }
        judge(path, run(path, Vdso::AsRecorded))
    })
}

fn committed_images_are_refused_on_another_kernel() {
    let path = image(LAYOUTS[LAYOUTS.len() - 1], VARIANTS[0]);
    let (code, sentence) = run(&path, Vdso::OfAnother).unwrap_err();
    assert_eq!(code, ReasonCode::KernelChanged.as_str(), "{sentence}");
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [restore, path, word] = words.as_slice()
        && restore == RESTORE
    {
        let choice = CHOICES.iter().find(|(name, _)| name == word);
        let (_, vdso) = choice.unwrap_or_else(|| panic!("{word} is no choice"));
        println!("{}", restore_here(Path::new(path), *vdso));
        return ExitCode::SUCCESS;
    }
    test_frame::libtest::main(test_frame::tests![
        [Need::Root];
        committed_images_of_every_layout_run_again_on_any_kernel,
        committed_images_run_exactly_as_recorded_on_their_kernel,
        committed_images_are_refused_on_another_kernel,
    ])
}
