//! What the code of a module names: paths, in full, methods and macros. Works on tokens, so that the
//! inside of macro calls is seen like everything else.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::ToTokens as _;

use crate::krate::{Crate, ModulePath};

/// Something named, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `std::fs::read`, `crate::model::NodeSpec`, `.elapsed()`, `println!`; the path of a glob import ends
    /// in `*`.
    pub what: String,
    /// Line of the file.
    pub line: usize,
    /// Whether this is a `use`, which brings a name but does nothing with it.
    pub is_import: bool,
}

/// A path as written.
type Written = Vec<String>;

/// Paths as imports give them to names: name → what it stands for; globs apart.
#[derive(Debug, Default)]
struct Imports {
    names: BTreeMap<String, Written>,
    globs: Vec<Written>,
}

/// What stands in the source, not yet resolved.
enum Found {
    Path(Written),
    Import { name: String, path: Written },
    Other(String),
}

/// Everything named in a crate, by module.
pub fn all(krate: &Crate) -> BTreeMap<ModulePath, Vec<Named>> {
    let mut found: BTreeMap<ModulePath, Vec<(Found, usize)>> = BTreeMap::new();
    let mut imports: BTreeMap<ModulePath, Imports> = BTreeMap::new();
    for (path, module) in &krate.modules {
        let mut list = Vec::new();
        for item in &module.items {
            scan(item.to_token_stream(), &mut list);
        }
        let own = imports.entry(path.clone()).or_default();
        for (entry, _) in &list {
            match entry {
                Found::Import { name, path } if name == "*" => {
                    own.globs.push(path[..path.len() - 1].to_vec());
                }
                Found::Import { name, path } => {
                    own.names.insert(name.clone(), path.clone());
                }
                _ => {}
            }
        }
        found.insert(path.clone(), list);
    }
    let resolver = Resolver { krate, imports };
    let named = |module: &ModulePath, (entry, line): &(Found, usize)| {
        let (path, is_import) = match entry {
            Found::Other(what) => {
                return Some(Named {
                    what: what.clone(),
                    line: *line,
                    is_import: false,
                });
            }
            Found::Path(path) => (path, false),
            Found::Import { path, .. } => (path, true),
        };
        let full = resolver.full(module, path, is_import)?;
        Some(Named {
            what: full.join("::"),
            line: *line,
            is_import,
        })
    };
    found
        .iter()
        .map(|(module, list)| {
            (
                module.clone(),
                list.iter()
                    .filter_map(|entry| named(module, entry))
                    .collect(),
            )
        })
        .collect()
}

/// Collects what a stretch of tokens names.
fn scan(stream: TokenStream, found: &mut Vec<(Found, usize)>) {
    let tokens: Vec<TokenTree> = stream.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let line = tokens[at].span().start().line;
        match &tokens[at] {
            TokenTree::Ident(word) if word == "use" => {
                let end = tokens[at..].iter().position(|token| is(token, ';'));
                let end = end.map_or(tokens.len(), |offset| at + offset);
                let tree: Vec<TokenTree> = tokens[at + 1..end].to_vec();
                scan_use(&tree, &Vec::new(), found);
                at = end;
            }
            TokenTree::Ident(word)
                if word == "extern"
                    && matches!(tokens.get(at + 1), Some(TokenTree::Ident(next)) if next == "crate") =>
            {
                scan_use(&tokens[at + 2..tokens.len() - 1], &Vec::new(), found);
                at = tokens.len();
            }
            TokenTree::Ident(_) => at = scan_path(&tokens, at, line, found),
            TokenTree::Group(group) => {
                scan(group.stream(), found);
                at += 1;
            }
            // A lifetime: its name is no path.
            TokenTree::Punct(punct) if punct.as_char() == '\'' => at += 2,
            _ => at += 1,
        }
    }
}

/// Reads the path that begins at a word; returns where it ends.
fn scan_path(
    tokens: &[TokenTree],
    start: usize,
    line: usize,
    found: &mut Vec<(Found, usize)>,
) -> usize {
    let mut path = vec![tokens[start].to_string()];
    let mut at = start + 1;
    while is_at(tokens, at, ':') && is_at(tokens, at + 1, ':') {
        let Some(TokenTree::Ident(word)) = tokens.get(at + 2) else {
            break;
        };
        path.push(word.to_string());
        at += 3;
    }
    let before = |back: usize, mark: char| start >= back && is(&tokens[start - back], mark);
    let group_at = |at: usize| matches!(tokens.get(at), Some(TokenTree::Group(_)));
    let other = |what: String| (Found::Other(what), line);
    if before(1, '.') && !before(2, '.') {
        // A field or a method; a turbofish may stand before the arguments.
        if group_at(at) || is_at(tokens, at, ':') {
            found.push(other(format!(".{}()", path[0])));
        }
    } else if before(1, ':') && before(2, ':') && before(3, '>') {
        // `<T>::name`: T was seen before.
        found.push(other(format!("<>::{}", path.join("::"))));
    } else if is_at(tokens, at, '!') && group_at(at + 1) {
        found.push(other(format!("{}!", path.join("::"))));
    } else {
        found.push((Found::Path(path), line));
    }
    at
}

