//! Answers for the control API, from what the control thread knows.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use tokio::sync::mpsc;

use super::change::{load, short_mtu};
use super::devices::describe;
use super::state::{Daemon, Slot, State};
use super::trace::{Known, Live, Traced};
use super::{guests, leases_view, routers, trace, tunnels};
use crate::control::select::{BindingFilter, ConnectionFilter, Marker, Page};
use crate::control::server::{Capture, Follow, Switch};
use crate::control::view::{
    AddressGroup, Binding, Connection, Document, FdbEntry, FdbKind, FloatingIp, GuestPort, Interface, Lease,
    Nat, Neighbour, Network, Port, PortRules, Problem, ReloadReport, Role, Route, Router, SecurityEvent,
    SecurityGroup, State as Status_, Status, Subnet, Trace, Trunk, Tunnels, Worker, WorkerState,
};
use crate::dataplane::tracer::Look;
use crate::model::{self, Attachment, AttachmentKey};
use crate::slowpath::metadata;
use crate::stats::PortSnapshot;
use crate::tables::Tables;
use crate::types::{Instant, PortIdx, RouterIdx, WorkerIdx};
use crate::worker::capture::CaptureTap;
use crate::worker::inspect::{Facts, Question};

/// How often a trace may find that there is more to ask for: once for each translation on the way, and its neighbour.
const ROUNDS: usize = 8;
/// Records that may wait for a capture's reader.
const CAPTURE_DEPTH: usize = 4096;

