//! Rules of security groups, compiled for look-up.
//!
//! All rules allow, so a packet passes if any rule matches; the lowest number of those that do is told, so that hit counters
//! and traces always name the same rule.
//!
//! # How a look-up goes
//!
//! A packet is two numbers: its *service* (protocol, then port) and its remote address.
//!
//! - The services of a rule are cut into aligned blocks whose sizes are powers of two, at most 30 of them and one only for a
//!   single port, all ports, or any protocol. So blocks of different rules never overlap in part: those around a service
//!   are a chain from the narrowest to the widest, of at most 18. The narrowest is found by binary search.
//! - Who may be remote is a *label*: the number of a security group, whose members [`Members`] knows, or that of a list of
//!   prefixes, which the rule set knows itself. Equal lists share a label. See [`labels`].
//! - Each block says the lowest rule for anybody, wider blocks included, and for each label the lowest rule of its own. A
//!   packet passes by a block if its address carries a label that the block accepts: the shorter of the two sorted lists is
//!   searched for in the longer one. Blocks, and labels of lists, are only looked at while they may name a lower rule than
//!   is known yet.
//!
//! A member that comes or goes changes [`Members`] alone: no rule set knows an address of a member.
//!
//! # What it costs
//!
//! Of R rules with P prefixes in all: memory is O(30 R + P) at worst, R + P where rules are about single ports, and time to
//! compile the same, times a logarithm for sorting. Nothing is multiplied: neither ports by prefixes nor rules by members.
//!
//! A look-up is O(log R + log P) steps for the usual packet, whose service is in a few blocks and whose address carries
//! a few labels. The worst that rules can be made to cost is the product of blocks around the service (18), prefixes around the
//! address (33, or 129 in IPv6), and a search for each; and, where an address carries m labels and a block accepts as many,
//! m log m: hundreds of security groups with the same member, or hundreds of address groups that share an address while others,
//! which do not, are what the port is open for. Guests cannot bring this about, only who writes rules can.

mod labels;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::fib::Ranges;
use crate::wire::protocol;
use labels::{Address, Labels, NONE, Nesting, place};

/// The IP version that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ethertype {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A rule, as the compiler takes it. One that contradicts itself admits nothing: ports or an ICMP type where the protocol has
/// none or any is meant, a last port before the first, prefixes of the other IP version alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub ethertype: Ethertype,
    /// The IP protocol; none: any. ICMPv6 is 58 here, whatever word the user chose.
    pub protocol: Option<u8>,
    /// First and last destination port (TCP, UDP, UDP-Lite, SCTP, DCCP); none: any. ICMP: see [`Rule::icmp`].
    pub ports: Option<(u16, u16)>,
    /// ICMP and ICMPv6: the type, and the code (none: any); none: any type.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Who is at the other end.
    pub remote: Remote,
}

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Remote {
    /// Anybody.
    Any,
    /// An address of one of these prefixes, of the rule's IP version: a remote prefix, or an address group.
    Prefixes(Vec<IpNet>),
    /// An address of a member of the security group with this number.
    Group(u32),
}

/// A packet that would begin a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The other end: the destination of what leaves the guest, the source of what enters it.
    pub remote: IpAddr,
    /// The IP protocol.
    pub protocol: u8,
    /// The destination port; ICMP: type in the high byte, code in the low one; other protocols: 0.
    pub port: u16,
}

/// Rules of one direction.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    v4: Side<u32>,
    v6: Side<u128>,
}

impl RuleSet {
    /// Compiles rules; the number of a rule is its place.
    pub fn compile(rules: &[Rule]) -> RuleSet {
        let of =
            |ethertype| (0..).zip(rules).filter(move |(_, rule): &(u32, &Rule)| rule.ethertype == ethertype);
        RuleSet { v4: Side::compile(of(Ethertype::V4)), v6: Side::compile(of(Ethertype::V6)) }
    }

    /// The number of a rule that lets the packet through: the lowest of those that do. Nothing: none does.
    #[inline]
    pub fn admits(&self, packet: &Packet, members: &Members) -> Option<u32> {
        let service = service(packet.protocol, packet.port);
        match packet.remote {
            IpAddr::V4(address) => self.v4.admits(service, address.to_bits(), &members.v4),
            IpAddr::V6(address) => self.v6.admits(service, address.to_bits(), &members.v6),
        }
    }
}

/// Who is a member of which security group: by address.
#[derive(Clone, Debug, Default)]
pub struct Members {
    v4: Labels<u32>,
    v6: Labels<u128>,
}

impl Members {
    /// From groups' numbers and their members' addresses, or prefixes where `allowed_address_pairs` have them.
    pub fn new(given: impl Iterator<Item = (u32, IpNet)>) -> Members {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (group, net) in given {
            v4.extend(u32::range(&net).map(|(first, last)| (first, last, group)));
            v6.extend(u128::range(&net).map(|(first, last)| (first, last, group)));
        }
        Members { v4: Labels::new(v4), v6: Labels::new(v6) }
    }

