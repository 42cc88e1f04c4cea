//! Evidence: what changed is named; what only looks changed is not.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::{DEPTH, DROP_IN, FRAGMENT, digest, drop_ins, evidence, make_root, unit_evidence};
use image_store::evidence::{CpuEvidence, Scope, group_id, user_id};
use image_store::{CheckDepth, EvidenceV2, FileEvidence, FileKind, MachineEvidence, ReasonCode, StaleReason};

fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    make_root(dir.path());
    dir
}

fn code(result: Result<(), StaleReason>) -> Option<ReasonCode> {
    result.err().map(|reason| reason.code)
}

const CONF: &str = "/etc/redis/redis.conf";

fn conf(root: &Path) -> FileEvidence {
    FileEvidence::collect(root, Path::new(CONF), true).unwrap()
}

#[test]
fn evidence_holds_on_the_machine_it_was_taken_on() {
    let dir = root();
    let root = dir.path();
    let bytes = evidence(root).encode(Path::new("x")).unwrap();
    let read = EvidenceV2::decode(&bytes, Path::new("x")).unwrap();
    assert_eq!(read, evidence(root));
    let now = MachineEvidence::collect(root).unwrap();
    read.check_unit(root, &now, Path::new(FRAGMENT), &drop_ins()).unwrap();
    read.check_files(root, CheckDepth::StatOnly).unwrap();
    read.check_identities(root).unwrap();
    // And on a real one.
    let real = MachineEvidence::collect(Path::new("/")).unwrap();
    assert!(!real.kernel_release.is_empty() && !real.cpu.vendor.is_empty(), "{real:?}");
}

#[test]
fn evidence_with_bytes_missing_or_left_over_is_corrupt() {
    let dir = root();
    let mut bytes = evidence(dir.path()).encode(Path::new("x")).unwrap();
    for len in 0..bytes.len() {
        assert!(EvidenceV2::decode(&bytes[..len], Path::new("x")).is_err());
    }
    bytes.push(0);
    let error = EvidenceV2::decode(&bytes, Path::new("x")).unwrap_err();
    assert!(error.to_string().contains("1 bytes after the evidence"), "{error}");
}

