//! A crate as the compiler sees it: modules reached from its root file by `mod` items. Files nobody
//! declares are not part of it, and items for tests alone are left out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use quote::ToTokens as _;
use syn::{Attribute, Item, Meta, punctuated::Punctuated};

/// A module's path in its crate; the root's is empty.
pub type ModulePath = Vec<String>;

/// A module with its own items; modules inside it stand beside it.
pub struct Module {
    /// Where it was read from.
    pub file: PathBuf,
    /// Its items, without modules.
    pub items: Vec<Item>,
}

/// Modules by their path.
#[derive(Default)]
pub struct Crate {
    /// All of them.
    pub modules: BTreeMap<ModulePath, Module>,
}

impl Crate {
    /// Reads a crate from its root file.
    pub fn read(root: &Path) -> Self {
        let mut this = Self::default();
        let dir = root.parent().expect("a file is in a directory");
        this.read_file(root, dir, Vec::new());
        this
    }

    /// A crate of one text.
    pub fn of_text(text: &str) -> Self {
        let mut this = Self::default();
        let file = syn::parse_file(text).unwrap_or_else(|err| panic!("{err} in: {text}"));
        this.add(
            Path::new("snippet.rs"),
            Path::new("/nowhere"),
            Vec::new(),
            file.attrs,
            file.items,
        );
        this
    }

    fn read_file(&mut self, path: &Path, dir: &Path, module: ModulePath) {
        let text =
            fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        let file = syn::parse_file(&text)
            .unwrap_or_else(|err| panic!("{}:{}: {err}", path.display(), err.span().start().line));
        self.add(path, dir, module, file.attrs, file.items);
    }

    /// `dir` is where files of modules declared here are.
    fn add(
        &mut self,
        file: &Path,
        dir: &Path,
        module: ModulePath,
        attrs: Vec<Attribute>,
        items: Vec<Item>,
    ) {
        if is_for_tests(&attrs) {
            return;
        }
        let mut own = Vec::new();
        for item in items {
            match item {
                Item::Mod(inner) => {
                    if is_for_tests(&inner.attrs) {
                        continue;
                    }
                    let name = inner.ident.to_string();
                    assert!(
                        !inner.attrs.iter().any(|attr| attr.path().is_ident("path")),
                        "{}: mod {name} has a #[path], which this test does not follow",
                        file.display()
                    );
                    let path = [module.clone(), vec![name.clone()]].concat();
                    match inner.content {
                        Some((_, items)) => self.add(file, &dir.join(&name), path, vec![], items),
                        None => {
                            let flat = dir.join(format!("{name}.rs"));
                            let nested = dir.join(&name).join("mod.rs");
                            let found = if flat.exists() { flat } else { nested };
                            self.read_file(&found, &dir.join(&name), path);
                        }
                    }
                }
                other => own.extend(without_tests(other)),
            }
        }
        self.modules.insert(
            module,
            Module {
                file: file.to_owned(),
                items: own,
            },
        );
    }
}

/// The item as it is built outside tests.
fn without_tests(mut item: Item) -> Option<Item> {
    let keep = |attrs: &[Attribute]| !is_for_tests(attrs);
    match &mut item {
        Item::Impl(block) => {
            block.items.retain(|inner| match inner {
                syn::ImplItem::Fn(inner) => keep(&inner.attrs),
                syn::ImplItem::Const(inner) => keep(&inner.attrs),
                _ => true,
            });
        }
        Item::Trait(block) => block.items.retain(|inner| match inner {
            syn::TraitItem::Fn(inner) => keep(&inner.attrs),
            _ => true,
        }),
        _ => {}
    }
    keep(attributes(&item)).then_some(item)
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether an item exists in tests alone: a `cfg` that cannot hold without `test`.
fn is_for_tests(attrs: &[Attribute]) -> bool {
    let cfgs = attrs.iter().filter(|attr| attr.path().is_ident("cfg"));
    cfgs.filter_map(|attr| attr.parse_args::<Meta>().ok())
        .any(|meta| !possible(&meta).0)
}

/// Whether a `cfg` predicate can be true, and can be false, when `test` is off and everything else is
/// unknown.
fn possible(meta: &Meta) -> (bool, bool) {
    let Meta::List(list) = meta else {
        return (!meta.path().is_ident("test"), true);
    };
    let parts = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated);
    let Ok(parts) = parts else {
        panic!("a cfg this test cannot read: {}", meta.to_token_stream())
    };
    let parts: Vec<(bool, bool)> = parts.iter().map(possible).collect();
    let (any_true, all_true) = (parts.iter().any(|p| p.0), parts.iter().all(|p| p.0));
    let (any_false, all_false) = (parts.iter().any(|p| p.1), parts.iter().all(|p| p.1));
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("any") => (any_true, all_false),
        Some("all") => (all_true, any_false),
        Some("not") => (any_false, any_true),
        _ => (true, true),
    }
}
