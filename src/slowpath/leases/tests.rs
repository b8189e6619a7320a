//! Leases against a real file: what was acknowledged stays, what cannot be written is not acknowledged.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::services::SERVICE_V4;
use crate::wire::checksum::Sum;
use crate::wire::dhcp4::{COOKIE, Message, MessageType, put_option};

const NOW: u64 = 1_700_000_000;
const LEASE: u64 = 3600;
const PORT: PortIdx = PortIdx(3);
const BLUE: NetIdx = NetIdx(1);
const RED: NetIdx = NetIdx(2);
const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Where a test that is run as a process of its own finds its file.
const CHILD: &str = "NUSWITCH_TEST_LEASES";

fn client(n: u16) -> Mac {
    let [high, low] = n.to_be_bytes();
    Mac([0x52, 0x54, 0, 0, high, low])
}

fn ip(subnet: u8, host: u8) -> Ipv4Addr {
    [10, 0, subnet, host].into()
}

/// What a client sends.
#[derive(Clone)]
struct Ask {
    mac: Mac,
    network: NetIdx,
    port: PortIdx,
    giaddr: Ipv4Addr,
    ciaddr: Ipv4Addr,
    options: Vec<u8>,
}

impl Ask {
    fn new(kind: MessageType, mac: Mac) -> Ask {
        let options = vec![53, 1, kind as u8];
        Ask { mac, network: BLUE, port: PORT, giaddr: NONE, ciaddr: NONE, options }
    }

    fn discover(mac: Mac) -> Ask {
        Ask::new(MessageType::Discover, mac)
    }

    /// Takes an offer.
    fn request(mac: Mac, address: Ipv4Addr) -> Ask {
        Ask::new(MessageType::Request, mac).with(50, &address.octets()).with(54, &SERVICE_V4.octets())
    }

    fn release(mac: Mac, address: Ipv4Addr) -> Ask {
        let ask = Ask::new(MessageType::Release, mac).with(54, &SERVICE_V4.octets());
        Ask { ciaddr: address, ..ask }
    }

    fn with(mut self, code: u8, value: &[u8]) -> Ask {
        put_option(&mut self.options, code, value);
        self
    }

    fn on(self, network: NetIdx) -> Ask {
        Ask { network, ..self }
    }

    fn at(self, port: PortIdx) -> Ask {
        Ask { port, ..self }
    }

    fn by(self, giaddr: Ipv4Addr) -> Ask {
        Ask { giaddr, ..self }
    }

    fn punt(&self) -> Punt {
        let mut message = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0];
        message.extend([self.ciaddr, NONE, NONE, self.giaddr].map(|ip| ip.octets()).concat());
        message.extend(self.mac.0);
        message.resize(236, 0);
        message.extend(COOKIE);
        message.extend(&self.options);
        message.push(255);
        let len = u16::try_from(message.len() + 8).unwrap();
        let mut header = vec![0x45, 0];
        header.extend((len + 20).to_be_bytes());
        header.extend([0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]);
        let sum = Sum::of(&header).checksum().to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        let mut frame = [&Mac::BROADCAST.0[..], &self.mac.0, &[8, 0], &header, &[0, 68, 0, 67]].concat();
        frame.extend(len.to_be_bytes());
        // No checksum (RFC 768).
        frame.extend([0, 0]);
        frame.extend(message);
        Punt { ingress: self.port, network: self.network, frame }
    }
}

/// The kind and the address of a reply.
fn told(reply: &Punt) -> (MessageType, Ipv4Addr) {
    let message = Message::new_checked(&reply.frame[42..]).unwrap();
    let kind = message.pieces().find_map(|piece| piece.ok().filter(|(code, _)| *code == 53)).unwrap().1[0];
    (MessageType::from_u8(kind).unwrap(), message.yiaddr())
}

