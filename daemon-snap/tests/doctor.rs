//! `fastboot doctor` as it is called: on this machine, with a store that is not fit, and with
//! privileges taken away.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

struct Answer {
    code: Option<i32>,
    json: Value,
}

impl Answer {
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let json = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        Self { code: output.status.code(), json }
    }

    fn finding(&self, name: &str) -> &Value {
        let findings = self.json["findings"].as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not there"))
    }

    fn is_ok(&self, name: &str) -> bool {
        self.finding(name)["ok"] == true
    }

    /// Exit code and `ok` say the same as the findings.
    fn require_consistent(&self) {
        let findings = self.json["findings"].as_array().unwrap();
        let missing = findings.iter().any(|finding| finding["ok"] == false && finding["necessary"] == true);
        assert_eq!(self.json["ok"], !missing, "{}", self.json);
        assert_eq!(self.code, Some(i32::from(missing)));
        for finding in findings.iter().filter(|finding| finding["ok"] == false) {
            assert_ne!(finding["consequence"], "", "{finding}");
        }
    }
}

const FASTBOOT: &str = env!("CARGO_BIN_EXE_fastboot");

fn doctor(store: &Path) -> Answer {
    Answer::of(Command::new(FASTBOOT).args(["doctor", "--json", "--store"]).arg(store))
}

/// Without these capabilities, as `-sys_admin`.
fn doctor_without(capabilities: &str) -> Answer {
    let dir = tempfile::tempdir().unwrap();
    let sets = [format!("--bounding-set={capabilities}"), format!("--inh-caps={capabilities}")];
    let mut command = Command::new("setpriv");
    Answer::of(command.args(sets).args([FASTBOOT, "doctor", "--json", "--store"]).arg(dir.path()))
}

fn store_with_mode(mode: u32) -> tempfile::TempDir {
    // On a file system that stays: /tmp may be none.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
    dir
}

fn what_the_engine_tests_do_here_is_found_possible() {
    let answer = doctor(store_with_mode(0o700).path());
    answer.require_consistent();
    for name in [
        "clone3-set-tid",
        "ns_last_pid",
        "pid_max",
        "memory-layout",
        "ptrace-seize",
        "pidfd-getfd",
        "kcmp",
        "seccomp-dump",
        "apparmor-profiles",
        "capabilities",
        "store-permissions",
        "store-survives",
    ] {
        assert!(answer.is_ok(name), "{}", answer.finding(name));
    }
}

fn a_store_that_others_may_write_to_is_named_and_fails() {
    let answer = doctor(store_with_mode(0o775).path());
    answer.require_consistent();
    assert_eq!(answer.code, Some(1));
    assert!(!answer.is_ok("store-permissions"));
    assert!(answer.is_ok("store-survives"));
}

/// A snapshot closes it, and boots use it until then.
fn a_store_that_others_may_enter_is_named_and_does_not_fail() {
    let answer = doctor(store_with_mode(0o755).path());
    answer.require_consistent();
    let found = answer.finding("store-permissions")["found"].as_str().unwrap().to_owned();
    assert!(answer.is_ok("store-permissions") && found.contains("the next snapshot makes it 700"), "{found}");
}

fn a_store_in_memory_is_named_and_fails() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let answer = doctor(&dir.path().join("store"));
    answer.require_consistent();
    assert_eq!(answer.code, Some(1));
    assert!(!answer.is_ok("store-survives"));
    assert!(!answer.is_ok("store-at-boot"));
    assert!(answer.is_ok("store-permissions"), "it is made by the first snapshot");
}

fn capabilities_that_are_missing_show_in_what_needs_them() {
    let answer = doctor_without("-sys_admin,-checkpoint_restore");
    answer.require_consistent();
    assert_eq!(answer.code, Some(1));
    for name in ["clone3-set-tid", "ns_last_pid", "seccomp-dump", "time-namespace", "fanotify"] {
        assert!(!answer.is_ok(name), "{}", answer.finding(name));
    }
    let found = answer.finding("capabilities")["found"].as_str().unwrap();
    assert_eq!(found, "missing: CAP_SYS_ADMIN");
    // What needs neither still works.
    assert!(answer.is_ok("kcmp") && answer.is_ok("pidfd-getfd"));
}

fn a_capability_that_only_some_services_need_is_no_failure() {
    let before = doctor_without("-syslog");
    let answer = doctor_without("-sys_nice");
    answer.require_consistent();
    assert_eq!(answer.code, before.code);
    let findings = answer.json["findings"].as_array().unwrap();
    assert!(findings.iter().any(|finding| finding["found"] == "CAP_SYS_NICE is missing"), "{}", answer.json);
}

fn people_get_a_table_with_the_same_verdict() {
    let store = store_with_mode(0o775);
    let output = Command::new(FASTBOOT).args(["doctor", "--store"]).arg(store.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("MISSING") && text.contains("store-permissions"), "{text}");
    let first = text.lines().next().unwrap();
    assert!(first.ends_with("missing."), "{text}");
}

fn main() -> std::process::ExitCode {
    test_frame::libtest::main(test_frame::tests![
        [test_frame::Need::Root];
        what_the_engine_tests_do_here_is_found_possible,
        a_store_that_others_may_write_to_is_named_and_fails,
        a_store_that_others_may_enter_is_named_and_does_not_fail,
        a_store_in_memory_is_named_and_fails,
        capabilities_that_are_missing_show_in_what_needs_them,
        a_capability_that_only_some_services_need_is_no_failure,
        people_get_a_table_with_the_same_verdict,
    ])
}
