//! What the control thread knows: the model that is in force, the device of each attachment, and a replica of the FDB.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Clock};

use anyhow::Context;
use tokio::sync::mpsc::{self, UnboundedSender};

use super::devices::{self, Failure, Opened, Site};
use super::guests::{self, Guests};
use super::journal::Journal;
use super::security_log::SecurityLog;
use super::workers::{Workers, secret, seed};
use crate::dataplane::fdb::Fdb;
use crate::dataplane::serve::Punt;
use crate::dataplane::{Event, hear, sync_fdb};
use crate::model::{self, AttachmentKey, Interface, Model};
use crate::ports::{Details, Remains, at_once};
use crate::slowpath::leases::Leases;
use crate::slowpath::{self, SlowPath};
use crate::tables::Tables;
use crate::tables::compile::{Device, Places, compile};
use crate::types::{Instant, NetIdx, PortIdx, WorkerIdx};
use crate::worker::Notice;
use crate::worker::mesh::Load;

/// The running switch, as the control thread sees it.
pub(super) struct Daemon {
    pub(super) path: PathBuf,
    pub(super) started: Clock,
    state: Mutex<State>,
}

/// The device of an attachment.
pub(super) struct Slot {
    pub(super) device: Device,
    /// For people; none while it is not open.
    pub(super) details: Option<Details>,
    /// Why it is not open.
    pub(super) reason: Option<String>,
}

pub(super) struct State {
    pub(super) model: Model,
    pub(super) places: Places,
    pub(super) slots: HashMap<AttachmentKey, Slot>,
    pub(super) workers: Workers,
    pub(super) slow_path: SlowPath,
    /// What guests are told by metadata.
    pub(super) guests: Guests,
    pub(super) journal: Journal,
    /// What security groups log.
    pub(super) security_log: SecurityLog,
    pub(super) fdb: Fdb,
    pub(super) epoch: u64,
    /// What each worker had done at the last tick; the share of busy turns, and the cycles for each frame, between the
    /// last two ticks that had any.
    pub(super) load: Vec<(Load, Option<f64>, Option<f64>)>,
    /// When learned peers are looked through next.
    peers_due: Instant,
}

impl Daemon {
    /// Starts the workers, opens all devices and publishes the first tables.
    pub(super) fn start(
        path: &Path,
        model: Model,
        notices: UnboundedSender<Notice>,
    ) -> anyhow::Result<Daemon> {
        let started = Clock::now();
        let leases = Leases::open(model.switch.state.as_deref())?;
        let (punts, punted) = mpsc::channel(slowpath::WAITING);
        let workers = Workers::start(&model.switch, started, &notices, &punts)?;
        let (mesh, tables) = (workers.mesh().clone(), workers.published());
        let answer = move |answer: Punt| {
            let owner = tables.load().port(answer.ingress).map(|port| port.worker);
            owner.is_some_and(|worker| mesh.answer(worker, answer))
        };
        let slow_path =
            SlowPath::start(punted, answer, secret()?, leases).context("cannot start the slow path")?;
        let journal = Journal::open(&model.switch.control)?;
        let security_log = SecurityLog::start(started);
        for worker in (0..workers.len()).filter_map(|worker| u16::try_from(worker).ok()) {
            workers.log(WorkerIdx(worker), security_log.sink());
        }
        let load = vec![(Load::default(), None, None); workers.len()];
        // What only a restart changes, this start makes.
        let (switch, conntrack) = (model.switch.clone(), model.conntrack.clone());
        let empty = Model { switch, conntrack, ..Model::default() };
        let mut state = State {
            model: empty,
            places: Places::default(),
            slots: HashMap::new(),
            workers,
            slow_path,
            guests: Guests::default(),
            journal,
            security_log,
            fdb: Fdb::new(1024, model.switch.mac_aging_time, seed()),
            epoch: 0,
            load,
            peers_due: Instant::default(),
        };
        if let Err(problem) = state.apply(model) {
            state.close_all();
            return Err(problem.into());
        }
        Ok(Daemon { path: path.to_owned(), started, state: Mutex::new(state) })
    }

