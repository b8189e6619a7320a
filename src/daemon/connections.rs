//! Connections and bindings, which the workers have: asked for in small steps, with the switch's state free for others in between.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::mpsc;

use super::routers::mappings;
use super::state::{Daemon, State};
use crate::control::select::{BindingFilter, ConnectionFilter, Marker, Page};
use crate::control::server::Follow;
use crate::control::view::{
    AdmittedBy, Binding, Connection, ConnectionEvent, Ends, Nat, Pool, Problem, TrackerStats,
};
use crate::dataplane::conntrack::journal::Happened;
use crate::dataplane::conntrack::{self, Direction, Entry, Stats, Tuple, Why, binding};
use crate::dataplane::nat::live::{self, guest_of, has_ports, protocol_name, protocol_number};
use crate::dataplane::security::live::{Stations, admitted, owner};
use crate::model::AttachmentKey;
use crate::tables::Tables;
use crate::tables::tunnel::key_address;
use crate::types::{NetIdx, PortIdx, RouterIdx, WorkerIdx};
use crate::wire::protocol;
use crate::worker::inspect::{Answer, Event, Facts, Follower, GUESTS, Question, STEP};

/// Events of a worker that may wait for one who follows.
const FOLLOW_DEPTH: usize = 4096;

impl Daemon {
    /// Asks a worker.
    pub(super) async fn ask(&self, worker: WorkerIdx, question: Question) -> Result<Answer, Problem> {
        let answer = self.state().workers.ask(worker, question);
        answer.await.map_err(|_| Problem::internal(format!("worker {} has ended", worker.0)))
    }

    fn workers(&self) -> u16 {
        u16::try_from(self.state().workers.len()).unwrap_or(u16::MAX)
    }

    /// Connections by router's slot.
    pub(super) async fn count_connections(&self) -> Result<Vec<u64>, Problem> {
        let mut counts = vec![0; self.state().workers.tables().routers.len()];
        for worker in 0..self.workers() {
            let mut next = Some(0);
            while let Some(from) = next {
                let answer = self.ask(WorkerIdx(worker), Question::Count { from, counts }).await?;
                let Facts::Counts(so_far) = answer.facts else { return Err(other_answer()) };
                (counts, next) = (so_far, answer.next);
            }
        }
        Ok(counts)
    }

    pub(super) async fn list_connections(
        &self,
        filter: &ConnectionFilter,
        from: Option<Marker>,
        limit: usize,
    ) -> Result<Page<Connection>, Problem> {
        let filter = Arc::new(self.state().connection_filter(filter)?);
        let ask = |from| {
            let (filter, into) = (filter.clone(), Vec::with_capacity(STEP as usize));
            Question::Connections { from, filter, into }
        };
        let mut stations = Known::default();
        let view = |worker, answer: Answer| {
            let Facts::Connections(entries) = &answer.facts else { return Vec::new() };
            let view = |(at, entry): &(u32, Entry)| {
                let whose = if *at >= GUESTS { Whose::Guest(&mut stations) } else { Whose::Router };
                (*at, connection((worker, whose), entry, &answer.tables, answer.now))
            };
            entries.iter().map(view).collect()
        };
        self.list(from, limit, ask, view).await
    }

    pub(super) async fn list_bindings(
        &self,
        filter: &BindingFilter,
        from: Option<Marker>,
        limit: usize,
    ) -> Result<Page<Binding>, Problem> {
        let filter = Arc::new(self.state().binding_filter(filter)?);
        let ask = |from| {
            let (filter, into) = (filter.clone(), Vec::with_capacity(STEP as usize));
            Question::Bindings { from, filter, into }
        };
        let view = |_, answer: Answer| {
            let Facts::Bindings(bindings) = &answer.facts else { return Vec::new() };
            bindings.iter().map(|(at, found)| (*at, binding(found, &answer.tables))).collect()
        };
        self.list(from, limit, ask, view).await
    }

