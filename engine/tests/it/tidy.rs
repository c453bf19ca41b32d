//! The rules that a machine can check, over every Rust file and page of the repository.
//!
//! Owns: rules of form, prose, public names, imports and manifests, one module each; every rule is seen to fail on a
//! bad sample. Does not parse Rust: it relies on the layout that rustfmt gives, which CI enforces.

mod api;
mod form;
mod imports;
mod manifests;
mod source;
mod words;

fn complain(complaints: impl IntoIterator<Item = String>) {
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
