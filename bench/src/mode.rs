//! Whether a bench measures or only shows that it works.

/// Whether this run measures: `cargo bench` passes `--bench`, `cargo test` does not.
#[must_use]
pub fn is_measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}
