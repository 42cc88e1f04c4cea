//! What an image does not carry although its process lives on without it: it is named when the
//! image is taken.

use crate::compile::Toolchain;
use crate::fastboot::Fastboot;
use crate::running::{Outcome, Running, Subject, judge, without_dump};
use test_frame::{Need, Test};

pub const KEYRINGS: Subject = Subject::new("keyrings", "");

fn dump_names_keys_that_it_does_not_carry() -> Outcome {
    let mut running = Running::ready(KEYRINGS)?;
    let (first, second) = (running.file("first.image"), running.file("second.image"));
    let answer = running.run(Fastboot::dump(running.pid, &first));
    assert_eq!(answer.code, Some(0), "dump: {answer:?}");
    let named = |key: &str, place: &str| {
        let line =
            format!("pid {} has the key {key} (user) in its {place}, which is not carried", running.pid);
        assert_eq!(answer.stderr.matches(&line).count(), 1, "{line}: {answer:?}");
    };
    named("of-the-session", "session keyring");
    named("of-the-process", "process keyring");
    named("of-the-main-thread", "thread keyring");
    named("of-the-thread", "thread keyring");
    running.assert_gone("after the dump");
    running.restore(&first);
    let answer = running.run(Fastboot::dump(running.pid, &second).leave_running());
    assert!(answer.code == Some(0) && !answer.stderr.contains("of-the-"), "second dump: {answer:?}");
    judge(KEYRINGS, &running.finish("restored"))
}

fn dump_leaves_keys_where_they_are() -> Outcome {
    let mut running = Running::ready(KEYRINGS)?;
    let image = running.file("image");
    let answer = running.run(Fastboot::dump(running.pid, &image).leave_running());
    assert_eq!(answer.code, Some(0), "dump: {answer:?}");
    judge(KEYRINGS, &running.finish("untouched"))
}

pub fn tests() -> Vec<Test> {
    let mut tests = test_frame::tests![
        [Need::Root, Toolchain::Shared.need()];
        dump_names_keys_that_it_does_not_carry,
        dump_leaves_keys_where_they_are,
    ];
    tests.extend(without_dump([KEYRINGS]));
    tests
}
