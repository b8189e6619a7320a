//! `nuswitch reload`.

use std::process::ExitCode;

use clap::Args;

use super::{Control, print};
use crate::control::view::ReloadReport;

/// Apply what changed in the configuration file of the running switch.
///
/// Ports that did not change lose no frame. A file with mistakes changes nothing: they are told here, and the switch goes
/// on as before.
#[derive(Debug, Args)]
pub(super) struct Reload {}

impl Reload {
    pub(super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        let report: ReloadReport = control.client()?.post("/v1/reload", &())?;
        let mut text: String = report.changes.iter().map(|change| format!("{change}\n")).collect();
        if report.changes.is_empty() {
            text.push_str("nothing changed\n");
        }
        print(text)?;
        Ok(ExitCode::SUCCESS)
    }
}
