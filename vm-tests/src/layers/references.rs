//! Which files of a crate use which, and which other crates each uses.

use std::collections::{BTreeSet, HashSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use super::modules::{Crate, Target, Use, uses};

/// What one file uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// Files of the same crate, by number.
    pub(super) files: BTreeSet<usize>,
    /// Other crates, by the names that sources have for them.
    pub(super) crates: BTreeSet<String>,
}

/// What each file of the crate uses. A `pub use` of something that the file itself does not mention
/// is no use: it gives a name, and whoever uses the name uses the file that defines the thing.
pub(super) fn of(read: &Crate, crates: &HashSet<String>) -> Vec<Uses> {
    let mut all = vec![Uses::default(); read.files.len()];
    for (module, items) in &read.bodies {
        let file = read.file_of(module);
        let mut seen = Seen::default();
        items.iter().for_each(|item| seen.visit_item(item));
        let uses = seen.uses.into_iter().filter(|one| {
            let mentioned = |name: &String| seen.mentioned.contains(name);
            !one.public || one.name.as_ref().is_some_and(mentioned)
        });
        let paths = seen.paths.iter().cloned().chain(uses.map(|one| one.path));
        for path in paths.collect::<BTreeSet<_>>() {
            match read.resolve(module, &path, crates) {
                Some(Target::File(other)) => drop(all[file].files.insert(other)),
                Some(Target::Module(other)) => drop(all[file].files.insert(read.file_of(&other))),
                Some(Target::Crate(name)) => drop(all[file].crates.insert(name)),
                None => {}
            }
        }
        all[file].files.remove(&file);
    }
    all
}

/// What stands in a module.
#[derive(Default)]
struct Seen {
    /// Paths of two names and more.
    paths: BTreeSet<Vec<String>>,
    /// First names of all paths.
    mentioned: HashSet<String>,
    uses: Vec<Use>,
}

impl Seen {
    fn note(&mut self, path: Vec<String>) {
        self.mentioned.extend(path.first().cloned());
        if path.len() > 1 {
            self.paths.insert(path);
        }
    }

    /// A macro's arguments are not parsed: any sequence of names with `::` between may be a path.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.note(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    self.note_tokens(group.stream());
                    self.note(std::mem::take(&mut path));
                    colons = 0;
                }
                _ => {
                    self.note(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.note(path);
    }
}

impl<'ast> Visit<'ast> for Seen {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.note(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.uses.extend(uses(item));
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.note_tokens(call.tokens.clone());
    }

    // `pub(in crate::x)` says who may use, not what is used.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Uses by file name, of a crate made of these files.
    fn uses_of(files: &[(&str, &str)]) -> Vec<(String, Vec<String>, Vec<String>)> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let read = Crate::read(&dir.path().join("lib.rs")).unwrap();
        let crates = HashSet::from(["other_crate".to_owned()]);
        let name = |path: &Path| path.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned();
        let row = |(file, uses): (&std::path::PathBuf, Uses)| {
            let files = uses.files.iter().map(|&file| name(&read.files[file])).collect();
            (name(file), files, uses.crates.into_iter().collect())
        };
        read.files.iter().zip(of(&read, &crates)).map(row).collect()
    }

    fn used(files: &[(&str, &str)], by: &str) -> Vec<String> {
        let all = uses_of(files);
        let (_, files, crates) = all.into_iter().find(|(name, ..)| name == by).unwrap();
        [files, crates].concat()
    }

    const LIB: (&str, &str) = ("lib.rs", "mod a;\nmod b;\npub use b::deep::Thing;\npub use b::*;\n");
    const B: (&str, &str) = ("b/mod.rs", "pub mod deep;\npub fn g() {}\n");
    const DEEP: (&str, &str) = ("b/deep.rs", "pub struct Thing;\npub(crate) fn x() {}\n");

    #[test]
    fn a_name_leads_to_the_file_that_defines_it() {
        let of = |text: &'static str| used(&[LIB, ("a.rs", text), B, DEEP], "a.rs");
        assert_eq!(of("use crate::Thing;"), ["b/deep.rs"]);
        assert_eq!(of("use crate::g;"), ["b/mod.rs"]);
        assert_eq!(of("fn f() { super::b::deep::x() }"), ["b/deep.rs"]);
        assert_eq!(
            of("use crate::b::{self, deep as d};\nfn f() { b::g(); d::x() }"),
            ["b/mod.rs", "b/deep.rs"]
        );
        assert_eq!(of("fn f() -> Vec<u8> { vec![crate::b::deep::x()] }"), ["b/deep.rs"]);
        assert_eq!(of("mod inside { use super::super::b; }"), ["b/mod.rs"]);
        assert_eq!(of("use other_crate::b::deep;\nuse std::b::deep as e;"), ["other_crate"]);
        assert!(of("pub(in crate::b) struct A;\nuse std::fmt;").is_empty());
    }

    #[test]
    fn handing_a_name_on_is_no_use_and_neither_is_a_test() {
        let lib = ("lib.rs", "mod a;\n#[cfg(test)]\nmod gone;\npub use a::A;\n");
        let a = ("a.rs", "pub struct A;\n#[cfg(all(test, unix))]\nmod tests { use crate::B; }\n");
        assert!(used(&[lib, a], "lib.rs").is_empty() && used(&[lib, a], "a.rs").is_empty());
        let both = ("lib.rs", "mod a;\npub use a::A;\npub struct B(A);\n");
        assert_eq!(used(&[both, a], "lib.rs"), ["a.rs"]);
    }
}
