//! That no host of a package mirror is written in the work tree. Every address in it is known by
//! what it is.

use std::fs;
use std::path::Path;

use crate::fastboot::workspace;

/// How an address may begin, behind `://`: names and documents, and servers that the tests
/// themselves start.
const KNOWN: &[&str] = &[
    "www.apache.org/licenses/",
    // Names of formats.
    concat!("www.debian", ".org/doc/packaging-manuals/copyright-format/"),
    "www.freedesktop.org/standards/dbus/",
    "etherx.jabber.org/streams",
    // Cargo.lock: what Cargo calls its own registry.
    "github.com/rust-lang/crates.io-index",
    // Servers of the machine under test.
    // The name of a language: nobody goes there.
    "www.w3.org/",
    "localhost",
    "127.0.0.1",
    "p.p/",
];
/// An address of this domain leads nowhere, by its definition (RFC 2606); tests make up mirrors
/// with it.
const NOWHERE: &str = ".invalid";

/// What is wrong with a text, line by line.
fn mirrors(text: &str) -> Vec<&str> {
    text.lines().filter(|line| names_an_unknown_host(line) || names_debian(line)).collect()
}

fn names_an_unknown_host(line: &str) -> bool {
    let schemes = ["http://", "https://", "ftp://"];
    let addresses = schemes
        .iter()
        .flat_map(|scheme| line.match_indices(scheme).map(|(at, found)| &line[at + found.len()..]));
    addresses.into_iter().any(|address| {
        let host =
            address.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-.".contains(letter)).next();
        let host = host.unwrap_or_default().trim_end_matches('.');
        // A host that is no name is a placeholder or the end of a quoted scheme.
        let is_host = host.starts_with(|letter: char| letter.is_ascii_alphanumeric());
        is_host && !host.ends_with(NOWHERE) && !KNOWN.iter().any(|known| address.starts_with(known))
    })
}

/// Without a scheme too.
fn names_debian(line: &str) -> bool {
    let domain = concat!("debian", ".org");
    let rest = KNOWN.iter().fold(line.to_owned(), |line, known| line.replace(known, ""));
    rest.contains(domain)
        || rest.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-.".contains(letter)).any(|word| {
            word.strip_prefix(concat!("deb", "."))
                .is_some_and(|domain| domain.trim_end_matches('.').contains('.'))
        })
}

fn search(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            if name != "target" && name != ".git" {
                search(&path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.extend(mirrors(&text).into_iter().map(|line| format!("{}: {line}", path.display())));
        }
    }
}

#[test]
fn no_host_of_a_package_mirror_is_in_the_work_tree() {
    let mut found = Vec::new();
    search(&workspace(), &mut found);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn hosts_of_mirrors_are_told_from_other_addresses() {
    let host = concat!("deb.debian", ".org");
    let lines = [
        format!("deb http://{host}/debian sid main"),
        format!("ask {host}."),
        format!("URIs: https://{}/a", "mirror.example"),
        concat!("deb", ".mirror.example").to_owned(),
    ];
    for line in &lines {
        assert_eq!(mirrors(line), [line.as_str()]);
    }
    let harmless =
        "http://127.0.0.1:80/ http://mirror.invalid/debian x.deb. a.deb, \"http://\" https://{host}/";
    assert!(mirrors(harmless).is_empty());
}
