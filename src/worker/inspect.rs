//! What the control thread may ask of a worker: connections of routers and of guests, bindings, neighbours, hits of rules.
//!
//! A question is answered within a turn, and is small: it looks at a bounded number of places, from a cursor on, and the answer
//! says where the next question goes on. A turn answers one question, so that however many ask, frames wait for no more than
//! that. The asker brings the memory for the answer. Filters are applied here, so that an answer has only what is wanted.
//!
//! Connections of routers have places below [`GUESTS`], those of guests from there on, so that one walk passes by both.
//!
//! Whoever follows connections gets what happens by a channel of bounded length: the tracker keeps a journal while there is a
//! follower, and the worker empties it once a turn. What is lost on the way is counted. What security groups log goes the same way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use crate::dataplane::Shard;
use crate::dataplane::conntrack::binding::{Binding, Usage};
use crate::dataplane::conntrack::journal::Happened;
use crate::dataplane::conntrack::{Direction, Entry, Stats, Tuple};
use crate::dataplane::gateway::Neighbour;
use crate::dataplane::nat::Translator;
use crate::dataplane::nat::live::{BindingFilter, Filter, Found};
use crate::dataplane::security::Security;
use crate::dataplane::security::logbook::Line;
use crate::tables::Tables;
use crate::types::{Instant, Mac, PortIdx, RouterIdx};

/// Places that one question looks at.
pub const STEP: u32 = 1024;
/// Where the places of guests' connections begin; no tracker has as many.
pub const GUESTS: u32 = 1 << 31;
/// Connections that one question removes at most: each takes a few cache lines that are far away.
const FLUSH_STEP: u32 = 256;

/// A question. `from` is 0 in the beginning, and then what the last answer said.
pub enum Question {
    /// Connections.
    Connections {
        /// Where to go on.
        from: u32,
        /// Which ones.
        filter: Arc<Filter>,
        /// Empty, with room for [`STEP`].
        into: Vec<(u32, Entry)>,
    },
    /// Ends connections.
    Flush {
        /// Where to go on.
        from: u32,
        /// Which ones.
        filter: Arc<Filter>,
    },
    /// How many connections each router has, counted on in `counts`, by [`RouterIdx`].
    Count {
        /// Where to go on.
        from: u32,
        /// So far; a router beyond its end is not counted.
        counts: Vec<u64>,
    },
    /// Bindings.
    Bindings {
        /// Where to go on.
        from: u32,
        /// Which ones.
        filter: Arc<BindingFilter>,
        /// Empty, with room for [`STEP`].
        into: Vec<(u32, Binding)>,
    },
    /// How much of its pool a router uses.
    Pool(RouterIdx),
    /// How many connections of routers there are, and what happened to others.
    Tracker,
    /// The same of guests' connections.
    GuestTracker,
    /// How often the rules of a port let something begin.
    Hits(PortIdx),
    /// The neighbours of one interface: of the next one that this worker is the home of.
    Neighbours {
        /// Where to go on.
        from: u32,
    },
    /// What would be done with a packet of this tuple.
    Foresee(Tuple),
    /// A neighbour, by [`crate::tables::tunnel::address_key`].
    Neighbour(PortIdx, u128),
    /// The connection of a tuple whose zone is a network.
    Tracked(Tuple),
}

/// What was asked for.
pub enum Facts {
    /// Connections with their places.
    Connections(Vec<(u32, Entry)>),
    /// So many were removed.
    Flushed(u32),
    /// By router.
    Counts(Vec<u64>),
    /// Bindings with their places.
    Bindings(Vec<(u32, Binding)>),
    /// Addresses, and how often there was no port.
    Pool(Vec<Usage>, u64),
    /// Connections now, bindings now, and what happened so far; none where this worker translates for no router, or tracks for
    /// no guest.
    Tracker(Option<(u32, u32, Stats)>),
    /// By [`crate::tables::security::RuleEntry::id`], in no order; rules that let nothing begin are left out.
    Hits(Vec<(u64, u64)>),
    /// An interface and its neighbours.
    Neighbours(Option<(PortIdx, Vec<Neighbour>)>),
    /// None where this worker translates for no router.
    Foreseen(Option<Box<Found>>),
    /// Its MAC, if it is known.
    Neighbour(Option<Mac>),
    /// The connection, if there is one.
    Tracked(Option<Box<Entry>>),
}