    /// A page of what all workers have.
    async fn list<T>(
        &self,
        from: Option<Marker>,
        limit: usize,
        ask: impl Fn(u32) -> Question,
        mut view: impl FnMut(u16, Answer) -> Vec<(u32, T)>,
    ) -> Result<Page<T>, Problem> {
        let Marker { mut worker, mut place } = from.unwrap_or(Marker { worker: 0, place: 0 });
        let mut items = Vec::new();
        while worker < self.workers() {
            let answer = self.ask(WorkerIdx(worker), ask(place)).await?;
            let next = answer.next;
            for (at, item) in view(worker, answer) {
                if items.len() == limit {
                    return Ok(Page { items, next: Some(Marker { worker, place: at }) });
                }
                items.push(item);
            }
            (worker, place) = next.map_or((worker + 1, 0), |next| (worker, next));
        }
        Ok(Page { items, next: None })
    }

    pub(super) async fn flush(&self, filter: &ConnectionFilter) -> Result<u64, Problem> {
        let filter = Arc::new(self.state().connection_filter(filter)?);
        let mut removed = 0;
        for worker in 0..self.workers() {
            let mut next = Some(0);
            while let Some(from) = next {
                let question = Question::Flush { from, filter: filter.clone() };
                let answer = self.ask(WorkerIdx(worker), question).await?;
                if let Facts::Flushed(count) = answer.facts {
                    removed += u64::from(count);
                }
                next = answer.next;
            }
        }
        Ok(removed)
    }

