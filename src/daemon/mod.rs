//! The process: wires the model, the devices, the workers and the control socket together, and takes them apart again.
//!
//! One control thread with a small asynchronous runtime does all that is not a packet: signals, the API, reloads, devices
//! that come and go. A change is: validate, diff, open devices, compile, publish, close what is no longer used. One that
//! fails half-way leaves the old state running.

mod change;
mod connections;
mod devices;
mod guests;
mod journal;
mod leases;
mod leases_view;
mod routers;
mod security;
mod security_log;
mod state;
pub mod trace;
mod tunnels;
mod views;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::control::server::{Switch as _, serve};
use crate::control::socket::ControlSocket;
use crate::control::view::Problem;
use crate::dataplane::underlay::Note;
use crate::ports::link::{LinkEvent, LinkMonitor};
use crate::worker::Notice;
pub use change::load;
use state::Daemon;

/// How often devices that are missing are looked for, besides when the kernel tells of one.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the switch that the file at `config` describes until SIGTERM or SIGINT.
///
/// # Errors
/// When the file has mistakes (then a [`Problem`] with all of them), or a device, a worker or the control socket cannot be
/// had; everything that was opened until then is closed again.
pub fn run(config: &Path) -> anyhow::Result<()> {
    let model = load(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let settings = &model.switch;
        let socket =
            ControlSocket::bind(&settings.control, settings.control_mode, settings.control_group.as_deref())
                .await?;
        let (notices, notice) = mpsc::unbounded_channel();
        let monitor = LinkMonitor::open().context("cannot listen for devices that come and go")?;
        let daemon = Arc::new(Daemon::start(config, model, notices)?);
        let result = serve_until_stopped(&daemon, socket, notice, monitor).await;
        daemon.stop();
        result
    })
}

async fn serve_until_stopped(
    daemon: &Arc<Daemon>,
    socket: ControlSocket,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    mut monitor: LinkMonitor,
) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = serve(socket, daemon.clone(), async {
        let _ = stopped.await;
    });
    let mut server = std::pin::pin!(server);
    let links = crate::sys::readable(monitor.fd().try_clone_to_owned()?)?;
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tell_service_manager(&[sd_notify::NotifyState::Ready]);
    tracing::info!(config = daemon.config(), pid = std::process::id(), "running");
    loop {
        tokio::select! {
            () = &mut server => anyhow::bail!("the control socket has ended"),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match daemon.reload().await {
                Ok(report) => tracing::info!(changes = report.changes.len(), epoch = report.epoch, "reloaded"),
                Err(problem) => tell(&problem),
            },
            Some(notice) = notices.recv() => match notice {
                Notice::Gone(port) => daemon.device_gone(port),
                Notice::Underlay(Note::Stranger(vtep, network)) => daemon.learn_peer(vtep, network),
                Notice::Underlay(Note::Conflict(address, mac)) => tracing::warn!(
                    "{mac} on the underlay uses overlay.local_ip {address} too: one of the two must change"
                ),
            },
            ready = links.readable() => {
                let mut ready = ready?;
                let mut look = false;
                while let Some(event) = monitor.next_event()? {
                    look |= on_link_event(daemon, &event);
                }
                ready.clear_ready();
                if look {
                    daemon.look_for_devices();
                }
            }
            _ = tick.tick() => {
                daemon.tick();
                daemon.look_for_devices();
                anyhow::ensure!(!daemon.has_dead_worker(), "a worker has ended; see the log");
            }
        }
    }
    tracing::info!("stopping");
    tell_service_manager(&[sd_notify::NotifyState::Stopping]);
    let _ = stop.send(());
    daemon.end_captures();
    server.await;
    Ok(())
}

/// Whether there may be a device now that was missing.
fn on_link_event(daemon: &Daemon, event: &LinkEvent) -> bool {
    match event {
        LinkEvent::New { .. } => true,
        LinkEvent::Gone { name, .. } => {
            daemon.link_gone(name);
            false
        }
        LinkEvent::Overrun => true,
    }
}

fn tell(problem: &Problem) {
    for mistake in &problem.diagnostics {
        tracing::error!(
            file = mistake.file,
            line = mistake.line,
            column = mistake.column,
            "{}",
            mistake.message
        );
    }
    tracing::error!("not reloaded, all runs on as before: {problem}");
}

fn tell_service_manager(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
