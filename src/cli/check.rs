//! `nuswitch check`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{MISTAKE, print};
use crate::model;

/// Check configuration files without starting anything.
///
/// Tells every mistake at once, with line, column, reason and a hint. Devices are not looked for: whether `eth1` is there
/// shows when the switch starts.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nuswitch check lab.toml && sudo nuswitch reload")]
pub(super) struct Check {
    /// Configuration files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Check {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let mut mistakes = 0;
        for path in &self.files {
            let name = path.display().to_string();
            let text = fs::read_to_string(path).with_context(|| name.clone())?;
            match model::load(&text, &name) {
                Ok(model) => {
                    let (networks, ports) = (model.networks.len(), model.ports.len());
                    let physical = model.physical_networks.len();
                    let what = [(physical, "physical network"), (networks, "network"), (ports, "port")];
                    let what =
                        what.map(|(count, noun)| format!("{count} {noun}{}", plural(count))).join(", ");
                    print(format_args!("{name}: {what}, no mistakes\n"))?;
                }
                Err(diagnostics) => {
                    mistakes += diagnostics.len();
                    for diagnostic in diagnostics {
                        print(format_args!("{}\n\n", diagnostic.render(&text).trim_end()))?;
                    }
                }
            }
        }
        if mistakes == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        print(format_args!("{mistakes} mistake{}\n", plural(mistakes)))?;
        Ok(ExitCode::from(MISTAKE))
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