    /// The numbers of the groups that an address is a member of, sorted; for people, not for the path.
    pub fn groups(&self, address: IpAddr) -> Vec<u32> {
        let mut groups: Vec<u32> = match address {
            IpAddr::V4(address) => self.v4.of(address.to_bits()).flatten().copied().collect(),
            IpAddr::V6(address) => self.v6.of(address.to_bits()).flatten().copied().collect(),
        };
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}

/// Protocol and port as one number.
#[inline(always)]
const fn service(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// First and last service that a rule is about; nothing where it contradicts itself.
fn services(rule: &Rule) -> Option<(u32, u32)> {
    let Some(number) = rule.protocol else {
        let any = (service(0, 0), service(u8::MAX, u16::MAX));
        return (rule.ports.is_none() && rule.icmp.is_none()).then_some(any);
    };
    let (first, last) = match (rule.ports, rule.icmp) {
        (None, None) => (0, u16::MAX),
        (Some(ports), None) if has_ports(number) => ports,
        (None, Some((kind, code))) if matches!(number, protocol::ICMP | protocol::ICMPV6) => (
            u16::from_be_bytes([kind, code.unwrap_or(0)]),
            u16::from_be_bytes([kind, code.unwrap_or(u8::MAX)]),
        ),
        _ => return None,
    };
    (first <= last).then_some((service(number, first), service(number, last)))
}

const fn has_ports(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::UDP | protocol::UDP_LITE | protocol::SCTP | protocol::DCCP)
}

/// Cuts a range of services into aligned blocks whose sizes are powers of two: first and last of each.
fn blocks((mut first, last): (u32, u32)) -> impl Iterator<Item = (u32, u32)> {
    std::iter::from_fn(move || {
        let left = (last + 1).checked_sub(first).filter(|left| *left > 0)?;
        let size = 1 << first.trailing_zeros().min(left.ilog2());
        let block = (first, first + size - 1);
        first += size;
        Some(block)
    })
}

/// Who may be remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Any,
    Group(u32),
    List(u32),
}

/// Lists of prefixes, each with a label.
#[derive(Debug)]
struct Lists<A> {
    known: HashMap<Vec<(A, A)>, u32>,
    given: Vec<(A, A, u32)>,
    /// By label: the first rule that names the list.
    first: Vec<u32>,
}

impl<A: Address> Lists<A> {
    /// Who the remote of a rule is; nothing: nobody. Rules come in order.
    fn who(&mut self, number: u32, remote: &Remote) -> Option<Who> {
        let prefixes = match remote {
            Remote::Any => return Some(Who::Any),
            Remote::Group(group) => return Some(Who::Group(*group)),
            Remote::Prefixes(prefixes) => prefixes,
        };
        let mut list: Vec<(A, A)> = prefixes.iter().filter_map(A::range).collect();
        list.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        // Prefixes nest, so what ends no later than one that is kept lies in it.
        list.dedup_by(|later, kept| later.1 <= kept.1);
        let &(first, last) = list.first()?;
        if first == A::default() && last.next().is_none() {
            return Some(Who::Any);
        }
        let Lists { known, given, first } = self;
        let label = *known.entry(list).or_insert_with_key(|list| {
            let fresh = place(first.len());
            first.push(number);
            given.extend(list.iter().map(|&(from, to)| (from, to, fresh)));
            fresh
        });
        Some(Who::List(label))
    }
}

/// That a rule admits somebody to a block of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Term {
    first: u32,
    last: Reverse<u32>,
    who: Who,
    rule: u32,
}

/// The rules of one IP version.
#[derive(Clone, Debug)]
struct Side<A> {
    /// Places of blocks, plus 1; 0 is none.
    services: Ranges<u32>,
    blocks: Vec<Block>,
    accepts: Vec<Accept>,
    lists: Labels<A>,
    /// By label of a list: the first rule that names it. A higher label has a higher one.
    first: Vec<u32>,
}

/// A block of services.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// The lowest rule that admits anybody, of this block and those around it.
    any: u32,
    /// The lowest rule that admits who carries a label, of this block and those around it.
    least: u32,
    /// Its part of what is accepted: groups, then lists, each sorted by label.
    groups: u32,
    lists: u32,
    end: u32,
    /// The next wider block that accepts a label.
    outer: u32,
}

/// A label, and the lowest rule that admits who carries it.
#[derive(Clone, Copy, Debug)]
struct Accept {
    label: u32,
    rule: u32,
}

impl<A: Address> Default for Side<A> {
    fn default() -> Side<A> {
        Side {
            services: Ranges::default(),
            blocks: Vec::new(),
            accepts: Vec::new(),
            lists: Labels::default(),
            first: Vec::new(),
        }
    }
}

