//! The worker threads as the control thread sees them: starts them, hands them devices, publishes tables and waits until
//! they have moved on.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use arc_swap::ArcSwap;
use crossbeam::channel::{self, Sender};
use mio::Poll;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{mpsc, oneshot};

use crate::dataplane::serve::Punt;
use crate::frame::Region;
use crate::model::Switch;
use crate::ports::{PortIo, Remains};
use crate::sys::xdp::umem::Umem;
use crate::tables::Tables;
use crate::types::{PortIdx, WorkerIdx};
use crate::worker::capture::CaptureTap;
use crate::worker::inspect::{Answer, Follower, LogSink, Question};
use crate::worker::mesh::{Link, Mesh};
use crate::worker::{Command, Notice, Setup, Worker};

/// Buffers for GSO frames of each worker: one a TAP port waits in, the rest travels.
const LARGE_BUFFERS: u32 = 1024;

struct Handle {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
    cpu: Option<usize>,
}

/// All workers of a switch.
pub(super) struct Workers {
    handles: Vec<Handle>,
    umems: Vec<Arc<Umem>>,
    mesh: Arc<Mesh>,
    tables: Arc<ArcSwap<Tables>>,
    buffers: u32,
}

impl Workers {
    /// Starts the workers that `switch` asks for.
    pub(super) fn start(
        switch: &Switch,
        origin: Instant,
        notices: &UnboundedSender<Notice>,
        slow_path: &mpsc::Sender<Punt>,
    ) -> anyhow::Result<Workers> {
        let cpus: Vec<Option<usize>> = match switch.workers.as_slice() {
            [] => vec![None],
            cpus => cpus.iter().copied().map(Some).collect(),
        };
        let polls = cpus
            .iter()
            .map(|_| Poll::new())
            .collect::<io::Result<Vec<Poll>>>()
            .context("cannot make an epoll")?;
        let mesh = Arc::new(Mesh::new(&polls).context("cannot make a waker")?);
        let tables = Arc::new(ArcSwap::from_pointee(Tables::default()));
        let mut workers =
            Workers { handles: Vec::new(), umems: Vec::new(), mesh, tables, buffers: switch.buffers };
        for (index, (cpu, poll)) in (0u16..).zip(cpus.into_iter().zip(polls)) {
            let region = Region::new(switch.buffers, LARGE_BUFFERS)
                .with_context(|| format!("cannot get memory for {} buffers", switch.buffers))?;
            let (commands, receiver) = channel::unbounded();
            let setup = Setup {
                index: WorkerIdx(index),
                region: region.clone(),
                seed: seed(),
                tables: workers.tables.clone(),
                mesh: workers.mesh.clone(),
                poll,
                commands: receiver,
                notices: notices.clone(),
                slow_path: slow_path.clone(),
                origin,
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || work(setup, cpu))
                .context("cannot start a worker")?;
            workers.umems.push(Umem::new(region));
            workers.handles.push(Handle { commands, thread, cpu });
        }
        Ok(workers)
    }

    pub(super) fn len(&self) -> usize {
        self.links().len()
    }

    pub(super) fn umem(&self, worker: WorkerIdx) -> &Arc<Umem> {
        &self.umems[worker.index()]
    }

    pub(super) fn cpu(&self, worker: usize) -> Option<usize> {
        self.handles.get(worker)?.cpu
    }

    pub(super) fn links(&self) -> &[Link] {
        self.mesh.links()
    }

    pub(super) fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// Where the newest tables are.
    pub(super) fn published(&self) -> Arc<ArcSwap<Tables>> {
        self.tables.clone()
    }

    pub(super) fn tables(&self) -> Arc<Tables> {
        self.tables.load_full()
    }

    pub(super) fn buffers(&self) -> u32 {
        self.buffers
    }

    /// Has a worker carry out a command, and gives what comes of it; nothing: the worker has ended.
    fn command<T>(&self, worker: WorkerIdx, command: impl FnOnce(Sender<T>) -> Command) -> Option<T> {
        let (done, wait) = channel::bounded(1);
        // After `stop` there is nobody to ask.
        self.handles.get(worker.index())?.commands.send(command(done)).ok()?;
        self.mesh.link(worker).wake();
        // A worker that has died drops its end of the channel, which ends the wait as well.
        wait.recv().ok()
    }

    pub(super) fn attach(&self, worker: WorkerIdx, port: PortIdx, io: Box<dyn PortIo>) {
        self.command(worker, |done| Command::Attach(port, io, done));
    }

    /// Takes a device from its worker; it is closed when what this gives is dropped.
    pub(super) fn detach(&self, worker: WorkerIdx, port: PortIdx) -> Remains {
        self.command(worker, |done| Command::Detach(port, done))?
    }

    pub(super) fn capture(&self, worker: WorkerIdx, port: PortIdx, tap: CaptureTap) {
        self.command(worker, |done| Command::Capture(port, tap, done));
    }

    /// Asks a worker; the answer is to be waited for without the switch's state in hand. None comes from a worker that has ended.
    pub(super) fn ask(&self, worker: WorkerIdx, question: Question) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        if let Some(handle) = self.handles.get(worker.index())
            && handle.commands.send(Command::Inspect(Box::new((question, reply)))).is_ok()
        {
            self.mesh.link(worker).wake();
        }
        answer
    }

    pub(super) fn log(&self, worker: WorkerIdx, sink: LogSink) {
        self.command(worker, |done| Command::Log(sink, done));
    }

    pub(super) fn follow(&self, worker: WorkerIdx, follower: Follower) {
        self.command(worker, |done| Command::Follow(follower, done));
    }

    /// Publishes tables and waits until no worker uses older ones.
    pub(super) fn publish(&self, tables: Tables) {
        let epoch = tables.epoch;
        self.tables.store(Arc::new(tables));
        for (link, handle) in self.mesh.links().iter().zip(&self.handles) {
            link.wake();
            while link.epoch() < epoch && !handle.thread.is_finished() {
                std::thread::sleep(Duration::from_micros(20));
                link.wake();
            }
        }
    }

    /// Whether a worker has ended, which none does by itself.
    pub(super) fn has_died(&self) -> bool {
        self.handles.iter().any(|handle| handle.thread.is_finished())
    }

    /// Ends all workers; they close their devices.
    pub(super) fn stop(&mut self) {
        for (handle, link) in self.handles.iter().zip(self.mesh.links()) {
            let _ = handle.commands.send(Command::Stop);
            link.wake();
        }
        for handle in self.handles.drain(..) {
            if handle.thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn work(setup: Setup, cpu: Option<usize>) {
    let index = setup.index.0;
    if let Some(cpu) = cpu
        && let Err(error) = pin(cpu)
    {
        tracing::warn!(worker = index, cpu, %error, "cannot pin the worker to its CPU");
    }
    if let Err(error) = Worker::new(setup).run() {
        tracing::error!(worker = index, %error, "the worker ends");
    }
}

fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu)?;
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
}

/// A secret, another with each call, from the standard library's source of randomness for hash maps.
pub(super) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// A secret for what guests may try to forge, from the kernel (urandom(4)).
pub(super) fn secret() -> io::Result<[u8; 32]> {
    use std::io::Read;
    let mut secret = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}
