//! From one model to another while frames pass.
//!
//! Devices that only the new model has are opened first; then those that only the old one has, or has otherwise, go down
//! and are closed, and what takes their place is opened; then the new tables are published. Whatever fails on the way is
//! undone. Ports that are the same in both models are not touched at all.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::devices::{Failure, Opened, fits};
use super::state::{Slot, State};
use super::{guests, leases, security_log};
use crate::control::view::{Diagnostic, Problem, ReloadReport};
use crate::model::{self, AttachmentKey, Device, Interface, Model, diff};
use crate::ports::{Caps, Remains, at_once};
use crate::stats::PortCounters;
use crate::tables::compile;
use crate::types::WorkerIdx;

/// Of a port whose device is not open.
const NO_CAPS: Caps = Caps { checksum: false, tso: false, uso: false, mtu: 0 };

/// Reads and validates a file.
///
/// # Errors
/// 400, with every mistake in it.
pub fn load(path: &Path) -> Result<Model, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::invalid(format!("cannot read {}: {error}", path.display())))?;
    model::load(&text, &path.display().to_string()).map_err(|mistakes| {
        let view = |mistake: &model::Diagnostic| Diagnostic {
            file: mistake.file.clone(),
            line: Some(mistake.line),
            column: Some(mistake.column),
            message: mistake.to_string(),
            hint: mistake.hint.clone(),
            rendered: mistake.render(&text),
        };
        Problem::configuration(mistakes.iter().map(view).collect())
    })
}

/// Devices opened for a change, not yet in a worker's hands.
type Prepared = Vec<(AttachmentKey, Slot, Option<Opened>)>;

impl State {
    /// Brings the switch from the model in force to `new`.
    pub(super) fn apply(&mut self, new: Model) -> Result<ReloadReport, Problem> {
        let old = self.model.clone();
        let diff = diff(&old, &new);
        if !diff.restart.is_empty() {
            let message = "needs a restart; nothing was changed";
            return Err(Problem::new(409, "RestartNeeded", message).with_detail(diff.restart.join("; ")));
        }
        self.check_kept_underlay(&diff.changed, &new)?;
        let guests = guests::guests(&new)?;
        // Anew with each reload, so that the old one can be moved away before.
        let log = security_log::open(new.switch.security_log.as_deref())?;
        let closing: Vec<AttachmentKey> = diff.removed.iter().chain(&diff.reopened).cloned().collect();
        let opening: Vec<AttachmentKey> = diff.added.iter().chain(&diff.reopened).cloned().collect();
        let taken: HashSet<_> =
            old.attachments().filter(|device| closing.contains(&device.key)).filter_map(place).collect();
        let is_opening = |device: &Device<'_>| opening.contains(&device.key);
        let (later, first): (Vec<_>, Vec<_>) = new
            .attachments()
            .filter(is_opening)
            .partition(|device| place(device.clone()).is_some_and(|place| taken.contains(&place)));

        let mut prepared = match self.prepare(&first, &new) {
            Ok(prepared) => prepared,
            Err(problem) => {
                self.forget();
                return Err(problem);
            }
        };
        let kept = self.close(&closing);
        match self.prepare(&later, &new) {
            Ok(more) => prepared.extend(more),
            Err(problem) => {
                drop(prepared);
                self.roll_back(&old, kept);
                return Err(problem);
            }
        }
        for key in &diff.removed {
            self.slots.remove(key);
        }
        for (key, slot, opened) in prepared {
            self.slots.insert(key.clone(), slot);
            if let Some(opened) = opened {
                self.attach(&key, opened);
            }
        }
        self.model = new;
        self.guests = guests;
        self.security_log.write_to(log);
        self.publish();
        // Only by a change that succeeds: leases of a network that is gone are lost.
        self.slow_path.configure_leases(leases::networks(&self.model, &self.places));
        self.forget();
        let changes: Vec<String> = diff.to_string().lines().map(str::to_owned).collect();
        Ok(ReloadReport { changes, epoch: self.epoch })
    }

    /// A device of the underlay that stays open must carry the overlay's packets as one that is opened must.
    fn check_kept_underlay(&self, changed: &[AttachmentKey], new: &Model) -> Result<(), Problem> {
        let slot = self.slots.get(&AttachmentKey::Overlay).filter(|slot| slot.device.up);
        let (Some(overlay), Some(slot)) = (&new.overlay, slot) else { return Ok(()) };
        if !changed.contains(&AttachmentKey::Overlay) {
            return Ok(());
        }
        let (_, name) = overlay.interface.device().unwrap_or_default();
        fits(overlay, slot.device.caps.mtu, name).map_err(|reason| {
            Problem::new(409, "DeviceRefused", format!("{}: {reason}", AttachmentKey::Overlay))
        })
    }