impl Switch for Daemon {
    async fn status(&self) -> Status {
        let security = self.guest_trackers().await;
        let state = self.state();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: self.config(),
            epoch: state.epoch,
            workers: (0..state.workers.links().len()).map(|index| state.worker(index)).collect(),
            metadata: (state.slow_path.counters().rows().into_iter())
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| (name.to_owned(), count))
                .collect(),
            security,
        }
    }

    fn security_groups(&self) -> Vec<SecurityGroup> {
        self.state().security_groups()
    }

    fn address_groups(&self) -> Vec<AddressGroup> {
        self.state().address_groups()
    }

    async fn port_rules(&self, port: &str) -> Result<PortRules, Problem> {
        self.rules_of_port(port).await
    }

    fn security_log(&self, follow: bool) -> Result<Follow<SecurityEvent>, Problem> {
        Ok(self.state().security_log.follow(follow))
    }

    fn networks(&self) -> Vec<Network> {
        let mut state = self.state();
        state.follow_fdb(Instant::since(self.started));
        let macs = |name: &String| {
            state.places.networks.get(name).map_or(0, |slot| state.fdb.learned_in(crate::types::NetIdx(slot)))
        };
        state.model.networks.iter().map(|network| Network::of(network, macs(&network.name))).collect()
    }

    fn ports(&self) -> Vec<Port> {
        let state = self.state();
        state.model.attachments().filter_map(|device| state.port(&device)).collect()
    }

    fn tunnels(&self) -> Tunnels {
        let state = self.state();
        let device = state.model.attachments().find(|device| device.key == AttachmentKey::Overlay);
        let device = device.and_then(|device| state.port(&device));
        tunnels::tunnels(&state.workers.tables(), &state.model, device.as_ref())
    }

    fn interfaces(&self) -> Vec<(String, PortSnapshot)> {
        routers::interfaces(&self.state().workers.tables())
    }

    async fn routers(&self) -> Result<Vec<Router>, Problem> {
        self.all_routers().await
    }

    fn subnets(&self) -> Vec<Subnet> {
        routers::subnets(&self.state().model)
    }

    fn floating_ips(&self) -> Vec<FloatingIp> {
        routers::floating_ips(&self.state().model)
    }

    fn routes(&self) -> Vec<Route> {
        routers::routes(&self.state().workers.tables())
    }

    async fn neighbours(&self) -> Result<Vec<Neighbour>, Problem> {
        self.all_neighbours().await
    }

    async fn nat(&self) -> Result<Nat, Problem> {
        self.nat_summary().await
    }

    async fn bindings(
        &self,
        filter: &BindingFilter,
        from: Option<Marker>,
        limit: usize,
    ) -> Result<Page<Binding>, Problem> {
        self.list_bindings(filter, from, limit).await
    }

    async fn connections(
        &self,
        filter: &ConnectionFilter,
        from: Option<Marker>,
        limit: usize,
    ) -> Result<Page<Connection>, Problem> {
        self.list_connections(filter, from, limit).await
    }

    async fn flush_connections(&self, filter: &ConnectionFilter) -> Result<u64, Problem> {
        self.flush(filter).await
    }

    async fn follow_connections(&self, filter: &ConnectionFilter) -> Result<Follow, Problem> {
        self.follow(filter)
    }

    fn guest_port(&self, port: &str) -> Result<GuestPort, Problem> {
        let state = self.state();
        let found = state.model.ports.iter().find(|known| known.name == port);
        GuestPort::of(&state.model, found.ok_or_else(|| no_port_of_its_own(port))?)
    }

    fn metadata(&self, port: &str) -> Result<Vec<Document>, Problem> {
        let guest = self.state().guest(port)?;
        Ok(guests::documents(&guest))
    }

    fn metadata_document(&self, port: &str, path: &str) -> Result<(&'static str, Bytes), Problem> {
        let guest = self.state().guest(port)?;
        metadata::document(&guest, path).ok_or_else(|| {
            let message = format!("The guest of port {port} has no document {path}.");
            let detail = format!("`nuswitch show metadata --port {port}` lists those that it has.");
            Problem::new(404, "DocumentNotFound", message).with_detail(detail)
        })
    }

    async fn leases(&self) -> Vec<Lease> {
        let asked = self.state().slow_path.leases();
        let shown = asked.await;
        let state = self.state();
        let tables = state.workers.tables();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let shown = shown.into_iter();
        let dynamic = shown.filter_map(|shown| leases_view::dynamic(shown, &state.model, &tables, now));
        leases_view::leases(&state.model, dynamic.collect())
    }

    async fn fdb(&self) -> Result<Vec<FdbEntry>, Problem> {
        let mut state = self.state();
        let now = Instant::since(self.started);
        state.follow_fdb(now);
        let tables = state.workers.tables();
        let mut entries: Vec<FdbEntry> = state
            .fdb
            .iter()
            .filter_map(|entry| {
                let (network, port) = (tables.network(entry.key.network())?, tables.port(entry.port)?);
                let age = now.secs().saturating_sub(entry.seen.into());
                Some(FdbEntry {
                    network: network.name.to_string(),
                    vlan: network.vlan.map(crate::types::VlanId::get),
                    mac: entry.key.mac(),
                    port: port.name.to_string(),
                    kind: if entry.is_static { FdbKind::Static } else { FdbKind::Learned },
                    age_seconds: (!entry.is_static).then_some(age),
                })
            })
            .collect();
        entries.sort_by(|a, b| (&a.network, a.mac).cmp(&(&b.network, b.mac)));
        Ok(entries)
    }

    async fn reload(&self) -> Result<ReloadReport, Problem> {
        let model = load(&self.path)?;
        let report = self.state().apply(model)?;
        for change in &report.changes {
            tracing::info!("{change}");
        }
        Ok(report)
    }

    async fn trace(&self, port: &str, frame: Vec<u8>) -> Result<Trace, Problem> {
        let mut live = Live::default();
        for _ in 0..ROUNDS {
            let (traced, tables) = self.state().trace(port, &frame, Instant::since(self.started), &live)?;
            let unknown: Vec<Look> = traced.looks.iter().copied().filter(|look| !live.has(look)).collect();
            if unknown.is_empty() {
                return Ok(traced.trace(port));
            }
            // What a worker has of it, the next round knows.
            for look in unknown {
                live.add(look, self.look_up(look, &tables).await?);
            }
        }
        let (traced, _) = self.state().trace(port, &frame, Instant::since(self.started), &live)?;
        Ok(traced.trace(port))
    }

    async fn capture(&self, port: &str, snaplen: usize, inner: bool) -> Result<Capture, Problem> {
        let state = self.state();
        let (index, worker) = state.find(port).ok_or_else(|| Problem::not_found("Port", port))?;
        // As it is when the capture begins.
        let tables = state.workers.tables();
        let underlay = tables.underlay.as_ref().filter(|underlay| underlay.port == index);
        let udp_port = underlay.map(|underlay| underlay.udp_port);
        if inner && udp_port.is_none() {
            let message = format!("Port {port} has no tunnels in it; `overlay` is the one that has.");
            return Err(Problem::invalid(message));
        }
        let (sender, records) = mpsc::channel(CAPTURE_DEPTH);
        let missed = Arc::new(AtomicU64::new(0));
        let tap = CaptureTap {
            interface: port.into(),
            snaplen,
            inner: udp_port.filter(|_| inner),
            sender,
            missed: missed.clone(),
        };
        state.workers.capture(worker, index, tap);
        Ok(Capture { records, missed })
    }
}

