//! The repository as the rules see it: each Rust file with its comments and its code apart, each page of prose.
//!
//! Owns: finding the files, telling comments, strings and code apart, and which code is compiled into a product. Does
//! not parse Rust beyond that; the rules rely on the layout that rustfmt gives.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// One Rust file.
pub(super) struct Source {
    /// Below the repository's root, with forward slashes.
    pub(super) path: String,
    /// The folder of the package that the file belongs to: `engine/wire`.
    pub(super) package: String,
    pub(super) text: String,
    /// `text` with every comment, string and character literal overwritten by spaces, so that offsets and lines agree.
    pub(super) code: String,
    /// `code` without items for tests; empty for a file that is compiled into tests, benches or examples alone.
    pub(super) product: String,
    /// Lines of comments: number, counted from 1, and text from the `//` on.
    pub(super) comments: Vec<(usize, String)>,
}

/// Everything that the rules judge.
pub(super) struct Repository {
    /// By path.
    pub(super) sources: Vec<Source>,
    /// Pages in Markdown: path and text.
    pub(super) pages: Vec<(String, String)>,
    /// Each package's folder and the text of its `Cargo.toml`.
    pub(super) manifests: Vec<(String, String)>,
}

impl Source {
    /// A file of product code, unless `path` or the text says otherwise.
    pub(super) fn new(path: &str, package: &str, text: &str) -> Self {
        let (code, comments) = separate(text);
        let below = path.strip_prefix(package).unwrap_or(path);
        let product = if below.starts_with("/src/") && !code.contains("#![cfg(test)]") {
            without_tests(&code)
        } else {
            String::new()
        };
        Self {
            path: path.to_string(),
            package: package.to_string(),
            text: text.to_string(),
            code,
            product,
            comments,
        }
    }

    /// The folder in which the modules that this file declares lie.
    pub(super) fn folder(&self) -> &str {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        if matches!(file, "mod.rs" | "lib.rs" | "main.rs") {
            folder
        } else {
            self.path.trim_end_matches(".rs")
        }
    }

    /// `path:line` of an offset into the text.
    pub(super) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.path, line_of(&self.text, offset))
    }

    /// Files of modules declared for tests alone.
    fn test_modules(&self) -> Vec<String> {
        test_items(&self.code)
            .into_iter()
            .flat_map(|item| {
                let Some(name) = module_name(&self.code[item.clone()]) else { return Vec::new() };
                let beside = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                match self.text[item].split_once("#[path = \"").and_then(|(_, rest)| rest.split_once('"')) {
                    Some((file, _)) => vec![format!("{beside}/{file}")],
                    None => module_files(self.folder(), name),
                }
            })
            .collect()
    }

    /// Files of all modules declared here.
    fn modules(&self) -> Vec<String> {
        self.code
            .lines()
            .filter_map(|line| module_name(line.trim()))
            .flat_map(|name| module_files(self.folder(), name))
            .collect()
    }
}

impl Repository {
    /// Every file, the generated and the fetched left out.
    pub(super) fn read() -> Self {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the engine stands in the workspace");
        let mut folders = vec![root.to_path_buf()];
        let (mut rust, mut pages, mut manifests) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the repository can be read") {
                let path = entry.expect("the repository can be read").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let below =
                    path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
                if path.is_dir() {
                    if name != "target" && !name.starts_with('.') {
                        folders.push(path);
                    }
                } else if name == "Cargo.toml" {
                    let text = fs::read_to_string(&path).expect("manifests are text");
                    // The workspace's manifest at the root is no package's.
                    manifests
                        .extend(below.strip_suffix("/Cargo.toml").map(|folder| (folder.to_string(), text)));
                } else if name.ends_with(".rs") {
                    rust.push((below, fs::read_to_string(&path).expect("sources are text")));
                } else if name.ends_with(".md") {
                    pages.push((below, fs::read_to_string(&path).expect("pages are text")));
                }
            }
        }
        assert!(rust.len() > 50, "only {} sources found below {}", rust.len(), root.display());
        pages.sort();
        let packages = manifests.iter().map(|(folder, _)| folder.clone()).collect();
        Self { sources: sources(rust, packages), pages, manifests }
    }
}

/// Files as sources of the innermost package they lie in, without product code where a module is for tests.
pub(super) fn sources(mut files: Vec<(String, String)>, mut packages: Vec<String>) -> Vec<Source> {
    files.sort();
    packages.sort_by_key(|package| std::cmp::Reverse(package.len()));
    let mut sources: Vec<Source> = files
        .into_iter()
        .map(|(path, text)| {
            let package = packages.iter().find(|package| path.starts_with(&format!("{package}/")));
            Source::new(&path, package.map_or("", |package| package), &text)
        })
        .collect();
    let mut for_tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    while let Some(path) = for_tests.pop() {
        let Some(source) = sources.iter_mut().find(|source| source.path == path) else { continue };
        source.product.clear();
        for_tests.extend(source.modules());
    }
    sources
}

