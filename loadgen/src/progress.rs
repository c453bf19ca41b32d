//! Progress bars for the stages of a run.
//!
//! Owns: how a stage's progress looks. On standard error, and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The form of a bar.
const TEMPLATE: &str = "{prefix:>9} {wide_bar:.cyan/238} {pos:>7}/{len} {elapsed:>4} {msg}";
/// How often a bar is drawn at most.
const FRAMES_HZ: u8 = 12;

/// Makes progress bars, or none.
#[derive(Debug)]
pub(crate) struct Progress {
    quiet: bool,
}

impl Progress {
    /// Bars, unless `quiet`.
    pub(crate) fn new(quiet: bool) -> Progress {
        Progress { quiet }
    }

    /// A bar for `wanted` steps of `name`.
    pub(crate) fn bar(&self, name: &'static str, wanted: u64) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(wanted), ProgressDrawTarget::stderr_with_hz(FRAMES_HZ));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_prefix(name);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}