fn subnet(third: u8, first: u8, last: u8, reserved: &[u8]) -> (Config, Settings) {
    let cidr = format!("10.0.{third}.0/24").parse().unwrap();
    let config = Config {
        subnet: cidr,
        network: vec![cidr],
        ranges: vec![(ip(third, first), ip(third, last))],
        reserved: reserved.iter().map(|host| ip(third, *host)).collect(),
        limits: limits(usize::from(last - first) + 1 - reserved.len()),
    };
    let lease_time = u32::try_from(LEASE).unwrap();
    (config, Settings { prefix_len: 24, lease_time, mtu: 1500, ..Settings::default() })
}

fn network(network: NetIdx, name: &str, subnets: &[(Config, Settings)]) -> NetworkLeases {
    NetworkLeases { network, name: name.to_owned(), subnets: subnets.to_vec() }
}

fn blue() -> NetworkLeases {
    network(BLUE, "blue", &[subnet(0, 10, 29, &[])])
}

fn open(directory: &TempDir) -> Result<Leases, OpenError> {
    Leases::open(Some(&directory.path().join("state.db")))
}

/// With network "blue".
fn lab(directory: &TempDir) -> Leases {
    let mut leases = open(directory).unwrap();
    leases.configure(vec![blue()], NOW);
    leases
}

impl Leases {
    fn ask_at(&mut self, ask: &Ask, now: u64) -> Option<(MessageType, Ipv4Addr)> {
        let replies = self.answer([ask.punt()], now);
        assert!(replies.len() <= 1);
        replies.first().map(|reply| {
            assert_eq!((reply.ingress, reply.network), (ask.port, ask.network));
            told(reply)
        })
    }

    fn ask(&mut self, ask: &Ask) -> Option<(MessageType, Ipv4Addr)> {
        self.ask_at(ask, NOW)
    }

    /// A whole lease, as `ask` begins it.
    fn lease(&mut self, ask: &Ask) -> Option<Ipv4Addr> {
        let (kind, address) = self.ask(ask)?;
        assert_eq!(kind, MessageType::Offer);
        let request = Ask {
            network: ask.network,
            port: ask.port,
            giaddr: ask.giaddr,
            ..Ask::request(ask.mac, address)
        };
        match self.ask(&request)? {
            (MessageType::Ack, granted) => Some(granted).filter(|granted| *granted == address),
            _ => None,
        }
    }

