//! `nuswitch capture`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Control;
use crate::control::client::{Client, Error, encode};
use crate::pcapng::Blocks;

const EXAMPLES: &str = "\
Examples:
  nuswitch capture web1 -w web1.pcapng            until Ctrl-C
  nuswitch capture web1 -w - | tcpdump -n -r -    watch it live
  nuswitch capture web1 -w - --count 100 | tshark -r -

  nuswitch capture overlay --inner -w - | tcpdump -n -e -r -
                                                  what is in the tunnels

A dropped frame carries a comment `dropped: <reason> - <meaning>`, which Wireshark and tshark show;
with --inner each frame carries `tunnel from <peer>, VNI <n>` or `tunnel to ...`.";

/// Record the frames of a port as pcapng, both directions, dropped ones with their reason.
///
/// Other ports pay nothing for it. When frames come faster than they are taken, some are missed, and the file and this
/// command say how many.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Capture {
    /// Name or ID of the port, name of the physical network, or `overlay`
    port: String,
    /// Where to write; `-` is standard output
    #[arg(long, short, value_name = "FILE")]
    write: PathBuf,
    /// With `overlay`: only packets of tunnels, each as the frame in it; the other options are about that
    #[arg(long)]
    inner: bool,
    /// End after this many frames
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Record at most this many bytes of each frame; 0: all
    #[arg(long, short, value_name = "BYTES", default_value_t = 0)]
    snaplen: u32,
}

impl Capture {
    pub(super) fn execute(self, control: &Control) -> anyhow::Result<ExitCode> {
        let client = control.client()?;
        let mut blocks = Blocks::default();
        let result = self.record(&client, &mut blocks);
        let missed = match blocks.missed {
            0 => String::new(),
            missed => format!(", {missed} missed"),
        };
        let plural = if blocks.frames == 1 { "" } else { "s" };
        match result {
            // The reader of the pipe has seen enough: a good end.
            Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(Error::Output(error)) => return Err(error).context(self.write.display().to_string()),
            other => other?,
        }
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{} frame{plural} captured{missed}", blocks.frames);
        Ok(ExitCode::SUCCESS)
    }

    fn record(&self, client: &Client, blocks: &mut Blocks) -> Result<(), Error> {
        let path =
            format!("/v1/capture/{}?snaplen={}&inner={}", encode(&self.port), self.snaplen, self.inner);
        // Opened with the first piece, so that a refusal leaves no empty file.
        let mut output: Option<Box<dyn Write>> = None;
        client.stream(&path, stop(self.seconds), |piece| {
            let output = match &mut output {
                Some(output) => output,
                None => output.insert(open(&self.write).map_err(io::Error::other)?),
            };
            blocks.push(piece);
            let is_full = blocks.pass(output, self.count)?;
            output.flush()?;
            Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Write>> {
    if path != Path::new("-") {
        return Ok(Box::new(io::BufWriter::new(File::create(path)?)));
    }
    if io::stdout().is_terminal() {
        bail!("pcapng is not for terminals: pass it on, as in `-w - | tcpdump -r -`");
    }
    Ok(Box::new(io::stdout()))
}

/// Done at SIGINT, SIGTERM, or when the time is over.
async fn stop(seconds: Option<u64>) {
    let time = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await.unwrap_or(()),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
        () = time => {}
    }
}
