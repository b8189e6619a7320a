//! Random rules of security groups and random packets between three guests and a trusted port, in bursts, with rules that change
//! between them. What gets through is held against a naive firewall: a list of rules that is walked, and a set of connections, each
//! judged again by its first packet whenever anybody asks.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use nuswitch::dataplane::out::Out;
use nuswitch::dataplane::tracer::{Explain, Silent};
use nuswitch::dataplane::{Shard, gateway, process};
use nuswitch::frame::{Burst, Caps, Pool};
use nuswitch::model::{self, AttachmentKey};
use nuswitch::tables::Tables;
use nuswitch::tables::compile::{Device, Places, compile};
use nuswitch::types::{Instant, PortIdx, WorkerIdx};

use super::input::Input;
use super::packets::{Packet, transport};

/// The guests, and one without port security.
const PORTS: [&str; 4] = ["a", "b", "c", "w"];
const GUESTS: usize = 3;
const CHUNKS: (u32, u32) = (128, 2);
const UDP: u8 = 17;
const TCP: u8 = 6;
const GRE: u8 = 47;

fn v4(of: usize) -> [u8; 4] {
    [10, 0, 0, 10 + u8::try_from(of).expect("few")]
}

fn v6(of: usize) -> [u8; 16] {
    let mut bytes = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[15] = 0x10 + u8::try_from(of).expect("few");
    bytes
}

fn mac(of: usize) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, 0xa + u8::try_from(of).expect("few")]
}

#[derive(Clone, Copy, PartialEq)]
enum Remote {
    Anybody,
    /// All addresses of the network, or one of them.
    Net(Option<usize>),
    Group(usize),
}

#[derive(Clone, PartialEq)]
struct Rule {
    ingress: bool,
    is_v6: bool,
    protocol: Option<u8>,
    /// None: all.
    ports: Vec<(u16, u16)>,
    remote: Remote,
}

