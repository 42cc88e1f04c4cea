//! Tables of unit texts, and of what systemd says of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use snap_policy::{ExecLineProblem, ManagerView, Reason, SHIM, Surroundings, TextFile, Unit, judge};

const FRAGMENT: &str = "/usr/lib/systemd/system/web.service";
const OURS: &str = "zzzz-fastboot.conf";

fn around() -> Surroundings<'static> {
    Surroundings { shim: SHIM, own_drop_in: OURS, has_apparmor: true, is_after_soft_reboot: false }
}

fn file(path: &str, text: &str) -> TextFile {
    TextFile { path: path.into(), text: text.to_owned() }
}

/// As the generator comes to it.
fn from_text(text: &str, drop_ins: &[(&str, &str)]) -> Unit {
    let drop_ins = drop_ins.iter().map(|(path, text)| file(path, text)).collect();
    Unit::from_text("web.service", Some(file(FRAGMENT, text)), drop_ins)
}

/// What systemd says of such a unit when it runs and nothing is special.
fn running(drop_ins: &[(&str, &str)]) -> ManagerView {
    ManagerView {
        load_state: "loaded".into(),
        active_state: "active".into(),
        sub_state: "running".into(),
        main_pid: 812,
        service_type: "simple".into(),
        exec_start_count: 1,
        fragment: Some(FRAGMENT.into()),
        drop_ins: drop_ins.iter().map(|(path, _)| PathBuf::from(path)).collect(),
        can_restart: true,
        notify_access: "none".into(),
        ..ManagerView::default()
    }
}

fn reasons(unit: &Unit) -> Vec<Reason> {
    judge(unit, &around()).err().unwrap_or_default()
}

fn codes(reasons: &[Reason]) -> Vec<&'static str> {
    reasons.iter().map(Reason::code).collect()
}

/// A unit text, its drop-ins, what systemd says beside, and the codes that both ways have to come
/// to.
struct Case {
    text: &'static str,
    drop_ins: &'static [(&'static str, &'static str)],
    told: fn(&mut ManagerView),
    codes: &'static [&'static str],
}

const PLAIN: &str = "[Service]\nExecStart=/bin/web\n";

