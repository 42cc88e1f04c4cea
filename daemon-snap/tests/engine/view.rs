//! What /proc says of a tree, before the dump and after the restore, and which differences are
//! meant.

use crate::areas::{areas_of, is_lasting, without_deleted_name};
use crate::process;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use test_frame::Test;

/// One fact: whose it is, the file of /proc, and what in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    id: i32,
    file: &'static str,
    field: String,
}

/// Everything that /proc says of a tree and that a restore has to keep.
#[derive(Debug, Default)]
pub struct View {
    facts: BTreeMap<Key, String>,
    /// Pipes and sockets get numbers in the order in which they are met.
    objects: BTreeMap<String, usize>,
}

/// A difference that is meant.
struct Rule {
    /// In which subject; empty: in all.
    program: &'static str,
    file: &'static str,
    field: &'static str,
    allows: fn(Option<&str>, Option<&str>) -> bool,
    #[allow(dead_code, reason = "for who reads the table")]
    why: &'static str,
}

const fn rule(
    program: &'static str,
    file: &'static str,
    field: &'static str,
    allows: fn(Option<&str>, Option<&str>) -> bool,
    why: &'static str,
) -> Rule {
    Rule { program, file, field, allows, why }
}

/// What may stay mapped of a restore, in bytes; how much exactly is the matter of `left_behind.c`.
const LEFT_BEHIND: u64 = 1 << 20;
#[rustfmt::skip]
const ALLOWED: &[Rule] = &[
    rule("", "stat", "ppid", was_ours, "the root was a child of the harness"),
    rule("", "status", "PPid", was_ours, "the root was a child of the harness"),
    rule("", "status", "FDSize", larger_table, "descriptors of the restorer stood above those of the tree until they were closed"),
    rule("", "status", "VmLib", a_little_more, "the page that stays behind"),
    rule("", "status", "VmSize", a_little_more, "the page that stays behind"),
    rule("", "status", "VmData", a_little_more, "the page that stays behind"),
    rule("", "status", "VmExe", a_little_more, "the page that stays behind"),
    rule("", "status", "VmStk", a_little_more, "the page that stays behind"),
    rule("", "smaps", "left behind", a_little_more, "the page that stays behind"),
    rule("mqueue", "fdinfo", "6 line 1", differs, "a removed queue whose name is taken lies in a mount of its own"),
    rule("timer_of_ended_thread", "timers", "", differs, "a timer for nobody notifies nobody, in other words"),
    rule("io_uring", "stat", "num_threads", differs, OF_WORKERS),
    rule("io_uring", "status", "Threads", differs, OF_WORKERS),
    rule("scheduling", "stat", "priority", differs, OF_IDLE),
    rule("scheduling", "sched", "prio", differs, OF_IDLE),
];

const OF_WORKERS: &str = "threads that the kernel makes for a ring, and makes again when it needs one";
const OF_IDLE: &str = "sched_setattr(2) keeps the nice value of a SCHED_IDLE thread but shows that of the call as its priority; \
                       its weight depends on neither";

fn differs(before: Option<&str>, after: Option<&str>) -> bool {
    before.is_some() && after.is_some()
}

fn was_ours(before: Option<&str>, after: Option<&str>) -> bool {
    before == Some(&std::process::id().to_string()) && after.is_some()
}

/// Slots; the kernel doubles a table and never makes it smaller.
fn larger_table(before: Option<&str>, after: Option<&str>) -> bool {
    let slots = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    matches!((slots(before), slots(after)), (Some(before), Some(after)) if (before..=4 * before).contains(&after))
}

fn a_little_more(before: Option<&str>, after: Option<&str>) -> bool {
    let bytes = |text: Option<&str>| -> Option<u64> {
        Some(text?.split_ascii_whitespace().next()?.parse::<u64>().ok()? << 10)
    };
    match (bytes(before), bytes(after)) {
        (Some(before), Some(after)) => (before..=before + LEFT_BEHIND).contains(&after),
        _ => false,
    }
}

/// Lines of /proc/PID/status that say how things go at the moment, or that count.
const OF_THE_MOMENT: [&str; 14] = [
    "State",
    "VmPeak",
    "VmHWM",
    "VmRSS",
    "RssAnon",
    "RssFile",
    "RssShmem",
    "VmPTE",
    "VmSwap",
    "SigQ", // of all processes of the user
    "voluntary_ctxt_switches",
    "nonvoluntary_ctxt_switches",
    "HugetlbPages",
    "x86_Thread_features", // shadow stacks, which are refused
];

