//! The rules of manifests: every dependency is used, and one that tests alone use is a dependency of tests; `cargo
//! bench` runs nothing but criterion.

use super::complain;
use super::source::{Repository, Source, is_word};

/// Dependencies for their features' sake, which `loadgen/Cargo.toml` explains.
const FEATURES_ALONE: [&str; 4] = ["chacha20", "either", "rustix", "zerocopy"];

#[test]
fn every_dependency_is_used() {
    let repository = Repository::read();
    complain(repository.manifests.iter().flat_map(|(package, manifest)| {
        let sources: Vec<&Source> =
            repository.sources.iter().filter(|source| source.package == *package).collect();
        let mut complaints = unused(package, manifest, &sources);
        let excused = |complaint: &str| {
            FEATURES_ALONE.iter().any(|name| complaint == format!("loadgen: {name} is not used"))
        };
        complaints.retain(|complaint| !excused(complaint));
        complaints
    }));
}

/// A library's or binary's test harness refuses criterion's flags, and `cargo bench -- FLAGS` with it.
#[test]
fn cargo_bench_runs_no_test_harness() {
    let repository = Repository::read();
    complain(repository.manifests.iter().flat_map(|(package, manifest)| {
        let has = |file: &str| {
            repository.sources.iter().any(|source| source.path == format!("{package}/src/{file}"))
        };
        benched(package, manifest, has("lib.rs"), has("main.rs"))
    }));
}

/// The targets of a package in the workspace that lack `bench = false`.
fn benched(package: &str, manifest: &str, has_lib: bool, has_main: bool) -> Vec<String> {
    let in_workspace = manifest.contains("version.workspace = true");
    [("[lib]", has_lib), ("[[bin]]", has_main)]
        .into_iter()
        .filter(|(section, exists)| in_workspace && *exists && !sets_bench_false(manifest, section))
        .map(|(section, _)| format!("{package}: {section} lacks bench = false"))
        .collect()
}

fn sets_bench_false(manifest: &str, section: &str) -> bool {
    let inside = manifest.lines().skip_while(|line| *line != section).skip(1);
    inside.take_while(|line| !line.starts_with('[')).any(|line| line == "bench = false")
}

fn unused(package: &str, manifest: &str, sources: &[&Source]) -> Vec<String> {
    dependencies(manifest)
        .into_iter()
        .filter_map(|(name, for_tests)| {
            let name = name.replace('-', "_");
            // Fuzz targets are programs of a package without a library.
            let product = |source: &Source| {
                let is_target = source.path.contains("/fuzz_targets/");
                if is_target { names(&source.code, &name) } else { names(&source.product, &name) }
            };
            if sources.iter().any(|source| product(source)) {
                return None;
            }
            let in_tests = sources.iter().any(|source| names(&source.code, &name));
            match (in_tests, for_tests) {
                (true, true) => None,
                (true, false) => Some(format!("{package}: {name} is used by tests alone")),
                (false, _) => Some(format!("{package}: {name} is not used")),
            }
        })
        .collect()
}

/// Names under `[dependencies]`, and under `[dev-dependencies]` with `true`.
fn dependencies(manifest: &str) -> Vec<(&str, bool)> {
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.trim();
        } else if let Some(name) =
            line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty() && !name.starts_with('#'))
        {
            match section {
                "[dependencies]" => found.push((name, false)),
                "[dev-dependencies]" => found.push((name, true)),
                _ => {}
            }
        }
    }
    found
}

/// Whether a path begins with the crate, or a `use` names it.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let whole = !before.bytes().next_back().is_some_and(is_word);
        whole && (after.starts_with("::") || (before.ends_with("use ") && after.starts_with([';', ' '])))
    })
}

#[test]
fn benched_harnesses_are_found() {
    let manifest = "[package]\nversion.workspace = true\n[lib]\nbench = false\n[[bin]]\nname = \"a\"\n";
    assert_eq!(benched("a", manifest, true, true), ["a: [[bin]] lacks bench = false"]);
    assert_eq!(benched("a", "version.workspace = true\n[lints]\nbench = false\n", true, false).len(), 1);
    assert!(benched("a", "version = \"1\"\n", true, true).is_empty());
}

#[test]
fn unused_dependencies_are_found() {
    let manifest = "\
[package]
name = \"a\"
[dependencies]
# Comment.
one-thing.workspace = true
two = { version = \"1\" }
three = \"1\"
four = \"1\"
[dev-dependencies]
five = \"1\"
six = \"1\"
";
    let text = "use one_thing::One;\n// three::x\nfn a() { mytwo::b(); \"two::c\"; }\n#[cfg(test)]\nmod tests {\n    use four;\n    fn d() { five::e(); }\n}\n";
    let source = Source::new("a/src/b.rs", "a", text);
    let expected = ["two is not used", "three is not used", "four is used by tests alone", "six is not used"];
    assert_eq!(unused("a", manifest, &[&source]), expected.map(|complaint| format!("a: {complaint}")));
}