    fn stored(&self) -> Vec<(String, Ipv4Addr, u64)> {
        let rows = self.store.rows(None).unwrap().into_iter();
        rows.map(|row| (row.network, row.entry.address, row.entry.until)).collect()
    }
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[test]
fn an_acknowledged_lease_survives_a_reopen() {
    let directory = TempDir::new().unwrap();
    let mut leases = lab(&directory);
    let first = leases.lease(&Ask::discover(client(1))).unwrap();
    let named = Ask::discover(client(2)).with(61, b"\x00a name of its own");
    let (_, second) = leases.ask(&named).unwrap();
    leases.ask(&Ask::request(client(2), second).with(61, b"\x00a name of its own")).unwrap();
    // Offered only.
    let (_, third) = leases.ask(&Ask::discover(client(3))).unwrap();
    assert_eq!(leases.stored().len(), 2);
    drop(leases);

    let mut leases = lab(&directory);
    let shown = leases.shown(NOW);
    let brief: Vec<_> =
        shown.iter().map(|one| (one.address, one.mac, one.state, one.until, one.holds)).collect();
    let until = Some(NOW + LEASE);
    assert_eq!(
        brief,
        [(first, client(1), State::Bound, until, true), (second, client(2), State::Bound, until, true)]
    );
    assert_eq!(&shown[1].client[..], b"\x00a name of its own");
    assert_eq!((shown[0].network.as_str(), shown[0].ingress), ("blue", None));
    // Nobody else gets them, and each client gets its own.
    assert_eq!(leases.lease(&Ask::discover(client(9))), Some(third));
    assert_eq!(leases.lease(&Ask::discover(client(1))), Some(first));
    let renewal = Ask {
        ciaddr: second,
        ..Ask::new(MessageType::Request, client(2)).with(61, b"\x00a name of its own")
    };
    assert_eq!(leases.ask_at(&renewal, NOW + 600), Some((MessageType::Ack, second)));
    assert!(leases.stored().contains(&("blue".to_owned(), second, NOW + 600 + LEASE)));
}

/// The process ends at the worst moment, without a destructor: between the commit and the reply.
#[test]
fn a_lease_survives_a_kill_before_its_reply() {
    if let Some(path) = std::env::var_os(CHILD) {
        let mut leases = Leases::open(Some(Path::new(&path))).unwrap();
        leases.configure(vec![blue()], NOW);
        let replies = leases.answer([Ask::request(client(7), ip(0, 17)).punt()], NOW);
        assert_eq!(replies.len(), 1);
        std::process::abort();
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    let name = "slowpath::leases::tests::a_lease_survives_a_kill_before_its_reply";
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, &path).output().unwrap();
    assert!(!output.status.success() && output.status.code().is_none(), "it was to be killed: {output:?}");
    let mut leases = lab(&directory);
    assert_eq!(leases.shown(NOW).len(), 1);
    assert_eq!(leases.ask(&Ask::discover(client(8))), Some((MessageType::Offer, ip(0, 10))));
    // The client has heard nothing, and repeats what it said.
    assert_eq!(leases.ask(&Ask::request(client(7), ip(0, 17))), Some((MessageType::Ack, ip(0, 17))));
    assert_eq!(leases.ask(&Ask::request(client(9), ip(0, 17))).map(|(kind, _)| kind), Some(MessageType::Nak));
}

#[test]
fn requests_that_wait_are_written_with_one_commit() {
    let directory = TempDir::new().unwrap();
    let mut leases = lab(&directory);
    let asks = (0..8).map(|n| Ask::request(client(n.into()), ip(0, 10 + n)).punt());
    let fails = Ask::request(client(99), ip(0, 10)).punt();
    let replies = leases.answer(asks.chain([fails]), NOW);
    let kinds: Vec<_> = replies.iter().map(|reply| told(reply).0).collect();
    assert_eq!(kinds, [&[MessageType::Ack; 8][..], &[MessageType::Nak]].concat());
    assert_eq!((value(&leases.counters.commits), leases.stored().len()), (1, 8));
    // What changes nothing costs no commit.
    leases.ask(&Ask::discover(client(50))).unwrap();
    assert_eq!(value(&leases.counters.commits), 1);
}

#[test]
fn nothing_is_granted_while_the_disk_fails() {
    let directory = TempDir::new().unwrap();
    let mut leases = lab(&directory);
    let kept = leases.lease(&Ask::discover(client(1))).unwrap();
    leases.store.fail(true);
    let batch = [Ask::request(client(2), ip(0, 15)), Ask::discover(client(3)), Ask::release(client(1), kept)];
    let replies = leases.answer(batch.map(|ask| ask.punt()), NOW);
    assert_eq!(replies.iter().map(|reply| told(reply).0).collect::<Vec<_>>(), [MessageType::Offer]);
    assert_eq!((value(&leases.counters.replies_withheld), value(&leases.counters.commits_failed)), (1, 1));
    assert_eq!(leases.ask(&Ask::request(client(2), ip(0, 15))), None);
    assert_eq!(leases.stored().len(), 1, "the old state");
    // It works again: what was held back is written with what comes next.
    leases.store.fail(false);
    assert_eq!(leases.ask(&Ask::request(client(2), ip(0, 15))), Some((MessageType::Ack, ip(0, 15))));
    assert_eq!(leases.stored(), [("blue".to_owned(), ip(0, 15), NOW + LEASE)]);
    assert_eq!(value(&leases.counters.replies_withheld), 2);
}

#[test]
fn a_full_disk_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let mut leases = open(&directory).unwrap();
    let many: Vec<_> = (0..20).map(|third| subnet(third, 1, 254, &[])).collect();
    leases.configure(vec![network(BLUE, "blue", &many)], NOW);
    leases.store.limit(20);
    let identifier = [7; 200];
    let mut granted = Vec::new();
    for n in 0..2000u16 {
        let (third, host) = (u8::try_from(n / 200).unwrap(), u8::try_from(n % 200).unwrap() + 1);
        let ask =
            Ask::request(client(n), ip(third, host)).with(61, &[&n.to_be_bytes()[..], &identifier].concat());
        granted.extend(leases.ask(&ask).map(|(_, address)| address));
    }
    let failed = value(&leases.counters.commits_failed);
    assert!(!granted.is_empty() && granted.len() < 2000 && failed > 0, "{} granted", granted.len());
    drop(leases);
    let leases = open(&directory).unwrap();
    let mut stored: Vec<_> = leases.stored().into_iter().map(|(_, address, _)| address).collect();
    stored.sort_unstable();
    granted.sort_unstable();
    assert_eq!(stored, granted);
}