#[test]
fn another_kernel_machine_or_cpu_is_told_apart() {
    let dir = root();
    let was = MachineEvidence::collect(dir.path()).unwrap();
    let changed = |change: fn(&mut MachineEvidence)| {
        let mut now = was.clone();
        change(&mut now);
        was.check(&now).unwrap_err()
    };
    let reason = changed(|m| m.kernel_release = "6.18.1".to_owned());
    assert_eq!(reason.code, ReasonCode::KernelChanged);
    assert_eq!(reason.sentence, r#"kernel release is "6.18.1", was "6.18.0" at the snapshot"#);
    assert_eq!(changed(|m| m.kernel_version.push('2')).code, ReasonCode::KernelChanged);
    assert_eq!(changed(|m| m.machine_id.push('2')).code, ReasonCode::MachineChanged);
    assert_eq!(changed(|m| m.architecture = "riscv64".to_owned()).code, ReasonCode::MachineChanged);
    assert_eq!(changed(|m| m.cpu.model.push('2')).code, ReasonCode::CpuChanged);
    assert_eq!(changed(|m| m.cpu.flags_digest = digest("other")).code, ReasonCode::CpuChanged);
    was.check(&was).unwrap();

    for word in ["uninitialized\n", "*\n", ""] {
        fs::write(dir.path().join("etc/machine-id"), word).unwrap();
        assert_eq!(MachineEvidence::collect(dir.path()).unwrap().machine_id, "", "{word:?} is no id");
    }
    fs::remove_file(dir.path().join("etc/machine-id")).unwrap();
    let nameless = MachineEvidence::collect(dir.path()).unwrap();
    assert_eq!(code(nameless.check(&nameless)), Some(ReasonCode::MachineChanged), "no id matches nothing");
}

#[test]
fn an_image_for_equal_machines_asks_for_everything_but_the_machine_id() {
    let dir = root();
    let taken_on = MachineEvidence::collect(dir.path()).unwrap();
    assert_eq!(taken_on.scope(), Scope::ThisMachine);
    assert_eq!(taken_on.clone().in_scope(Scope::ThisMachine), taken_on);
    let was = taken_on.clone().in_scope(Scope::EqualMachines);
    assert_eq!(was.scope(), Scope::EqualMachines);
    assert!(!format!("{was:?}").contains(&taken_on.machine_id), "{was:?}");
    let with = |change: fn(&mut MachineEvidence)| {
        let mut now = taken_on.clone();
        change(&mut now);
        code(was.check(&now))
    };
    assert_eq!(with(|_| ()), None);
    assert_eq!(with(|m| m.machine_id = "f".repeat(32)), None);
    assert_eq!(with(|m| m.machine_id.clear()), None, "it is made later in the boot");
    assert_eq!(with(|m| m.kernel_version.push('2')), Some(ReasonCode::KernelChanged));
    assert_eq!(with(|m| m.architecture = "riscv64".to_owned()), Some(ReasonCode::MachineChanged));
    assert_eq!(with(|m| m.cpu.model.push('2')), Some(ReasonCode::CpuChanged));
    assert_eq!(with(|m| m.cpu.flags_digest = digest("other")), Some(ReasonCode::CpuChanged));
    // A machine without an id of its own does not become equal to all others by that.
    let mut nameless = taken_on.clone();
    nameless.machine_id = "*".to_owned();
    assert_eq!(code(taken_on.check(&nameless)), Some(ReasonCode::MachineChanged));
}

#[test]
fn cpu_flags_count_as_a_set_and_clock_rates_do_not_count() {
    let cpu = |flags: &str, mhz: &str| {
        CpuEvidence::parse(&format!(
            "vendor_id : A\ncpu family : 6\nmodel : 1\ncpu MHz : {mhz}\nflags : {flags}\nvmx flags : x\n"
        ))
    };
    assert_eq!(cpu("fpu sse", "1000"), cpu("sse fpu", "3000"));
    assert_ne!(cpu("fpu sse", "1000"), cpu("fpu sse avx", "1000"));
    let arm = CpuEvidence::parse(
        "CPU implementer : 0x41\nCPU architecture: 8\nCPU part : 0xd05\nFeatures : fp asimd\nCPU part : 0xd0a\n",
    );
    assert_eq!((arm.vendor.as_str(), arm.model.as_str()), ("0x41", "0xd05,0xd0a"));
}

#[test]
fn any_change_of_fragment_or_drop_ins_is_stale() {
    let dir = root();
    let root = dir.path();
    let was = unit_evidence(root);
    let fragment = Path::new(FRAGMENT);
    let sentence = |drop_ins: &[PathBuf]| {
        let reason = was.check(root, fragment, drop_ins).unwrap_err();
        assert_eq!(reason.code, ReasonCode::UnitChanged);
        reason.sentence
    };
    was.check(root, fragment, &drop_ins()).unwrap();
    let added = PathBuf::from("/run/systemd/system/redis.service.d/x.conf");
    assert!(sentence(&[drop_ins(), vec![added]].concat()).ends_with("x.conf was added"));
    assert_eq!(sentence(&[]), format!("drop-in {DROP_IN} was removed"));
    assert!(was.check(root, Path::new("/etc/systemd/system/redis.service"), &drop_ins()).is_err());

    let drop_in = root.join(DROP_IN.trim_start_matches('/'));
    let text = fs::read(&drop_in).unwrap();
    fs::write(&drop_in, "[Service]\nLimitNOFILE=65536\n").unwrap();
    assert_eq!(sentence(&drop_ins()), format!("{DROP_IN} changed"));
    fs::write(&drop_in, text).unwrap();
    was.check(root, fragment, &drop_ins()).expect("only the text counts");
    fs::remove_file(root.join(FRAGMENT.trim_start_matches('/'))).unwrap();
    assert!(sentence(&drop_ins()).contains("cannot be read"));
}

#[test]
fn drop_ins_in_another_order_are_stale() {
    let dir = root();
    let second = PathBuf::from("/etc/systemd/system/redis.service.d/20-more.conf");
    fs::write(dir.path().join("etc/systemd/system/redis.service.d/20-more.conf"), "[Service]\n").unwrap();
    let both = [drop_ins(), vec![second]].concat();
    let was = image_store::UnitEvidence::collect(dir.path(), Path::new(FRAGMENT), &both).unwrap();
    was.check(dir.path(), Path::new(FRAGMENT), &both).unwrap();
    let swapped: Vec<PathBuf> = both.into_iter().rev().collect();
    let reason = was.check(dir.path(), Path::new(FRAGMENT), &swapped).unwrap_err();
    assert_eq!(reason.sentence, "drop-ins apply in another order");
}

#[test]
fn our_own_drop_in_is_ignored_only_where_our_generator_writes_it() {
    let dir = root();
    let was = unit_evidence(dir.path());
    let with = |extra: &str| {
        was.check(dir.path(), Path::new(FRAGMENT), &[drop_ins(), vec![PathBuf::from(extra)]].concat())
    };
    with("/run/systemd/generator/redis.service.d/zzzz-fastboot.conf").unwrap();
    with("/run/systemd/generator.late/redis.service.d/zzzz-fastboot.conf").unwrap();
    assert!(with("/etc/systemd/system/redis.service.d/zzzz-fastboot.conf").is_err());
    assert!(with("/run/systemd/generator/redis.service.d/other.conf").is_err());
}

#[test]
fn a_changed_file_is_named_with_what_changed() {
    let dir = root();
    let root = dir.path();
    let was = conf(root);
    let path = root.join("etc/redis/redis.conf");
    let sentence = || was.check(root, DEPTH).unwrap_err().sentence;

    fs::write(&path, "port 63790\n").unwrap();
    assert_eq!(sentence(), "/etc/redis/redis.conf changed (size 11, was 10)");
    fs::write(&path, "port 6380\n").unwrap();
    assert_eq!(sentence(), "/etc/redis/redis.conf changed (same size 10, other content)");
    fs::write(&path, "port 6379\n").unwrap();
    was.check(root, DEPTH).expect("the content is the same again");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    assert!(sentence().contains("(mode 604, owner"), "{}", sentence());
    fs::remove_file(&path).unwrap();
    assert_eq!(
        was.check(root, DEPTH),
        Err(StaleReason::new(ReasonCode::FileMissing, format!("{CONF} is missing")))
    );
    fs::create_dir(&path).unwrap();
    assert_eq!(sentence(), "/etc/redis/redis.conf changed (is a directory, was a regular file)");
}

#[test]
fn a_copy_with_other_times_and_inode_holds_only_by_its_content() {
    let dir = root();
    let root = dir.path();
    let mut was = conf(root);
    let path = root.join("etc/redis/redis.conf");
    fs::copy(&path, root.join("copy")).unwrap();
    fs::rename(root.join("copy"), &path).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
        .unwrap();
    was.check(root, DEPTH).unwrap();
    assert_eq!(code(was.check(root, CheckDepth::StatOnly)), Some(ReasonCode::FileChanged));
    was.blake3 = None;
    assert_eq!(code(was.check(root, DEPTH)), Some(ReasonCode::FileChanged));
}

#[test]
fn a_change_that_keeps_size_and_mtime_is_still_seen() {
    let dir = root();
    let was = conf(dir.path());
    let path = dir.path().join("etc/redis/redis.conf");
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&path, "port 9999\n").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    assert_eq!(code(was.check(dir.path(), DEPTH)), Some(ReasonCode::FileChanged));
}