/// An answer.
pub struct Answer {
    /// What was asked for.
    pub facts: Facts,
    /// Where to go on; none: that was all.
    pub next: Option<u32>,
    /// The second that it was given in.
    pub now: u32,
    /// The tables that numbers in it are of.
    pub tables: Arc<Tables>,
}

/// A question with the way back.
pub type Ask = (Question, oneshot::Sender<Answer>);

/// Answers a question.
pub(super) fn answer((question, reply): Ask, shard: &mut Shard, tables: &Arc<Tables>, now: Instant) {
    let now = u32::try_from(now.secs()).unwrap_or(u32::MAX);
    let (facts, next) = facts(question, shard, tables, now);
    // Who asked may be gone.
    let _ = reply.send(Answer { facts, next, now, tables: tables.clone() });
}

/// A memory of connections.
enum Of<'s> {
    Router(&'s mut Translator),
    Guests(&'s mut Security),
}

/// Takes a step in the memory that a place is in. Gives where to go on.
fn each_tracker(
    from: u32,
    filter: &Filter,
    shard: &mut Shard,
    step: impl FnOnce(Of<'_>, u32) -> Option<u32>,
) -> Option<u32> {
    let guests = shard.security.as_deref_mut().filter(|_| filter.wants_guests());
    if from >= GUESTS {
        return step(Of::Guests(guests?), from - GUESTS).map(|next| GUESTS + next);
    }
    match shard.nat.as_deref_mut().filter(|_| filter.wants_routers()) {
        Some(nat) => step(Of::Router(nat), from).or(guests.map(|_| GUESTS)),
        None => step(Of::Guests(guests?), 0).map(|next| GUESTS + next),
    }
}

fn facts(question: Question, shard: &mut Shard, tables: &Tables, now: u32) -> (Facts, Option<u32>) {
    let nat = shard.nat.as_deref_mut();
    match question {
        Question::Connections { from, filter, mut into } => {
            let next = each_tracker(from, &filter, shard, |tracker, from| match tracker {
                Of::Router(nat) => {
                    nat.walk((from, STEP), &filter, tables, now, |at, entry| into.push((at, *entry)))
                }
                Of::Guests(guests) => guests.walk((from, STEP), &filter, tables, now, |at, entry| {
                    into.push((GUESTS + at, *entry));
                }),
            });
            (Facts::Connections(into), next)
        }
        Question::Flush { from, filter } => {
            let mut count = 0;
            let next = each_tracker(from, &filter, shard, |tracker, from| {
                let (next, flushed) = match tracker {
                    Of::Router(nat) => nat.flush_some((from, FLUSH_STEP), &filter, tables, now),
                    Of::Guests(guests) => guests.flush_some((from, FLUSH_STEP), &filter, tables, now),
                };
                count += flushed;
                next
            });
            (Facts::Flushed(count), next)
        }
        Question::Count { from, mut counts } => {
            let all = Filter::default();
            let next = nat.and_then(|nat| {
                nat.walk((from, STEP), &all, tables, now, |_, entry| {
                    let zone = usize::from(entry.tuple(Direction::Original).zone);
                    if let Some(count) = counts.get_mut(zone) {
                        *count += 1;
                    }
                })
            });
            (Facts::Counts(counts), next)
        }
        Question::Bindings { from, filter, mut into } => {
            let next = nat.and_then(|nat| {
                nat.bindings.walk(from, STEP, |at, binding| {
                    if filter.takes(&binding) {
                        into.push((at.number(), binding));
                    }
                })
            });
            (Facts::Bindings(into), next)
        }
        Question::Pool(router) => {
            let (usage, exhausted) = nat.map_or((Vec::new(), 0), |nat| {
                (nat.bindings.usage(router.0), nat.bindings.exhausted(router.0))
            });
            (Facts::Pool(usage, exhausted), None)
        }
        Question::Tracker => {
            let tracker = nat.map(|nat| (nat.tracker.len(), nat.bindings.len(), nat.tracker.stats()));
            (Facts::Tracker(tracker), None)
        }
        Question::GuestTracker => {
            let tracker = shard.security.as_ref().map(|security| &security.tracker);
            (Facts::Tracker(tracker.map(|tracker| (tracker.len(), 0, tracker.stats()))), None)
        }
        Question::Hits(port) => {
            let hits = shard.security.as_ref().map(|security| security.hits.of(port).collect());
            (Facts::Hits(hits.unwrap_or_default()), None)
        }
        Question::Neighbours { from } => {
            let from = PortIdx(u16::try_from(from).unwrap_or(u16::MAX));
            let found = shard.gateways.neighbours_from(from);
            let found = found.map(|(port, neighbours)| (port, neighbours.collect()));
            let next = found.as_ref().map(|(port, _): &(PortIdx, Vec<Neighbour>)| u32::from(port.0) + 1);
            (Facts::Neighbours(found), next.filter(|next| *next <= u32::from(u16::MAX)))
        }
        Question::Foresee(tuple) => {
            (Facts::Foreseen(nat.map(|nat| Box::new(nat.foresee(&tuple, now)))), None)
        }
        Question::Tracked(tuple) => {
            let security = shard.security.as_deref();
            (
                Facts::Tracked(security.and_then(|security| security.connection(&tuple, now)).map(Box::new)),
                None,
            )
        }
        Question::Neighbour(interface, address) => {
            let ip = crate::tables::tunnel::key_address(address);
            let at_home = shard.gateways.neighbours_from(interface).filter(|(port, _)| *port == interface);
            let at_home = at_home.and_then(|(_, mut all)| all.find(|(known, ..)| *known == ip)?.1);
            (Facts::Neighbour(at_home.or_else(|| shard.neighbours.get(interface, address, now))), None)
        }
    }
}

/// What happened to a connection, as it was then.
pub struct Event {
    /// What.
    pub what: Happened,
    /// Whether it is a guest's, whose zone is a network; else a router's.
    pub of_guest: bool,
    /// The connection.
    pub entry: Entry,
    /// When, in seconds as an [`Answer`] has them.
    pub now: u32,
    /// The tables that numbers in it are of.
    pub tables: Arc<Tables>,
}

/// One who follows the connections of a worker.
pub struct Follower {
    /// Which ones.
    pub filter: Arc<Filter>,
    /// Where events go; the worker lets go of it when nobody listens there any more.
    pub sender: Sender<Event>,
    /// Counts the events that were lost.
    pub missed: Arc<AtomicU64>,
}

impl Follower {
    /// Counts so many events as lost.
    pub(super) fn miss(&self, count: u64) {
        self.missed.fetch_add(count, Ordering::Relaxed);
    }
}

/// Tells followers what happened since the last time, and lets go of those who have left.
pub(super) fn tell(followers: &mut Vec<Follower>, shard: &mut Shard, tables: &Arc<Tables>, now: Instant) {
    followers.retain(|follower| !follower.sender.is_closed());
    let now = u32::try_from(now.secs()).unwrap_or(u32::MAX);
    let nat = shard.nat.as_mut().map(|nat| (&mut nat.tracker, false));
    let guests = shard.security.as_mut().map(|security| (&mut security.tracker, true));
    for (tracker, of_guest) in nat.into_iter().chain(guests) {
        tracker.keep_journal(!followers.is_empty());
        let Some(journal) = tracker.journal() else { continue };
        let lost = journal.drain(|what, entry| {
            let is_meant = |follower: &&Follower| match of_guest {
                true => follower.filter.takes_guests(entry, tables),
                false => follower.filter.takes(entry, tables),
            };
            for follower in followers.iter().filter(is_meant) {
                let event = Event { what, of_guest, entry: *entry, now, tables: tables.clone() };
                if let Err(TrySendError::Full(_)) = follower.sender.try_send(event) {
                    follower.miss(1);
                }
            }
        });
        followers.iter().for_each(|follower| follower.miss(lost));
    }
}

/// Where lines of security groups go.
#[derive(Clone)]
pub struct LogSink {
    /// The lines; what finds no room is counted.
    pub sender: Sender<Line>,
    /// Counts the lines that were lost.
    pub missed: Arc<AtomicU64>,
}

/// Hands on what security groups have logged since the last time. Without a sink it is lost.
pub(super) fn log(sink: Option<&LogSink>, shard: &mut Shard) {
    let Some(security) = shard.security.as_mut().filter(|security| !security.log.is_empty()) else { return };
    let mut refused = 0;
    let lost = security.log.drain(|line| {
        refused += u64::from(sink.is_some_and(|sink| sink.sender.try_send(line).is_err()));
    });
    let missed = lost + refused;
    if let Some(sink) = sink.filter(|_| missed > 0) {
        sink.missed.fetch_add(missed, Ordering::Relaxed);
    }
}