impl Rule {
    fn read(input: &mut Input<'_>) -> Rule {
        let (ingress, is_v6) = (input.flag(), input.byte() > 170);
        let icmp = if is_v6 { 58 } else { 1 };
        let protocol = input.one_of(&[None, Some(UDP), Some(TCP), Some(icmp), Some(GRE), Some(UDP)]);
        let ports: &[(u16, u16)] = match protocol {
            Some(UDP | TCP) => {
                input.one_of(&[&[][..], &[(80, 80)], &[(80, 81)], &[(53, 53), (81, 90)], &[(1, 65535)]])
            }
            _ => &[],
        };
        let remote = match input.byte() % 6 {
            0 | 1 => Remote::Anybody,
            2 => Remote::Net(None),
            3 => Remote::Net(Some(usize::from(input.byte()) % PORTS.len())),
            _ => Remote::Group(usize::from(input.byte()) % 2),
        };
        Rule { ingress, is_v6, protocol, ports: ports.to_vec(), remote }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{{ direction = \"{}\", ethertype = \"{}\"",
            if self.ingress { "ingress" } else { "egress" },
            if self.is_v6 { "IPv6" } else { "IPv4" }
        );
        if let Some(protocol) = self.protocol {
            let _ = write!(text, ", protocol = {protocol}");
        }
        if !self.ports.is_empty() {
            let ports: Vec<_> = self.ports.iter().map(|(from, to)| format!("{from}-{to}")).collect();
            let _ = write!(text, ", ports = \"{}\"", ports.join(","));
        }
        let _ = match self.remote {
            Remote::Anybody => Ok(()),
            Remote::Net(None) if self.is_v6 => write!(text, ", remote = \"2001:db8::/64\""),
            Remote::Net(None) => write!(text, ", remote = \"10.0.0.0/24\""),
            Remote::Net(Some(of)) if self.is_v6 => {
                write!(text, ", remote = \"{}\"", std::net::Ipv6Addr::from(v6(of)))
            }
            Remote::Net(Some(of)) => write!(text, ", remote = \"{}\"", std::net::Ipv4Addr::from(v4(of))),
            Remote::Group(group) => write!(text, ", remote_group = \"g{group}\""),
        };
        text + " }"
    }
}

/// Two groups, and which each guest has.
#[derive(Clone, PartialEq)]
struct Rules {
    is_stateful: bool,
    groups: [Vec<Rule>; 2],
    of: [Vec<usize>; GUESTS],
}

impl Rules {
    fn read(input: &mut Input<'_>) -> Rules {
        let is_stateful = input.byte() < 220;
        let groups = [(); 2].map(|()| {
            let mut rules = Vec::new();
            for _ in 0..input.byte() % 6 {
                let rule = Rule::read(input);
                // Twice the same is refused.
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
            rules
        });
        let of = [(); GUESTS].map(|()| match input.byte() % 8 {
            0..=2 => vec![0],
            3 | 4 => vec![1],
            5 | 6 => vec![0, 1],
            _ => vec![],
        });
        Rules { is_stateful, groups, of }
    }

    fn text(&self) -> String {
        let mut text =
            "[[network]]\nname = \"n\"\n[[subnet]]\nname = \"n4\"\nnetwork = \"n\"\ncidr = \"10.0.0.0/24\"\n\
                        [[subnet]]\nname = \"n6\"\nnetwork = \"n\"\ncidr = \"2001:db8::/64\"\n"
                .to_owned();
        for (number, group) in self.groups.iter().enumerate() {
            let rules: Vec<_> = group.iter().map(Rule::text).collect();
            let _ = writeln!(
                text,
                "[[security_group]]\nname = \"g{number}\"\nstateful = {}\nrules = [{}]",
                self.is_stateful,
                rules.join(", ")
            );
        }
        for (at, name) in PORTS.iter().enumerate() {
            let _ = writeln!(
                text,
                "[[port]]\nname = \"{name}\"\nnetwork = \"n\"\nmac_address = \"{}\"\n\
                 interface = {{ kind = \"packet\", name = \"{name}\" }}\nfixed_ips = [\"{}\", \"{}\"]",
                nuswitch::types::Mac(mac(at)),
                std::net::Ipv4Addr::from(v4(at)),
                std::net::Ipv6Addr::from(v6(at))
            );
            if let Some(groups) = self.of.get(at) {
                let groups: Vec<_> = groups.iter().map(|group| format!("\"g{group}\"")).collect();
                let _ =
                    writeln!(text, "port_security_enabled = true\nsecurity_groups = [{}]", groups.join(", "));
            }
        }
        text
    }

    /// Whether the groups of both ends let a flow begin.
    fn allow(&self, flow: &Flow) -> bool {
        let passes = |ingress: bool, own: usize, other: usize| {
            self.of.get(own).is_none_or(|groups| {
                let rules = groups.iter().flat_map(|group| &self.groups[*group]);
                rules.filter(|rule| rule.ingress == ingress).any(|rule| self.matches(rule, flow, other))
            })
        };
        passes(false, flow.from, flow.to) && passes(true, flow.to, flow.from)
    }

    fn matches(&self, rule: &Rule, flow: &Flow, other: usize) -> bool {
        rule.is_v6 == flow.is_v6
            && rule.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && (rule.ports.is_empty()
                || rule.ports.iter().any(|(from, to)| (*from..=*to).contains(&flow.ports.1)))
            && match rule.remote {
                Remote::Anybody | Remote::Net(None) => true,
                Remote::Net(Some(of)) => of == other,
                Remote::Group(group) => self.of.get(other).is_some_and(|groups| groups.contains(&group)),
            }
    }
}

/// A packet's way, or a connection by its first packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Flow {
    is_v6: bool,
    protocol: u8,
    from: usize,
    to: usize,
    /// Of a ping, its identifier twice.
    ports: (u16, u16),
}

impl Flow {
    fn read(from: usize, input: &mut Input<'_>) -> Flow {
        let is_v6 = input.byte() > 150;
        let to = (from + 1 + usize::from(input.byte()) % (PORTS.len() - 1)) % PORTS.len();
        let protocol = input.one_of(&[UDP, UDP, UDP, if is_v6 { 58 } else { 1 }, GRE]);
        let ports = [80, 81, 53, 40000, 40001];
        let ports = match protocol {
            UDP => (input.one_of(&ports), input.one_of(&ports)),
            GRE => (0, 0),
            _ => (7, 7),
        };
        Flow { is_v6, protocol, from, to, ports }
    }