impl<A: Address> Side<A> {
    fn compile<'r>(rules: impl Iterator<Item = (u32, &'r Rule)>) -> Side<A> {
        let mut lists = Lists { known: HashMap::new(), given: Vec::new(), first: Vec::new() };
        let mut terms = Vec::new();
        for (number, rule) in rules {
            if let (Some(services), Some(who)) = (services(rule), lists.who(number, &rule.remote)) {
                let term = |(first, last)| Term { first, last: Reverse(last), who, rule: number };
                terms.extend(blocks(services).map(term));
            }
        }
        terms.sort_unstable();
        terms.dedup_by_key(|term| (term.first, term.last, term.who));
        let mut side = Side { lists: Labels::new(lists.given), first: lists.first, ..Side::default() };
        side.add_blocks(&terms);
        side
    }

    /// From terms in order, each block and label once.
    fn add_blocks(&mut self, terms: &[Term]) {
        let (mut nesting, mut ranges) = (Nesting::new(), Vec::new());
        for same in terms.chunk_by(|a, b| (a.first, a.last) == (b.first, b.last)) {
            let Some(&Term { first, last: Reverse(last), .. }) = same.first() else { continue };
            let at = place(self.blocks.len());
            if let Some(block) = self.block(same, nesting.around(first)) {
                self.blocks.push(block);
                nesting.enter(last, at);
                ranges.push((first, last, at.wrapping_add(1)));
            }
        }
        self.services = Ranges::new(ranges);
    }

    /// The block of these terms, in the block at `around`; nothing if it says no more than that one.
    fn block(&mut self, terms: &[Term], around: u32) -> Option<Block> {
        let (known, outer) = match self.blocks.get(around as usize) {
            Some(block) if block.groups < block.end => (*block, around),
            Some(block) => (*block, block.outer),
            None => (Block::NOTHING, NONE),
        };
        let anybody = terms.iter().find(|term| term.who == Who::Any);
        let any = anybody.map_or(NONE, |term| term.rule).min(known.any);
        let mut block = Block { any, outer, ..known };
        // Whoever is let in by a lower rule with everybody needs no label.
        let terms = || terms.iter().filter(|term| term.rule < any);
        let group = |term: &Term| match term.who {
            Who::Group(label) => Some(Accept { label, rule: term.rule }),
            Who::List(_) | Who::Any => None,
        };
        let list = |term: &Term| match term.who {
            Who::List(label) => Some(Accept { label, rule: term.rule }),
            Who::Group(_) | Who::Any => None,
        };
        block.groups = place(self.accepts.len());
        self.accepts.extend(terms().filter_map(group));
        block.lists = place(self.accepts.len());
        self.accepts.extend(terms().filter_map(list));
        block.end = place(self.accepts.len());
        let own = self.accepts.get(block.groups as usize..).unwrap_or_default();
        block.least = own.iter().map(|accept| accept.rule).fold(known.least, u32::min);
        (any < known.any || !own.is_empty()).then_some(block)
    }

    #[inline(always)]
    fn admits(&self, service: u32, remote: A, members: &Labels<A>) -> Option<u32> {
        let mut at = self.services.find(service).wrapping_sub(1);
        let mut lowest = self.blocks.get(at as usize)?.any;
        let (mut groups, mut lists) = (None, None);
        while let Some(block) = self.blocks.get(at as usize)
            && block.least < lowest
        {
            if block.groups < block.lists {
                let carried = *groups.get_or_insert_with(|| members.of(remote));
                let accepts = self.accepts(block.groups, block.lists);
                lowest = carried.fold(lowest, |lowest, labels| in_both(accepts, labels, lowest, |_| 0));
            }
            if block.lists < block.end {
                let carried = *lists.get_or_insert_with(|| self.lists.of(remote));
                let accepts = self.accepts(block.lists, block.end);
                let first = |label: u32| self.first.get(label as usize).copied().unwrap_or(0);
                lowest = carried.fold(lowest, |lowest, labels| in_both(accepts, labels, lowest, first));
            }
            at = block.outer;
        }
        (lowest != NONE).then_some(lowest)
    }

    #[inline(always)]
    fn accepts(&self, from: u32, to: u32) -> &[Accept] {
        self.accepts.get(from as usize..to as usize).unwrap_or_default()
    }
}

impl Block {
    const NOTHING: Block = Block { any: NONE, least: NONE, groups: 0, lists: 0, end: 0, outer: NONE };
}

/// The lowest rule whose label is among these, if it is below `lowest`; else that. Accepts and labels are sorted by label, and
/// no rule of a label or of a higher one is below what `first` says of it.
#[inline(always)]
fn in_both(accepts: &[Accept], labels: &[u32], mut lowest: u32, first: impl Fn(u32) -> u32) -> u32 {
    if accepts.len() <= labels.len() {
        for accept in accepts {
            if first(accept.label) >= lowest {
                break;
            }
            if accept.rule < lowest && labels.binary_search(&accept.label).is_ok() {
                lowest = accept.rule;
            }
        }
    } else {
        for label in labels {
            if first(*label) >= lowest {
                break;
            }
            if let Ok(at) = accepts.binary_search_by_key(label, |accept| accept.label)
                && let Some(accept) = accepts.get(at)
            {
                lowest = lowest.min(accept.rule);
            }
        }
    }
    lowest
}