#[test]
fn a_release_is_durable_and_the_address_is_the_next_one_s() {
    let directory = TempDir::new().unwrap();
    let mut leases = open(&directory).unwrap();
    let small = || vec![network(BLUE, "blue", &[subnet(0, 10, 10, &[])])];
    leases.configure(small(), NOW);
    let address = leases.lease(&Ask::discover(client(1))).unwrap();
    assert_eq!(leases.ask(&Ask::discover(client(2))), None);
    assert_eq!(leases.ask(&Ask::release(client(1), address)), None);
    assert_eq!((leases.stored().len(), value(&leases.counters.given_up)), (0, 1));
    assert_eq!(leases.lease(&Ask::discover(client(2))), Some(address));
    drop(leases);
    let mut leases = open(&directory).unwrap();
    leases.configure(small(), NOW);
    assert_eq!(leases.shown(NOW)[0].mac, client(2));
}

#[test]
fn leases_that_are_over_leave_the_store() {
    let directory = TempDir::new().unwrap();
    let mut leases = lab(&directory);
    let first = leases.lease(&Ask::discover(client(1))).unwrap();
    let renewed = leases.lease(&Ask::discover(client(2))).unwrap();
    let renewal = Ask { ciaddr: renewed, ..Ask::new(MessageType::Request, client(2)) };
    leases.ask_at(&renewal, NOW + 10).unwrap();
    leases.tidy(NOW + LEASE - 1);
    assert_eq!(leases.stored().len(), 2);
    leases.tidy(NOW + LEASE);
    assert_eq!(leases.stored(), [("blue".to_owned(), renewed, NOW + 10 + LEASE)]);
    assert_eq!(value(&leases.counters.expired), 1);
    // The pool remembers the client, which gets it again.
    assert_eq!(leases.ask_at(&Ask::discover(client(1)), NOW + LEASE), Some((MessageType::Offer, first)));
    assert_eq!(leases.store.remove_over(u64::MAX, 0).unwrap(), 0, "no more than it may");
}

#[test]
fn a_lease_for_ever_stays() {
    let directory = TempDir::new().unwrap();
    let for_ever = || {
        let (config, settings) = subnet(0, 10, 19, &[]);
        network(BLUE, "blue", &[(config, Settings { lease_time: u32::MAX, ..settings })])
    };
    let mut leases = open(&directory).unwrap();
    leases.configure(vec![for_ever()], NOW);
    let ask = Ask::discover(client(1)).with(51, &u32::MAX.to_be_bytes());
    let address = leases.lease(&ask).unwrap();
    leases.tidy(u64::MAX - 1);
    drop(leases);
    let mut leases = open(&directory).unwrap();
    leases.configure(vec![for_ever()], NOW);
    let shown = leases.shown(u64::MAX - 1);
    assert_eq!((shown[0].address, shown[0].until, shown[0].holds), (address, None, true));
}