    fn reversed(self) -> Flow {
        Flow { from: self.to, to: self.from, ports: (self.ports.1, self.ports.0), ..self }
    }

    fn frame(&self, is_answer: bool) -> Vec<u8> {
        let kind = match (self.is_v6, is_answer) {
            (true, false) => 128,
            (true, true) => 129,
            (false, false) => 8,
            (false, true) => 0,
        };
        let ping = if matches!(self.protocol, 1 | 58) { 1 } else { self.protocol };
        let payload = transport(ping, self.ports, kind, 20);
        let head = [mac(self.to), mac(self.from)].concat();
        if self.is_v6 {
            let len = u16::try_from(payload.len()).expect("short").to_be_bytes();
            let ip = [&[0x60, 0, 0, 0, len[0], len[1], self.protocol, 64], &v6(self.from)[..], &v6(self.to)]
                .concat();
            return [&head[..], &[0x86, 0xdd], &ip, &payload].concat();
        }
        let (source, destination) = (v4(self.from), v4(self.to));
        let (protocol, options) = (self.protocol, Vec::new());
        let packet =
            Packet { source, destination, protocol, ttl: 64, id: 7, field: 0, options, transport: payload };
        [&head[..], &[8, 0], &packet.bytes()].concat()
    }
}

/// What it should be.
struct Naive {
    rules: Rules,
    /// By their first packets, and whether that was the answer to a ping.
    connections: HashMap<Flow, bool>,
}

impl Naive {
    /// Whether a packet passes, and whether it does by its connection alone. `is_answer`: of a ping.
    fn judge(&mut self, flow: Flow, is_answer: bool) -> (bool, bool) {
        let allowed = self.rules.allow(&flow);
        if !self.rules.is_stateful {
            return (allowed, false);
        }
        let is_ping = matches!(flow.protocol, 1 | 58);
        let is_answer = is_answer && is_ping;
        for (first, is_reply) in [(flow, false), (flow.reversed(), true)] {
            let Some(&began) = self.connections.get(&first) else { continue };
            if is_ping && is_answer != (began != is_reply) {
                // A question where an answer belongs, or the other way round: by the rules alone.
                return (allowed, false);
            }
            if self.rules.allow(&first) {
                return (true, !allowed);
            }
            self.connections.remove(&first);
        }
        if allowed {
            self.connections.insert(flow, is_answer);
        }
        (allowed, false)
    }
}

struct Scene {
    devices: HashMap<AttachmentKey, Device>,
    places: Places,
    ports: [PortIdx; 4],
    tables: Tables,
    shard: Shard,
    out: Out,
    now: Instant,
    epoch: u64,
}

impl Scene {
    fn new(rules: &Rules) -> Scene {
        let model = load(rules);
        let caps = Caps { checksum: true, tso: true, uso: true, mtu: 1500 };
        let devices: HashMap<AttachmentKey, Device> = model
            .attachments()
            .map(|device| {
                (
                    device.key,
                    Device { worker: WorkerIdx(0), up: true, caps, mac: None, counters: Arc::default() },
                )
            })
            .collect();
        let mut places = Places::default();
        let tables = compile(&model, &devices, &mut places, 1);
        let port =
            |name: &str| PortIdx(places.ports.get(&AttachmentKey::Port(name.to_owned())).expect("a port"));
        let ports = PORTS.map(port);
        let shard = Shard::new(Pool::with_chunks(CHUNKS.0, CHUNKS.1).expect("memory"), 7);
        let now = Instant(1_000_000_000_000);
        let mut scene = Scene { devices, places, ports, tables, shard, out: Out::default(), now, epoch: 1 };
        scene.publish();
        for from in 0..PORTS.len() {
            let tells =
                [&[0xff; 6][..], &mac(from), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac(from), &v4(from)].concat();
            scene.send(from, &[[&tells[..], &[0; 6], &v4(from)].concat()], false);
        }
        scene
    }