impl State {
    fn worker(&self, index: usize) -> Worker {
        let link = &self.workers.links()[index];
        let owned = |slot: &&Slot| slot.device.worker.index() == index;
        let slots = || self.slots.values().filter(owned);
        let mut ports: Vec<String> =
            self.slots.iter().filter(|(_, slot)| owned(slot)).map(|(key, _)| name(key).to_owned()).collect();
        ports.sort();
        Worker {
            index,
            cpu: self.workers.cpu(index),
            state: if link.is_sleeping() { WorkerState::Sleeping } else { WorkerState::Polling },
            turns: link.load().turns,
            busy_fraction: self.load.get(index).and_then(|load| load.1),
            cycles_per_frame: self.load.get(index).and_then(|load| load.2),
            ports,
            rx_frames: slots().map(|slot| slot.device.counters.rx_frames.get()).sum(),
            handoff_drops: slots()
                .map(|slot| slot.device.counters.dropped(crate::stats::DropReason::HandoffFull))
                .sum(),
            free_buffers: link.load().free_buffers,
            total_buffers: self.workers.buffers().into(),
        }
    }

    fn port(&self, device: &model::Device<'_>) -> Option<Port> {
        let slot = self.slots.get(&device.key)?;
        let (kind, named) = describe(device.interface);
        let mut interface = match &slot.details {
            Some(details) => Interface::of(kind, details),
            None => Interface { kind: kind.to_owned(), device: named, driver: None, notes: Vec::new() },
        };
        if slot.device.up && slot.device.caps.mtu < device.mtu {
            interface.notes.push(short_mtu(slot.device.caps.mtu, device.mtu));
        }
        let port = match &device.key {
            AttachmentKey::Port(name) => self.model.ports.iter().find(|port| port.name == *name),
            _ => None,
        };
        let role = match &device.key {
            AttachmentKey::Physical(_) => ("physical_network", Role::PhysicalNetwork),
            AttachmentKey::Overlay => ("overlay", Role::Overlay),
            _ => ("port", Role::Port),
        };
        let security = port.and_then(|port| port.port_security.as_ref());
        let admin_state_up = port.is_none_or(|port| port.admin_state_up);
        let is_up = slot.device.up && admin_state_up;
        let (network, trunk) = match port.map(|port| &port.attachment) {
            Some(Attachment::Access(network)) => (Some(network.clone()), None),
            Some(Attachment::Trunk { physical_network, native, allowed }) => {
                let allowed = allowed.as_ref().map(|ids| ids.iter().map(|id| id.get()).collect());
                (
                    None,
                    Some(Trunk {
                        physical_network: physical_network.clone(),
                        native: native.clone(),
                        allowed,
                    }),
                )
            }
            None if device.key == AttachmentKey::Overlay => (None, None),
            None => {
                let of = |n: &&model::Network| matches!(&n.segment, model::Segment::Flat(on) if on == name(&device.key));
                let native = self.model.networks.iter().find(of).map(|network| network.name.clone());
                (None, Some(Trunk { physical_network: name(&device.key).to_owned(), native, allowed: None }))
            }
        };
        Some(Port {
            id: port.map_or_else(|| model::id(role.0, name(&device.key)), |port| port.id),
            name: name(&device.key).to_owned(),
            role: role.1,
            network,
            trunk,
            interface,
            mac_address: port.map_or(slot.device.mac, |port| port.mac_address),
            mtu: if slot.device.up { slot.device.caps.mtu } else { device.mtu },
            worker: is_up.then(|| slot.device.worker.index()),
            status: if is_up { Status_::Active } else { Status_::Down },
            status_reason: if is_up {
                None
            } else {
                slot.reason.clone().or_else(|| Some("admin_state_up = false".to_owned()))
            },
            admin_state_up,
            extra_dhcp_opts: port
                .map_or_else(Vec::new, |port| port.extra_dhcp_opts.iter().map(Into::into).collect()),
            port_security_enabled: security.is_some(),
            security_groups: security
                .and_then(|security| security.security_groups.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|name| model::id("security_group", name))
                .collect(),
            allowed_address_pairs: security.map_or_else(Vec::new, |security| {
                security.allowed_address_pairs.iter().map(Into::into).collect()
            }),
            counters: slot.device.counters.snapshot(),
        })
    }

