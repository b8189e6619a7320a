//! The state machine with a clock that the test moves.

use proptest::prelude::*;

use super::*;
use crate::frame::Pool;

const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const ANSWER: Claim = Claim { mac: A, solicited: true, overrides: true };
const GRATUITOUS: Claim = Claim { mac: B, solicited: false, overrides: true };

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn at(millis: u64) -> Instant {
    Instant(1_000_000_000_000 + millis * 1_000_000)
}

/// What came of it, in words.
fn words(effects: Vec<Effect>) -> Vec<String> {
    let mac = |mac: Option<Mac>| mac.map_or("all".into(), |mac| format!("{:x}", mac.0[5]));
    let word = |effect| match effect {
        Effect::Solicit { ip, to } => format!("ask {} of {ip}", mac(to)),
        Effect::Changed { ip, mac: None } => format!("lost {ip}"),
        Effect::Changed { ip, mac: known } => format!("{ip} is {}", mac(known)),
        Effect::Release(frame) => format!("send {} to {:x}", frame.head()[14], frame.head()[5]),
        Effect::Discard(frame) => format!("discard {}", frame.head()[14]),
    };
    effects.into_iter().map(word).collect()
}

struct Lab {
    table: Neighbours,
    pool: Pool,
}

impl Lab {
    fn new(capacity: usize) -> Lab {
        Lab { table: Neighbours::new(capacity), pool: Pool::with_chunks(512, 0).unwrap() }
    }

    fn want(&mut self, last: u8, now: Instant) -> Vec<String> {
        let mut out = Vec::new();
        self.table.want(ip(last), now, &mut |effect| out.push(effect));
        words(out)
    }

    fn unwant(&mut self, last: u8) -> Vec<String> {
        let mut out = Vec::new();
        self.table.unwant(ip(last), &mut |effect| out.push(effect));
        words(out)
    }

    fn heard(&mut self, last: u8, claim: Claim, now: Instant) -> Vec<String> {
        let mut out = Vec::new();
        self.table.heard(ip(last), claim, now, &mut |effect| out.push(effect));
        words(out)
    }

    fn submit(&mut self, mark: u8, last: u8, now: Instant) -> Vec<String> {
        let mut out = Vec::new();
        let mut bytes = [0; 60];
        bytes[14] = mark;
        let frame = self.pool.frame_from(&bytes).unwrap();
        self.table.submit(frame, ip(last), now, &mut |effect| out.push(effect));
        words(out)
    }

    fn poll(&mut self, now: Instant) -> Vec<String> {
        let mut out = Vec::new();
        self.table.poll(now, &mut |effect| out.push(effect));
        words(out)
    }

    fn state(&self, last: u8) -> Option<&'static str> {
        self.table.iter().find(|(found, ..)| *found == ip(last)).map(|(.., state)| state)
    }

    /// The times, in seconds, at which the table does something until `end`, and what.
    fn run(&mut self, start: u64, end: u64) -> Vec<(u64, String)> {
        let mut log = Vec::new();
        while let Some(next) = self.table.deadline().filter(|next| *next <= at(end * 1000)) {
            let second = (next.0 - at(0).0) / 1_000_000_000;
            assert!(second >= start, "a deadline in the past");
            log.extend(self.poll(next).into_iter().map(|word| (second, word)));
        }
        log
    }

    /// Lists, timers, serials and counts agree.
    fn check(&self) {
        let table = &self.table;
        assert_eq!(table.timers.len(), table.entries.len());
        let unwanted = table.entries.values().filter(|entry| !entry.wanted).count();
        assert_eq!(table.unwanted.len(), unwanted);
        assert!(unwanted <= table.capacity);
        assert!(table.waiting.len() <= QUEUE_TOTAL);
        for (ip, entry) in &table.entries {
            assert!(table.timers.contains(&(entry.timer, *ip)));
            assert!(entry.wanted || table.unwanted.get(&entry.serial) == Some(ip));
            let waiting = table.waiting.iter().filter(|(waits_for, _)| waits_for == ip).count();
            assert!(waiting == entry.waiting && waiting <= QUEUE);
            assert!(waiting == 0 || entry.mac.is_none());
        }
        let waiting: usize = table.entries.values().map(|entry| entry.waiting).sum();
        assert_eq!(waiting, table.waiting.len());
    }
}

