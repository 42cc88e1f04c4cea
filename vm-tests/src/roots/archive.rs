//! Where packages come from: Debian's archive as this machine's own package sources name it, for
//! the release that runs here and, with the name of the release replaced, for others.
//!
//! No host of a mirror is written in this repository. Whoever runs behind a mirror of their own has
//! it in apt's sources already, with the key that signs it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::host;
use crate::needs;

/// What may follow the name of a release in the name of a suite that belongs to it, without
/// backports.
const POCKETS: [&str; 3] = ["", "-updates", "-security"];
/// The suite that has no pockets, and whose lists are valid for a week only, which a mirror or a
/// clock may miss.
const SID: &str = "sid";
/// One line of `apt-get indextargets` for each list of binary packages.
const FORMAT: &str = "$(CODENAME)|$(RELEASE)|$(ORIGIN)|$(COMPONENT)|$(REPO_URI)|$(SOURCESENTRY)";

/// One place of Debian's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// What follows the name of the release.
    pocket: String,
    uri: String,
    /// Name of a keyring or the text of a key, as the machine's source has it. None where apt's own
    /// keys do.
    signed_by: Option<String>,
}

/// Sources of a suite, in the format of apt's `.sources` files.
///
/// # Errors
/// apt does not run, or knows no source of the release that runs here.
pub(super) fn sources_of(suite: &str) -> Result<String> {
    Ok(written(&of_this_machine()?, suite))
}

/// The same for the backports of the release that runs here.
///
/// # Errors
/// As [`sources_of`].
pub fn backports() -> Result<String> {
    let release = host::codename().context("/etc/os-release has no VERSION_CODENAME")?;
    let mut places = of_this_machine()?;
    places.retain(|place| place.pocket.is_empty());
    Ok(written(&places, &format!("{release}-backports")))
}

fn written(places: &[Place], suite: &str) -> String {
    let mut text = String::new();
    for place in places.iter().filter(|place| suite != SID || place.pocket.is_empty()) {
        let (uri, pocket) = (&place.uri, &place.pocket);
        let _ = write!(text, "Types: deb\nURIs: {uri}\nSuites: {suite}{pocket}\nComponents: main\n");
        if let Some(signed_by) = &place.signed_by {
            let _ = writeln!(text, "Signed-By: {signed_by}");
        }
        if suite == SID {
            text.push_str("Check-Valid-Until: no\n");
        }
        text.push('\n');
    }
    text
}

/// At least the place without a pocket.
fn of_this_machine() -> Result<Vec<Place>> {
    let release = host::codename().context("/etc/os-release has no VERSION_CODENAME")?;
    let mut listed = index_targets()?;
    if parse_targets(&listed, &release).is_empty() {
        // apt knows of whom a list is only when it has the list, and images of machines are often
        // shipped without.
        needs::update_lists()?;
        listed = index_targets()?;
    }
    let mut places = Vec::new();
    for (mut place, entry) in parse_targets(&listed, &release) {
        place.signed_by = signed_by(&entry)?;
        places.push(place);
    }
    let has_main = places.iter().any(|place| place.pocket.is_empty());
    ensure!(
        has_main,
        "apt's sources on this machine name no archive of Debian {release} with the component main"
    );
    Ok(places)
}

fn index_targets() -> Result<String> {
    let output = needs::command("apt-get")?
        .args(["indextargets", "--format", FORMAT, "Created-By: Packages"])
        .output()
        .context("running apt-get indextargets")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "apt-get indextargets: {}", said.trim());
    String::from_utf8(output.stdout).context("apt-get indextargets printed no text")
}

/// The places of `release`, each once, with where apt has it from.
fn parse_targets(listed: &str, release: &str) -> Vec<(Place, String)> {
    let mut found: Vec<(Place, String)> = Vec::new();
    for line in listed.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let &[codename, suite, "Debian", "main", uri, entry] = fields.as_slice() else { continue };
        // The machine may follow `stable`; the lists say which release that is. Security's code
        // name has had no pocket in some releases, its suite always has.
        let pocket = [codename, suite].into_iter().rev().find_map(|name| name.strip_prefix(release));
        let Some(pocket) = pocket.filter(|pocket| POCKETS.contains(pocket)) else { continue };
        let place = Place { pocket: pocket.to_owned(), uri: uri.to_owned(), signed_by: None };
        if !found.iter().any(|(known, _)| known.pocket == place.pocket) {
            found.push((place, entry.to_owned()));
        }
    }
    found
}

