//! The tables of "Attributes by call" in docs/kinds.md against the code, the headers of the kernel
//! and the tests.

use crate::socket_options::known_names;
use std::collections::BTreeSet;
use std::fs::read_to_string;

/// One row.
struct Row {
    name: String,
    number: String,
    fate: String,
    how: String,
    test: Option<String>,
}

fn repository(path: &str) -> String {
    let path = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn rows() -> Vec<Row> {
    let text = repository("docs/kinds.md");
    let section = text.split("## Attributes by call").nth(1).expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let row = |line: &str| match cells(line).as_slice() {
        [name, number, fate, how, test]
            if name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') =>
        {
            let test = (test != "–").then(|| test.clone());
            Some(Row {
                name: name.clone(),
                number: number.clone(),
                fate: fate.clone(),
                how: how.clone(),
                test,
            })
        }
        _ => None,
    };
    let rows: Vec<Row> = section.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect();
    assert_eq!(
        rows.len(),
        section.lines().filter(|line| line.starts_with("| `")).count(),
        "a row is not understood"
    );
    rows
}

#[test]
fn every_attribute_has_one_fate_and_tests_that_exist() {
    let tests =
        repository("daemon-snap/tests/engine/cases.rs") + &repository("daemon-snap/tests/engine/refusals.rs");
    let mut names = BTreeSet::new();
    for row in rows() {
        assert!(names.insert(row.name.clone()), "{} stands there twice", row.name);
        assert!(
            ["carried", "refused", "harmless", "lost"].contains(&row.fate.as_str()),
            "{} is {}",
            row.name,
            row.fate
        );
        if let Some(test) = row.test {
            assert!(tests.contains(&format!("    {test}: ")), "{}: there is no test {test}", row.name);
        }
    }
}

#[test]
fn tcp_options_that_are_asked_for_are_those_of_the_table() {
    let listed: BTreeSet<i32> = rows()
        .iter()
        .filter(|row| row.name.starts_with("TCP_") && row.fate == "carried" && row.how == "getsockopt(2)")
        .map(|row| row.number.parse().expect("a number"))
        .collect();
    assert_eq!(listed, known_names(libc::IPPROTO_TCP).iter().copied().collect());
}

/// Names and numbers of a header of the kernel (linux-libc-dev, which compiling the tests needs
/// anyway).
fn defined(header: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let text = read_to_string(header).unwrap_or_else(|e| panic!("{header}: {e}"));
    let words = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let define = (words.next()? == "#define").then(|| words.next())??;
        words.next()?;
        Some(define.to_owned())
    });
    words.filter(|name| wanted(name)).collect()
}

#[test]
fn what_the_headers_define_stands_in_the_table() {
    let names: BTreeSet<String> = rows().into_iter().map(|row| row.name).collect();
    // Parts of other calls, and architectures that we do not run on.
    let aside = ["PR_SET_MM_", "PR_SET_VMA", "PR_SET_SHADOW_STACK", "PR_SET_FP_MODE_"];
    let prctl = defined("/usr/include/linux/prctl.h", |name| {
        name.starts_with("PR_SET_") && !aside.iter().any(|part| name.starts_with(part))
    });
    let values = [
        "TCP_MSS_",
        // The message that comes with TCP_INQ.
        "TCP_CM_INQ",
        "TCP_REPAIR_O",
        "TCP_RECEIVE_",
        "TCP_MD5SIG_MAX",
        "TCP_MD5SIG_FLAG",
        "TCP_AO_",
        "TCP_FLAG_",
    ];
    let tcp = defined("/usr/include/linux/tcp.h", |name| {
        name.starts_with("TCP_") && !values.iter().any(|part| name.starts_with(part))
    });
    assert!(prctl.len() > 10 && tcp.len() > 20, "the headers are not understood");
    let missing: Vec<_> = prctl.into_iter().chain(tcp).filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "not in docs/kinds.md: {missing:?}");
}
