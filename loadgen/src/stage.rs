//! The wall time of a run's stages.
//!
//! Owns the clock that `run` and `stress` time their stages with. Does not know the stages.

use std::time::Instant;

use crate::report::Stage;

/// Times one stage after the other.
#[derive(Debug, Default)]
pub(crate) struct StageClock {
    stages: Vec<Stage>,
}

impl StageClock {
    /// Runs a stage and notes its wall time.
    ///
    /// # Errors
    /// Those of the stage, whose time is not noted then.
    pub(crate) fn time<T, E>(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let begun = Instant::now();
        let result = stage()?;
        self.stages.push(Stage { name, wall_s: begun.elapsed().as_secs_f64() });
        Ok(result)
    }

    /// The stages that ended, in order.
    pub(crate) fn into_stages(self) -> Vec<Stage> {
        self.stages
    }
}
