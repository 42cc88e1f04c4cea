//! What libraries draw after a restore: other numbers in each life, in each process of it, and in
//! the next image of a restored process too.

use crate::compile::Toolchain;
use crate::equal::State;
use crate::fastboot::Fastboot;
use crate::running::{Outcome, Running, Subject, judge, without_dump};
use snap_state::{BackingV1, PAGE_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use test_frame::{Need, Test};

const DRAWS: Subject = Subject::new("draws", "");
const LIMIT: Duration = Duration::from_secs(30);
/// Who is asked: a process, and one that it had forked before the image was taken.
const ASKED: [&str; 2] = ["root", "member"];

/// What everybody draws now, by who draws with what.
fn drawn(running: &Running) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for who in ASKED {
        let answer = running.file(&format!("drawn-{who}"));
        fs::write(running.file(&format!("draw-{who}")), "").expect("ask");
        let deadline = Instant::now() + LIMIT;
        while !answer.exists() {
            assert!(Instant::now() < deadline, "{who} has not drawn: {:?}", fs::read(running.file("result")));
            std::thread::sleep(Duration::from_millis(2));
        }
        let text = fs::read_to_string(&answer).expect("read what was drawn");
        fs::remove_file(&answer).expect("remove what was drawn");
        all.extend(
            text.lines()
                .filter_map(|line| line.split_once(' '))
                .map(|(name, value)| (name.into(), value.into())),
        );
    }
    // Two processes, a child of each, and at least two generators.
    assert!(all.len() >= 8, "{all:?}");
    all
}

/// How many pages the processes of an image have that may be an answer for libraries: a kernel
/// without names for memory does not say.
fn answers(image: &Path) -> usize {
    let tree = State::read(image).tree;
    let vmas = tree.processes.iter().flat_map(|process| &process.mm.vmas);
    vmas.filter(|vma| vma.backing == BackingV1::Anon && vma.prot == 5 && vma.len_bytes() == PAGE_BYTES)
        .count()
}

/// Two lives of one image. The first ends, the second goes on.
fn two_lives(running: &mut Running, image: &Path) -> [BTreeMap<String, String>; 2] {
    running.restore(image);
    let one = drawn(running);
    running.kill();
    running.restore(image);
    [one, drawn(running)]
}

fn libraries_draw_afresh_in_each_life_of_each_image() -> Outcome {
    let _numbers_stay = crate::process::NUMBERS.read();
    let mut running = Running::ready(DRAWS)?;
    let images = ["first.image", "second.image", "third.image"].map(|name| running.file(name));
    let answer = running.run(Fastboot::dump(running.pid, &images[0]));
    assert_eq!(answer.code, Some(0), "dump: {answer:?}");
    running.assert_gone("after the dump");
    let mut lives = two_lives(&mut running, &images[0]).to_vec();
    // An image of what has been restored already: its libraries ask the page that is there.
    running.dump(&images[1]);
    lives.extend(two_lives(&mut running, &images[1]));
    running.dump(&images[2]);
    let all: Vec<&String> = lives.iter().flat_map(BTreeMap::values).collect();
    let different: BTreeSet<&String> = all.iter().copied().collect();
    assert_eq!(different.len(), all.len(), "something was drawn twice: {lives:#?}");
    assert_eq!(answers(&images[0]), 0);
    assert_eq!(
        [answers(&images[1]), answers(&images[2])],
        [ASKED.len(); 2],
        "a page for each process, and no more"
    );
    running.restore(&images[2]);
    judge(DRAWS, &running.finish("restored"))
}

pub fn tests() -> Vec<Test> {
    const OPENSSL: Need = Need::Program { name: "openssl", package: "openssl" };
    let mut tests = test_frame::tests![
        [Need::Root, Toolchain::Shared.need(), OPENSSL];
        libraries_draw_afresh_in_each_life_of_each_image,
    ];
    tests.extend(without_dump([DRAWS]));
    tests
}
