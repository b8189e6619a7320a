//! The command `nuswitch`: arguments, logging, exit code.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use nuswitch::cli::{Cli, LogFormat};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = log(cli.log_format) {
        eprintln!("error: {error:#}");
        return ExitCode::from(2);
    }
    cli.execute()
}

/// Logs to standard error what NUSWITCH_LOG, else RUST_LOG, else `info` selects.
fn log(format: LogFormat) -> anyhow::Result<()> {
    let mut filter = EnvFilter::new("info");
    for name in ["NUSWITCH_LOG", "RUST_LOG"] {
        if let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty()) {
            filter = EnvFilter::try_new(&text).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
            break;
        }
    }
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
