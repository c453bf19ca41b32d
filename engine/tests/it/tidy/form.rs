//! Rules of form: headers, sizes of files and functions, unfinished work, where `unsafe` may stand.

use super::complain;
use super::source::{Repository, Source};

const FILE_LINES_MAX: usize = 1_500;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions over the limit, each with the reason why cutting it would make it harder to read. This list only shrinks.
const LONG_FUNCTIONS: [(&str, &str); 0] = [];

/// Words that mark unfinished work. Split in two so that this file does not find itself.
const BANNED: [(&str, &str); 5] =
    [("todo", "!("), ("unimplemented", "!("), ("FIX", "ME"), ("XX", "X"), ("#[ign", "ore")];

#[test]
fn every_file_opens_with_a_header() {
    complain(Repository::read().sources.iter().flat_map(headless));
}

#[test]
fn no_file_is_too_long() {
    complain(Repository::read().sources.iter().flat_map(too_long));
}

#[test]
fn no_function_is_too_long() {
    let repository = Repository::read();
    let excused = |source: &Source, name: &str| LONG_FUNCTIONS.contains(&(source.path.as_str(), name));
    let long = repository
        .sources
        .iter()
        .flat_map(|source| long_functions(source).into_iter().map(move |function| (source, function)));
    let (excused, complaints): (Vec<_>, Vec<_>) = long.partition(|(source, (name, _))| excused(source, name));
    complain(complaints.into_iter().map(|(_, (_, complaint))| complaint));
    assert_eq!(
        excused.len(),
        LONG_FUNCTIONS.len(),
        "an excused function is no longer too long: shorten the list"
    );
}

#[test]
fn nothing_is_left_unfinished() {
    complain(Repository::read().sources.iter().flat_map(unfinished));
}

#[test]
fn unsafe_stands_in_secp_alone_and_says_why() {
    complain(Repository::read().sources.iter().flat_map(unsafe_code));
}

fn headless(source: &Source) -> Option<String> {
    (!source.text.starts_with("//! ")).then(|| format!("{}: does not open with //!", source.path))
}

fn too_long(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
}

/// Functions above the limit: name and complaint.
fn long_functions(source: &Source) -> Vec<(String, String)> {
    let long = functions(source).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    long.map(|(name, start, lines)| {
        let complaint = format!("{}:{start}: {name} has {lines} lines", source.path);
        (name, complaint)
    })
    .collect()
}

fn unfinished(source: &Source) -> Vec<String> {
    let lines = source.text.lines().zip(1..);
    lines
        .filter_map(|(line, number)| {
            let (head, tail) = BANNED.iter().find(|(head, tail)| line.contains(&format!("{head}{tail}")))?;
            Some(format!("{}:{number}: {head}{tail}", source.path))
        })
        .collect()
}

/// Blocks, functions and implementations outside `secp`, or without a reason within the twelve lines above.
fn unsafe_code(source: &Source) -> Vec<String> {
    let keyword = concat!("unsa", "fe");
    let lines: Vec<&str> = source.text.lines().collect();
    let in_secp = source.package == "engine/secp";
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let opens = [" {", " fn", " impl"].iter().any(|after| code.contains(&format!("{keyword}{after}")));
        if !opens {
            continue;
        }
        let mut before = lines[..index].iter().rev().take(12).take_while(|line| {
            let line = line.trim_start();
            line.starts_with("//") || line.starts_with("#[") || line.ends_with('=')
        });
        let explained = before.any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
        if !in_secp || !(explained || line.contains("SAFETY:")) {
            found.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
        }
    }
    found
}

/// The functions of a file: name, first line, and number of lines from `fn` to the brace that closes it.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let words: Vec<&str> = code.split([' ', '(', '<']).collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        let qualifiers =
            ["pub", "crate)", "super)", "self)", "const", "async", "extern", "\"C\"", concat!("unsa", "fe")];
        if !words[..at].iter().all(|word| qualifiers.contains(word)) {
            continue;
        }
        let has_body = lines[index..]
            .iter()
            .find(|line| line.ends_with(['{', '}', ';']))
            .is_some_and(|line| line.ends_with('{'));
        let close = format!("{indent}}}");
        let length = lines[index..].iter().position(|line| *line == close);
        if let Some(length) = length.filter(|_| has_body) {
            found.push((words.get(at + 1).unwrap_or(&"?").to_string(), index + 1, length + 1));
        }
    }
    found
}

#[test]
fn functions_are_measured() {
    let text = "//! Text.\n\nimpl A {\n    pub(crate) const fn one(&self) -> u8 {\n        1\n    }\n\n    fn two();\n}\n\nfn three() {\n}\n";
    let expected = [("one".to_string(), 4, 3), ("three".to_string(), 11, 2)];
    assert_eq!(functions(&Source::new("a/src/b.rs", "a", text)), expected);
}

#[test]
fn breaches_of_form_are_found() {
    let long = format!("fn long() {{\n{}}}\n", "    call();\n".repeat(FUNCTION_LINES_MAX - 1));
    let text = format!("// No header.\n{long}{}", "\n".repeat(FILE_LINES_MAX - FUNCTION_LINES_MAX - 1));
    let source = Source::new("a/src/b.rs", "a", &text);
    assert_eq!(headless(&source).as_deref(), Some("a/src/b.rs: does not open with //!"));
    assert_eq!(too_long(&source).as_deref(), Some("a/src/b.rs: 1501 lines"));
    assert_eq!(
        long_functions(&source),
        [("long".to_string(), "a/src/b.rs:2: long has 71 lines".to_string())]
    );

    let source = Source::new("a/src/b.rs", "a", concat!("//! Text.\nfn a() {\n    tod", "o!()\n}\n"));
    assert_eq!((headless(&source), too_long(&source), long_functions(&source)), (None, None, Vec::new()));
    assert_eq!(unfinished(&source), [concat!("a/src/b.rs:3: tod", "o!(")]);
}

#[test]
fn unsafe_code_is_found() {
    let text = concat!(
        "let a = unsa",
        "fe { call() };\n",
        "// SAFETY: a reason.\nlet b = unsa",
        "fe { call() };\n",
    );
    let at = |package: &str| unsafe_code(&Source::new(&format!("{package}/src/b.rs"), package, text)).len();
    assert_eq!((at("engine/secp"), at("engine/wire")), (1, 2));
}