#[test]
fn networks_that_go_take_their_leases_along() {
    let directory = TempDir::new().unwrap();
    let mut leases = open(&directory).unwrap();
    let red = || network(RED, "red", &[subnet(0, 10, 29, &[])]);
    leases.configure(vec![blue(), red()], NOW);
    // Two networks with the same subnet do not mix: the same client, the same addresses.
    let address = leases.lease(&Ask::discover(client(1))).unwrap();
    assert_eq!(leases.lease(&Ask::discover(client(2)).on(RED)), Some(address));
    assert_eq!(leases.lease(&Ask::discover(client(1)).on(RED)), Some(ip(0, 11)));
    let names = |leases: &Leases| leases.shown(NOW).into_iter().map(|one| one.network).collect::<Vec<_>>();
    assert_eq!(names(&leases), ["blue", "red", "red"]);
    leases.configure(vec![NetworkLeases { network: NetIdx(7), ..red() }], NOW);
    assert_eq!((names(&leases), leases.stored().len()), (vec!["red".to_owned(); 2], 2));
    assert_eq!(value(&leases.counters.ended), 1);
    assert_eq!(leases.ask(&Ask::discover(client(1))), None);
    assert_eq!(value(&leases.counters.refused_unknown_network), 1);
    drop(leases);
    // One that went while the process did not run.
    let mut leases = lab(&directory);
    assert_eq!((leases.shown(NOW).len(), leases.stored().len()), (0, 0));
    leases.configure(vec![blue(), red()], NOW);
    assert_eq!(leases.shown(NOW).len(), 0, "it comes back empty");
}

#[test]
fn networks_that_stay_keep_their_leases_and_offers() {
    let directory = TempDir::new().unwrap();
    let mut leases = lab(&directory);
    let kept = leases.lease(&Ask::discover(client(1))).unwrap();
    let (_, offered) = leases.ask(&Ask::discover(client(2))).unwrap();
    let lost = leases.lease(&Ask::discover(client(3))).unwrap();
    // The subnet is second now, and one address is a port's.
    let same = network(NetIdx(9), "blue", &[subnet(5, 1, 9, &[]), subnet(0, 10, 29, &[12])]);
    assert_eq!(lost, ip(0, 12));
    leases.configure(vec![same], NOW);
    assert_eq!(leases.stored(), [("blue".to_owned(), kept, NOW + LEASE)]);
    let on = NetIdx(9);
    assert_eq!(leases.ask(&Ask::request(client(2), offered).on(on)), Some((MessageType::Ack, offered)));
    assert_eq!(leases.lease(&Ask::discover(client(1)).on(on)), Some(kept));
    let renewal = Ask { ciaddr: lost, ..Ask::new(MessageType::Request, client(3)).on(on) };
    assert_eq!(leases.ask(&renewal).map(|(kind, _)| kind), Some(MessageType::Nak));
    assert_eq!(leases.lease(&Ask::discover(client(3)).on(on)), Some(ip(5, 1)));
}

#[test]
fn reserved_addresses_are_nobody_s() {
    let directory = TempDir::new().unwrap();
    let mut leases = open(&directory).unwrap();
    leases.configure(vec![network(BLUE, "blue", &[subnet(0, 10, 13, &[10, 12])])], NOW);
    assert_eq!(leases.ask(&Ask::request(client(1), ip(0, 12))).map(|(kind, _)| kind), Some(MessageType::Nak));
    assert_eq!(
        leases.ask(&Ask::discover(client(1)).with(50, &ip(0, 10).octets())),
        Some((MessageType::Offer, ip(0, 11)))
    );
}