#[test]
fn a_directory_is_its_names() {
    let dir = root();
    let root = dir.path();
    let was = FileEvidence::collect(root, Path::new("/etc/redis"), true).unwrap();
    assert_eq!(was.kind, FileKind::Dir);
    let extra = root.join("etc/redis/extra.conf");
    fs::write(&extra, "").unwrap();
    let reason = was.check(root, DEPTH).unwrap_err();
    assert_eq!(reason.sentence, "/etc/redis changed (its entries differ)");
    fs::remove_file(&extra).unwrap();
    was.check(root, DEPTH).expect("the same names again");
}

#[test]
fn a_chain_of_links_is_recorded_to_its_end() {
    let dir = root();
    let root = dir.path();
    symlink("/etc/link2", root.join("etc/link1")).unwrap();
    symlink("redis/redis.conf", root.join("etc/link2")).unwrap();
    let chain = FileEvidence::collect_chain(root, Path::new("/etc/link1"), true).unwrap();
    let paths: Vec<_> = chain.iter().map(|e| e.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/etc/link1", "/etc/link2", CONF]);
    chain.iter().for_each(|e| e.check(root, DEPTH).unwrap());
    fs::remove_file(root.join("etc/link2")).unwrap();
    symlink("redis/REDIS.conf", root.join("etc/link2")).unwrap();
    assert_eq!(chain[1].check(root, DEPTH).unwrap_err().sentence, "/etc/link2 changed (it points elsewhere)");
    symlink("loop", root.join("etc/loop")).unwrap();
    assert!(FileEvidence::collect_chain(root, Path::new("/etc/loop"), true).is_err());
}

#[test]
fn what_was_absent_must_stay_absent() {
    let dir = root();
    let root = dir.path();
    let was = FileEvidence::collect(root, Path::new("/etc/default/redis"), true).unwrap();
    assert_eq!(was.kind, FileKind::Absent);
    was.check(root, DEPTH).unwrap();
    fs::create_dir(root.join("etc/default")).unwrap();
    was.check(root, DEPTH).unwrap();
    fs::write(root.join("etc/default/redis"), "X=1\n").unwrap();
    assert_eq!(was.check(root, DEPTH).unwrap_err().sentence, "/etc/default/redis appeared");
}

#[test]
fn devices_and_fifos_are_never_read() {
    let dir = root();
    let null = FileEvidence::collect(Path::new("/"), Path::new("/dev/null"), true).unwrap();
    assert_eq!((null.kind, null.blake3), (FileKind::Device, None));
    null.check(Path::new("/"), DEPTH).unwrap();
    let mut zero = FileEvidence::collect(Path::new("/"), Path::new("/dev/zero"), true).unwrap();
    zero.path = "/dev/null".into();
    assert!(zero.check(Path::new("/"), DEPTH).unwrap_err().sentence.contains("device number"));
    nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = FileEvidence::collect(dir.path(), Path::new("/fifo"), true).unwrap();
    assert_eq!(fifo.kind, FileKind::Other);
    fifo.check(dir.path(), DEPTH).unwrap();
}

#[test]
fn users_and_groups_must_keep_their_ids() {
    let dir = root();
    let root = dir.path();
    let was = evidence(root);
    assert_eq!(
        (user_id(root, "redis"), group_id(root, "redis"), user_id(root, "nobody")),
        (Some(105), Some(110), None)
    );
    was.check_identities(root).unwrap();
    fs::write(root.join("etc/passwd"), "redis:x:106:110::/:/bin/sh\n").unwrap();
    let reason = was.check_identities(root).unwrap_err();
    assert_eq!(
        (reason.code, reason.sentence.as_str()),
        (ReasonCode::IdentityChanged, "user redis has id 106, was 105")
    );
    fs::write(root.join("etc/passwd"), "").unwrap();
    assert_eq!(
        was.check_identities(root).unwrap_err().sentence,
        "user redis is not in /etc/passwd, had id 105"
    );
    fs::remove_file(root.join("etc/group")).unwrap();
    assert!(was.check_identities(root).is_err());
}
