//! `nuswitch run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// Run the switch in the foreground until SIGTERM or SIGINT.
///
/// Makes the devices that the file names, switches frames between them, answers on the control socket, and leaves
/// nothing behind when it ends. SIGHUP does what `nuswitch reload` does. Needs root, or CAP_NET_ADMIN, CAP_NET_RAW and
/// (for xdp ports) CAP_BPF.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  nuswitch run --config /etc/nuswitch/nuswitch.toml")]
pub(super) struct Run {
    /// The configuration: one TOML file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        crate::daemon::run(&self.config)?;
        Ok(ExitCode::SUCCESS)
    }
}
