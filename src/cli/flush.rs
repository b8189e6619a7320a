//! `nuswitch flush`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::show::Filter;
use super::{Control, print};
use crate::control::view::Flushed;

const EXAMPLES: &str = "\
Examples:
  nuswitch flush conntrack --guest web1           all connections of one guest
  nuswitch flush conntrack --router edge --protocol udp --port 53
  nuswitch flush conntrack --network blue         what security groups let guests of blue have
  nuswitch flush conntrack                        all connections of all routers and guests

`nuswitch show conntrack` with the same options tells beforehand which ones these are. Guests and the world
are not told; a packet of a connection that was removed is treated as the first of one: security groups
judge it anew.";

/// Remove what the switch remembers.
#[derive(Debug, Args)]
pub(super) struct Flush {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tracked connections, of routers and of guests; what they were translated to is free for others
    #[command(after_help = EXAMPLES)]
    Conntrack(Filter),
}

impl Flush {
    pub(super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        let What::Conntrack(filter) = self.what;
        let query = filter.query();
        let path =
            if query.is_empty() { "/v1/conntrack".to_owned() } else { format!("/v1/conntrack?{query}") };
        let Flushed { removed } = control.client()?.delete(&path)?;
        print(format_args!("{removed} connection{} removed\n", if removed == 1 { "" } else { "s" }))?;
        Ok(ExitCode::SUCCESS)
    }
}
