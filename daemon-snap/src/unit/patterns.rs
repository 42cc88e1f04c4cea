//! Patterns of paths, as in glob(7).

use glob::{MatchOptions, Pattern};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Paths that match, sorted, and the directories whose listing decided which ones do, there or not.
/// Text without a pattern is one path, whether it is there or not.
///
/// # Errors
/// A pattern that is none, and a directory that cannot be listed.
pub(super) fn expand(pattern: &str) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    if !is_pattern(pattern) {
        return Ok((vec![PathBuf::from(pattern)], Vec::new()));
    }
    let mut listed = Vec::new();
    let mut above = vec![PathBuf::from("/")];
    for part in Path::new(pattern).components() {
        let Component::Normal(part) = part else { continue };
        if !is_pattern(&part.to_string_lossy()) {
            above.iter_mut().for_each(|dir| dir.push(part));
            continue;
        }
        let mut next = Vec::new();
        for dir in &above {
            let pattern = Path::new(&Pattern::escape(&dir.to_string_lossy())).join(part);
            next.extend(matching(&pattern.to_string_lossy())?);
        }
        // Also those that are not there: they may come, with a name that matches.
        listed.append(&mut above);
        above = next;
    }
    Ok((matching(pattern)?, listed))
}

/// Whether `path` is one of those that the pattern means, or lies below one.
pub(super) fn covers(pattern: &str, path: &Path) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    let pattern = Pattern::new(pattern.trim_end_matches('/'));
    pattern.is_ok_and(|pattern| path.ancestors().any(|above| pattern.matches_path_with(above, options)))
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn matching(pattern: &str) -> io::Result<Vec<PathBuf>> {
    let found = glob::glob(pattern).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    found.collect::<Result<Vec<PathBuf>, _>>().map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_names_the_directories_that_were_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yaml", "c.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let (paths, listed) = expand(&format!("{}/*.yaml", dir.path().display())).unwrap();
        assert_eq!(paths, [dir.path().join("a.yaml"), dir.path().join("b.yaml")]);
        assert_eq!(listed, [dir.path()]);
        assert_eq!(expand("/no/such/file").unwrap(), (vec!["/no/such/file".into()], vec![]));
        assert_eq!(expand("/no/such/*").unwrap(), (vec![], vec!["/no/such".into()]));
        let deep = format!("{}/*/conf.d/*", dir.path().display());
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let (paths, listed) = expand(&deep).unwrap();
        assert!(paths.is_empty() && listed.contains(&dir.path().join("d/conf.d")), "{listed:?}");
    }

    #[test]
    fn a_pattern_covers_what_lies_below_it() {
        assert!(covers("/var/cache/a", Path::new("/var/cache/a/b/c")));
        assert!(covers("/var/cache/a/", Path::new("/var/cache/a")));
        assert!(covers("/var/*/a", Path::new("/var/lib/a")));
        assert!(!covers("/var/cache/a", Path::new("/var/cache/ab")));
        assert!(!covers("/var/cache/a/b", Path::new("/var/cache/a")));
    }
}