    pub(super) fn follow(&self, filter: &ConnectionFilter) -> Result<Follow, Problem> {
        let state = self.state();
        let filter = Arc::new(state.connection_filter(filter)?);
        let missed = Arc::new(AtomicU64::new(0));
        let (told, events) = mpsc::channel(FOLLOW_DEPTH);
        for worker in (0..state.workers.len()).filter_map(|worker| u16::try_from(worker).ok()) {
            let (sender, mut heard) = mpsc::channel::<Event>(FOLLOW_DEPTH);
            let follower = Follower { filter: filter.clone(), sender, missed: missed.clone() };
            state.workers.follow(WorkerIdx(worker), follower);
            let told = told.clone();
            tokio::spawn(async move {
                let mut stations = Known::default();
                loop {
                    // Who listens may leave while nothing happens.
                    let event = tokio::select! {
                        event = heard.recv() => event,
                        () = told.closed() => None,
                    };
                    let Some(event) = event else { return };
                    if told.send(tell(worker, &event, &mut stations)).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Follow { events, missed })
    }

    pub(super) async fn nat_summary(&self) -> Result<Nat, Problem> {
        let mut nat = Nat { mappings: mappings(&self.state().model), ..Nat::default() };
        let max_connections = self.state().workers.tables().conntrack.max_entries;
        for worker in 0..self.workers() {
            let answer = self.ask(WorkerIdx(worker), Question::Tracker).await?;
            let Facts::Tracker(Some((connections, bindings, stats))) = answer.facts else { continue };
            nat.trackers.push(tracker_stats(worker, (connections, max_connections), bindings, &stats));
            for slot in (0..answer.tables.routers.len()).filter_map(|slot| u16::try_from(slot).ok()) {
                let answer = self.ask(WorkerIdx(worker), Question::Pool(RouterIdx(slot))).await?;
                nat.pools.extend(pools(RouterIdx(slot), &answer));
            }
        }
        nat.pools.sort_by(|a, b| (&a.router, a.address).cmp(&(&b.router, b.address)));
        Ok(nat)
    }

    /// What the trackers of guests' connections have done; workers without one are left out, and those that have ended.
    pub(super) async fn guest_trackers(&self) -> Vec<TrackerStats> {
        let max_connections = self.state().workers.tables().conntrack.max_entries;
        let mut trackers = Vec::new();
        for worker in 0..self.workers() {
            if let Ok(answer) = self.ask(WorkerIdx(worker), Question::GuestTracker).await
                && let Facts::Tracker(Some((connections, _, stats))) = answer.facts
            {
                trackers.push(tracker_stats(worker, (connections, max_connections), 0, &stats));
            }
        }
        trackers
    }
}

fn tracker_stats(
    worker: u16,
    (connections, max_connections): (u32, u32),
    bindings: u32,
    stats: &Stats,
) -> TrackerStats {
    TrackerStats {
        worker: worker.into(),
        connections,
        max_connections,
        bindings,
        created: stats.created,
        expired: stats.expired,
        guest_limit: stats.guest_limit,
        full: stats.full,
        removed: stats.removed,
        refused: stats.refused,
        invalid: stats.invalid,
    }
}

fn other_answer() -> Problem {
    Problem::internal("a worker has answered another question")
}

/// The lines of a router's pool.
fn pools(slot: RouterIdx, answer: &Answer) -> Vec<Pool> {
    let (Facts::Pool(usage, exhausted), Some(router)) = (&answer.facts, answer.tables.router(slot)) else {
        return Vec::new();
    };
    let lines = usage.iter().flat_map(|usage| {
        [("tcp", usage.tcp), ("udp", usage.udp), ("icmp", usage.icmp)].map(|(protocol, (used, total))| Pool {
            router: router.name.to_string(),
            address: Ipv4Addr::from_bits(usage.address).into(),
            protocol: protocol.to_owned(),
            used,
            total,
            exhausted: *exhausted,
        })
    });
    lines.collect()
}

impl State {
    fn routers(&self, names: &[String]) -> Result<Vec<RouterIdx>, Problem> {
        let slot = |wanted: &String| {
            let is =
                |router: &&crate::model::Router| router.name == *wanted || router.id.to_string() == *wanted;
            let router = self.model.routers.iter().find(is);
            let slot = router.and_then(|router| self.places.routers.get(&router.name));
            slot.map(RouterIdx).ok_or_else(|| Problem::not_found("Router", wanted))
        };
        names.iter().map(slot).collect()
    }

    fn networks(&self, names: &[String]) -> Result<Vec<NetIdx>, Problem> {
        let slot = |wanted: &String| {
            let is = |network: &&crate::model::Network| {
                network.name == *wanted || network.id.to_string() == *wanted
            };
            let network = self.model.networks.iter().find(is);
            let slot = network.and_then(|network| self.places.networks.get(&network.name));
            slot.map(NetIdx).ok_or_else(|| Problem::not_found("Network", wanted))
        };
        names.iter().map(slot).collect()
    }

    fn guests(&self, names: &[String]) -> Result<Vec<PortIdx>, Problem> {
        let slot = |wanted: &String| {
            let is = |port: &&crate::model::Port| port.name == *wanted || port.id.to_string() == *wanted;
            let port = self.model.ports.iter().find(is);
            let slot = port.and_then(|port| self.places.ports.get(&AttachmentKey::Port(port.name.clone())));
            slot.map(PortIdx).ok_or_else(|| Problem::not_found("Port", wanted))
        };
        names.iter().map(slot).collect()
    }

    fn connection_filter(&self, wanted: &ConnectionFilter) -> Result<live::Filter, Problem> {
        let state = |name: &String| {
            conntrack::State::from_name(name).ok_or_else(|| {
                let known: Vec<_> = conntrack::State::ALL.iter().map(|state| state.name()).collect();
                Problem::invalid(format!("state: `{name}` is none of {}", known.join(", ")))
            })
        };
        Ok(live::Filter {
            routers: self.routers(&wanted.routers)?,
            networks: self.networks(&wanted.networks)?,
            protocols: protocols(&wanted.protocols)?,
            sources: wanted.sources.clone(),
            destinations: wanted.destinations.clone(),
            ports: wanted.ports.clone(),
            states: wanted.states.iter().map(state).collect::<Result<_, _>>()?,
            guests: self.guests(&wanted.guests)?,
        })
    }

    fn binding_filter(&self, wanted: &BindingFilter) -> Result<live::BindingFilter, Problem> {
        Ok(live::BindingFilter {
            routers: self.routers(&wanted.routers)?,
            protocols: protocols(&wanted.protocols)?,
            inside: wanted.inside.clone(),
            outside: wanted.outside.clone(),
        })
    }
}

fn protocols(names: &[String]) -> Result<Vec<u8>, Problem> {
    let number = |name: &String| {
        let unknown =
            || Problem::invalid(format!("protocol: `{name}` is no IP protocol; its number always works"));
        protocol_number(name).ok_or_else(unknown)
    };
    names.iter().map(number).collect()
}

fn tell(worker: u16, event: &Event, stations: &mut Known) -> ConnectionEvent {
    let whose = if event.of_guest { Whose::Guest(stations) } else { Whose::Router };
    let connection = connection((worker, whose), &event.entry, &event.tables, event.now);
    match event.what {
        Happened::New => ConnectionEvent::New { connection },
        Happened::Changed => ConnectionEvent::Changed { connection },
        Happened::Ended(why) => {
            let why = match why {
                Why::Expired => "expired",
                Why::GuestLimit => "guest_limit",
                Why::Full => "full",
                Why::Removed => "removed",
            };
            ConnectionEvent::Ended { connection, why: why.to_owned() }
        }
    }
}

/// Who has which address, of the tables that were asked about last.
#[derive(Default)]
struct Known {
    epoch: Option<u64>,
    stations: Stations,
}

impl Known {
    fn of(&mut self, tables: &Tables) -> &Stations {
        if self.epoch != Some(tables.epoch) {
            *self = Known { epoch: Some(tables.epoch), stations: Stations::of(tables) };
        }
        &self.stations
    }
}

/// Whose a connection is: what its zone and its guest's number mean.
enum Whose<'k> {
    Router,
    Guest(&'k mut Known),
}

fn router_name(tables: &Tables, zone: u16) -> String {
    tables.router(RouterIdx(zone)).map_or_else(String::new, |router| router.name.to_string())
}

fn connection((worker, whose): (u16, Whose<'_>), entry: &Entry, tables: &Tables, now: u32) -> Connection {
    let [original, reply] = [Direction::Original, Direction::Reply].map(|direction| entry.tuple(direction));
    let (router, network, guest, rules) = match whose {
        Whose::Router => (Some(router_name(tables, original.zone)), None, guest_of(entry, tables), [None; 2]),
        Whose::Guest(known) => {
            let network = tables.network(NetIdx(original.zone));
            let network = network.map_or_else(String::new, |network| network.name.to_string());
            let rules = admitted(entry, tables, known.of(tables));
            (None, Some(network), owner(entry, tables), rules)
        }
    };
    let guest = guest.and_then(|port| tables.port(port));
    let [egress_rule, ingress_rule] = rules.map(|rule| {
        rule.map(|rule| AdmittedBy { security_group: rule.group.to_string(), rule: rule.text.to_string() })
    });
    Connection {
        router,
        network,
        worker: worker.into(),
        protocol: protocol_name(original.protocol),
        state: entry.state().name().to_owned(),
        inbound: entry.is_inbound(),
        original: ends(&original),
        translated: ends(&entry.translated(Direction::Original)),
        reply: ends(&reply),
        expires_in: entry.expiry().saturating_sub(now),
        guest: guest.map(|port| port.name.to_string()),
        egress_rule,
        ingress_rule,
        packets: [Direction::Original, Direction::Reply].map(|direction| entry.packets(direction)),
        bytes: [Direction::Original, Direction::Reply].map(|direction| entry.bytes(direction)),
    }
}

fn ends(tuple: &Tuple) -> Ends {
    let has_ports = has_ports(tuple.protocol);
    let is_query = matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6);
    Ends {
        source: key_address(tuple.source),
        destination: key_address(tuple.destination),
        source_port: has_ports.then_some(tuple.source_port),
        destination_port: has_ports.then_some(tuple.destination_port),
        icmp_id: is_query.then_some(tuple.source_port),
    }
}

fn binding(found: &binding::Binding, tables: &Tables) -> Binding {
    let binding::Binding { inside, outside, sessions, is_current } = *found;
    let has_number = has_ports(inside.protocol) || inside.protocol == protocol::ICMP;
    let address = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
    Binding {
        router: router_name(tables, inside.zone),
        protocol: protocol_name(inside.protocol),
        inside_address: address(inside.address),
        inside_port: has_number.then_some(inside.port),
        outside_address: address(outside.address),
        outside_port: has_number.then_some(outside.port),
        connections: sessions,
        current: is_current,
    }
}