    fn change(&mut self, rules: &Rules) {
        self.epoch += 1;
        self.tables = compile(&load(rules), &self.devices, &mut self.places, self.epoch);
        self.publish();
    }

    fn publish(&mut self) {
        self.out.make_room(self.tables.ports.len());
        self.shard.sync(&self.tables);
        gateway::configure(&self.tables, &mut self.shard, WorkerIdx(0), self.now, &mut self.out);
    }

    /// Sends a burst; gives what left, and by which port.
    fn send(&mut self, from: usize, frames: &[Vec<u8>], is_traced: bool) -> Vec<(usize, Vec<u8>)> {
        let Scene { tables, shard, out, now, ports, .. } = self;
        let mut burst: Burst = frames.iter().filter_map(|bytes| shard.pool.frame_from(bytes)).collect();
        assert_eq!(burst.len(), frames.len());
        if is_traced {
            process(&mut burst, ports[from], tables, shard, *now, out, &mut Explain::default());
        } else {
            process(&mut burst, ports[from], tables, shard, *now, out, &mut Silent);
        }
        gateway::serve(tables, shard, *now, out);
        let mut sent = Vec::new();
        out.flush(|to, frames| {
            let port = ports.iter().position(|port| *port == to);
            let bytes = frames.drain(..).map(|frame| frame.segments().collect::<Vec<_>>().concat());
            // What it serves itself goes to a port of its own.
            sent.extend(bytes.filter_map(|bytes| Some((port?, bytes))));
        });
        sent
    }
}

fn load(rules: &Rules) -> model::Model {
    let text = rules.text();
    model::load(&text, "fuzz.toml").unwrap_or_else(|mistakes| panic!("{}\n{text}", mistakes[0].render(&text)))
}

pub fn run(data: &[u8]) {
    reach(data);
}

/// As [`run`]; gives the packets that passed by the rules, by their connection alone, and those that did not.
pub fn reach(data: &[u8]) -> [u64; 3] {
    let mut input = Input::new(data);
    let mut naive = Naive { rules: Rules::read(&mut input), connections: HashMap::new() };
    let mut scene = Scene::new(&naive.rules);
    let mut ends = [0; 3];
    let mut past: Vec<Flow> = Vec::new();
    while !input.is_empty() {
        let choice = input.byte();
        if choice > 235 {
            let (was, rules) = (naive.rules.is_stateful, Rules::read(&mut input));
            // What one kind of group does with the other's connections is not asked here.
            naive.rules = Rules { is_stateful: was, ..rules };
            scene.change(&naive.rules);
            continue;
        }
        let from = usize::from(choice) % PORTS.len();
        let flows: Vec<(Flow, bool)> = (0..=input.byte() % 6)
            .map(|_| {
                // Often an answer to what came.
                let came: Vec<_> = past.iter().filter(|flow| flow.to == from).collect();
                match input.byte() {
                    byte @ 128.. if !came.is_empty() => {
                        (came[usize::from(byte) % came.len()].reversed(), true)
                    }
                    _ => (Flow::read(from, &mut input), false),
                }
            })
            .collect();
        let frames: Vec<_> = flows.iter().map(|(flow, is_answer)| flow.frame(*is_answer)).collect();
        let mut left = scene.send(from, &frames, input.byte() > 230);
        for ((flow, is_answer), frame) in flows.into_iter().zip(frames) {
            let (passes, by_connection) = naive.judge(flow, is_answer);
            let found = left.iter().position(|(to, bytes)| *to == flow.to && *bytes == frame);
            if let Some(found) = found {
                left.remove(found);
            }
            assert_eq!(found.is_some(), passes, "{flow:?}, answer: {is_answer}\n{}", naive.rules.text());
            ends[if !passes { 2 } else { usize::from(by_connection) }] += 1;
            past.push(flow);
        }
        assert!(left.is_empty(), "something else leaves: {left:02x?}");
        past.drain(..past.len().saturating_sub(12));
    }
    ends
}