fn case(text: &'static str, codes: &'static [&'static str]) -> Case {
    Case { text, drop_ins: &[], told: |_| {}, codes }
}

fn cases() -> Vec<Case> {
    let with = |drop_ins, codes| Case { text: PLAIN, drop_ins, told: |_| {}, codes };
    let told = |text, told, codes| Case { text, drop_ins: &[], told, codes };
    vec![
        case(PLAIN, &[]),
        case("[Service]\nType=simple\nExecStart=-@/bin/web web %i $OPTS\nProtectSystem=strict\n", &[]),
        told(
            "[Service]\nType=notify\nExecStart=/bin/web\nSystemCallFilter=@system-service\n",
            |view| view.service_type = "notify".into(),
            &[],
        ),
        told(
            "[Service]\nType=oneshot\nExecStart=/bin/a\nExecStart=/bin/b\n",
            |view| (view.service_type, view.exec_start_count) = ("oneshot".into(), 2),
            &["service-type", "several-exec-starts"],
        ),
        told(
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStop=/bin/a\n",
            |view| (view.service_type, view.exec_start_count) = ("oneshot".into(), 0),
            &["service-type", "no-exec-start"],
        ),
        case("[Service]\nExecStart=/bin/$X\n", &["exec-line"]),
        case("[Service]\nExecStart=\"/bin/my web\" x\n", &["exec-line"]),
        case("[Service]\nExecStart=web\nExecSearchPath=/opt\n", &["exec-search-path"]),
        told(
            "[Service]\nExecStart=/bin/web\nRootDirectory=/srv/jail\n",
            |view| view.root = Some("/srv/jail".into()),
            &["own-root"],
        ),
        told(
            "[Service]\nExecStart=/bin/web\nRootImage=/srv/jail.raw\n",
            |view| view.root = Some("/srv/jail.raw".into()),
            &["own-root"],
        ),
        told(
            "[Service]\nExecStart=/bin/web\nPAMName=login\nPrivatePIDs=yes\n",
            |view| (view.pam_name, view.has_own_pids) = ("login".into(), true),
            &["pam-session", "own-pids"],
        ),
        case("[Service]\nExecStart=/bin/web\nAppArmorProfile=web\n", &["confined"]),
        case("[Service]\nExecStart=/bin/web\nSystemCallFilter=@basic-io\n", &["system-call-filter"]),
        case("[Service]\nExecStart=/bin/web\nSystemCallFilter=~@odd\n", &["system-call-filter"]),
        case("[Service]\nExecStart=/bin/web\nRestrictAddressFamilies=AF_INET\n", &["address-families"]),
        case("[Service]\nExecStart=/bin/web\nNoExecPaths=/\nExecPaths=/bin\n", &["shim-not-executable"]),
        case("[Service]\nExecStart=/bin/web\nTemporaryFileSystem=/usr\n", &["shim-hidden"]),
        case(
            "[Service]\nExecStart=/bin/web\n[X-Fastboot]\nColour=blue\nAllowState=maybe\n",
            &["option", "option"],
        ),
        with(&[("/etc/systemd/system/web.service.d/x.conf", "[Service]\nNice=1\n")], &[]),
        with(
            &[("/etc/systemd/system/web.service.d/zzzzz.conf", "[Service]\nExecStart=\nExecStart=/bin/b\n")],
            &["later-drop-in"],
        ),
        with(&[("/etc/systemd/system/web.service.d/zzzzz.conf", "[Service]\nNice=1\n")], &[]),
        with(&[("/etc/systemd/system/web.service.d/zzzz-fastboot.conf", "")], &["switched-off"]),
        with(&[("/run/systemd/system/web.service.d/x.conf", "")], &["volatile-drop-in"]),
    ]
}

#[test]
fn both_ways_to_a_unit_come_to_the_same_answer() {
    for Case { text, drop_ins, told, codes: expected } in cases() {
        let by_text = from_text(text, drop_ins);
        let mut view = running(drop_ins);
        told(&mut view);
        let by_systemd = from_text(text, drop_ins).with_manager(view);
        let (at_boot, in_plan) = (reasons(&by_text), reasons(&by_systemd));
        assert_eq!(codes(&at_boot), expected, "{text} {drop_ins:?}");
        assert_eq!(at_boot, in_plan, "{text} {drop_ins:?}");
        assert_eq!(judge(&by_text, &around()).is_ok(), expected.is_empty(), "{text}");
    }
}

#[test]
fn an_ordinary_service_has_no_reasons() {
    assert_eq!(reasons(&from_text(PLAIN, &[]).with_manager(running(&[]))), []);
}

#[test]
fn all_reasons_are_listed() {
    let view = ManagerView {
        service_type: "oneshot".into(),
        pam_name: "login".into(),
        root: Some("/srv/jail".into()),
        needs_reload: true,
        ..running(&[])
    };
    let all = reasons(&from_text(PLAIN, &[]).with_manager(view));
    assert_eq!(codes(&all), ["service-type", "needs-reload", "own-root", "pam-session"]);
}

#[test]
fn systemd_s_word_counts_beside_the_text() {
    type Told = (fn(&mut ManagerView), &'static [&'static str]);
    let table: [Told; 14] = [
        (|view| view.load_state = "masked".into(), &["not-loaded"]),
        (|view| view.sub_state = "exited".into(), &["not-running"]),
        (|view| view.main_pid = 0, &["no-main-process"]),
        (|view| view.service_type = "oneshot".into(), &["service-type"]),
        (|view| view.exec_start_count = 0, &["no-exec-start"]),
        (|view| view.fragment = None, &["no-unit-file"]),
        (|view| view.is_transient = true, &["volatile-unit-file"]),
        (|view| view.needs_reload = true, &["needs-reload"]),
        (|view| view.can_restart = false, &["no-manual-restart"]),
        (|view| view.root = Some("/srv/jail".into()), &["own-root"]),
        (|view| view.pam_name = "login".into(), &["pam-session"]),
        (|view| view.has_own_pids = true, &["own-pids"]),
        (|view| view.fragment = Some("/etc/systemd/system/web.service".into()), &["other-unit-files"]),
        (
            |view| view.drop_ins = vec!["/etc/systemd/system/web.service.d/x.conf".into()],
            &["other-unit-files"],
        ),
    ];
    for (tell, expected) in table {
        let mut view = running(&[]);
        tell(&mut view);
        let told = reasons(&from_text(PLAIN, &[]).with_manager(view));
        assert_eq!(codes(&told), expected, "{told:?}");
    }
}

