//! Whether all that the sources execute stands in the table. Reads the whole work tree.

use std::fs;
use std::path::Path;

use super::{Purpose, TABLE};
use crate::fastboot::workspace;

/// What may stand in `Command::new` outside this crate beside a literal: programs of our own.
const OWN: &[(&str, &str)] = &[
    ("env!(\"CARGO_BIN_EXE_fastboot\")", "built by the same cargo test"),
    ("FASTBOOT", "a constant for the same"),
    ("SHIM", "a constant for fastboot-exec"),
    ("program", "a compiled subject, or a test's own program"),
    ("std::env::current_exe().unwrap()", "the test itself"),
    ("executable(\"attacker\", Toolchain::Static)", "a compiled program of the engine's tests"),
];

/// Path below the work tree and text of each file with this extension, without what was built.
fn files(extension: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut impl FnMut(&Path)) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name == "target" || name.to_string_lossy().starts_with('.') {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), found),
                false => found(&entry.path()),
            }
        }
    }
    let root = workspace();
    let mut files = Vec::new();
    walk(&root, &mut |path| {
        if path.extension().is_some_and(|found| found == extension) {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(path).unwrap()));
        }
    });
    assert!(files.len() > 5, "only {} .{extension} files below {}", files.len(), root.display());
    files
}

/// What stands between the parentheses behind each `call(`.
fn arguments<'a>(text: &'a str, call: &str) -> Vec<&'a str> {
    let opening = format!("{call}(");
    text.match_indices(&opening).map(|(at, _)| up_to_closing(&text[at + opening.len()..])).collect()
}

fn up_to_closing(text: &str) -> &str {
    let mut depth = 0;
    let mut quoted = false;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' | '[' if !quoted => depth += 1,
            ')' | ']' if !quoted && depth == 0 => return text[..at].trim(),
            ')' | ']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    text
}

fn literal(expression: &str) -> Option<&str> {
    let inside = expression.strip_prefix('"')?.strip_suffix('"')?;
    (!inside.contains('"')).then_some(inside)
}

fn is_asked_for(program: &str) -> bool {
    let name = program.strip_prefix("/usr").unwrap_or(program);
    let name = name.strip_prefix("/bin/").or(name.strip_prefix("/sbin/")).unwrap_or(program);
    TABLE.iter().any(|need| need.name == name)
}

/// What is wrong with one Rust file.
fn complaints(name: &str, text: &str) -> Vec<String> {
    if name.starts_with("vm-tests/src/needs/") {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for expression in arguments(text, "Command::new") {
        if name.starts_with("vm-tests/") {
            wrong.push(format!("{name}: Command::new({expression}): use needs::command"));
            continue;
        }
        let known = match literal(expression) {
            Some(program) => is_asked_for(program),
            None => OWN.iter().any(|(own, _)| *own == expression),
        };
        if !known {
            wrong.push(format!("{name}: {expression} does not stand in vm-tests/src/needs/table.rs"));
        }
    }
    for call in ["needs::command", "needs::path"] {
        for expression in arguments(text, call) {
            if !literal(expression).is_some_and(is_asked_for) {
                wrong.push(format!("{name}: {call}({expression}) is no literal of the table"));
            }
        }
    }
    for expression in arguments(text, "needs::shell") {
        let list = expression.rsplit_once("&[").map(|(_, list)| list.trim_end_matches([',', ']', ' ', '\n']));
        let words = list.unwrap_or("?").split(',').map(str::trim).filter(|word| !word.is_empty());
        for word in words.filter(|word| !literal(word).is_some_and(is_asked_for)) {
            wrong.push(format!("{name}: {word} of a script is no literal of the table"));
        }
    }
    wrong
}

#[test]
fn every_program_that_the_sources_execute_is_asked_for() {
    let wrong: Vec<String> = files("rs").iter().flat_map(|(name, text)| complaints(name, text)).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_program_that_subjects_execute_is_asked_for() {
    for (name, text) in files("c").iter().filter(|(name, _)| name.starts_with("daemon-snap/tests/")) {
        for word in
            text.split('"').filter(|word| ["/bin/", "/usr/bin/"].iter().any(|dir| word.starts_with(dir)))
        {
            assert!(is_asked_for(word), "{name} executes {word}");
        }
    }
}

#[test]
fn every_build_dependency_of_the_package_is_asked_for() {
    let control = fs::read_to_string(workspace().join("systemd-units/debian/control")).unwrap();
    let list = control.lines().find_map(|line| line.strip_prefix("Build-Depends: ")).unwrap();
    for word in list.split(',').filter_map(|one| one.split_whitespace().next()) {
        let package = word.trim_end_matches("-compat");
        let asked = |need: &super::Need| need.package == package && need.purposes.contains(&Purpose::Package);
        assert!(package == "cargo" || TABLE.iter().any(asked), "{package}");
    }
}

#[test]
fn what_is_not_asked_for_is_found() {
    let found = |name: &str, text: &str| complaints(name, text).len();
    assert_eq!(found("initd/tests/shim.rs", "Command::new(\"/bin/bash\"); Command::new(SHIM)"), 0);
    assert_eq!(found("initd/tests/shim.rs", "Command::new(\"no-such-program\")"), 1);
    assert_eq!(found("initd/tests/shim.rs", "Command::new(format!(\"{a}\"))"), 1);
    assert_eq!(found("vm-tests/src/a.rs", "Command::new(\"sh\")"), 1);
    assert_eq!(found("vm-tests/src/a.rs", "needs::command(\"sh\")?; needs::path(NAME)?"), 1);
    assert_eq!(found("vm-tests/src/a.rs", "needs::shell(\"f(')\", &[\"find\", \"awk\"])?"), 0);
    assert_eq!(found("vm-tests/src/a.rs", "needs::shell(SCRIPT, &[\"find\", \"no-such-program\"])?"), 1);
}