/// Fields of /proc/PID/stat (proc_pid_stat(5)), by their numbers; the others are times, counters
/// and addresses of the moment.
const STAT: [(usize, &str); 25] = [
    (4, "ppid"),
    (5, "pgrp"),
    (6, "session"),
    (7, "tty"),
    (8, "tpgid"),
    (18, "priority"),
    (19, "nice"),
    (20, "num_threads"),
    (25, "rsslim"),
    (26, "startcode"),
    (27, "endcode"),
    (28, "startstack"),
    (31, "signal"),
    (32, "blocked"),
    (33, "sigignore"),
    (34, "sigcatch"),
    (38, "exit_signal"),
    (40, "rt_priority"),
    (41, "policy"),
    (45, "start_data"),
    (46, "end_data"),
    (47, "start_brk"),
    (48, "arg_start"),
    (49, "arg_end"),
    (50, "env_start"),
];

/// Files that are compared as they are, of each process.
const WHOLE: [&str; 14] = [
    "auxv",
    "cgroup",
    "cmdline",
    "coredump_filter",
    "environ",
    "gid_map",
    "loginuid",
    "oom_score_adj",
    "personality",
    "sessionid",
    "setgroups",
    "timens_offsets",
    "timers",
    "uid_map",
];

const NAMESPACES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

impl View {
    /// Reads all processes of a tree and their threads.
    pub fn of(members: &BTreeSet<i32>) -> Self {
        let mut view = Self::default();
        for &pid in members {
            // threads stand among the members too
            if fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| line(&s, "Tgid") == Some(pid))
            {
                view.read_process(pid);
            }
        }
        view
    }

    fn put(&mut self, id: i32, file: &'static str, field: impl Into<String>, value: impl Into<String>) {
        self.facts.insert(Key { id, file, field: field.into() }, value.into());
    }

    /// What a parent can see of a child that has ended; the rest of /proc tells of what it was.
    fn read_zombie(&mut self, pid: i32) {
        const SEEN: [&str; 8] = ["Name", "State", "Tgid", "Pid", "PPid", "Uid", "Gid", "Groups"];
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        for (name, value) in status.lines().filter_map(|line| line.split_once(':')) {
            if SEEN.contains(&name) {
                self.put(pid, "status", name, value.trim());
            }
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let words: Vec<&str> =
            stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        for (number, name) in [(5, "pgrp"), (6, "session"), (38, "exit_signal"), (52, "exit_code")] {
            self.put(pid, "stat", name, words.get(number - 3).copied().unwrap_or("missing"));
        }
        self.put(pid, "cgroup", "", fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default());
    }

    fn read_process(&mut self, pid: i32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if status.lines().any(|line| line.starts_with("State:\tZ")) {
            return self.read_zombie(pid);
        }
        for file in WHOLE {
            let text = match fs::read(format!("/proc/{pid}/{file}")) {
                Ok(bytes) => bytes.escape_ascii().to_string(),
                Err(e) => e.to_string(),
            };
            self.put(pid, file, "", text);
        }
        for name in NAMESPACES {
            self.put(pid, "ns", name, link(&format!("/proc/{pid}/ns/{name}")));
        }
        for name in ["exe", "cwd", "root"] {
            self.put(pid, "link", name, link(&format!("/proc/{pid}/{name}")));
        }
        for limit in fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default().lines() {
            let (name, values) = limit.split_at(limit.len().min(26));
            self.put(pid, "limits", name.trim(), values.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        self.read_areas(pid);
        self.read_descriptors(pid);
        for tid in process::threads(pid).into_iter().filter(|tid| !is_io_worker(pid, *tid)) {
            self.read_thread(pid, tid);
        }
    }

    fn read_thread(&mut self, pid: i32, tid: i32) {
        let dir = format!("/proc/{pid}/task/{tid}");
        let read = |name: &str| fs::read_to_string(format!("{dir}/{name}")).unwrap_or_default();
        self.put(tid, "comm", "", read("comm"));
        let slack = fs::read_to_string(format!("/proc/{tid}/timerslack_ns")).unwrap_or_default();
        self.put(tid, "timerslack_ns", "", slack.trim());
        for line in read("status").lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if !OF_THE_MOMENT.contains(&name) {
                self.put(tid, "status", name, value.trim());
            }
        }
        let stat = read("stat");
        let words: Vec<&str> =
            stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        for (number, name) in STAT {
            // the first word behind the name is field 3
            self.put(tid, "stat", name, words.get(number - 3).copied().unwrap_or("missing"));
        }
        for line in read("sched").lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let name = name.trim();
            if ["policy", "prio", "uclamp.min", "uclamp.max"].contains(&name) {
                self.put(tid, "sched", name, value.trim());
            }
        }
    }

    fn read_areas(&mut self, pid: i32) {
        let (areas, left_kib) = areas_of(pid);
        for area in areas {
            self.put(pid, "smaps", format!("{:x}-{:x}", area.start, area.end), area.shown());
        }
        self.put(pid, "smaps", "left behind", format!("{left_kib} kB"));
    }

    fn read_descriptors(&mut self, pid: i32) {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let numbers: BTreeSet<i32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for number in numbers {
            let target = link(&format!("/proc/{pid}/fd/{number}"));
            let stays = is_lasting(&target);
            let shown = self.lasting_name(target);
            self.put(pid, "fd", number.to_string(), shown);
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
            let mut lines: Vec<String> = info.lines().filter_map(|line| lasting_line(line, stays)).collect();
            // watches of an epoll set come in the order of kernel addresses
            lines.sort();
            for (nth, line) in lines.into_iter().enumerate() {
                self.put(pid, "fdinfo", format!("{number} line {nth}"), line);
            }
        }
    }

    /// The target of a descriptor, without numbers and names that the kernel gives anew.
    fn lasting_name(&mut self, target: String) -> String {
        if let Some((kind @ ("pipe" | "socket"), _)) = target.split_once(":[") {
            let next = self.objects.len();
            let kind = kind.to_owned();
            let number = self.objects.entry(target).or_insert(next);
            return format!("{kind} {number}");
        }
        without_deleted_name(&target)
    }

    /// What differs and is not meant to, one line each.
    pub fn unexplained(&self, after: &Self, program: &str) -> Vec<String> {
        let keys: BTreeSet<&Key> = self.facts.keys().chain(after.facts.keys()).collect();
        let mut found = Vec::new();
        for key in keys {
            let (was, is) = (self.facts.get(key), after.facts.get(key));
            let (was, is) = (was.map(String::as_str), is.map(String::as_str));
            let fits = |rule: &&Rule| {
                let here = rule.program.is_empty() || rule.program == program;
                here && rule.file == key.file && rule.field == key.field
            };
            let meant = ALLOWED.iter().filter(fits).any(|rule| (rule.allows)(was, is));
            if was != is && !meant {
                let Key { id, file, field } = key;
                found.push(format!("{id} {file} {field}: was {was:?}, is {is:?}"));
            }
        }
        found
    }
}

