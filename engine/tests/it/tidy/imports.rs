//! The rule of imports: files that import one another in a circle are few, since such files can only be read together.
//!
//! An import is a `use` of `crate`, `self`, `super` or a child module, outside tests. It leads to the file that defines
//! the name: a re-export is followed and counts for nothing itself, so a `mod.rs` may name its children's types.

use std::collections::{BTreeMap, BTreeSet};

use super::complain;
use super::source::{Repository, Source, lines};

const CYCLE_FILES_MAX: usize = 3;

/// Packages with larger cycles.
const NOT_YET_ACYCLIC: [&str; 0] = [];

#[test]
fn import_cycles_are_small() {
    let repository = Repository::read();
    let mut packages: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in repository.sources.iter().filter(|source| !source.product.is_empty()) {
        packages.entry(&source.package).or_default().push(source);
    }
    packages.retain(|package, _| !NOT_YET_ACYCLIC.contains(package));
    let mut complaints = Vec::new();
    for (folder, sources) in packages {
        let package = Package::new(folder, &sources);
        let large = cycles(&package.imports()).into_iter().filter(|cycle| cycle.len() > CYCLE_FILES_MAX);
        complaints.extend(large.map(|cycle| {
            format!("{folder}: {} files import one another: {}", cycle.len(), cycle.join(", "))
        }));
    }
    complain(complaints);
}

/// A path of modules below the crate's root.
type Path = Vec<String>;

struct Package {
    modules: BTreeMap<Path, Module>,
}

struct Module {
    /// Below the package.
    file: String,
    code: String,
    imports: Vec<Path>,
    /// Public and restricted `use` at the file's top level: the name given, and the path to it. A glob has the name
    /// `*`.
    reexports: Vec<(String, Path)>,
}

impl Package {
    fn new(folder: &str, sources: &[&Source]) -> Self {
        let prefix = format!("{folder}/src/");
        let library = sources.iter().any(|source| source.path == format!("{prefix}lib.rs"));
        let mut modules = BTreeMap::new();
        for source in sources {
            let file = source.path.strip_prefix(&prefix).unwrap_or(&source.path);
            let mut path: Path = file.trim_end_matches(".rs").split('/').map(str::to_string).collect();
            // A program beside a library is a separate crate; its root imports and is not imported.
            let root = path == ["lib"] || (path == ["main"] && !library);
            if root || path.last().is_some_and(|last| last == "mod") {
                path.pop();
            }
            let module = Module {
                file: file.to_string(),
                code: source.product.clone(),
                imports: Vec::new(),
                reexports: Vec::new(),
            };
            modules.insert(path, module);
        }
        let mut package = Self { modules };
        let names: BTreeSet<Path> = package.modules.keys().cloned().collect();
        for (path, module) in &mut package.modules {
            module.read_imports(path, &names);
        }
        package
    }

    /// For each file, the files it imports from.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let to =
            |module: &Module| module.imports.iter().filter_map(|path| self.definition(path, 0)).collect();
        let mut imports: BTreeMap<&str, BTreeSet<&str>> =
            self.modules.values().map(|module| (module.file.as_str(), to(module))).collect();
        for (file, targets) in &mut imports {
            targets.remove(file);
        }
        imports
    }

    /// The file that defines the item at the end of a path.
    fn definition(&self, path: &[String], followed: usize) -> Option<&str> {
        let depth = (0..=path.len()).rev().find(|depth| self.modules.contains_key(&path[..*depth]))?;
        let module = &self.modules[&path[..depth]];
        let Some(name) = path.get(depth).filter(|_| followed < REEXPORTS_FOLLOWED_MAX) else {
            return Some(&module.file);
        };
        let rest = &path[depth + 1..];
        if let Some((_, at)) = module.reexports.iter().find(|(given, at)| given == name && at != path) {
            return self.definition(&[at, rest].concat(), followed + 1);
        }
        let through_globs = || {
            let globs = module.reexports.iter().filter(|(given, _)| given == "*");
            globs
                .filter_map(|(_, at)| self.modules.get(at))
                .find(|inner| inner.defines(name))
                .map(|inner| inner.file.as_str())
        };
        if module.defines(name) { Some(&module.file) } else { through_globs().or(Some(&module.file)) }
    }
}

impl Module {
    fn read_imports(&mut self, path: &[String], modules: &BTreeSet<Path>) {
        for (start, line) in lines(&self.code) {
            let declaration = line.trim_start();
            let reexports = declaration.starts_with("pub");
            let after = if reexports { declaration.split_once(" use ").map(|(_, tree)| tree) } else { None };
            let Some(tree) = after.or_else(|| declaration.strip_prefix("use ")) else { continue };
            let from = start + line.len() - tree.len();
            let Some(end) = self.code[from..].find(';') else { continue };
            for (given, import) in leaves(&self.code[from..from + end]) {
                let Some(mut import) = absolute(path, &import, modules) else { continue };
                let is_glob = import.last().is_some_and(|last| last == "*");
                import.truncate(import.len() - usize::from(is_glob));
                if reexports && line.starts_with("pub") {
                    self.reexports.push((given, import));
                } else {
                    self.imports.push(import);
                }
            }
        }
    }

