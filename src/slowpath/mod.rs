//! What no worker may do: services that keep state for each client, wait, or do I/O. They run on one thread of their own; workers
//! hand it copies of frames, and what it answers goes back to the worker of the port as whole frames.
//!
//! | module | what it knows |
//! |---|---|
//! | [`metadata`] | a guest's identity, keys and user data, over HTTP at 169.254.169.254 and fe80::a9fe:a9fe |
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

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
use crate::types::{NetIdx, PortIdx};

/// Frames that wait for the slow path; more are refused, and counted at their ports.
pub const WAITING: usize = 4096;

/// The thread. It ends when all who send to it are gone.
pub struct SlowPath {
    thread: Option<JoinHandle<()>>,
    settings: Arc<ArcSwap<metadata::Settings>>,
    counters: Arc<metadata::Counters>,
}

impl SlowPath {
    /// Starts the thread. What comes by `frames` is dealt with; `answer` takes a frame to the worker of its port, and says
    /// whether there is room. `seed` is from the system's entropy.
    ///
    /// # Errors
    /// The kernel's, when there is no thread to be had.
    pub fn start(
        frames: mpsc::Receiver<Punt>,
        answer: impl Fn(Punt) -> bool + Send + 'static,
        seed: [u8; 32],
    ) -> std::io::Result<SlowPath> {
        let settings: Arc<ArcSwap<metadata::Settings>> = Arc::default();
        let counters: Arc<metadata::Counters> = Arc::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (theirs, counted) = (settings.clone(), counters.clone());
        let thread = std::thread::Builder::new()
            .name("slow-path".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, work(frames, answer, seed, theirs, counted)))?;
        Ok(SlowPath { thread: Some(thread), settings, counters })
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

    /// Waits for the thread's end, once nobody sends any more.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the slow path panicked");
        }
    }
}

async fn work(
    mut frames: mpsc::Receiver<Punt>,
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
    while let Some(Punt { ingress, network, frame }) = frames.recv().await {
        networks.borrow_mut().insert(ingress, network);
        metadata.receive(ingress, &frame);
    }
}
