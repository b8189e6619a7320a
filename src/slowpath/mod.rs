//! What no worker may do: services that keep state for each client, wait, or do I/O. They run on threads of their own; workers
//! hand over copies of frames, and what is answered goes back to the worker of the port as whole frames.
//!
//! | module | what it knows |
//! |---|---|
//! | [`leases`] | addresses by DHCP for clients without a port, durable; on a thread of its own, since it waits for the disk |
//! | [`metadata`] | a guest's identity, keys and user data, over HTTP at 169.254.169.254 and fe80::a9fe:a9fe |
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

mod counters;
pub mod leases;
pub mod metadata;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::dataplane::serve::Punt;
use crate::services::dhcp4;
use crate::types::{NetIdx, PortIdx};

/// Frames that wait for the slow path; more are refused, and counted at their ports.
pub const WAITING: usize = 4096;

/// The threads. They end when all who send to them are gone.
pub struct SlowPath {
    thread: Option<JoinHandle<()>>,
    settings: Arc<ArcSwap<metadata::Settings>>,
    counters: Arc<metadata::Counters>,
    leases: leases::Handle,
}

impl SlowPath {
    /// Starts the threads. What comes by `frames` is dealt with; `answer` takes a frame to the worker of its port, and says
    /// whether there is room. `seed` is from the system's entropy.
    ///
    /// # Errors
    /// The kernel's, when there is no thread to be had.
    pub fn start(
        frames: mpsc::Receiver<Punt>,
        answer: impl Fn(Punt) -> bool + Send + Sync + 'static,
        seed: [u8; 32],
        leases: leases::Leases,
    ) -> std::io::Result<SlowPath> {
        let settings: Arc<ArcSwap<metadata::Settings>> = Arc::default();
        let counters: Arc<metadata::Counters> = Arc::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = Arc::new(answer);
        let same = answer.clone();
        let (leases, inbox) = leases::Handle::start(leases, WAITING, move |reply| same(reply))?;
        let answer = move |reply| answer(reply);
        let (theirs, counted) = (settings.clone(), counters.clone());
        let thread = std::thread::Builder::new().name("slow-path".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, work(frames, inbox, answer, seed, theirs, counted))
        })?;
        Ok(SlowPath { thread: Some(thread), settings, counters, leases })
    }

    /// Replaces what guests are told.
    pub fn configure(&self, settings: metadata::Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// What guests are told.
    pub fn settings(&self) -> Arc<metadata::Settings> {
        self.settings.load_full()
    }

    /// What the metadata service counts.
    pub fn counters(&self) -> &metadata::Counters {
        &self.counters
    }

    /// Replaces the networks whose clients get leases.
    pub fn configure_leases(&self, networks: Vec<leases::NetworkLeases>) {
        self.leases.configure(networks);
    }

    /// All leases that there are, as soon as the thread has time to say so.
    pub fn leases(&self) -> impl Future<Output = Vec<leases::Shown>> + Send + use<> {
        self.leases.shown()
    }

    /// What is counted of leases.
    pub fn lease_counters(&self) -> &leases::Counters {
        self.leases.counters()
    }

    /// Waits for the threads' end, once nobody sends any more.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the slow path panicked");
        }
        self.leases.join();
    }
}

async fn work(
    mut frames: mpsc::Receiver<Punt>,
    leases: leases::Inbox,
    answer: impl Fn(Punt) -> bool + 'static,
    seed: [u8; 32],
    settings: Arc<ArcSwap<metadata::Settings>>,
    counters: Arc<metadata::Counters>,
) {
    // A guest is on one network; it may be moved to another.
    let networks: Rc<RefCell<HashMap<PortIdx, NetIdx>>> = Rc::default();
    let known = networks.clone();
    let send = move |ingress: PortIdx, frame: &[u8]| {
        if let Some(&network) = known.borrow().get(&ingress) {
            // TCP repeats what finds no room.
            answer(Punt { ingress, network, frame: frame.to_vec() });
        }
    };
    let metadata = Rc::new(metadata::Service::new(settings, send, seed, counters));
    let server = metadata.clone();
    tokio::task::spawn_local(async move { server.run().await });
    while let Some(punt) = frames.recv().await {
        if dhcp4::is_request(&punt.frame) {
            leases.receive(punt);
            continue;
        }
        let Punt { ingress, network, frame } = punt;
        networks.borrow_mut().insert(ingress, network);
        metadata.receive(ingress, &frame);
    }
}
