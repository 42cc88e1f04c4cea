//! The modules of a crate as its sources declare them, and which file defines what a path names.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use syn::{Item, UseTree, Visibility};

/// Segments of a module's path from the crate's root.
pub(super) type ModulePath = Vec<String>;

/// Longest chain of re-exports that is followed.
const DEPTH: usize = 16;

/// One module, with a file of its own or inside of one.
#[derive(Debug, Default)]
struct Module {
    file: usize,
    children: HashSet<String>,
    items: HashSet<String>,
    /// Names that a `use` brings in, with the path behind each.
    bindings: HashMap<String, Vec<String>>,
    /// Paths before a `*`.
    globs: Vec<Vec<String>>,
}

/// A `use` with everything that the rest needs to know about it.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) path: Vec<String>,
    /// What it is called here; none for `*`.
    pub(super) name: Option<String>,
    /// Handed on to others.
    pub(super) public: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Module(ModulePath),
    /// Something that this file defines.
    File(usize),
    /// Another crate, by the name that sources have for it.
    Crate(String),
}

/// A crate without its tests.
#[derive(Default)]
pub(super) struct Crate {
    /// Files in the order in which they were found, the root first.
    pub(super) files: Vec<PathBuf>,
    /// Items of each module of each file, for who looks for paths in them.
    pub(super) bodies: Vec<(ModulePath, Vec<Item>)>,
    modules: HashMap<ModulePath, Module>,
    /// Where a `#[macro_export]` macro is; its path is the root's.
    macros: HashMap<String, usize>,
}

impl Crate {
    /// Read everything from the root file on.
    ///
    /// # Errors
    /// A file cannot be read or is no Rust.
    pub(super) fn read(root: &Path) -> Result<Crate> {
        let mut read = Crate::default();
        let dir = root.parent().context("a source has a directory")?;
        read.read_file(root, Vec::new(), dir)?;
        Ok(read)
    }

    /// `children`: the directory of files of modules that this one declares.
    fn read_file(&mut self, file: &Path, path: ModulePath, children: &Path) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("parsing {}", file.display()))?;
        self.files.push(file.to_owned());
        let number = self.files.len() - 1;
        self.add_module(parsed.items, number, path, children)
    }

    fn add_module(&mut self, items: Vec<Item>, file: usize, path: ModulePath, dir: &Path) -> Result<()> {
        let mut module = Module { file, ..Module::default() };
        let mut body = Vec::new();
        for item in items.into_iter().filter(|item| !is_for_tests(attributes(item))) {
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    module.children.insert(name.clone());
                    let inside = [&path[..], std::slice::from_ref(&name)].concat();
                    match child.content {
                        Some((_, items)) => self.add_module(items, file, inside, &dir.join(&name))?,
                        None => {
                            let (found, children) = file_of(dir, &name, &child.attrs)?;
                            self.read_file(&found, inside, &children)?;
                        }
                    }
                }
                item => body.push(item),
            }
        }
        for item in &body {
            match item {
                Item::Use(item) => uses(item).into_iter().for_each(|one| module.bind(one)),
                Item::Macro(item) => {
                    if let Some(name) = &item.ident {
                        self.macros.insert(name.to_string(), file);
                        module.items.insert(name.to_string());
                    }
                }
                item => module.items.extend(name_of(item)),
            }
        }
        self.modules.insert(path.clone(), module);
        self.bodies.push((path, body));
        Ok(())
    }

    /// The file of a module.
    pub(super) fn file_of(&self, module: &[String]) -> usize {
        self.modules.get(module).map_or(0, |module| module.file)
    }

    /// What a path means that stands in a module. None where it begins with a name that is neither
    /// a module, an item or an import of it nor one of `crates`.
    pub(super) fn resolve(
        &self,
        from: &[String],
        path: &[String],
        crates: &HashSet<String>,
    ) -> Option<Target> {
        self.resolve_within(from, path, crates, DEPTH)
    }

    fn resolve_within(
        &self,
        from: &[String],
        path: &[String],
        crates: &HashSet<String>,
        depth: usize,
    ) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let mut rest = path;
        let mut module = from.to_vec();
        let mut target = None;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => module.clear(),
                "self" => {}
                "super" => drop(module.pop()?),
                _ => break,
            }
            rest = others;
            target = Some(Target::Module(module.clone()));
        }
        for name in rest {
            target = match target {
                None => self.within(&module, name, crates, depth).or_else(|| known_crate(name, crates)),
                Some(Target::Module(module)) => {
                    let found = self.within(&module, name, crates, depth);
                    let exported = || self.macros.get(name).filter(|_| module.is_empty()).copied();
                    // What no item has is made by a macro there.
                    found.or_else(|| Some(Target::File(exported().unwrap_or_else(|| self.file_of(&module)))))
                }
                // An associated item, a variant.
                further => further,
            };
            target.as_ref()?;
        }
        target
    }

    /// What a name is in a module.
    fn within(&self, path: &[String], name: &str, crates: &HashSet<String>, depth: usize) -> Option<Target> {
        let module = self.modules.get(path)?;
        if module.children.contains(name) {
            return Some(Target::Module([path, &[name.to_owned()]].concat()));
        }
        if module.items.contains(name) {
            return Some(Target::File(module.file));
        }
        if let Some(bound) = module.bindings.get(name) {
            return self.resolve_within(path, bound, crates, depth);
        }
        module.globs.iter().find_map(|glob| match self.resolve_within(path, glob, crates, depth) {
            Some(Target::Module(other)) if other != path => {
                let depth = depth.checked_sub(1)?;
                self.within(&other, name, crates, depth)
            }
            _ => None,
        })
    }
}