    /// What the metadata service tells the guest of a port now.
    fn guest(&self, port: &str) -> Result<Arc<metadata::Guest>, Problem> {
        let found = self.model.ports.iter().find(|known| known.name == port);
        let found = found.ok_or_else(|| no_port_of_its_own(port))?;
        let settings = self.slow_path.settings();
        let slot = self.places.ports.get(&AttachmentKey::Port(port.to_owned()));
        let guest = slot.and_then(|slot| settings.guests.get(&PortIdx(slot)));
        guests::built_in(guest, found, &self.model)
    }

    /// The slot and the worker of a device, by the name of its port, in the order of [`Switch::ports`].
    fn find(&self, wanted: &str) -> Option<(PortIdx, WorkerIdx)> {
        let key = self.model.attachments().map(|device| device.key).find(|key| name(key) == wanted)?;
        Some((PortIdx(self.places.ports.get(&key)?), self.slots.get(&key)?.device.worker))
    }

    /// Runs the path on a copy of the state, with what else is known of the live one.
    fn trace(
        &mut self,
        port: &str,
        frame: &[u8],
        now: Instant,
        live: &Live,
    ) -> Result<(Traced, Arc<Tables>), Problem> {
        let (index, _) = self.find(port).ok_or_else(|| Problem::not_found("Port", port))?;
        self.follow_fdb(now);
        let tables = self.workers.tables();
        let traced = trace::trace(&tables, self.fdb.clone(), index, frame, now, live)
            .map_err(|error| Problem::internal(format!("no memory to trace in: {error}")))?
            .ok_or_else(|| Problem::invalid("The frame is too long."))?;
        Ok((traced, tables))
    }
}

impl Daemon {
    /// Asks the worker that would have what a trace looked for.
    async fn look_up(&self, look: Look, tables: &Tables) -> Result<Option<Known>, Problem> {
        let (interface, question) = match look {
            Look::Connection(tuple) => {
                let router = tables.router(RouterIdx(tuple.zone));
                (router.and_then(|router| router.nat.gateway), Question::Foresee(tuple))
            }
            Look::Tracked(port, tuple) => (Some(port), Question::Tracked(tuple)),
            Look::Neighbour(interface, address) => (Some(interface), Question::Neighbour(interface, address)),
        };
        let Some(home) = interface.and_then(|port| tables.port(port)) else { return Ok(None) };
        Ok(match self.ask(home.worker, question).await?.facts {
            Facts::Foreseen(found) => found.map(Known::Connection),
            Facts::Neighbour(mac) => mac.map(Known::Mac),
            Facts::Tracked(entry) => entry.map(Known::Tracked),
            _ => None,
        })
    }
}

/// The name is that of a physical network's device, or of the overlay's.
fn no_port_of_its_own(name: &str) -> Problem {
    let message =
        format!("{name} is the device of a physical network or of the overlay: no guest is behind it.");
    Problem::new(409, "NoGuestPort", message)
}

fn name(key: &AttachmentKey) -> &str {
    match key {
        AttachmentKey::Port(name) | AttachmentKey::Physical(name) => name,
        _ => "overlay",
    }
}