    fn defines(&self, name: &str) -> bool {
        let keywords = ["struct", "enum", "trait", "union", "type", "fn", "const", "static", "macro_rules!"];
        keywords.iter().any(|keyword| {
            let declaration = format!("{keyword} {name}");
            self.code.match_indices(&declaration).any(|(at, _)| {
                let after = self.code[at + declaration.len()..].chars().next();
                !after.is_some_and(|letter| letter.is_alphanumeric() || letter == '_')
            })
        })
    }
}

/// The paths in a tree of imports, each with the name it is imported under.
fn leaves(tree: &str) -> Vec<(String, Path)> {
    let tree = tree.trim();
    if let Some((stem, branches)) = tree.split_once('{') {
        let stem: Vec<String> = segments(stem);
        let branches = branches.strip_suffix('}').unwrap_or(branches);
        let mut depth = 0_i64;
        let branches = branches.split(|letter| {
            depth += i64::from(letter == '{') - i64::from(letter == '}');
            letter == ',' && depth == 0
        });
        return branches
            .filter(|branch| !branch.trim().is_empty())
            .flat_map(leaves)
            .map(|(given, leaf)| (given, [stem.clone(), leaf].concat()))
            .collect();
    }
    let (path, given) = tree.split_once(" as ").unwrap_or((tree, ""));
    let path = segments(path);
    let given =
        if given.is_empty() { path.last().cloned().unwrap_or_default() } else { given.trim().to_string() };
    vec![(given, path)]
}

fn segments(path: &str) -> Path {
    path.split("::").map(|segment| segment.trim().to_string()).filter(|segment| !segment.is_empty()).collect()
}

/// An import's path from the crate's root; `None` for another crate's.
fn absolute(module: &[String], import: &[String], modules: &BTreeSet<Path>) -> Option<Path> {
    let ups = import.iter().take_while(|segment| *segment == "super").count();
    let (base, rest) = match import.first()?.as_str() {
        "crate" => (&[][..], &import[1..]),
        "self" => (module, &import[1..]),
        "super" => (&module[..module.len().saturating_sub(ups)], &import[ups..]),
        child if modules.contains(&[module, &[child.to_string()]].concat()) => (module, import),
        _ => return None,
    };
    let mut path = [base, rest].concat();
    path.truncate(path.len() - usize::from(path.last().is_some_and(|last| last == "self")));
    Some(path)
}

/// Sets of two files or more each of which reaches all others.
fn cycles<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|file| (*file, reach(imports, file))).collect();
    let mut cycles: Vec<Vec<&str>> = reached
        .iter()
        .map(|(file, others)| others.iter().copied().filter(|other| reached[other].contains(file)).collect())
        .filter(|cycle: &Vec<&str>| cycle.len() > 1)
        .collect();
    cycles.sort();
    cycles.dedup();
    cycles
}

/// The files that `file` imports from, directly or through others.
fn reach<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>, file: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = imports[file].iter().copied().collect();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(&imports[next]);
        }
    }
    reached
}

/// Re-exports of re-exports; a bound, since two globs may name each other.
const REEXPORTS_FOLLOWED_MAX: usize = 8;

#[cfg(test)]
fn cycles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let sources: Vec<Source> =
        files.iter().map(|(file, text)| Source::new(&format!("a/src/{file}"), "a", text)).collect();
    let package = Package::new("a", &sources.iter().collect::<Vec<_>>());
    cycles(&package.imports())
        .into_iter()
        .map(|cycle| cycle.into_iter().map(str::to_string).collect())
        .collect()
}

#[test]
fn cycles_are_found() {
    let found = cycles_of(&[
        ("lib.rs", "mod b;\nmod c;\nmod d;\n"),
        ("b/mod.rs", "mod one;\nuse crate::{c::{self as other, C}, d::D};\nuse std::fmt;\n"),
        ("b/one.rs", "fn f() {\n    use super::super::d::D;\n}\npub(crate) struct One;\n"),
        ("c.rs", "use crate::d::{\n    D,\n};\n"),
        (
            "d.rs",
            "use crate::b::one::One;\npub struct D;\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}\n",
        ),
    ]);
    assert_eq!(found, [["b/one.rs", "d.rs"]]);
}

#[test]
fn re_exports_are_followed() {
    let files = [
        ("lib.rs", "mod b;\nmod c;\n"),
        ("b/mod.rs", "mod one;\nmod two;\npub use one::One;\npub(crate) use two::*;\npub struct Base;\n"),
        ("b/one.rs", "use super::Two;\npub struct One;\n"),
        ("b/two.rs", "use crate::c::C;\npub struct Two;\n"),
        ("c.rs", "use crate::b::One as First;\npub struct C;\n"),
    ];
    assert_eq!(cycles_of(&files), [["b/one.rs", "b/two.rs", "c.rs"]]);
    let mut opened = files;
    opened[4].1 = "use crate::b::Base;\npub struct C;\n";
    assert!(cycles_of(&opened).is_empty());
}
