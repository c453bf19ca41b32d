//! Rules of the public interface: one name for one type, and errors documented.

use std::collections::BTreeMap;

use super::complain;
use super::source::{Repository, Source, brace_end, is_word, lines};

/// Names that two types still share.
const NOT_YET_SINGLE: [&str; 0] = [];

/// Packages in which functions still lack `# Errors`.
const NOT_YET_DOCUMENTED: [&str; 0] = [];

/// Invocations whose first word is the name of a public type.
const DECLARING_MACROS: [&str; 2] = ["message! {", "bytes_type!("];

#[test]
fn public_types_have_names_for_themselves() {
    let repository = Repository::read();
    let engine = |source: &&Source| source.package.starts_with("engine") && source.package != "engine/fuzz";
    let mut shared = shared_names(repository.sources.iter().filter(engine));
    shared.retain(|complaint| !NOT_YET_SINGLE.iter().any(|name| complaint.starts_with(&format!("{name}: "))));
    complain(shared);
}

#[test]
fn public_functions_document_their_errors() {
    complain(
        Repository::read()
            .sources
            .iter()
            .filter(|source| !NOT_YET_DOCUMENTED.contains(&source.package.as_str()))
            .flat_map(undocumented),
    );
}

/// Names of more than one public type, each with its places.
fn shared_names<'a>(sources: impl IntoIterator<Item = &'a Source>) -> Vec<String> {
    let mut types: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in sources {
        for (offset, name) in public_types(&source.product) {
            types.entry(name).or_default().push(source.place(offset));
        }
    }
    types.retain(|_, places| places.len() > 1);
    types.into_iter().map(|(name, places)| format!("{name}: {}", places.join(", "))).collect()
}

/// Names of public types with their offsets.
fn public_types(code: &str) -> Vec<(usize, &str)> {
    let word = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let declared = lines(code).filter_map(|(offset, line)| {
        let mut words = line.trim_start().split(word);
        let declares = words.next() == Some("pub")
            && matches!(words.next(), Some("struct" | "enum" | "trait" | "union" | "type"));
        // A macro's `$name` is no name.
        words.next().filter(|name| declares && !name.is_empty()).map(|name| (offset, name))
    });
    let by_macro = DECLARING_MACROS.iter().flat_map(|start| {
        code.match_indices(start).filter_map(|(offset, _)| {
            let name = code[offset + start.len()..].trim_start().split(word).next()?;
            (!name.is_empty()).then_some((offset, name))
        })
    });
    declared.chain(by_macro).collect()
}

/// Public functions, and methods of public traits, that give a `Result` without a section `# Errors`.
fn undocumented(source: &Source) -> Vec<String> {
    let code = &source.product;
    let traits: Vec<_> = starts(code, "pub trait ")
        .filter_map(|start| {
            code[start..].find('{').map(|open| start + open + 1..brace_end(code, start + open))
        })
        .collect();
    let in_public_trait = |at: usize| {
        traits.iter().find(|body| body.contains(&at)).is_some_and(|body| depth(&code[body.start..at]) == 0)
    };
    starts(code, "fn ")
        .filter(|at| {
            let line = &code[code[..*at].rfind('\n').map_or(0, |end| end + 1)..*at];
            line.split_whitespace().next() == Some("pub") || in_public_trait(*at)
        })
        .filter(|at| fallible(signature(code, *at)))
        .filter(|at| !documentation(&source.text, *at).any(|line| line.trim() == "/// # Errors"))
        .map(|at| {
            let name = code[at + "fn ".len()..]
                .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .next();
            format!("{}: {} lacks # Errors", source.place(at), name.unwrap_or("?"))
        })
        .collect()
}

/// Where `words` begin at a word's start.
fn starts<'a>(code: &'a str, words: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(words).map(|(at, _)| at).filter(|at| *at == 0 || !is_word(code.as_bytes()[at - 1]))
}