    /// The state; a panic in one request does not end the others.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn config(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn has_dead_worker(&self) -> bool {
        self.state().workers.has_died()
    }

    /// Stops the workers and removes what would outlive them.
    pub(super) fn stop(&self) {
        self.state().close_all();
    }

    /// Ends all captures: their channels close when the ports let go of them.
    pub(super) fn end_captures(&self) {
        let mut state = self.state();
        state.workers.stop();
        state.security_log.end();
    }

    /// A worker heard of a VTEP that wants to be a peer of a network.
    pub(super) fn learn_peer(&self, vtep: IpAddr, network: NetIdx) {
        let mut state = self.state();
        let State { model, places, .. } = &mut *state;
        let of_slot = |network_: &&model::Network| places.networks.get(&network_.name) == Some(network.0);
        let Some(name) = model.networks.iter().find(of_slot).map(|network| network.name.clone()) else {
            return;
        };
        let may = model.overlay.as_ref().is_some_and(|overlay| overlay.learn_peers);
        if !may || !places.learned.insert((vtep, name.clone())) {
            return;
        }
        tracing::info!("VTEP {vtep} is a peer of network \"{name}\" now");
        state.publish();
    }

    /// A worker says that a device is gone.
    pub(super) fn device_gone(&self, port: PortIdx) {
        let mut state = self.state();
        let key = state.slots.keys().find(|key| state.places.ports.get(key) == Some(port.0)).cloned();
        if let Some(key) = key {
            state.take_down(&key, "its device is gone");
        }
    }

    /// The kernel says that a device of this name is gone from our namespace.
    pub(super) fn link_gone(&self, name: &str) {
        let mut state = self.state();
        let of_name = |device: &model::Device<'_>| device.interface.device() == Some((None, name));
        let keys: Vec<_> = state.model.attachments().filter(of_name).map(|device| device.key).collect();
        for key in keys {
            state.take_down(&key, "its device is gone");
        }
    }

    /// Opens devices that were missing and are there now.
    pub(super) fn look_for_devices(&self) {
        self.state().look_for_devices();
    }

    /// Once a second: what adds up.
    pub(super) fn tick(&self) {
        let mut state = self.state();
        let State { workers, load, .. } = &mut *state;
        for (link, load) in workers.links().iter().zip(load) {
            let (before, now) = (load.0, link.load());
            let turns = now.turns - before.turns;
            let share = (turns > 0).then(|| (now.busy_turns - before.busy_turns) as f64 / turns as f64);
            let frames = now.frames - before.frames;
            let cycles = (frames > 0).then(|| (now.busy_cycles - before.busy_cycles) as f64 / frames as f64);
            *load = (now, share, cycles.or(load.2));
        }
        let now = Instant::since(self.started);
        state.follow_fdb(now);
        state.forget_silent_peers(now);
    }
}

impl State {
    /// Takes over what the workers have learned since the last time.
    pub(super) fn follow_fdb(&mut self, now: Instant) {
        let State { workers, fdb, .. } = self;
        let tables = workers.tables();
        workers.mesh().control_events(|event| match event {
            Event::Fdb(event) => hear(fdb, &tables, event),
            Event::Neighbour(_) => {}
        });
        fdb.sweep(now.0);
    }

    /// Forgets peers that were learned and are silent. That takes a look at the whole FDB, so it is done eight times in its
    /// ageing time, and only where there are such peers.
    fn forget_silent_peers(&mut self, now: Instant) {
        let aging = self.model.switch.mac_aging_time;
        if self.places.learned.is_empty() || now < self.peers_due {
            return;
        }
        self.peers_due = now.after(Duration::from_secs((aging / 8).max(1).into()));
        let stations = self.fdb.iter().map(|entry| (entry.key.network(), entry.port, entry.seen));
        let seconds = u32::try_from(now.secs()).unwrap_or(u32::MAX);
        let gone = self.places.age_peers(stations, seconds, aging);
        if gone.is_empty() {
            return;
        }
        for (vtep, network) in gone {
            tracing::info!(
                "VTEP {vtep} was silent for long and is no peer of network \"{network}\" any more"
            );
        }
        self.publish();
        self.forget();
    }

    /// Publishes tables for the model that is in force.
    pub(super) fn publish(&mut self) {
        self.epoch += 1;
        let devices = self.slots.iter().map(|(key, slot)| (key.clone(), slot.device.clone())).collect();
        let mut tables = compile(&self.model, &devices, &mut self.places, self.epoch);
        tables.carry_over(&self.workers.tables());
        sync_fdb(&mut self.fdb, &tables);
        self.slow_path.configure(guests::settings(&self.guests, &self.model, &self.places));
        self.workers.publish(tables);
    }