#[test]
fn a_wanted_neighbour_is_resolved_at_once_and_refreshed_every_30_s() {
    let mut lab = Lab::new(4);
    assert_eq!(lab.want(1, at(0)), ["ask all of 192.0.2.1"]);
    assert_eq!(lab.heard(1, ANSWER, at(5)), ["192.0.2.1 is a"]);
    assert_eq!(lab.state(1), Some("reachable"));
    assert_eq!(lab.poll(at(30_004)), [""; 0]);
    assert_eq!(lab.poll(at(30_005)), ["ask a of 192.0.2.1"]);
    assert_eq!(lab.state(1), Some("probe"));
    assert_eq!(lab.heard(1, ANSWER, at(30_006)), [""; 0], "nothing changed");
    assert_eq!(lab.state(1), Some("reachable"));
    assert_eq!(lab.table.deadline(), Some(at(60_006)));
}

#[test]
fn who_does_not_answer_is_asked_again_with_back_off() {
    let mut lab = Lab::new(4);
    lab.want(1, at(0));
    assert_eq!(lab.submit(7, 1, at(10)), [""; 0]);
    let log = lab.run(0, 100);
    let asked: Vec<u64> =
        log.iter().filter(|(_, word)| word.starts_with("ask all")).map(|(s, _)| *s).collect();
    assert_eq!(
        asked,
        [1, 2, 3, 5, 9, 17, 33, 63, 93],
        "besides the first: 1 s apart, then 2, 4, 8, 16, 30, 30 …"
    );
    assert_eq!(log.iter().find(|(_, word)| word == "discard 7").unwrap().0, 3);
    assert_eq!(lab.state(1), Some("failed"));
    assert_eq!(lab.submit(8, 1, at(100_000)), ["discard 8"]);
    assert_eq!(lab.heard(1, ANSWER, at(100_001)), ["192.0.2.1 is a"]);
}

#[test]
fn a_neighbour_that_went_away_is_lost_after_three_probes_and_found_again() {
    let mut lab = Lab::new(4);
    lab.want(1, at(0));
    lab.heard(1, ANSWER, at(0));
    let log = lab.run(0, 33);
    let ask = |s| (s, "ask a of 192.0.2.1".to_string());
    let lost = (33, "lost 192.0.2.1".to_string());
    assert_eq!(log, [ask(30), ask(31), ask(32), lost, (33, "ask all of 192.0.2.1".into())]);
    assert_eq!(lab.heard(1, Claim { mac: B, ..ANSWER }, at(33_001)), ["192.0.2.1 is b"]);
}

#[test]
fn frames_wait_and_leave_in_their_order() {
    let mut lab = Lab::new(4);
    assert_eq!(lab.submit(1, 1, at(0)), ["ask all of 192.0.2.1"]);
    assert_eq!(lab.submit(9, 2, at(0)), ["ask all of 192.0.2.2"]);
    assert_eq!(lab.submit(2, 1, at(1)), [""; 0]);
    assert_eq!(lab.heard(1, ANSWER, at(2)), ["192.0.2.1 is a", "send 1 to a", "send 2 to a"]);
    assert_eq!(lab.submit(3, 1, at(3)), ["send 3 to a"]);
    lab.check();
    // Nobody wants the other: it is forgotten after three questions.
    assert_eq!(lab.run(0, 4).last().unwrap(), &(3, "discard 9".to_string()));
    assert_eq!(lab.state(2), None);
    lab.check();
}