#[test]
fn of_several_subnets_the_relay_s_or_the_client_s_or_one_with_room_is_used() {
    let directory = TempDir::new().unwrap();
    let mut leases = open(&directory).unwrap();
    leases.configure(vec![network(BLUE, "blue", &[subnet(0, 10, 11, &[]), subnet(1, 10, 19, &[])])], NOW);
    let relay = ip(1, 1);
    assert_eq!(leases.lease(&Ask::discover(client(1)).by(relay)), Some(ip(1, 10)));
    assert_eq!(leases.ask(&Ask::discover(client(1)).by(ip(9, 1))), None);
    // It has a lease there, and keeps it; so does its renewal, which no relay passes on.
    assert_eq!(leases.ask(&Ask::discover(client(1))), Some((MessageType::Offer, ip(1, 10))));
    let renewal = Ask { ciaddr: ip(1, 10), ..Ask::new(MessageType::Request, client(1)) };
    assert_eq!(leases.ask(&renewal), Some((MessageType::Ack, ip(1, 10))));
    // It gets no second one.
    assert_eq!(leases.ask(&Ask::request(client(1), ip(0, 10))).map(|(kind, _)| kind), Some(MessageType::Nak));
    // From different ports, of which each may have little of a small pool.
    let new = |n: u16| Ask::discover(client(n)).at(PortIdx(n));
    assert_eq!(leases.lease(&new(2)), Some(ip(0, 10)));
    assert_eq!(leases.lease(&new(3)), Some(ip(0, 11)));
    assert_eq!(leases.lease(&new(4)), Some(ip(1, 11)));
    assert_eq!(leases.lease(&new(5).with(50, &ip(1, 15).octets())), Some(ip(1, 15)));
}

#[test]
fn one_port_does_not_starve_the_others() {
    let directory = TempDir::new().unwrap();
    let mut leases = open(&directory).unwrap();
    leases.configure(vec![network(BLUE, "blue", &[subnet(0, 1, 100, &[])])], NOW);
    let attacker = PortIdx(1);
    let mut got = 0;
    for n in 0..1000 {
        got += usize::from(leases.lease(&Ask::discover(client(n)).at(attacker)).is_some());
    }
    // And as many more as it can without taking them.
    for n in 1000..2000 {
        leases.ask(&Ask::discover(client(n)).at(attacker));
        leases.ask(&Ask::new(MessageType::Decline, client(n)).with(50, &ip(0, 99).octets()).at(attacker));
    }
    let most = limits(100);
    assert_eq!(got, most.leases);
    assert!(value(&leases.counters.refused_limit) >= 900);
    let others = (0..100).filter(|n| leases.lease(&Ask::discover(client(5000 + n)).at(PortIdx(2))).is_some());
    assert!(others.count() >= 6, "a sixteenth is left");
    assert_eq!(
        leases.stored().len(),
        leases.shown(NOW).iter().filter(|one| one.state == State::Bound).count()
    );
}

#[test]
fn limits_leave_something_to_others_in_pools_of_every_size() {
    for addresses in [4, 5, 16, 31, 100, 250, 1000, 65_000] {
        let most = limits(addresses);
        assert!(most.leases + most.offers + most.declined < addresses, "{addresses}");
        assert!(most.leases * 10 >= addresses * 7 || addresses < 31, "{addresses}");
    }
    assert_eq!((limits(0).leases, limits(1).leases), (1, 1));
}

#[test]
fn the_file_is_its_owner_s_and_its_directory_is_made() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("a/b/state.db");
    let mut leases = Leases::open(Some(&path)).unwrap();
    leases.configure(vec![blue()], NOW);
    leases.lease(&Ask::discover(client(1))).unwrap();
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
    }
    // One switch alone.
    let second = Leases::open(Some(&path)).err().unwrap();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    let below_a_file = Leases::open(Some(&path.join("state.db"))).err().unwrap();
    assert!(matches!(below_a_file, OpenError::Directory { .. }), "{below_a_file}");
    let no_file = Leases::open(Some(directory.path())).err().unwrap();
    assert!(matches!(no_file, OpenError::File { .. }), "{no_file}");
}

