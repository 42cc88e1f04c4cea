//! Finding tests by their names.

/// Names that are offered for one that does not exist.
const OFFERED: usize = 5;
/// Less alike than this is not offered; 1 is the same.
const LEAST_LIKENESS: f64 = 0.6;

/// Blanks, dashes and underlines are the same, and so are large and small letters.
fn plain(name: &str) -> String {
    name.trim_end_matches('/').to_lowercase().replace([' ', '-'], "_")
}

/// Which of `names` is `word`, or lies below it as below a directory.
pub fn exactly(names: &[&str], word: &str) -> Vec<usize> {
    let word = plain(word);
    let below = format!("{word}/");
    let is = |name: &str| name == word || name.starts_with(&below);
    (0..names.len()).filter(|&at| is(&plain(names[at]))).collect()
}

/// The same, or where there is none: which of `names` has `word` in it.
pub fn with_word(names: &[&str], word: &str) -> Vec<usize> {
    let found = exactly(names, word);
    if !found.is_empty() {
        return found;
    }
    let word = plain(word);
    (0..names.len()).filter(|&at| plain(names[at]).contains(&word)).collect()
}

/// Those of `names` that somebody may have meant who said `word`, the likeliest first.
pub fn near<'a>(names: &[&'a str], word: &str) -> Vec<&'a str> {
    let word = plain(word);
    let likeness = |name: &str| {
        let name = plain(name);
        let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        let alike = strsim::normalized_damerau_levenshtein;
        // Also for who does not say the family, or says another one.
        let parts = alike(&last(&name), &last(&word));
        let has = if name.contains(&word) || name.contains(&last(&word)) { 0.9 } else { 0.0 };
        alike(&name, &word).max(parts * 0.95).max(has)
    };
    let mut found: Vec<(f64, &str)> = names.iter().map(|name| (likeness(name), *name)).collect();
    found.retain(|(likeness, _)| *likeness >= LEAST_LIKENESS);
    found.sort_by(|one, other| other.0.total_cmp(&one.0));
    found.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "units/keyring",
        "units/keyring-shared",
        "engine/restore_keeps_eventfd_counter",
        "daemons/web/nginx",
        "daemons/web/lighttpd",
    ];

    #[test]
    fn a_name_is_itself_and_a_family_is_all_of_it() {
        assert_eq!(exactly(&NAMES, "units/keyring"), [0]);
        assert_eq!(exactly(&NAMES, "units"), [0, 1]);
        assert_eq!(exactly(&NAMES, "units/"), [0, 1]);
        assert_eq!(exactly(&NAMES, "daemons/web"), [3, 4]);
        assert_eq!(exactly(&NAMES, "Units/keyring_shared"), [1]);
        assert_eq!(exactly(&NAMES, "engine/restore keeps eventfd counter"), [2]);
        assert!(exactly(&NAMES, "keyring").is_empty() && exactly(&NAMES, "daemons/we").is_empty());
    }

    #[test]
    fn a_word_finds_all_that_have_it_unless_it_is_a_name() {
        assert_eq!(with_word(&NAMES, "keyring"), [0, 1]);
        assert_eq!(with_word(&NAMES, "units/keyring"), [0]);
        assert_eq!(with_word(&NAMES, "eventfd counter"), [2]);
        assert!(with_word(&NAMES, "no such test").is_empty());
    }

    #[test]
    fn who_errs_is_offered_what_may_have_been_meant() {
        assert_eq!(near(&NAMES, "units/keyrnig")[0], "units/keyring");
        assert_eq!(near(&NAMES, "restore_keeps_evenfd_counter"), ["engine/restore_keeps_eventfd_counter"]);
        assert_eq!(near(&NAMES, "daemon/nginx")[0], "daemons/web/nginx");
        assert!(near(&NAMES, "something else altogether").is_empty());
    }
}