#[test]
fn queues_are_bounded_and_lose_the_oldest() {
    let mut lab = Lab::new(16);
    for mark in 0..64 {
        assert!(lab.submit(mark, 1, at(0)).iter().all(|word| word.starts_with("ask")));
    }
    assert_eq!(lab.submit(64, 1, at(0)), ["discard 0"], "64 for one");
    for last in 2..5 {
        for mark in 0..64 {
            lab.submit(100 + mark, last, at(0));
        }
    }
    lab.check();
    let pushed = lab.submit(200, 5, at(0));
    assert_eq!(pushed, ["discard 1", "ask all of 192.0.2.5"], "256 in all");
    lab.check();
    let mut out = Vec::new();
    lab.table.discard_waiting(&mut |effect| out.push(effect));
    assert_eq!(out.len(), QUEUE_TOTAL);
    drop(out);
    lab.check();
    assert_eq!(lab.pool.free_small(), 512, "every frame is back");
}

#[test]
fn unwanted_neighbours_are_bounded_and_the_least_used_goes_first() {
    let mut lab = Lab::new(2);
    lab.want(9, at(0));
    lab.submit(1, 1, at(0));
    lab.submit(2, 2, at(0));
    lab.submit(3, 1, at(1));
    assert_eq!(lab.submit(4, 3, at(2)), ["discard 2", "ask all of 192.0.2.3"]);
    assert_eq!((lab.state(1), lab.state(2), lab.state(9)), (Some("incomplete"), None, Some("incomplete")));
    assert_eq!(lab.unwant(9), ["discard 1", "discard 3"], "room is made for it among the unwanted");
    lab.check();
    let mut none = Lab::new(0);
    assert_eq!(none.submit(1, 1, at(0)), ["discard 1"]);
}

#[test]
fn an_unused_neighbour_gets_stale_and_is_forgotten() {
    let mut lab = Lab::new(4);
    lab.submit(1, 1, at(0));
    lab.heard(1, ANSWER, at(0));
    assert_eq!(lab.poll(at(30_000)), ["ask a of 192.0.2.1"], "it was used");
    lab.heard(1, ANSWER, at(30_000));
    assert_eq!(lab.poll(at(60_000)), [""; 0]);
    assert_eq!(lab.state(1), Some("stale"));
    assert_eq!(
        lab.submit(2, 1, at(70_000)),
        ["send 2 to a", "ask a of 192.0.2.1"],
        "used: is it still there?"
    );
    lab.heard(1, ANSWER, at(70_001));
    assert_eq!(lab.run(70, 130), [], "reachable, then stale");
    assert_eq!(lab.run(130, 170), [(160, "lost 192.0.2.1".to_string())]);
    assert_eq!(lab.state(1), None);
    lab.check();
}

#[test]
fn claims_make_no_entry_and_do_not_replace_one_that_answers() {
    let mut lab = Lab::new(4);
    assert_eq!(lab.heard(1, GRATUITOUS, at(0)), [""; 0]);
    assert_eq!(lab.heard(1, ANSWER, at(0)), [""; 0]);
    assert_eq!(lab.table.iter().count(), 0);
    lab.want(1, at(0));
    lab.heard(1, ANSWER, at(0));
    // Within a second of an answer: the doubt waits. Then the known one is asked, and keeps its address.
    assert_eq!(lab.heard(1, GRATUITOUS, at(100)), [""; 0]);
    assert_eq!(lab.poll(at(1000)), ["ask a of 192.0.2.1"]);
    assert_eq!(lab.heard(1, GRATUITOUS, at(1001)), [""; 0]);
    assert_eq!(lab.heard(1, Claim { solicited: true, ..GRATUITOUS }, at(1002)), [""; 0], "a forged answer");
    assert_eq!(lab.heard(1, ANSWER, at(1003)), [""; 0]);
    assert_eq!((lab.state(1), lab.table.mac(ip(1))), (Some("reachable"), Some(A)));
    // The claim is forgotten: a lost answer at the next refresh does not bring it back.
    assert_eq!(lab.poll(at(31_003)), ["ask a of 192.0.2.1"]);
    assert_eq!(lab.poll(at(32_003)), ["ask a of 192.0.2.1"]);
    lab.heard(1, ANSWER, at(32_004));
    // A flood of claims makes one probe a second.
    let asked: usize = (40_000..42_000)
        .map(|ms| {
            let mut words = lab.heard(1, GRATUITOUS, at(ms));
            words.extend(lab.poll(at(ms)));
            if lab.state(1) == Some("probe") {
                words.extend(lab.heard(1, ANSWER, at(ms)));
            }
            words.len()
        })
        .sum();
    assert_eq!(asked, 2);
}

