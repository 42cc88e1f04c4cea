//! A control group as the tree, as it is for a service: what the group does not list, and who has
//! left it.

use crate::compile::Toolchain;
use crate::process::{NUMBERS, tree};
use crate::running::{Outcome, Running, Subject, judge};
use snap_collect::dump::{self, CollectOptions, PageSink, TreeSelector};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use test_frame::{Need, Test};

/// A group of cgroup v2 that goes away with this.
struct Group(PathBuf);

impl Group {
    fn make(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let is_v2 = |line: &&str| line.split(' ').nth(2) == Some("cgroup2");
        let line = mounts.lines().find(is_v2).expect("these tests need cgroup v2");
        let root = PathBuf::from(line.split(' ').nth(1).expect("a mount point"));
        let dir = root.join(format!("fastboot-engine-{}-{name}", std::process::id()));
        fs::create_dir(&dir).expect("make a control group");
        Self(dir)
    }

    fn add(&self, pid: i32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("move a process into the group");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct Nowhere(u64);

impl PageSink for Nowhere {
    fn append_pages(&mut self, bytes: &[u8]) -> snap_error::Result<u64> {
        self.0 += bytes.len() as u64;
        Ok(self.0 - bytes.len() as u64)
    }
}

fn zombies_of_a_control_group_are_found_although_it_does_not_list_them() -> Outcome {
    let _numbers_stay = NUMBERS.read();
    let subject = Subject::new("zombies", "");
    let group = Group::make("zombies");
    let running = Running::ready(subject)?;
    group.add(running.pid);
    let children = tree(running.pid).len() - 1;
    let mut frozen = dump::freeze(TreeSelector::Cgroup(group.0.clone())).expect("freeze the group");
    let collected = frozen.collect(&mut Nowhere(0), &CollectOptions::default());
    frozen.thaw().expect("let it go on");
    let zombies = collected.expect("collect the group").tree.zombies;
    assert_eq!(zombies.len(), children, "{zombies:?}");
    judge(subject, &running.finish("untouched"))
}

fn dump_refuses_child_that_has_left_the_control_group() -> Outcome {
    let _numbers_stay = NUMBERS.read();
    let subject = Subject::new("process_tree", "");
    let group = Group::make("left");
    let running = Running::ready(subject)?;
    group.add(running.pid);
    let found = dump::inspect(TreeSelector::Cgroup(group.0.clone()), &CollectOptions::default());
    let blockers: Vec<String> =
        found.expect("look at the group").blockers.iter().map(ToString::to_string).collect();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid)).expect("children");
    for child in children.split_whitespace() {
        let line = format!("pid {} has a child in another control group (pid {child})", running.pid);
        assert!(blockers.contains(&line), "not `{line}`: {blockers:?}");
    }
    assert!(!children.is_empty(), "the subject has no children");
    judge(subject, &running.finish("untouched"))
}

pub fn tests() -> Vec<Test> {
    let mut tests = test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        zombies_of_a_control_group_are_found_although_it_does_not_list_them,
        dump_refuses_child_that_has_left_the_control_group,
    ];
    tests.iter_mut().for_each(|test| test.needs.push(Need::ControlGroups));
    tests
}
