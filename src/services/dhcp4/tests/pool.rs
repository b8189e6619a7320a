//! Pools of addresses: each rule by a test, and all of them against a naive model.

use std::collections::BTreeMap;

use super::*;
use crate::services::dhcp4::pool::{
    Change, Config, DECLINED_TIME, Entry, Limits, OFFER_TIME, Pool, State, answer as answer_of,
};
use crate::types::PortIdx;

const PORT: PortIdx = PortIdx(3);
const FIRST: u8 = 100;

fn address(n: u8) -> Ipv4Addr {
    [10, 0, 0, n].into()
}

fn client(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// Addresses .100 to .109, but .101 and .105.
fn config(limits: Limits) -> Config {
    Config {
        subnet: "10.0.0.0/24".parse().unwrap(),
        network: vec!["10.0.0.0/24".parse().unwrap(), "10.0.1.0/24".parse().unwrap()],
        ranges: vec![(address(106), address(109)), (address(FIRST), address(107)), (address(9), address(8))],
        reserved: vec![address(101), address(105)],
        limits,
    }
}

struct Lab {
    pool: Pool,
    now: u64,
}

type Done = Result<(Answered, Option<Change>, Option<Told>), Refused>;

impl Lab {
    fn new() -> Lab {
        Lab::with(Limits::default())
    }

    fn with(limits: Limits) -> Lab {
        Lab { pool: Pool::new(config(limits)), now: 1_000_000 }
    }

    fn at(&mut self, port: PortIdx, ask: &Ask) -> Done {
        let mut reply = Vec::new();
        let (done, change) =
            answer_of(&ask.frame(), &mut self.pool, &settings(), port, self.now, &mut reply)?;
        let told = done.has_reply().then(|| Told::read(&reply, ask.mac));
        Ok((done, change, told))
    }

    fn ask(&mut self, ask: &Ask) -> Done {
        self.at(PORT, ask)
    }

    fn offer(&mut self, ask: Ask) -> Ipv4Addr {
        let (done, change, told) = self.ask(&ask).unwrap();
        assert!(matches!(done, Answered::Offer { .. }) && change.is_none(), "{done}");
        told.unwrap().yiaddr
    }

    /// The whole exchange.
    fn bind(&mut self, n: u8) -> Ipv4Addr {
        let address = self.offer(discover().of(client(n)));
        let (done, change, told) = self.ask(&request().of(client(n)).to(SERVICE_V4).wants(address)).unwrap();
        assert_eq!(done, Answered::Ack { request: MessageType::Request, address });
        let Some(Change::Bound(entry)) = change else { panic!("{change:?}") };
        assert_eq!((entry.address, entry.mac, entry.state), (address, client(n), State::Bound));
        assert_eq!((entry.until, told.unwrap().yiaddr), (self.now + 86_400, address));
        address
    }

    fn release(&mut self, n: u8, address: Ipv4Addr) -> Done {
        self.ask(&Ask::new(MessageType::Release).of(client(n)).to(SERVICE_V4).has(address))
    }

    fn decline(&mut self, n: u8, address: Ipv4Addr) -> Done {
        self.ask(&Ask::new(MessageType::Decline).of(client(n)).to(SERVICE_V4).wants(address))
    }
}

#[test]
fn addresses_are_given_in_order_but_reserved_ones() {
    let mut lab = Lab::new();
    let given: Vec<u8> = (0..8).map(|n| lab.bind(n).octets()[3]).collect();
    assert_eq!(given, [100, 102, 103, 104, 106, 107, 108, 109]);
    assert_eq!(lab.ask(&discover().of(client(8))), Err(Refused::NoLease));
    assert!(
        lab.pool.contains(address(100))
            && !lab.pool.contains(address(101))
            && !lab.pool.contains(address(110))
    );
}

#[test]
fn rfc_2131_4_3_1_the_same_client_gets_the_same_address() {
    let mut lab = Lab::new();
    let first = lab.bind(1);
    lab.bind(2);
    assert_eq!(lab.offer(discover().of(client(1))), first, "while it is bound");
    let bound = |lab: &Lab| lab.pool.iter().find(|entry| entry.address == first).unwrap().clone();
    assert!(bound(&lab).state == State::Bound, "an offer does not unbind it");
    lab.now += 86_400;
    assert!(!bound(&lab).holds(lab.now));
    assert_eq!(lab.offer(discover().of(client(1)).wants(address(109))), first, "when its lease is over");
    let mut lab = Lab::new();
    let first = lab.bind(1);
    lab.release(1, first).unwrap();
    assert_ne!(lab.offer(discover().of(client(2))), first, "others come later");
    assert_eq!(lab.offer(discover().of(client(1))), first, "when it was released");
}

#[test]
fn rfc_2131_4_3_1_the_address_that_is_asked_for_is_given_where_it_is_free() {
    let mut lab = Lab::new();
    assert_eq!(lab.offer(discover().of(client(1)).wants(address(107))), address(107));
    for (n, taken) in [(2, 107), (3, 101), (4, 110), (5, 1)] {
        assert_ne!(lab.offer(discover().of(client(n)).wants(address(taken))), address(taken));
    }
    lab.now += OFFER_TIME;
    assert_eq!(lab.offer(discover().of(client(6)).wants(address(107))), address(107));
    assert_ne!(lab.offer(discover().of(client(1))), address(107));
}

#[test]
fn rfc_2131_4_2_a_client_is_known_by_its_identifier() {
    let mut lab = Lab::new();
    let one = lab.offer(discover().of(client(1)).with(61, b"\0one"));
    assert_eq!(lab.offer(discover().of(client(2)).with(61, b"\0one")), one);
    assert_ne!(lab.offer(discover().of(client(1))), one);
    let plain = lab.offer(discover().of(client(1)));
    assert_eq!(
        lab.offer(discover().of(client(1)).with(61, &[1, 2, 0, 0, 0, 0, 1])),
        plain,
        "the same in other words"
    );
}

#[test]
fn rfc_2131_4_3_2_requests_in_each_state() {
    let mut lab = Lab::new();
    let own = lab.bind(1);
    lab.now += 100;
    for ask in [request().wants(own), request().has(own), request().to(SERVICE_V4).wants(own)] {
        let (done, change, _) = lab.ask(&ask.of(client(1))).unwrap();
        assert_eq!(done, Answered::Ack { request: MessageType::Request, address: own });
        assert!(matches!(change, Some(Change::Bound(entry)) if entry.until == lab.now + 86_400));
    }
    let nak = |lab: &mut Lab, ask: Ask| match lab.ask(&ask) {
        Ok((Answered::Nak { .. }, None, Some(told))) => told.kind() == MessageType::Nak,
        Err(reason) => {
            assert_eq!(reason, Refused::NoLease);
            false
        }
        other => panic!("{other:?}"),
    };
    let (known, unknown) = (client(1), client(9));
    assert!(nak(&mut lab, request().of(known).wants(address(102))), "it has another");
    assert!(nak(&mut lab, request().of(known).has(address(102))));
    assert!(
        !nak(&mut lab, request().of(known).wants([10, 0, 1, 7].into())),
        "of another subnet, maybe another server's"
    );
    assert!(!nak(&mut lab, request().of(unknown).wants(address(102))), "silence: no record of this client");
    assert!(!nak(&mut lab, request().of(unknown).has(address(102))));
    assert!(nak(&mut lab, request().of(unknown).wants([192, 168, 0, 1].into())), "the wrong network");
    assert!(nak(&mut lab, request().of(unknown).has([192, 168, 0, 1].into())));
    assert!(nak(&mut lab, request().of(unknown).has(own)), "surely another's");
    assert!(nak(&mut lab, request().of(unknown).has(address(105))), "a port's");
    assert!(nak(&mut lab, request().of(unknown).to(SERVICE_V4).wants(own)), "its offer went to another");
    let (done, ..) = lab.ask(&request().of(unknown).to(SERVICE_V4).wants(address(104))).unwrap();
    assert_eq!(
        done,
        Answered::Ack { request: MessageType::Request, address: address(104) },
        "an offer from before a restart"
    );
}

#[test]
fn rfc_2131_3_1_4_a_request_to_another_server_takes_the_offer_back() {
    let mut lab = Lab::new();
    let offered = lab.offer(discover().of(client(1)));
    assert_ne!(lab.offer(discover().of(client(2)).wants(offered)), offered);
    let other = request().of(client(1)).to([10, 0, 0, 2].into()).wants([10, 0, 0, 77].into());
    assert_eq!(lab.ask(&other), Err(Refused::OtherServer));
    assert_eq!(lab.offer(discover().of(client(3)).wants(offered)), offered);
    let bound = lab.bind(4);
    assert_eq!(lab.ask(&other.of(client(4))), Err(Refused::OtherServer));
    assert!(lab.pool.iter().any(|entry| entry.address == bound && entry.holds(lab.now)), "a lease stays");
}

#[test]
fn rfc_2131_4_3_3_a_declined_address_is_held_back() {
    let mut lab = Lab::new();
    let own = lab.bind(1);
    let (done, change, _) = lab.decline(1, own).unwrap();
    assert_eq!(done, Answered::Consumed { request: MessageType::Decline, address: own });
    assert_eq!(change, Some(Change::Released(own)));
    assert_ne!(lab.offer(discover().of(client(1)).wants(own)), own);
    assert_eq!(lab.decline(2, own), Err(Refused::NoLease), "not its own");
    lab.now += DECLINED_TIME;
    assert_eq!(lab.offer(discover().of(client(3)).wants(own)), own);
    assert_eq!(lab.decline(3, own).unwrap().1, None, "it was only offered");
}

#[test]
fn rfc_2131_4_3_4_a_release_is_the_clients_own() {
    let mut lab = Lab::new();
    let own = lab.bind(1);
    assert_eq!(lab.release(2, own), Err(Refused::NoLease));
    let elsewhere = Ask::new(MessageType::Release).of(client(1)).to(SERVICE_V4).has(own);
    assert_eq!(lab.at(PortIdx(4), &elsewhere), Err(Refused::OtherClient));
    assert_eq!(lab.release(1, own).unwrap().1, Some(Change::Released(own)));
    assert_eq!(lab.release(1, own), Err(Refused::NoLease), "twice");
}

#[test]
fn inform_relay_and_rapid_commit() {
    let mut lab = Lab::new();
    let (_, change, told) = lab.ask(&Ask::new(MessageType::Inform).has(address(7))).unwrap();
    let told = told.unwrap();
    assert_eq!((told.yiaddr, told.option(51), change), (NONE, None, None));
    assert_eq!(lab.ask(&Ask::new(MessageType::Inform).has([10, 0, 1, 7].into())), Err(Refused::NoLease));
    assert_eq!(lab.pool.iter().count(), 0);
    assert_eq!(lab.ask(&discover().by([10, 0, 1, 1].into())), Err(Refused::NoLease), "of another subnet");
    let (done, change, told) = lab.ask(&discover().by(address(1)).with(80, &[])).unwrap();
    assert_eq!(done, Answered::Ack { request: MessageType::Discover, address: address(100) });
    assert!(matches!(change, Some(Change::Bound(_))));
    assert_eq!(told.unwrap().to, (RELAY, address(1), 67));
}

#[test]
fn made_up_clients_keep_to_the_limits_of_their_port() {
    let limits = Limits { offers: 3, leases: 2, declined: 1, ..Limits::default() };
    let mut lab = Lab::with(limits);
    let mut seen: Vec<Ipv4Addr> = (0..200).map(|n| lab.offer(discover().of(client(n)))).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 3, "an offer too many takes the oldest back");
    let other = lab.at(PortIdx(9), &discover().of(client(250))).unwrap().2.unwrap().yiaddr;
    assert!(!seen.contains(&other), "another port is not touched");
    let mut lab = Lab::with(limits);
    let bound = [lab.bind(1), lab.bind(2)];
    assert_eq!(lab.ask(&discover().of(client(3))), Err(Refused::Limit));
    assert_eq!(lab.ask(&discover().of(client(3)).with(80, &[])), Err(Refused::Limit));
    assert_eq!(lab.ask(&request().of(client(3)).to(SERVICE_V4).wants(address(109))), Err(Refused::Limit));
    assert_eq!(lab.offer(discover().of(client(1))), bound[0], "what they have they keep");
    assert!(lab.at(PortIdx(9), &discover().of(client(3))).is_ok());
    lab.decline(1, bound[0]).unwrap();
    lab.decline(2, bound[1]).unwrap();
    assert_eq!(lab.offer(discover().of(client(4)).wants(bound[0])), bound[0], "one alone is held back");
    assert_ne!(lab.offer(discover().of(client(5)).wants(bound[1])), bound[1]);
    lab.now += 86_400;
    lab.bind(6);
}

