//! The journal's catalogue (`journalctl -x`) says of each reason what docs/reasons.md says.
//!
//! `FASTBOOT_WRITE=1 cargo test -p systemd-units --test catalog` writes it anew.

use fastboot_runtime::journal::{BOOT, RESTORED, message_id};
use image_store::ReasonCode;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const HEAD: &str = "\
# SPDX-License-Identifier: MIT OR Apache-2.0
# Made of docs/reasons.md by systemd-units/tests/catalog.rs.
";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The entry of a code in the page, as one paragraph.
fn explained(page: &str, code: &str) -> String {
    let head = format!("- `{code}`");
    let mut lines = page.lines().skip_while(|line| !line.starts_with(&head));
    let first = lines.next().unwrap_or_else(|| panic!("{code} is not in the page"));
    let (_, first) = first.split_once(": ").unwrap();
    let rest = lines.take_while(|line| line.starts_with("  "));
    let words: Vec<&str> = std::iter::once(first).chain(rest).flat_map(str::split_whitespace).collect();
    words.join(" ").replace('`', "")
}

fn folded(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + 1 + word.len() > 78 {
            lines.push(word.to_owned());
        } else {
            let blank = if line.is_empty() { "" } else { " " };
            write!(line, "{blank}{word}").unwrap();
        }
    }
    lines.join("\n")
}

fn entry(id: &str, subject: &str, text: &str) -> String {
    format!(
        "\n-- {id}\nSubject: {subject}\nDefined-By: fastboot\nDocumentation: man:fastboot(7)\n\n{}\n",
        folded(text)
    )
}

fn catalogue(page: &str) -> String {
    let mut text = HEAD.to_owned();
    text += &entry(
        BOOT,
        "What fastboot did in this boot",
        "How many services were restored from their images, by how much that made the boot shorter, \
         and what started cold. fastboot status has the services one by one, fastboot history the \
         boots before.",
    );
    text += &entry(
        RESTORED,
        "@OBJECT_SYSTEMD_UNIT@ was restored from its image",
        "The service goes on where it was when its image was taken. It starts cold when it is \
         restarted.",
    );
    for &code in ReasonCode::ALL {
        let why = explained(page, code.as_str());
        let all = format!("{why} The service started as if there were no image.");
        text += &entry(&message_id(code), &format!("@OBJECT_SYSTEMD_UNIT@ started cold: {code}"), &all);
    }
    text
}

#[test]
fn the_catalogue_says_what_the_page_of_reasons_says() {
    let root = repository();
    let path = root.join("systemd-units/catalog/fastboot.catalog");
    let wanted = catalogue(&fs::read_to_string(root.join("docs/reasons.md")).unwrap());
    if std::env::var_os("FASTBOOT_WRITE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let is = fs::read_to_string(&path).unwrap_or_default();
    assert!(is == wanted, "{} differs from docs/reasons.md: write it anew", path.display());
    assert!(is.contains("started cold: file-changed") && is.lines().all(|line| line.len() <= 100));
}
