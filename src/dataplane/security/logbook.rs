//! What security groups log: connections that begin, and packets that are dropped, where a group of the port says so.
//!
//! A line is made where rules are asked, or a packet is dropped: never for a packet of a known connection. Each port has as
//! many lines as Neutron's `network_log` gives: [`RATE`] a second, [`BURST`] at once; what is beyond is counted and told with the
//! port's next line. Lines wait for the worker, who takes them every turn, in a list of bounded length; what finds no room is
//! counted, too. Who reads and writes them is not the path's business.

use std::net::IpAddr;
use std::sync::Arc;

use super::packet::{self, Facts, Read, What};
use super::{Ends, Security, Side};
use crate::frame::Frame;
use crate::services::icmp::Bucket;
use crate::stats::DropReason;
use crate::tables::Tables;
use crate::tables::security::{Policy, RuleEntry};
use crate::tables::tunnel::key_address;
use crate::types::{Instant, NetIdx, PortIdx};
use crate::wire::protocol;

/// Lines of a port in a second (Neutron's `rate_limit`).
pub const RATE: u32 = 100;
/// And at once (Neutron's `burst_limit`).
pub const BURST: u32 = 25;
/// Lines that wait for the worker.
const ROOM: usize = 1024;

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// When.
    pub at: Instant,
    /// Name of the port whose groups decided.
    pub port: Arc<str>,
    /// Name of its network.
    pub network: Arc<str>,
    /// Which way the packet went.
    pub side: Side,
    /// What was decided.
    pub action: Action,
    /// The packet; none where it could not be read.
    pub packet: Option<Summary>,
    /// Lines of this port that were left out before this one.
    pub suppressed: u64,
}

/// What was decided.
#[derive(Clone, Debug)]
pub enum Action {
    /// It passes by this rule.
    Accepted(RuleEntry),
    /// It does not pass: why, and the groups of the port.
    Dropped(DropReason, Arc<[Arc<str>]>),
}

/// A packet, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its IP protocol.
    pub protocol: u8,
    /// Source and destination port, where it has some.
    pub ports: Option<(u16, u16)>,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
}

impl Summary {
    fn of(facts: &Facts) -> Summary {
        let has_ports = matches!(
            facts.protocol,
            protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::DCCP | protocol::SCTP
        );
        let (ports, kind) = match facts.what {
            What::Flow { ports, .. } => (Some(ports).filter(|_| has_ports), None),
            What::Query { kind, .. } | What::Message { kind } | What::Error { kind, .. } => {
                (None, Some(kind))
            }
            What::Part { piece, .. } => (piece.ports.filter(|_| has_ports), None),
        };
        Summary {
            source: key_address(facts.source),
            destination: key_address(facts.destination),
            protocol: facts.protocol,
            ports,
            icmp: kind.map(u16::to_be_bytes).map(|[kind, code]| (kind, code)),
        }
    }
}

/// Lines that wait, and how many each port may still have.
#[derive(Default)]
pub struct Log {
    lines: Vec<Line>,
    ports: Vec<Limit>,
    lost: u64,
}

struct Limit {
    /// Who has the slot.
    port: Arc<str>,
    bucket: Bucket,
    suppressed: u64,
}

/// Where and when.
#[derive(Clone, Copy)]
pub(super) struct Scene<'t> {
    pub(super) tables: &'t Tables,
    pub(super) network: NetIdx,
    pub(super) at: Instant,
}

impl Log {
    /// A rule let something begin at a port.
    #[cold]
    pub(super) fn accepted(
        &mut self,
        (port, side): (PortIdx, Side),
        rule: &RuleEntry,
        facts: &Facts,
        scene: Scene<'_>,
    ) {
        self.note((port, side), scene, || (Action::Accepted(rule.clone()), Some(Summary::of(facts))));
    }

    /// A packet is dropped on account of a port's groups.
    #[cold]
    pub(super) fn dropped(
        &mut self,
        (port, side): (PortIdx, Side),
        (policy, reason): (&Policy, DropReason),
        read: Option<&Read>,
        scene: Scene<'_>,
    ) {
        let facts = match read {
            Some(Read::Unicast(facts) | Read::Group(facts)) => Some(facts),
            Some(Read::Exempt(_)) | None => None,
        };
        let action = || Action::Dropped(reason, policy.groups.clone());
        self.note((port, side), scene, || (action(), facts.map(Summary::of)));
    }

    fn note(
        &mut self,
        (port, side): (PortIdx, Side),
        Scene { tables, network, at }: Scene<'_>,
        line: impl FnOnce() -> (Action, Option<Summary>),
    ) {
        let (Some(entry), Some(network)) = (tables.port(port), tables.network(network)) else { return };
        while self.ports.len() <= port.index() {
            self.ports.push(Limit { port: "".into(), bucket: Bucket::new(RATE, BURST, at), suppressed: 0 });
        }
        let Some(limit) = self.ports.get_mut(port.index()) else { return };
        if limit.port != entry.name {
            *limit = Limit { port: entry.name.clone(), bucket: Bucket::new(RATE, BURST, at), suppressed: 0 };
        }
        if !limit.bucket.take(at) {
            limit.suppressed += 1;
            return;
        }
        if self.lines.len() >= ROOM {
            self.lost += 1;
            return;
        }
        let (action, packet) = line();
        let suppressed = std::mem::take(&mut limit.suppressed);
        let (port, network) = (entry.name.clone(), network.name.clone());
        self.lines.push(Line { at, port, network, side, action, packet, suppressed });
    }

    /// Whether there is nothing to take.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.lost == 0
    }

    /// Gives all lines in their order. Gives how many found no room after these.
    pub fn drain(&mut self, mut show: impl FnMut(Line)) -> u64 {
        self.lines.drain(..).for_each(&mut show);
        std::mem::take(&mut self.lost)
    }
}

impl Security {
    /// Logs a packet that is dropped, if the groups of the port that it is dropped for say so. Gives the reason back.
    #[cold]
    pub(super) fn refused(
        &mut self,
        ends: &Ends<'_>,
        read: Option<&Read>,
        reason: DropReason,
        (tables, at): (&Tables, Instant),
    ) -> DropReason {
        let (from, to) = ((ends.from, ends.ports.0, Side::Egress), (ends.to, ends.ports.1, Side::Ingress));
        let (policy, port, side) = match reason {
            DropReason::SecurityEgress => from,
            DropReason::SecurityIngress => to,
            // On account of both: it is told once.
            _ if from.0.is_some_and(|policy| policy.logs_dropped) => from,
            _ => to,
        };
        if let Some(policy) = policy.filter(|policy| policy.logs_dropped) {
            let scene = Scene { tables, network: ends.zone, at };
            self.log.dropped((port, side), (policy, reason), read, scene);
        }
        reason
    }

    /// As [`Security::refused`], of a packet that is no part of its connection.
    #[cold]
    pub(super) fn unlike(
        &mut self,
        frame: &Frame,
        ends: &Ends<'_>,
        reason: DropReason,
        at: (&Tables, Instant),
    ) -> DropReason {
        let read = packet::read(frame.head(), frame.len(), ends).ok();
        self.refused(ends, read.as_ref(), reason, at)
    }
}