#[test]
fn a_changed_mac_is_followed_within_two_seconds_of_its_announcement() {
    let mut lab = Lab::new(4);
    lab.want(1, at(0));
    lab.heard(1, ANSWER, at(0));
    assert_eq!(lab.heard(1, GRATUITOUS, at(5000)), ["ask a of 192.0.2.1"]);
    assert_eq!(lab.poll(at(6000)), ["192.0.2.1 is b", "ask b of 192.0.2.1"]);
    assert_eq!(lab.heard(1, Claim { mac: B, ..ANSWER }, at(6001)), [""; 0]);
    assert_eq!((lab.state(1), lab.table.mac(ip(1))), (Some("reachable"), Some(B)));
    // Without the override flag it is only asked.
    assert_eq!(
        lab.heard(1, Claim { mac: A, solicited: false, overrides: false }, at(9000)),
        ["ask b of 192.0.2.1"]
    );
    assert_eq!(lab.poll(at(10_000)), ["ask b of 192.0.2.1"]);
}

#[test]
fn a_claim_for_a_neighbour_that_is_looked_for_is_taken_and_probed() {
    let mut lab = Lab::new(4);
    lab.want(1, at(0));
    lab.submit(5, 1, at(0));
    let words = lab.heard(1, GRATUITOUS, at(10));
    assert_eq!(words, ["192.0.2.1 is b", "send 5 to b", "ask b of 192.0.2.1"]);
    assert_eq!(lab.state(1), Some("probe"));
}

#[test]
fn an_unwanted_failed_neighbour_is_forgotten_and_a_wanted_stale_one_probed() {
    let mut lab = Lab::new(4);
    lab.want(1, at(0));
    lab.run(0, 4);
    assert_eq!(lab.state(1), Some("failed"));
    lab.unwant(1);
    assert_eq!(lab.state(1), None);
    lab.submit(1, 2, at(5000));
    lab.heard(2, ANSWER, at(5000));
    lab.poll(at(35_000));
    lab.heard(2, ANSWER, at(35_000));
    lab.poll(at(65_000));
    assert_eq!(
        (lab.state(2), lab.want(2, at(66_000))),
        (Some("stale"), vec!["ask a of 192.0.2.2".to_string()])
    );
    lab.check();
}

proptest! {
    /// Whatever happens in whatever order: bounds hold, lists agree, time moves on, and no frame is lost.
    #[test]
    fn the_table_stays_sound(steps in proptest::collection::vec((0u8..6, 1u8..9, any::<u8>(), 0u64..40_000), 1..200)) {
        let mut lab = Lab::new(3);
        let mut now = 0;
        for (what, last, mark, wait) in steps {
            match what {
                0 => drop(lab.want(last, at(now))),
                1 => drop(lab.unwant(last)),
                2 => drop(lab.submit(mark, last, at(now))),
                3 => drop(lab.heard(last, Claim { mac: if mark & 1 == 0 { A } else { B }, solicited: mark & 2 == 0, overrides: mark & 4 == 0 }, at(now))),
                _ => { now += wait >> (mark % 16); drop(lab.poll(at(now))); }
            }
            lab.check();
            prop_assert!(what < 4 || lab.table.deadline().is_none_or(|next| next > at(now)));
        }
        let waiting = lab.table.waiting.len();
        prop_assert_eq!(lab.pool.free_small() + waiting, 512);
    }
}
