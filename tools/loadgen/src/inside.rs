//! What the brokers' pool says of a run: how long batches took from stage to stage inside, and who waited for whom.

use std::path::Path;
use std::thread;
use std::time::Duration;

use embarcadero::monitor::diagnosis::diagnose;
use embarcadero::monitor::snapshot::Snapshot;
use embarcadero::monitor::stages::stages;
use embarcadero::observe::histogram::Distribution;
use embarcadero::pool::Pool;

use crate::error::LoadError;
use crate::stages::Stage;

/// Roles report once a second: what came last is there a little later.
const REPORTED_WITHIN: Duration = Duration::from_millis(1200);

/// A pool that is watched during a run.
pub struct Inside {
    pool: Pool,
    before: Snapshot,
}

impl Inside {
    /// Begins to watch the pool at this path.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn begin(path: &Path) -> Result<Inside, LoadError> {
        let pool = Pool::look(path).map_err(LoadError::Inside)?;
        let before = Snapshot::take(&pool, false);
        Ok(Inside { pool, before })
    }

    /// What came since: the stages that batches went through, and sentences about who waited.
    pub fn end(self) -> (Vec<Stage>, Vec<String>) {
        thread::sleep(REPORTED_WITHIN);
        let (before, now) = (&self.before, Snapshot::take(&self.pool, false));
        let stages = stages(Some(before), &now);
        let stages = stages.iter().filter_map(|(name, times)| stage(&format!("inside: {name}"), times)).collect();
        let words = diagnose(before, &now).into_iter().map(|found| format!("inside: {}: {}", found.cause, found.words));
        (stages, words.collect())
    }
}

fn stage(name: &str, times: &Distribution) -> Option<Stage> {
    let at = |part| times.quantile(part);
    Some(Stage::new(name, [at(0.5)?, at(0.99)?, at(0.999)?, times.max()]))
}