#[test]
fn what_is_no_store_of_ours_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    let refused = |is: fn(&OpenError) -> bool| {
        let before = std::fs::read(&path).unwrap();
        let error = open(&directory).err().unwrap();
        assert!(is(&error), "{error:?}");
        assert!(error.to_string().contains("state.db"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        error.to_string()
    };
    std::fs::write(&path, b"[switch]\nworkers = [1]\n".repeat(100)).unwrap();
    refused(|error| matches!(error, OpenError::Foreign { .. }));
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    refused(|error| matches!(error, OpenError::Foreign { .. }));
    std::fs::remove_file(&path).unwrap();
    drop(lab(&directory));
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let text = refused(|error| matches!(error, OpenError::Newer { .. }));
    assert!(text.contains("99"), "{text}");
}

#[test]
fn a_damaged_store_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state.db");
    let mut leases = lab(&directory);
    for n in 0..10 {
        leases.lease(&Ask::discover(client(n))).unwrap();
    }
    drop(leases);
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    let page = 4096;
    torn[page..].fill(0xa5);
    std::fs::write(&path, torn).unwrap();
    let error = open(&directory).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    std::fs::write(&path, whole).unwrap();
    assert_eq!(lab(&directory).shown(NOW).len(), 10);
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE leases SET address = 'none' WHERE address = '10.0.0.12'", []).unwrap();
    drop(connection);
    let error = open(&directory).err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[test]
fn malformed_requests_are_counted_and_not_answered() {
    let mut leases = Leases::open(None).unwrap();
    leases.configure(vec![blue()], NOW);
    let mut short = Ask::discover(client(1)).punt();
    short.frame.truncate(100);
    let unknown = Ask::discover(client(1)).on(RED).punt();
    let other =
        Ask::new(MessageType::Request, client(1)).with(50, &[10, 0, 0, 10]).with(54, &[10, 0, 0, 1]).punt();
    assert_eq!(leases.answer([short, unknown, other], NOW), []);
    let counters = &leases.counters;
    let refused =
        [&counters.refused_malformed, &counters.refused_unknown_network, &counters.refused_other_server];
    assert_eq!(refused.map(value), [1, 1, 1]);
    assert_eq!(counters.rows().iter().find(|(name, _)| *name == "requests"), Some(&("requests", 3)));
}

#[test]
fn the_log_is_not_filled() {
    let mut quiet = Quiet::default();
    assert_eq!(
        [quiet.may(100), quiet.may(101), quiet.may(109), quiet.may(110)],
        [Some(0), None, None, Some(2)]
    );
    assert_eq!(quiet.may(5), Some(0), "the clock was set back");
}

#[test]
fn the_thread_answers_shows_and_ends() {
    let directory = TempDir::new().unwrap();
    let (tell, told_) = mpsc::channel();
    let answer = move |reply| tell.send(reply).is_ok();
    let (mut handle, inbox) = Handle::start(open(&directory).unwrap(), 64, answer).unwrap();
    handle.configure(vec![blue()]);
    let guard = Duration::from_secs(60);
    for n in 0..8 {
        inbox.receive(Ask::request(client(n.into()), ip(0, 10 + n)).punt());
    }
    for n in 0..8 {
        assert_eq!(told(&told_.recv_timeout(guard).unwrap()), (MessageType::Ack, ip(0, 10 + n)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(handle.shown()).len(), 8);
    let commits = value(&handle.counters().commits);
    assert!((1..=8).contains(&commits), "{commits}");
    drop(inbox);
    handle.join();
    assert_eq!(runtime.block_on(handle.shown()).len(), 0);
    assert_eq!(open(&directory).unwrap().stored().len(), 8);
}
