//! `nuswitch check`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{MISTAKE, print};
use crate::model::{self, Model};

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
                    print(format_args!("{name}: {}, no mistakes\n", objects(&model)))?;
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

/// How many objects there are of each kind; routing and groups are told of where there are any.
fn objects(model: &Model) -> String {
    let always = [
        (model.physical_networks.len(), "physical network"),
        (model.networks.len(), "network"),
        (model.ports.len(), "port"),
    ];
    let others = [
        (model.subnets.len(), "subnet"),
        (model.routers.len(), "router"),
        (model.floating_ips.len(), "floating IP"),
        (model.security_groups.iter().filter(|group| !group.is_built_in()).count(), "security group"),
        (model.address_groups.len(), "address group"),
    ];
    let counts = always.into_iter().chain(others.into_iter().filter(|(count, _)| *count > 0));
    counts.map(|(count, noun)| format!("{count} {noun}{}", plural(count))).collect::<Vec<_>>().join(", ")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_counted_by_kind() {
        let count = |text: &str| objects(&model::load(text, "f.toml").unwrap());
        assert_eq!(count(""), "0 physical networks, 0 networks, 0 ports");
        assert_eq!(count("[[network]]\nname = 'n'"), "0 physical networks, 1 network, 0 ports");
        assert_eq!(
            count(include_str!("../../config/router.toml")),
            "1 physical network, 2 networks, 3 ports, 4 subnets, 1 router, 2 floating IPs, 1 security group"
        );
    }
}
