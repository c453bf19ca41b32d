//! Rules of prose: how often "what" stands in comments and pages, and how wide a comment is.

use std::collections::BTreeMap;

use super::complain;
use super::source::{Repository, Source};

/// Of a thousand words. quinn-proto has 0.2, redb 0.5, rustls 0.8; above that, sentences are riddles where a noun would
/// do.
const WHAT_PER_THOUSAND_MAX: usize = 3;
const COMMENT_COLUMNS_MAX: usize = 120;

/// Packages whose comments are being rewritten.
const NOT_YET_PLAIN: [&str; 0] = [];

/// Packages with comments above the width.
const NOT_YET_NARROW: [&str; 0] = [];

#[test]
fn comments_say_what_seldom() {
    let repository = Repository::read();
    let mut packages: BTreeMap<&str, Count> = BTreeMap::new();
    for source in &repository.sources {
        let lines = source.comments.iter().map(|(line, text)| (*line, text.as_str()));
        packages.entry(&source.package).or_default().add(&source.path, lines);
    }
    for (path, text) in &repository.pages {
        packages.entry("pages").or_default().add(path, (1..).zip(text.lines()));
    }
    packages.retain(|package, _| !NOT_YET_PLAIN.contains(package));
    complain(packages.iter().filter_map(|(package, count)| count.complaint(package)));
}

#[test]
fn comments_keep_their_width() {
    complain(
        Repository::read()
            .sources
            .iter()
            .filter(|source| !NOT_YET_NARROW.contains(&source.package.as_str()))
            .flat_map(too_wide),
    );
}

#[derive(Default)]
struct Count {
    words: usize,
    /// `path:line` of each "what".
    what: Vec<String>,
}

impl Count {
    /// Counts the words of numbered lines, except in fenced blocks of code.
    fn add<'a>(&mut self, path: &str, lines: impl IntoIterator<Item = (usize, &'a str)>) {
        let mut fenced = false;
        for (number, line) in lines {
            if line.trim_start_matches(['/', '!', '*', ' ']).starts_with("```") {
                fenced = !fenced;
            }
            if fenced {
                continue;
            }
            let words = line
                .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                .filter(|word| word.starts_with(|letter: char| letter.is_alphabetic()));
            for word in words {
                self.words += 1;
                if word.eq_ignore_ascii_case("what") {
                    self.what.push(format!("{path}:{number}"));
                }
            }
        }
    }

    fn complaint(&self, package: &str) -> Option<String> {
        let (what, words) = (self.what.len(), self.words);
        (what * 1_000 >= WHAT_PER_THOUSAND_MAX * words && what > 0).then(|| {
            format!("{package}: \"what\" stands {what} times in {words} words:\n  {}", self.what.join("\n  "))
        })
    }
}

/// The lines of comments above the limit.
fn too_wide(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let wide = source.comments.iter().map(|(number, _)| (number, lines[number - 1].chars().count()));
    wide.filter(|(_, columns)| *columns > COMMENT_COLUMNS_MAX)
        .map(|(number, columns)| format!("{}:{number}: {columns} columns", source.path))
        .collect()
}

#[test]
fn what_is_counted() {
    let mut count = Count::default();
    let comment = [
        "/// What a peer sent, or `what` else.",
        "/// ```",
        "/// what();",
        "/// ```",
        "// Somewhat: whatever.",
    ];
    count.add("a.rs", (7..).zip(comment));
    assert_eq!((count.words, count.what.as_slice()), (9, &["a.rs:7".to_string(), "a.rs:7".to_string()][..]));
    assert!(count.complaint("a").is_some_and(|complaint| complaint.contains("2 times in 9 words")));

    let seldom = |words: usize| Count { words, what: vec!["a.rs:1".to_string(); 3] }.complaint("a");
    assert!(seldom(1_000).is_some() && seldom(1_001).is_none());
}

#[test]
fn wide_comments_are_found() {
    let wide = "x".repeat(COMMENT_COLUMNS_MAX - 2);
    let text = format!("//!{wide}\n// {}\nlet a = \"{wide}\";\nlet b = 1; //{wide}\n", &wide[1..]);
    let source = Source::new("a/src/b.rs", "a", &text);
    assert_eq!(too_wide(&source), ["a/src/b.rs:1: 121 columns", "a/src/b.rs:4: 131 columns"]);
}