/// The code with all else blanked, and the lines of comments.
fn separate(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut comments = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let Some(end) = literal_end(bytes, at) else {
            line += usize::from(bytes[at] == b'\n');
            at += 1;
            continue;
        };
        if bytes[at] == b'/' {
            comments.extend((line..).zip(text[at..end].lines().map(str::to_string)));
        }
        for byte in &mut code[at..end] {
            line += usize::from(*byte == b'\n');
            *byte = if *byte == b'\n' { b'\n' } else { b' ' };
        }
        at = end;
    }
    (String::from_utf8(code).expect("whole literals are blanked"), comments)
}

/// Where a comment, string or character that begins at `at` ends; `None` if none begins there.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let find = |from: usize, needle: &[u8]| {
        rest[from..].windows(needle.len()).position(|window| window == needle).map(|found| from + found)
    };
    let length = match rest[0] {
        b'/' if rest.starts_with(b"//") => find(0, b"\n").unwrap_or(rest.len()),
        b'/' if rest.starts_with(b"/*") => find(2, b"*/").map_or(rest.len(), |end| end + 2),
        b'"' => quoted(rest, b'"'),
        // A lifetime has no second quote where a character has it.
        b'\'' if rest.get(1) == Some(&b'\\') => quoted(rest, b'\''),
        b'\'' => {
            2 + rest[1..].iter().take(6).skip(1).position(|byte| *byte == b'\'').filter(|inside| {
                std::str::from_utf8(&rest[1..2 + inside]).is_ok_and(|text| text.chars().count() == 1)
            })? + 1
        }
        b'r' if at == 0 || !is_word(bytes[at - 1]) || matches!(bytes[at - 1], b'b' | b'c') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return None;
            }
            let close = [&b"\""[..], &rest[1..1 + hashes]].concat();
            find(2 + hashes, &close).map_or(rest.len(), |end| end + close.len())
        }
        _ => return None,
    };
    Some(at + length)
}

/// The length of a literal with escapes between two `quote`s.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn without_tests(code: &str) -> String {
    let mut product = code.as_bytes().to_vec();
    for item in test_items(code) {
        for byte in &mut product[item] {
            *byte = if *byte == b'\n' { b'\n' } else { b' ' };
        }
    }
    String::from_utf8(product).expect("items begin and end at ASCII")
}

/// Each item under `#[cfg(test)]` or `#[cfg(all(test, ..))]`, its attributes included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(start) = code[from..].find("#[cfg(").map(|found| from + found) {
        let condition = &code[start + "#[cfg(".len()..];
        from = start + 1;
        if ["test)", "all(test)", "all(test,"].iter().any(|test| condition.starts_with(test)) {
            from = item_end(code, start);
            items.push(start..from);
        }
    }
    items
}

/// Past the `;` or the closing brace of the item that begins at `start`.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => return at + 1,
            b'{' if depth == 0 => return brace_end(code, at),
            b'}' if depth == 0 => return at,
            _ => {}
        }
    }
    code.len()
}

/// Past the brace that closes the one at `open`.
pub(super) fn brace_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The name in `mod name;`, whatever stands before it.
fn module_name(item: &str) -> Option<&str> {
    let declaration = item.strip_suffix(';')?;
    let mut words = declaration.rsplit(char::is_whitespace);
    let name = words.next()?;
    (words.next() == Some("mod")).then_some(name)
}

fn module_files(folder: &str, name: &str) -> Vec<String> {
    vec![format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]
}

/// Lines with their offsets.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut next = 0;
    text.split('\n').map(move |line| {
        let start = next;
        next += line.len() + 1;
        (start, line)
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

pub(super) fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

#[test]
fn comments_strings_and_code_are_told_apart() {
    let text = "let a = \"// no \\\" comment\"; // one\nlet b: &'a str = r#\"/* \" */\"#;\n/* two\nlines */ let c = ('\"', '\\'', b'/');\n";
    let source = Source::new("a/src/b.rs", "a", text);
    let expected = [(1, "// one"), (3, "/* two"), (4, "lines */")];
    assert_eq!(source.comments, expected.map(|(line, text)| (line, text.to_string())));
    assert_eq!(source.code.len(), text.len());
    assert_eq!(source.code.split_whitespace().collect::<String>(), "leta=;letb:&'astr=;letc=(,,b);");
}

#[test]
fn code_for_tests_is_no_product() {
    let files = [
        (
            "a/src/lib.rs",
            "mod b;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn helper() { if x {} }\nfn kept() {}\n",
        ),
        ("a/src/b.rs", "use c;\n#[cfg(all(test, unix))]\n#[path = \"b_tests.rs\"]\nmod tests;\n"),
        ("a/src/b_tests.rs", "fn one() {}\n"),
        ("a/src/tests.rs", "mod deep;\n"),
        ("a/src/tests/deep.rs", "fn two() {}\n"),
        ("a/tests/three.rs", "fn three() {}\n"),
    ];
    let files = files.map(|(path, text)| (path.to_string(), text.to_string())).to_vec();
    let sources = sources(files, vec!["a".to_string()]);
    let product: Vec<(&str, String)> = sources
        .iter()
        .filter(|source| !source.product.is_empty())
        .map(|source| (source.path.as_str(), source.product.split_whitespace().collect()))
        .collect();
    assert_eq!(
        product,
        [("a/src/b.rs", "usec;".to_string()), ("a/src/lib.rs", "modb;fnkept(){}".to_string())]
    );
}
