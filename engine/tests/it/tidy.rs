//! The rules of form that a machine can check, over every Rust file of the repository.
//!
//! Owns: file headers and sizes, function lengths, words that do not belong, where `unsafe` may stand. Does not parse
//! Rust: it relies on the layout rustfmt gives, which CI enforces.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 1_500;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions over the limit, each with the reason why cutting it would make it harder to read. This list only shrinks.
const LONG_FUNCTIONS: [(&str, &str); 0] = [];

/// Words that mark unfinished work. Split in two so that this file does not find itself.
const BANNED: [(&str, &str); 5] =
    [("todo", "!("), ("unimplemented", "!("), ("FIX", "ME"), ("XX", "X"), ("#[ign", "ore")];

struct Source {
    path: PathBuf,
    text: String,
}

#[test]
fn every_file_opens_with_a_header() {
    complain(
        sources()
            .iter()
            .filter(|source| !source.text.starts_with("//! "))
            .map(|source| format!("{}: does not open with //!", source.path.display())),
    );
}

#[test]
fn no_file_is_too_long() {
    complain(sources().iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", source.path.display()))
    }));
}

#[test]
fn no_function_is_too_long() {
    let mut excused: Vec<&(&str, &str)> = Vec::new();
    let long: Vec<_> = sources()
        .iter()
        .flat_map(|source| functions(source).into_iter().map(|function| (source.path.clone(), function)))
        .filter(|(_, (_, _, lines))| *lines > FUNCTION_LINES_MAX)
        .filter(|(path, (name, _, _))| {
            let excuse =
                LONG_FUNCTIONS.iter().find(|(file, function)| path.ends_with(file) && function == name);
            excused.extend(excuse);
            excuse.is_none()
        })
        .map(|(path, (name, start, lines))| format!("{}:{start}: {name} has {lines} lines", path.display()))
        .collect();
    complain(long);
    assert_eq!(
        excused.len(),
        LONG_FUNCTIONS.len(),
        "an excused function is no longer too long: shorten the list"
    );
}

#[test]
fn nothing_is_left_unfinished() {
    complain(sources().iter().flat_map(|source| {
        source.text.lines().zip(1..).filter_map(|(line, number)| {
            let (head, tail) = BANNED.iter().find(|(head, tail)| line.contains(&format!("{head}{tail}")))?;
            Some(format!("{}:{number}: {head}{tail}", source.path.display()))
        })
    }));
}

#[test]
fn unsafe_stands_in_secp_alone_and_says_why() {
    let keyword = concat!("unsa", "fe");
    complain(sources().iter().flat_map(|source| {
        let lines: Vec<&str> = source.text.lines().collect();
        let in_secp = source.path.components().any(|part| part.as_os_str() == "secp");
        let mut found = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = [" {", " fn", " impl"].iter().any(|what| code.contains(&format!("{keyword}{what}")));
            if !opens {
                continue;
            }
            let before = lines[..index].iter().rev().take(12).take_while(|line| {
                let line = line.trim_start();
                line.starts_with("//") || line.starts_with("#[") || line.ends_with('=')
            });
            let explained = before.clone().any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            if !in_secp || !(explained || line.contains("SAFETY:")) {
                found.push(format!("{}:{}: {}", source.path.display(), index + 1, line.trim()));
            }
        }
        found
    }));
}

/// Every Rust file of the repository, the generated and the fetched left out.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the engine stands in the workspace");
    let mut folders = vec![root.to_path_buf()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository can be read") {
            let path = entry.expect("the repository can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                sources.push(Source {
                    path: path.strip_prefix(root).expect("below the root").to_path_buf(),
                    text,
                });
            }
        }
    }
    assert!(sources.len() > 50, "only {} sources found below {}", sources.len(), root.display());
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
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

fn complain(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn functions_are_measured() {
    let text = "//! Text.\n\nimpl A {\n    pub(crate) const fn one(&self) -> u8 {\n        1\n    }\n\n    fn two();\n}\n\nfn three() {\n}\n";
    let source = Source { path: PathBuf::from("a.rs"), text: text.to_string() };
    let expected = [("one".to_string(), 4, 3), ("three".to_string(), 11, 2)];
    assert_eq!(functions(&source), expected);
}