/// Reads a use tree: `a::{b, c as d, e::*}`.
fn scan_use(tree: &[TokenTree], prefix: &Written, found: &mut Vec<(Found, usize)>) {
    let mut path = prefix.clone();
    let mut name = None;
    let line = tree.first().map_or(0, |token| token.span().start().line);
    let mut at = 0;
    while let Some(token) = tree.get(at) {
        match token {
            TokenTree::Ident(word) if word == "as" => {
                name = tree.get(at + 1).map(ToString::to_string);
                break;
            }
            TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Punct(mark) if mark.as_char() == '*' => path.push("*".into()),
            TokenTree::Group(group) => {
                for part in parts(group) {
                    scan_use(&part, &path, found);
                }
                return;
            }
            _ => {}
        }
        at += 1;
    }
    let last = path.last().cloned();
    if let Some(name) = name.or(last) {
        found.push((Found::Import { name, path }, line));
    }
}

/// The parts of a group between its commas.
fn parts(group: &Group) -> Vec<Vec<TokenTree>> {
    debug_assert_eq!(group.delimiter(), Delimiter::Brace);
    let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
    tokens
        .split(|token| is(token, ','))
        .map(<[TokenTree]>::to_vec)
        .collect()
}

fn is(token: &TokenTree, mark: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark)
}

fn is_at(tokens: &[TokenTree], at: usize, mark: char) -> bool {
    tokens.get(at).is_some_and(|token| is(token, mark))
}

struct Resolver<'a> {
    krate: &'a Crate,
    imports: BTreeMap<ModulePath, Imports>,
}

impl Resolver<'_> {
    /// The path in full, from `std`, `crate` or a crate's name on, through imports and re-exports;
    /// `None` for a single word that no import explains: a variable, a field, a local type.
    fn full(&self, module: &ModulePath, path: &Written, is_import: bool) -> Option<Written> {
        if !is_import && path.len() == 1 && self.local(module, &path[0], 0).is_none() {
            return None;
        }
        Some(self.resolve(module, path, 0))
    }

    fn resolve(&self, module: &ModulePath, path: &Written, depth: usize) -> Written {
        let mut path = self.anchored(module, path);
        if let Some(start) = self.local(module, &path[0], depth) {
            path = [&start, &path[1..]].concat();
        }
        // A re-export may lead to the next one.
        for _ in 0..16 {
            let next = match path[0].as_str() {
                "core" | "alloc" => Some([&["std".to_owned()], &path[1..]].concat()),
                "crate" => self.deepest(&path[1..]).and_then(|(inner, rest)| {
                    let start = self.local(&inner, &rest[0], depth)?;
                    Some([&start, &rest[1..]].concat())
                }),
                _ => None,
            };
            match next {
                Some(next) if next != path => path = next,
                _ => break,
            }
        }
        path
    }

    /// What imports of a module make of a word.
    fn local(&self, module: &ModulePath, word: &str, depth: usize) -> Option<Written> {
        let imports = self.imports.get(module)?;
        if depth > 4 || ["crate", "std"].contains(&word) {
            return None;
        }
        match imports.names.get(word) {
            Some(path) if *path == [word] => Some(path.clone()),
            Some(path) => Some(self.resolve(module, path, depth + 1)),
            None => imports.globs.iter().find_map(|glob| {
                let glob = self.resolve(module, glob, depth + 1);
                let (first, rest) = glob.split_first()?;
                let inner = rest.to_vec();
                if first != "crate" || inner == *module {
                    return None;
                }
                self.local(&inner, word, depth + 1)
            }),
        }
    }

    /// A path that means the same in any module, if it begins with `self`, `super` or a module here.
    fn anchored(&self, module: &ModulePath, path: &Written) -> Written {
        let up = path
            .iter()
            .take_while(|word| ["self", "super"].contains(&word.as_str()))
            .count();
        if up > 0 {
            let supers = path[..up].iter().filter(|word| *word == "super").count();
            let base = &module[..module.len().saturating_sub(supers)];
            return [&["crate".to_owned()], base, &path[up..]].concat();
        }
        let inner = [&module[..], &path[..1]].concat();
        if self.krate.modules.contains_key(&inner) {
            return [&["crate".to_owned()], &module[..], path].concat();
        }
        path.clone()
    }

    /// The deepest module a path behind `crate` leads to, and what follows; `None` if nothing does.
    fn deepest(&self, path: &[String]) -> Option<(ModulePath, Written)> {
        let depth = (0..=path.len())
            .rev()
            .find(|depth| self.krate.modules.contains_key(&path[..*depth]))?;
        (depth < path.len()).then(|| (path[..depth].to_vec(), path[depth..].to_vec()))
    }
}