#[test]
fn a_unit_may_have_a_store_that_systemd_lists_and_takes_back() {
    let told = |tell: fn(&mut ManagerView)| {
        let mut view = ManagerView { stored_count: 1, listed_count: 1, ..running(&[]) };
        tell(&mut view);
        codes(&reasons(&from_text(PLAIN, &[]).with_manager(view)))
    };
    assert!(told(|_| {}).is_empty());
    assert_eq!(told(|view| view.listed_count = 0), ["store-unlisted"]);
    let forking = |view: &mut ManagerView| view.service_type = "forking".into();
    assert_eq!(told(forking), ["store-unheard"]);
    assert!(
        told(|view| (view.service_type, view.notify_access) = ("forking".into(), "exec".into())).is_empty()
    );
}

#[test]
fn a_unit_file_that_a_generator_has_made_is_named_once() {
    let view =
        ManagerView { fragment: Some("/run/systemd/generator.late/web.service".into()), ..running(&[]) };
    let unit = Unit::from_text("web.service", None, Vec::new()).with_manager(view);
    assert_eq!(codes(&reasons(&unit)), ["volatile-unit-file"]);
    let gone = Unit::from_text("web.service", None, Vec::new());
    assert_eq!(codes(&reasons(&gone)), ["no-unit-file"]);
}

#[test]
fn a_hub_is_refused_by_its_name_and_a_kept_store_after_a_soft_reboot() {
    let hub =
        Unit::from_text("dbus.service", Some(file("/usr/lib/systemd/system/dbus.service", PLAIN)), vec![]);
    assert_eq!(reasons(&hub), [Reason::Hub]);
    let keeping =
        "[Service]\nExecStart=/bin/web\nFileDescriptorStoreMax=7\nFileDescriptorStorePreserve=yes\n";
    let unit = from_text(keeping, &[]);
    assert!(judge(&unit, &around()).is_ok());
    let after = Surroundings { is_after_soft_reboot: true, ..around() };
    assert_eq!(judge(&unit, &after).unwrap_err(), [Reason::StoreOverSoftReboot]);
}

/// One of each kind, so that no code is missing from the list and none stands in it twice.
#[test]
fn every_code_is_listed_and_no_sentence_ends_with_a_full_stop() {
    let text = || "x".to_owned();
    let path = || PathBuf::from("/x");
    let all = [
        Reason::Hub,
        Reason::NotLoaded { state: text() },
        Reason::NotRunning { active: text(), sub: text() },
        Reason::NoMainProcess,
        Reason::ServiceType { value: text() },
        Reason::NoExecStart,
        Reason::SeveralExecStarts { count: 2 },
        Reason::ExecLine { line: text(), problem: ExecLineProblem::Quoting },
        Reason::SearchPath,
        Reason::ProgramMissing { program: text() },
        Reason::NoUnitFile,
        Reason::VolatileUnitFile { path: path() },
        Reason::VolatileDropIn { path: path() },
        Reason::OtherFiles { path: path() },
        Reason::NeedsReload,
        Reason::NoManualRestart,
        Reason::SwitchedOff { path: path() },
        Reason::LaterDropIn { path: path(), key: text() },
        Reason::OwnRoot { key: "RootImage", value: text() },
        Reason::Confined { key: "SELinuxContext", value: text() },
        Reason::PamSession { name: text() },
        Reason::OwnPids,
        Reason::NotExecutable { file: text() },
        Reason::ShimHidden { key: "BindPaths", word: text(), shim: text() },
        Reason::AddressFamilies,
        Reason::SystemCall { call: "read" },
        Reason::SystemCallGroup { group: text() },
        Reason::StartTimeout,
        Reason::StoreUnlisted { count: 1 },
        Reason::StoreUnheard { count: 1, notify_access: text() },
        Reason::StoreOverSoftReboot,
        Reason::UnknownOption { key: text() },
        Reason::OptionValue { key: "AllowState", value: text(), wanted: "yes or no" },
    ];
    let used: BTreeSet<&str> = all.iter().map(Reason::code).collect();
    assert_eq!(used, Reason::CODES.iter().copied().collect());
    for reason in &all {
        assert!(!reason.to_string().ends_with('.') && !reason.to_string().contains('\n'), "{reason}");
    }
}