    /// Opens the devices of attachments of `model`, many at once; gives what comes of each.
    pub(super) fn open_all(
        &mut self,
        devices: Vec<(&model::Device<'_>, &Slot)>,
        model: &Model,
    ) -> Vec<Result<Opened, Failure>> {
        let noted: Vec<_> = devices
            .into_iter()
            .map(|(device, slot)| (device, slot, self.places.ports.assign(&device.key), self.note(device)))
            .collect();
        let (workers, ports) = (&self.workers, &model.ports);
        at_once(noted, |(device, slot, index, noted)| {
            noted?;
            let port = match &device.key {
                AttachmentKey::Port(name) => ports.iter().find(|port| port.name == *name),
                _ => None,
            };
            let site = Site {
                slot: PortIdx(index),
                mac: port.and_then(|port| port.mac_address),
                overlay: model.overlay.as_ref().filter(|_| device.key == AttachmentKey::Overlay),
                umem: workers.umem(slot.device.worker),
                counters: &slot.device.counters,
            };
            devices::open(device, &site)
        })
    }

    /// Writes down a device that would outlive the process.
    fn note(&mut self, device: &model::Device<'_>) -> Result<(), Failure> {
        let Interface::Guest { name, .. } = device.interface else { return Ok(()) };
        let refused = |error| Failure::Refused(format!("cannot note the device `{name}`: {error}"));
        self.journal.add(name).map_err(refused)
    }

    /// Gives an open device to its worker. It carries traffic once tables are published.
    pub(super) fn attach(&mut self, key: &AttachmentKey, opened: Opened) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.device.up = true;
        slot.device.caps = opened.caps;
        slot.device.mac = opened.mac;
        slot.details = Some(opened.details);
        slot.reason = None;
        let port = PortIdx(self.places.ports.assign(key));
        self.workers.attach(slot.device.worker, port, opened.io);
    }

    /// Marks a device as closed, without telling anyone yet.
    pub(super) fn mark_down(&mut self, key: &AttachmentKey, reason: &str) -> bool {
        let Some(slot) = self.slots.get_mut(key) else { return false };
        slot.reason = Some(reason.to_owned());
        slot.details = None;
        std::mem::replace(&mut slot.device.up, false)
    }

    /// Takes the device of an attachment that is marked down and published so from its worker; it is closed when what this
    /// gives is dropped.
    pub(super) fn detach(&mut self, key: &AttachmentKey) -> Remains {
        let (slot, port) = (self.slots.get(key)?, self.places.ports.get(key)?);
        self.workers.detach(slot.device.worker, PortIdx(port))
    }

    fn take_down(&mut self, key: &AttachmentKey, reason: &str) {
        if self.mark_down(key, reason) {
            tracing::warn!("{key} is down: {reason}");
            self.publish();
            self.detach(key);
        }
    }

    fn look_for_devices(&mut self) {
        if self.slots.values().all(|slot| slot.device.up) {
            return;
        }
        let model = self.model.clone();
        let mut came = false;
        let missing: Vec<(model::Device<'_>, Slot)> = model
            .attachments()
            .filter_map(|device| {
                let slot = self.slots.get(&device.key).filter(|slot| !slot.device.up)?;
                let slot = Slot { device: slot.device.clone(), details: None, reason: None };
                Some((device, slot))
            })
            .collect();
        let opened = self.open_all(missing.iter().map(|(device, slot)| (device, slot)).collect(), &model);
        for ((device, _), opened) in missing.iter().zip(opened) {
            match opened {
                Ok(opened) => {
                    tracing::info!("{} is up: its device is there", device.key);
                    self.attach(&device.key, opened);
                    came = true;
                }
                Err(failure) => {
                    if let Some(slot) = self.slots.get_mut(&device.key) {
                        slot.reason = Some(failure.text().to_owned());
                    }
                }
            }
        }
        if came {
            self.publish();
        }
    }

    /// Routers that advertise themselves say that they are none any more (RFC 4861, 6.2.5).
    fn withdraw_routers(&mut self) {
        let mut tables = Tables::clone(&self.workers.tables());
        let mut advertise = false;
        for port in tables.ports.iter_mut().flatten() {
            let does = port.interface().is_some_and(|interface| interface.ra.is_some());
            port.up &= !does;
            advertise |= does;
        }
        if advertise {
            self.epoch += 1;
            tables.epoch = self.epoch;
            self.workers.publish(tables);
        }
    }

    fn close_all(&mut self) {
        self.withdraw_routers();
        self.workers.stop();
        // It ends when they are gone.
        self.slow_path.join();
        self.journal.remove_unless(|_| false);
    }
}
