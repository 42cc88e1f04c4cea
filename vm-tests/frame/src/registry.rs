//! All tests, by where they come from.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};

use crate::select::{exactly, near, with_word};
use crate::test::{Test, When};

/// Where tests of some families come from.
pub struct Source {
    /// The families, which are the first parts of the names.
    pub families: Vec<String>,
    /// The tests, of which none may be run by asking for them.
    pub load: Box<dyn Fn() -> Result<Vec<Test>>>,
}

impl Source {
    /// One family.
    pub fn new(family: &str, load: impl Fn() -> Result<Vec<Test>> + 'static) -> Source {
        Source { families: vec![family.to_owned()], load: Box::new(load) }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("families", &self.families).finish_non_exhaustive()
    }
}

/// All sources, in the order in which their tests run.
#[derive(Debug)]
pub struct Registry {
    sources: Vec<Source>,
}

impl Registry {
    /// Of these sources.
    pub fn new(sources: Vec<Source>) -> Registry {
        Registry { sources }
    }

    /// All tests.
    ///
    /// # Errors
    /// A source does not know its tests; two have the same name.
    pub fn all(&self) -> Result<Vec<Test>> {
        self.load(|_| true)
    }

    /// Those that run where none is named; with what takes long where that is asked for.
    ///
    /// # Errors
    /// As [`all`](Registry::all).
    pub fn usual(&self, full: bool) -> Result<Vec<Test>> {
        Ok(self.all()?.into_iter().filter(|test| is_usual(test, full)).collect())
    }

    /// The tests of these names, and those below them. In the order of the registry, each once. Of
    /// a whole family only those that run where none is named, if there are such.
    ///
    /// # Errors
    /// There is no such test; the message offers names that may have been meant.
    pub fn named(&self, words: &[String], full: bool) -> Result<Vec<Test>> {
        self.chosen(words, full, exactly)
    }

    /// The test of this name, those below it, or else all that have the word in their names.
    ///
    /// # Errors
    /// As [`named`](Registry::named).
    pub fn with_word(&self, word: &str, full: bool) -> Result<Vec<Test>> {
        self.chosen(&[word.to_owned()], full, with_word)
    }

    fn chosen(&self, words: &[String], full: bool, choose: Choose) -> Result<Vec<Test>> {
        // Asking every source may take a build of everything.
        let families: Vec<&str> = words.iter().filter_map(|word| word.split('/').next()).collect();
        let knows = |source: &Source, family: &&str| source.families.iter().any(|known| known == family);
        let is_known = |family: &&str| self.sources.iter().any(|source| knows(source, family));
        let unknown =
            words.iter().zip(&families).find(|(word, family)| word.contains('/') && !is_known(family));
        if let Some((word, family)) = unknown {
            let known: Vec<&str> =
                self.sources.iter().flat_map(|source| &source.families).map(String::as_str).collect();
            bail!("there is no family of tests as in {word:?}{}", offer(&near(&known, family)));
        }
        let tests = match families.iter().all(is_known) {
            true => self.load(|source| families.iter().any(|family| knows(source, family)))?,
            false => self.all()?,
        };
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        let mut wanted = BTreeSet::new();
        for word in words {
            let mut found = choose(&names, word);
            let usual: Vec<usize> = found.iter().copied().filter(|&at| is_usual(&tests[at], full)).collect();
            if families.contains(&word.trim_end_matches('/')) && !usual.is_empty() {
                found = usual;
            }
            if found.is_empty() {
                bail!("there is no test {word:?}{}", offer(&near(&names, word)));
            }
            wanted.extend(found);
        }
        Ok(tests
            .into_iter()
            .enumerate()
            .filter(|(at, _)| wanted.contains(at))
            .map(|(_, test)| test)
            .collect())
    }

    fn load(&self, is_wanted: impl Fn(&Source) -> bool) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for source in self.sources.iter().filter(|source| is_wanted(source)) {
            let of = || format!("asking for the tests of {}", source.families.join(", "));
            let more = (source.load)().with_context(of)?;
            let stray = more.iter().find(|test| !source.families.iter().any(|known| known == test.family()));
            ensure!(stray.is_none(), "{:?} belongs to none of {:?}", stray.map(|test| &test.name), source);
            tests.extend(more);
        }
        let mut names = BTreeSet::new();
        let twice = tests.iter().find(|test| !names.insert(test.name.as_str()));
        ensure!(twice.is_none(), "two tests have the name {:?}", twice.map(|test| &test.name));
        Ok(tests)
    }
}

/// Which of the names somebody means.
type Choose = fn(&[&str], &str) -> Vec<usize>;

fn is_usual(test: &Test, full: bool) -> bool {
    match test.when {
        When::Always => true,
        When::Full => full,
        When::Named => false,
    }
}

fn offer(near: &[&str]) -> String {
    match near {
        [] => "; `list` shows all".to_owned(),
        names => format!("; is it one of these?\n  {}", names.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let source = |family: &'static str, names: &'static [&'static str]| {
            Source::new(family, move || {
                Ok(names.iter().map(|name| Test::alone(*name, &[], |_| Ok(()))).collect())
            })
        };
        Registry::new(vec![
            source("a", &["a/one", "a/two"]),
            source("b", &["b/one"]),
            Source::new("costly", || bail!("it was asked for")),
        ])
    }

    fn names(tests: Result<Vec<Test>>) -> Vec<String> {
        tests.unwrap().into_iter().map(|test| test.name).collect()
    }

    #[test]
    fn only_sources_that_may_have_it_are_asked() {
        let words = ["b/one".to_owned(), "a".to_owned(), "a/two".to_owned()];
        assert_eq!(names(registry().named(&words, false)), ["a/one", "a/two", "b/one"]);
        assert_eq!(names(registry().with_word("a/tw", false)), ["a/two"]);
        registry().all().unwrap_err();
    }

    #[test]
    fn a_name_that_does_not_exist_is_an_error_with_an_offer() {
        let error = registry().named(&["a/too".to_owned()], false).unwrap_err().to_string();
        assert!(error.contains("\"a/too\"") && error.contains("\n  a/two"), "{error}");
        registry().named(&["a/o".to_owned()], false).unwrap_err();
        let error = registry().named(&["cosly/one".to_owned()], false).unwrap_err().to_string();
        assert!(error.contains("\"cosly/one\"") && error.contains("\n  costly"), "{error}");
    }

    #[test]
    fn no_two_tests_have_one_name() {
        let load = || Ok(vec![Test::alone("a/x", &[], |_| Ok(())), Test::alone("a/x", &[], |_| Ok(()))]);
        Registry::new(vec![Source::new("a", load)]).all().unwrap_err();
        let load = || Ok(vec![Test::alone("b/x", &[], |_| Ok(()))]);
        Registry::new(vec![Source::new("a", load)]).all().unwrap_err();
    }
}