    /// Opens devices. One that is missing leaves its port down; any other failure fails the change.
    fn prepare(&mut self, devices: &[Device<'_>], model: &Model) -> Result<Prepared, Problem> {
        let mut slots: Vec<Slot> = Vec::new();
        let mut ports = self.ports_of_workers();
        for device in devices {
            let mut slot = match self.slots.get(&device.key) {
                // A device that is opened anew keeps its worker and its counters.
                Some(old) => Slot { device: old.device.clone(), details: None, reason: None },
                None => new_slot(&mut ports),
            };
            slot.device.up = false;
            slots.push(slot);
        }
        let opened = self.open_all(devices.iter().zip(&slots).collect(), model);
        let mut prepared = Prepared::new();
        for ((device, mut slot), opened) in devices.iter().zip(slots).zip(opened) {
            match opened {
                Ok(opened) => {
                    if opened.caps.mtu < device.mtu {
                        tracing::warn!("{}: {}", device.key, short_mtu(opened.caps.mtu, device.mtu));
                    }
                    prepared.push((device.key.clone(), slot, Some(opened)));
                }
                Err(Failure::Missing(reason)) => {
                    tracing::warn!("{} is down: {reason}", device.key);
                    slot.reason = Some(reason);
                    prepared.push((device.key.clone(), slot, None));
                }
                Err(Failure::Refused(reason)) => {
                    let message = format!("{}: {reason}", device.key);
                    return Err(Problem::new(409, "DeviceRefused", message));
                }
            }
        }
        Ok(prepared)
    }

    /// How many ports each worker has.
    fn ports_of_workers(&self) -> Vec<u32> {
        let mut ports = vec![0u32; self.workers.len()];
        for slot in self.slots.values() {
            ports[slot.device.worker.index()] += 1;
        }
        ports
    }

    /// Takes devices out of the tables, then closes them. Gives those that were open.
    fn close(&mut self, keys: &[AttachmentKey]) -> Vec<AttachmentKey> {
        if keys.is_empty() {
            return Vec::new();
        }
        let open: Vec<AttachmentKey> =
            keys.iter().filter(|key| self.mark_down(key, "its configuration changes")).cloned().collect();
        self.publish();
        let remains: Vec<Remains> = keys.iter().map(|key| self.detach(key)).collect();
        at_once(remains, drop);
        open
    }

    /// Opens again what was closed for a change that failed.
    fn roll_back(&mut self, old: &Model, closed: Vec<AttachmentKey>) {
        let slot = |device: &Device<'_>| {
            let slot = self.slots.get(&device.key)?;
            Some(Slot { device: slot.device.clone(), details: None, reason: None })
        };
        let closed = old.attachments().filter(|device| closed.contains(&device.key));
        let closed: Vec<_> = closed.filter_map(|device| slot(&device).map(|slot| (device, slot))).collect();
        let opened = self.open_all(closed.iter().map(|(device, slot)| (device, slot)).collect(), old);
        for ((device, _), opened) in closed.iter().zip(opened) {
            match opened {
                Ok(opened) => self.attach(&device.key, opened),
                Err(failure) => {
                    tracing::error!("{} cannot be opened again: {}", device.key, failure.text());
                    self.mark_down(&device.key, failure.text());
                }
            }
        }
        self.publish();
        self.forget();
    }

    /// Frees the slots of what the model in force does not name, and removes the TAPs of guests that are gone.
    pub(super) fn forget(&mut self) {
        let State { places, slots, model, journal, .. } = self;
        let (tunnels, interfaces) = (&places.tunnels, &places.interfaces);
        places.ports.release(|key| match key {
            AttachmentKey::Tunnel(remote) => tunnels.contains_key(remote),
            AttachmentKey::Resolver => model.overlay.is_some(),
            AttachmentKey::Service => true,
            AttachmentKey::Interface(router, mac) => interfaces.contains_key(&(router.clone(), *mac)),
            key => slots.contains_key(key),
        });
        places.routers.release(|name| model.routers.iter().any(|router| router.name == *name));
        places.networks.release(|name| model.networks.iter().any(|network| network.name == *name));
        let guests: HashSet<&str> = model
            .ports
            .iter()
            .filter_map(|port| match &port.interface {
                Interface::Guest { name, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect();
        journal.remove_unless(|name| guests.contains(name));
    }
}

/// A fresh slot on the worker with the fewest ports, which it counts with those.
fn new_slot(ports: &mut [u32]) -> Slot {
    let fewest = (0u16..).zip(ports.iter_mut()).min_by_key(|(_, count)| **count);
    let worker = fewest.map_or(0, |(worker, count)| {
        *count += 1;
        worker
    });
    let counters = Arc::new(PortCounters::default());
    let device = compile::Device { worker: WorkerIdx(worker), up: false, caps: NO_CAPS, mac: None, counters };
    Slot { device, details: None, reason: None }
}

/// What is to be said of a device that is too narrow for its networks.
pub(super) fn short_mtu(device: u16, networks: u16) -> String {
    format!(
        "the device's MTU is {device}, its network's {networks}: longer packets are dropped (mtu_exceeded)"
    )
}

/// What two attachments cannot have both.
fn place(device: Device<'_>) -> Option<(Option<String>, String)> {
    let (netns, name) = device.interface.device()?;
    Some((netns.map(str::to_owned), name.to_owned()))
}