#[test]
fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
    let mut lab = Lab::with(Limits { entries: 3, ..Limits::default() });
    let given = [lab.bind(1), lab.bind(2), lab.bind(3)];
    assert_eq!(lab.ask(&discover().of(client(4)).wants(address(109))), Err(Refused::NoLease));
    lab.now += 10;
    lab.release(2, given[1]).unwrap();
    lab.now += 10;
    lab.release(1, given[0]).unwrap();
    assert_eq!(lab.bind(4), given[1], "it was given up first");
    assert_eq!(lab.bind(5), given[0]);
    assert_eq!(lab.pool.iter().count(), 3);
    assert_eq!(lab.ask(&discover().of(client(2))), Err(Refused::NoLease), "it lost its address");
}

#[test]
fn entries_are_saved_restored_and_outlive_a_change_of_ranges() {
    let mut lab = Lab::new();
    let (own, other) = (lab.bind(1), lab.bind(2));
    let saved: Vec<Entry> = lab.pool.iter().cloned().collect();
    let mut later = Lab::new();
    later.pool.restore(saved.iter().map(|entry| Entry { ingress: None, ..entry.clone() }));
    assert_eq!(later.pool.iter().count(), 2);
    assert_eq!(later.offer(discover().of(client(2))), other);
    assert_eq!(later.offer(discover().of(client(3))), address(103), "not one of theirs");
    let mut narrow = config(Limits::default());
    narrow.reserved.push(own);
    later.pool.configure(narrow);
    assert_eq!(later.offer(discover().of(client(2))), other);
    assert_ne!(later.offer(discover().of(client(1))), own, "it is a port's now");
    let foreign = Entry { address: [10, 0, 9, 9].into(), client: [1, 2].into(), ..saved[0].clone() };
    let twice = Entry { address: address(109), ..saved[0].clone() };
    let nobody = Entry { address: address(108), client: [].into(), ..saved[0].clone() };
    let mut strict = Lab::new();
    strict.pool.restore(saved.iter().cloned().chain([foreign, twice, nobody]));
    assert_eq!(strict.pool.iter().count(), 2);
    assert_eq!(lab.release(1, own).unwrap().1, Some(Change::Released(own)));
}

