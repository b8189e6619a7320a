//! The process that wires everything: not built yet.

use std::path::Path;

/// Runs the switch that the file at `config` describes until it is told to stop.
///
/// # Errors
/// Always, for now.
pub fn run(config: &Path) -> anyhow::Result<()> {
    anyhow::bail!("the daemon is not built into this version: {} was not started", config.display())
}