impl Module {
    fn bind(&mut self, one: Use) {
        match one.name {
            Some(name) => drop(self.bindings.insert(name, one.path)),
            None => self.globs.push(one.path),
        }
    }
}

fn known_crate(name: &str, crates: &HashSet<String>) -> Option<Target> {
    crates.contains(name).then(|| Target::Crate(name.to_owned()))
}

/// Every name of a `use`.
pub(super) fn uses(item: &syn::ItemUse) -> Vec<Use> {
    fn walk(tree: &UseTree, path: Vec<String>, public: bool, found: &mut Vec<Use>) {
        let with = |name: &syn::Ident| [&path[..], &[name.to_string()]].concat();
        match tree {
            UseTree::Path(tree) => walk(&tree.tree, with(&tree.ident), public, found),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| walk(tree, path.clone(), public, found))
            }
            UseTree::Glob(_) => found.push(Use { path, name: None, public }),
            UseTree::Name(name) if name.ident == "self" => {
                let last = path.last().cloned();
                found.push(Use { path, name: last, public });
            }
            UseTree::Name(name) => {
                found.push(Use { path: with(&name.ident), name: Some(name.ident.to_string()), public });
            }
            UseTree::Rename(name) => {
                let path = if name.ident == "self" { path } else { with(&name.ident) };
                found.push(Use { path, name: Some(name.rename.to_string()), public });
            }
        }
    }
    let mut found = Vec::new();
    walk(&item.tree, Vec::new(), !matches!(item.vis, Visibility::Inherited), &mut found);
    found
}

fn file_of(dir: &Path, name: &str, attributes: &[syn::Attribute]) -> Result<(PathBuf, PathBuf)> {
    let path = attributes.iter().find(|attribute| attribute.path().is_ident("path"));
    if let Some(syn::Meta::NameValue(value)) = path.map(|attribute| &attribute.meta)
        && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &value.value
    {
        let file = dir.join(text.value());
        let children = file.parent().unwrap_or(dir).to_owned();
        return Ok((file, children));
    }
    let children = dir.join(name);
    let beside = dir.join(format!("{name}.rs"));
    let file = if beside.exists() { beside } else { children.join("mod.rs") };
    Ok((file, children))
}

/// `#[cfg(test)]`, also as a part of `all`.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let mut test = false;
        let _ = attribute.parse_nested_meta(|meta| {
            test |= meta.path.is_ident("test");
            if meta.path.is_ident("all") {
                meta.parse_nested_meta(|inner| {
                    test |= inner.path.is_ident("test");
                    skip_value(&inner)
                })?;
            }
            skip_value(&meta)
        });
        test
    })
}

fn skip_value(meta: &syn::meta::ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.input.peek(syn::Token![=]) {
        meta.value()?.parse::<syn::Expr>()?;
    } else if meta.input.peek(syn::token::Paren) {
        meta.parse_nested_meta(|inner| skip_value(&inner))?;
    }
    Ok(())
}

fn attributes(item: &Item) -> &[syn::Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}