/// What must hold, told in the plainest way: who has which address until when.
#[derive(Default)]
struct Naive {
    bound: BTreeMap<Ipv4Addr, (u8, u64)>,
    offered: BTreeMap<Ipv4Addr, (u8, u64)>,
    declined: BTreeMap<Ipv4Addr, u64>,
}

impl Naive {
    fn over(&mut self, now: u64) {
        self.bound.retain(|_, (_, until)| *until > now);
        self.offered.retain(|_, (_, until)| *until > now);
        self.declined.retain(|_, until| *until > now);
    }

    fn is_open_to(&self, address: Ipv4Addr, n: u8) -> bool {
        let others = |map: &BTreeMap<Ipv4Addr, (u8, u64)>| map.get(&address).is_some_and(|(of, _)| *of != n);
        !others(&self.bound) && !others(&self.offered) && !self.declined.contains_key(&address)
    }

    fn hear(&mut self, n: u8, ask: &Ask, asked: Ipv4Addr, now: u64, done: &Done) {
        let valid = |address: Ipv4Addr| {
            let [.., last] = address.octets();
            (100..110).contains(&last) && last != 101 && last != 105
        };
        let has = self.bound.iter().find(|(_, (of, _))| *of == n).map(|(address, _)| *address);
        match done {
            Ok((Answered::Offer { address, .. }, change, _)) => {
                assert!(
                    valid(*address) && self.is_open_to(*address, n) && change.is_none(),
                    "offered {address}"
                );
                assert!(has.is_none_or(|has| has == *address), "it has {has:?}");
                if has.is_none() {
                    self.offered.insert(*address, (n, now + OFFER_TIME));
                }
            }
            Ok((Answered::Ack { address, .. }, Some(Change::Bound(entry)), _)) => {
                assert!(valid(*address) && self.is_open_to(*address, n), "bound {address}");
                assert!(has.is_none_or(|has| has == *address) && entry.until == now + 86_400);
                self.offered.remove(address);
                self.bound.insert(*address, (n, entry.until));
            }
            Ok((Answered::Nak { address, .. }, None, _)) => {
                assert_eq!(*address, asked);
                assert_ne!(has, Some(asked), "denied what it has");
            }
            Ok((Answered::Consumed { request, address }, change, _)) => {
                assert_eq!(has == Some(*address), change.is_some());
                self.bound.remove(address);
                self.offered.remove(address);
                if *request == MessageType::Decline {
                    self.declined.insert(*address, now + DECLINED_TIME);
                }
            }
            Err(Refused::NoLease) if ask.options.starts_with(&[53, 1, 1]) => {
                assert!(
                    (100..110).map(address).all(|address| !valid(address) || !self.is_open_to(address, n)),
                    "some are free"
                );
            }
            Err(Refused::NoLease) => {}
            Err(Refused::OtherServer) => self.offered.retain(|_, (of, _)| *of != n),
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Twelve clients, eight addresses, any messages at any time: no address is two clients', none that holds is taken away,
    /// nobody goes without while one is free, and the pool's own books agree.
    #[test]
    fn as_a_naive_model(steps in prop::collection::vec((0u8..9, 0u8..12, 98u8..112, 0u64..400), 0..150)) {
        let mut lab = Lab::new();
        let mut naive = Naive::default();
        for (kind, n, wanted, pause) in steps {
            lab.now += if pause > 390 { 86_400 } else { pause / 8 };
            naive.over(lab.now);
            let own = lab.pool.iter().find(|entry| entry.mac == client(n) && !entry.client.is_empty()).map(|entry| entry.address);
            let likely = if wanted % 2 == 0 { own.unwrap_or(address(wanted)) } else { address(wanted) };
            let ask = match kind {
                0 => discover(),
                1 => discover().wants(likely),
                2 | 3 => request().to(SERVICE_V4).wants(likely),
                4 => request().wants(likely),
                5 => request().has(likely),
                6 => request().to([10, 0, 0, 2].into()).wants(likely),
                7 => Ask::new(MessageType::Release).to(SERVICE_V4).has(likely),
                _ => Ask::new(MessageType::Decline).to(SERVICE_V4).wants(likely),
            };
            let ask = ask.of(client(n));
            let done = lab.ask(&ask);
            naive.hear(n, &ask, likely, lab.now, &done);
            let held: Vec<Ipv4Addr> = lab.pool.iter().filter(|entry| entry.holds(lab.now)).map(|entry| entry.address).collect();
            let mut expected: Vec<Ipv4Addr> = naive.bound.keys().chain(naive.offered.keys()).chain(naive.declined.keys()).copied().collect();
            expected.sort_unstable();
            prop_assert_eq!(held, expected);
            let again = {
                let mut pool = Pool::new(config(Limits::default()));
                pool.restore(lab.pool.iter().cloned());
                pool.iter().cloned().collect::<Vec<_>>()
            };
            prop_assert_eq!(again, lab.pool.iter().cloned().collect::<Vec<_>>());
        }
    }
}