/// The key of a source, of which apt says where it stands: `FILE:NUMBER`, a line or a stanza.
fn signed_by(entry: &str) -> Result<Option<String>> {
    let (file, number) =
        entry.rsplit_once(':').with_context(|| format!("apt has a source from {entry:?}"))?;
    let number: usize = number.parse().with_context(|| format!("apt has a source from {entry:?}"))?;
    let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let is_deb822 = Path::new(file).extension().is_some_and(|extension| extension == "sources");
    Ok(if is_deb822 { of_stanza(&text, number) } else { of_line(&text, number) })
}

/// `deb [signed-by=KEYRING] …`.
fn of_line(text: &str, number: usize) -> Option<String> {
    let line = text.lines().nth(number.checked_sub(1)?)?;
    let (_, options) = line.split_once('[')?;
    let (options, _) = options.split_once(']')?;
    let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="))?;
    Some(key.trim_matches('"').replace(',', " "))
}

/// `Signed-By: KEYRING`, or a key itself, whose lines are indented.
fn of_stanza(text: &str, number: usize) -> Option<String> {
    let is_comment = |line: &&str| !line.starts_with('#');
    let lines: Vec<&str> = text.lines().filter(is_comment).collect();
    let stanzas = lines.split(|line| line.trim().is_empty()).filter(|stanza| !stanza.is_empty());
    let stanza = stanzas.into_iter().nth(number.checked_sub(1)?)?;
    let is_field = |line: &&str| line.to_ascii_lowercase().starts_with("signed-by:");
    let first = stanza.iter().position(is_field)?;
    let more = stanza[first + 1..].iter().take_while(|line| line.starts_with([' ', '\t']));
    let mut value = stanza[first].split_once(':')?.1.trim().to_owned();
    for line in more {
        value.push('\n');
        value.push_str(line);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
trixie|trixie|Debian|main|http://mirror.invalid/debian/|/a.sources:1
trixie|trixie|Debian|contrib|http://mirror.invalid/debian/|/a.sources:1
trixie-updates|trixie-updates|Debian|main|http://mirror.invalid/debian/|/a.sources:1
trixie-security|stable-security|Debian|main|http://mirror.invalid/security/|/a.sources:2
trixie-backports|trixie-backports|Debian|main|http://mirror.invalid/debian/|/a.sources:3
trixie|trixie|Other|main|http://other.invalid/debian/|/b.list:1
trixie|trixie|Debian|main|http://second.invalid/debian/|/b.list:2
nodistro|nodistro|. nodistro|main|http://third.invalid/|/c.list:1
";

    fn places() -> Vec<Place> {
        parse_targets(TARGETS, "trixie").into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn debians_own_archive_is_found_among_the_sources_of_a_machine() {
        let found: Vec<_> = places().into_iter().map(|place| (place.pocket, place.uri)).collect();
        let expected = [
            ("", "http://mirror.invalid/debian/"),
            ("-updates", "http://mirror.invalid/debian/"),
            ("-security", "http://mirror.invalid/security/"),
        ];
        assert_eq!(found, expected.map(|(pocket, uri)| (pocket.to_owned(), uri.to_owned())));
        assert!(parse_targets(TARGETS, "bookworm").is_empty());
    }

    #[test]
    fn another_suite_is_where_the_own_one_is() {
        let text = written(&places(), "bookworm");
        assert!(
            text.contains("URIs: http://mirror.invalid/security/\nSuites: bookworm-security\n"),
            "{text}"
        );
        assert_eq!(text.matches("Types: deb\n").count(), 3);
        assert!(!text.contains("Check-Valid-Until"));
        let sid = "Types: deb\nURIs: http://mirror.invalid/debian/\nSuites: sid\nComponents: main\n\
                   Check-Valid-Until: no\n\n";
        assert_eq!(written(&places(), "sid"), sid);
    }

    #[test]
    fn the_key_of_a_source_is_read_in_both_formats() {
        let lines = "# one\ndeb [arch=amd64 signed-by=/k/a.gpg,/k/b.gpg] http://mirror.invalid trixie main\ndeb x y z\n";
        assert_eq!(of_line(lines, 2).as_deref(), Some("/k/a.gpg /k/b.gpg"));
        assert_eq!(of_line(lines, 3), None);
        let stanzas = "# first\nTypes: deb\n# within\nSigned-by: /k/a.gpg\n\n\nTypes: deb\nSigned-By:\n -----BEGIN\n .\n x\nURIs: y\n";
        assert_eq!(of_stanza(stanzas, 1).as_deref(), Some("/k/a.gpg"));
        assert_eq!(of_stanza(stanzas, 2).as_deref(), Some("\n -----BEGIN\n .\n x"));
        assert_eq!(of_stanza(stanzas, 3), None);
        assert_eq!(of_stanza("Types: deb\n", 1), None);
    }
}