/// A thread that the kernel made for an io_uring; it makes another one when it needs one.
fn is_io_worker(pid: i32, tid: i32) -> bool {
    const PF_IO_WORKER: u64 = 0x10;
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")).unwrap_or_default();
    let flags =
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_IO_WORKER != 0)
}

fn link(path: &str) -> String {
    fs::read_link(path)
        .map_or_else(|e| e.to_string(), |target| target.as_os_str().as_bytes().escape_ascii().to_string())
}

fn line(status: &str, name: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

/// A line of fdinfo, without what is new or goes on; the images say that more exactly.
fn lasting_line(line: &str, inode_stays: bool) -> Option<String> {
    match line.split_once(':')?.0 {
        // numbers of kernel objects
        "ino" if !inode_stays => None,
        "eventfd-id" => None,
        // time goes on
        "it_value" | "ticks" => None,
        // an absolute time of a clock that nobody can set is a remaining time; others are compared
        // in the images
        "settime flags" => None,
        // the inode at the end of a line is that of the target
        "tfd" => Some(line.split(" pos:").next()?.to_owned()),
        _ => Some(line.to_owned()),
    }
}

/// Of the comparison itself; these need nothing.
pub fn tests() -> Vec<Test> {
    test_frame::tests![
        [];
        what_differs_is_found_and_what_is_meant_is_not,
        a_look_at_ourselves_sees_areas_threads_and_descriptors,
    ]
}

fn view(facts: &[(i32, &'static str, &str, &str)]) -> View {
    let mut view = View::default();
    for (id, file, field, value) in facts {
        view.put(*id, file, *field, *value);
    }
    view
}

fn what_differs_is_found_and_what_is_meant_is_not() {
    let before = view(&[
        (7, "status", "FDSize", "64"),
        (7, "limits", "Max open files", "20 20"),
        (7, "fd", "3", "pipe 0"),
    ]);
    let after = view(&[(7, "status", "FDSize", "128"), (7, "limits", "Max open files", "20 30")]);
    let found = before.unexplained(&after, "any");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("fd 3") && found[1].contains("Max open files"), "{found:?}");
    assert!(before.unexplained(&before, "any").is_empty());
    // A table that has shrunk is not what the rule is about.
    assert!(!after.unexplained(&before, "any").iter().all(|line| !line.contains("FDSize")));
}

fn a_look_at_ourselves_sees_areas_threads_and_descriptors() {
    let own = i32::try_from(std::process::id()).expect("a pid is positive");
    let view = View::of(&BTreeSet::from([own]));
    for file in ["smaps", "fdinfo", "limits", "ns", "status", "stat", "sched", "cgroup", "timers"] {
        assert!(view.facts.keys().any(|key| key.file == file), "nothing of {file}");
    }
}