fn depth(code: &str) -> i64 {
    code.bytes().map(|byte| i64::from(byte == b'{') - i64::from(byte == b'}')).sum()
}

/// From `fn` to the body's brace or the semicolon.
fn signature(code: &str, at: usize) -> &str {
    let mut depth = 0_i64;
    let end = code[at..].bytes().position(|byte| {
        depth += i64::from(matches!(byte, b'(' | b'[')) - i64::from(matches!(byte, b')' | b']'));
        depth == 0 && matches!(byte, b'{' | b';')
    });
    &code[at..end.map_or(code.len(), |end| at + end)]
}

/// Whether the type after the arguments is a `Result`, by whatever path.
fn fallible(signature: &str) -> bool {
    let (mut depth, mut before) = (0_i64, b' ');
    let arrow = signature.bytes().position(|byte| {
        let arrow = (before, byte) == (b'-', b'>');
        match byte {
            b'(' | b'[' | b'<' => depth += 1,
            b')' | b']' => depth -= 1,
            b'>' if !arrow => depth -= 1,
            _ => {}
        }
        before = byte;
        arrow && depth == 0
    });
    let Some(given) = arrow.map(|arrow| signature[arrow + 1..].trim_start()) else { return false };
    let path = given.split(['<', ' ', '\n']).next().unwrap_or_default();
    path.rsplit("::").next() == Some("Result")
}

/// The lines of documentation and attributes above the line of `at`, the nearest first.
fn documentation(text: &str, at: usize) -> impl Iterator<Item = &str> {
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[..line].lines().rev().take_while(|line| {
        let line = line.trim_start();
        // The last line of an attribute that rustfmt broke closes it.
        line.starts_with("//") || line.starts_with("#[") || line.ends_with(']')
    })
}

#[test]
fn shared_names_are_found() {
    let texts = [
        (
            "a/src/b.rs",
            "pub struct One;\npub(crate) struct Two;\n#[cfg(test)]\nmod tests {\n    pub enum Three {}\n}\n",
        ),
        ("c/src/d.rs", "/// pub struct One\npub trait One<T> {}\npub enum Two {}\npub type Three = u8;\n"),
        (
            "e/src/f.rs",
            "bytes_type!(\n    /// Doc.\n    Four, 32);\nmessage! {\n    Five = 3, \"five\" {}\n}\n",
        ),
        ("g/src/h.rs", "pub struct Four;\npub struct Five;\npub fn union() {}\npub struct $name;\n"),
    ];
    let sources = texts.map(|(path, text)| Source::new(path, &path[..1], text));
    assert_eq!(
        shared_names(&sources),
        [
            "Five: e/src/f.rs:4, g/src/h.rs:2",
            "Four: e/src/f.rs:1, g/src/h.rs:1",
            "One: a/src/b.rs:1, c/src/d.rs:2",
        ]
    );
}

#[test]
fn missing_errors_are_found() {
    let text = "\
/// Good.
///
/// # Errors
/// Never.
#[must_use]
pub fn one() -> Result<u8, ()> { Ok(1) }
/// Bad.
pub const fn two(a: [u8; 3]) -> Result<(), ()>;
fn private() -> Result<(), ()>;
pub(crate) fn inner() -> Result<(), ()>;
pub fn infallible<F: Fn() -> Result<(), ()>>(f: F) -> Option<Result<(), ()>> where F: Fn() -> Result<(), ()> {}
pub trait Open {
    /// Bad.
    fn three(
        &self,
    ) -> io::Result<()> {
        fn nested() -> Result<(), ()> {}
    }
}
trait Closed {
    fn four() -> Result<(), ()>;
}
";
    let found = undocumented(&Source::new("a/src/b.rs", "a", text));
    assert_eq!(found, ["a/src/b.rs:8: two lacks # Errors", "a/src/b.rs:14: three lacks # Errors"]);
}
