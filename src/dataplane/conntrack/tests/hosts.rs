//! Two hosts that speak TCP as hosts do, over a network that loses, repeats and reorders, with the tracker between them:
//! nothing that they send may be taken for invalid. And somebody who guesses: nothing that he sends may do anything.

use proptest::prelude::*;

use super::super::tcp::{ACK, FIN, Invalid, RST, SYN, Segment};
use super::*;
use Direction::{Original, Reply};

/// One end. Its numbers count from its first; windows are in bytes and are announced in units of 16.
#[derive(Clone, Debug)]
struct Host {
    first: u32,
    /// Behind what was sent, and behind what was acknowledged.
    sent: u32,
    acknowledged: u32,
    /// Behind what was received, and received beyond a hole.
    received: u32,
    beyond: Vec<(u32, u32, bool)>,
    window: u32,
    /// The other side's right edge, as announced.
    edge: u32,
    finished: bool,
    peer_first: Option<u32>,
    peer_finished: bool,
}

const SHIFT: u8 = 4;

impl Host {
    fn new(first: u32, window: u32) -> Host {
        Host {
            first,
            sent: first,
            acknowledged: first,
            received: 0,
            beyond: Vec::new(),
            window: window & !15,
            edge: first,
            finished: false,
            peer_first: None,
            peer_finished: false,
        }
    }

    fn segment(&self, flags: u8, seq: u32, len: u32) -> Segment {
        let syn = flags & SYN != 0;
        let window = if syn { self.window.min(65_535) } else { self.window >> SHIFT };
        Segment {
            seq,
            ack: if flags & ACK != 0 { self.received } else { 0 },
            len,
            window: window as u16,
            flags,
            scale: syn.then_some(SHIFT),
        }
    }

    fn syn(&mut self) -> Segment {
        self.sent = self.first.wrapping_add(1);
        self.segment(if self.peer_first.is_some() { SYN | ACK } else { SYN }, self.first, 0)
    }

    fn is_up(&self) -> bool {
        self.peer_first.is_some() && self.acknowledged != self.first
    }

    /// New data within the other side's window.
    fn data(&mut self, len: u32) -> Option<Segment> {
        let room = self.edge.wrapping_sub(self.sent).min(1 << 20);
        let len = len.min(room);
        if !self.is_up() || self.finished || self.edge.wrapping_sub(self.sent).cast_signed() <= 0 {
            return None;
        }
        let segment = self.segment(ACK, self.sent, len);
        self.sent = self.sent.wrapping_add(len);
        Some(segment)
    }

    /// The first that was not acknowledged, again.
    fn again(&mut self) -> Option<Segment> {
        if !self.is_up() {
            return (self.sent != self.first).then(|| self.syn());
        }
        let under_way = self.sent.wrapping_sub(self.acknowledged);
        if under_way == 0 {
            return None;
        }
        if self.finished && under_way == 1 {
            return Some(self.segment(FIN | ACK, self.acknowledged, 0));
        }
        let data = under_way - u32::from(self.finished);
        Some(self.segment(ACK, self.acknowledged, data.min(1460)))
    }

    fn finish(&mut self) -> Option<Segment> {
        if !self.is_up() || self.finished {
            return None;
        }
        self.finished = true;
        let segment = self.segment(FIN | ACK, self.sent, 0);
        self.sent = self.sent.wrapping_add(1);
        Some(segment)
    }

    /// Takes what came; the answer, if one is due.
    fn take(&mut self, segment: &Segment) -> Option<Segment> {
        if segment.flags & SYN != 0 && self.peer_first.is_none() {
            self.peer_first = Some(segment.seq);
            self.received = segment.seq.wrapping_add(1);
            self.edge = self.first.wrapping_add(1).wrapping_add(segment.window.into());
            if segment.flags & ACK == 0 {
                return Some(self.syn());
            }
        }
        self.peer_first?;
        if segment.flags & ACK != 0 && segment.ack.wrapping_sub(self.acknowledged).cast_signed() >= 0 {
            self.acknowledged = segment.ack;
            if segment.flags & SYN == 0 {
                let edge = segment.ack.wrapping_add(u32::from(segment.window) << SHIFT);
                if edge.wrapping_sub(self.edge).cast_signed() > 0 {
                    self.edge = edge;
                }
            }
        }
        let fin = segment.flags & FIN != 0;
        if segment.len > 0 || fin {
            self.beyond.push((segment.seq, segment.len, fin));
        }
        while let Some(at) = self.beyond.iter().position(|(seq, len, fin)| {
            let end = seq.wrapping_add(*len).wrapping_add((*fin).into());
            seq.wrapping_sub(self.received).cast_signed() <= 0
                && end.wrapping_sub(self.received).cast_signed() > 0
        }) {
            let (seq, len, fin) = self.beyond.swap_remove(at);
            self.received = seq.wrapping_add(len).wrapping_add(fin.into());
            self.peer_finished |= fin;
        }
        (segment.len > 0 || fin || segment.flags & SYN != 0).then(|| self.segment(ACK, self.sent, 0))
    }
}

#[derive(Clone, Debug)]
enum Event {
    Send(bool, u32),
    Again(bool),
    Finish(bool),
    /// The nth of what is under way arrives; or is lost after the tracker saw it; or arrives and stays under way.
    Arrive(usize),
    Lose(usize),
    Repeat(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (any::<bool>(), prop_oneof![1u32..1461, 1u32..65_000]).prop_map(|(who, len)| Event::Send(who, len)),
        2 => any::<bool>().prop_map(Event::Again),
        1 => any::<bool>().prop_map(Event::Finish),
        // Mostly in order.
        8 => Just(Event::Arrive(0)),
        3 => (0usize..6).prop_map(Event::Arrive),
        1 => (0usize..6).prop_map(Event::Lose),
        1 => (0usize..6).prop_map(Event::Repeat),
    ]
}

struct Lab {
    hosts: [Host; 2],
    under_way: Vec<(Direction, Segment)>,
    tracker: Tracker,
    at: Option<EntryRef>,
}

impl Lab {
    fn new(firsts: [u32; 2], windows: [u32; 2]) -> Lab {
        let [a, b] = [0, 1].map(|n| Host::new(firsts[n], windows[n]));
        let tracker = Tracker::new(ROOM, SETTINGS, 3);
        let mut lab = Lab { hosts: [a, b], under_way: Vec::new(), tracker, at: None };
        let syn = lab.hosts[0].syn();
        lab.send(Original, Some(syn));
        lab
    }

    fn send(&mut self, direction: Direction, segment: Option<Segment>) {
        self.under_way.extend(segment.map(|segment| (direction, segment)));
    }

    /// Whether it passes the tracker, which it must, but for a copy that was overtaken by a window and is of no use.
    fn pass(&mut self, direction: Direction, segment: &Segment) -> Result<bool, String> {
        let seen = Seen { bytes: 40, tcp: Some(*segment) };
        let Some(at) = self.at else {
            self.at = track(&mut self.tracker, &tuple(6, 1), &NEW, &seen, 1).ok();
            return self.at.map(|_| true).ok_or("the first SYN".into());
        };
        let state = self.tracker.entry(at).map(Entry::state);
        let (sender, receiver) =
            (&self.hosts[direction as usize], &self.hosts[direction.opposite() as usize]);
        let fin = u32::from(segment.flags & FIN != 0);
        let left = segment.seq.wrapping_add(segment.len).wrapping_add(fin).wrapping_sub(receiver.received);
        match self.tracker.update(at, direction, &seen, 1) {
            Verdict::Pass => Ok(true),
            Verdict::Invalid(Invalid::TooOld) if left.cast_signed() <= 0 => Ok(false),
            // Its sender has received more since.
            Verdict::Invalid(Invalid::AcksTooOld)
                if segment.ack.wrapping_sub(sender.received).cast_signed() < 0 =>
            {
                Ok(false)
            }
            verdict => Err(format!("{verdict:?} for {direction:?} {segment:?} in {state:?}")),
        }
    }

    fn arrive(&mut self, (direction, segment): (Direction, Segment)) -> Result<(), String> {
        if self.pass(direction, &segment)? {
            let answer = self.hosts[direction.opposite() as usize].take(&segment);
            self.send(direction.opposite(), answer);
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), String> {
        let side = |who: bool| if who { (0, Original) } else { (1, Reply) };
        match event {
            Event::Send(who, len) => {
                let segment = self.hosts[side(who).0].data(len);
                self.send(side(who).1, segment);
            }
            Event::Again(who) => {
                let segment = self.hosts[side(who).0].again();
                self.send(side(who).1, segment);
            }
            Event::Finish(who) => {
                let segment = self.hosts[side(who).0].finish();
                self.send(side(who).1, segment);
            }
            Event::Arrive(n) if n < self.under_way.len() => {
                let arrived = self.under_way.remove(n);
                return self.arrive(arrived);
            }
            Event::Lose(n) if n < self.under_way.len() => {
                let (direction, segment) = self.under_way.remove(n);
                return self.pass(direction, &segment).map(|_| ());
            }
            Event::Repeat(n) if n < self.under_way.len() => {
                let arrived = self.under_way[n];
                return self.arrive(arrived);
            }
            _ => {}
        }
        Ok(())
    }

    /// All that is under way arrives, and what is missing is sent again until both have all.
    fn settle(&mut self) -> Result<(), String> {
        for round in 0..3_000 {
            while !self.under_way.is_empty() {
                let arrived = self.under_way.remove(0);
                self.arrive(arrived)?;
            }
            let done = |host: &Host| host.is_up() && host.finished && host.acknowledged == host.sent;
            if self.hosts.iter().all(done) {
                return Ok(());
            }
            for (who, host) in [(true, 0), (false, 1)] {
                self.step(Event::Again(who))?;
                if round > 0 && self.hosts[host].acknowledged == self.hosts[host].sent {
                    self.step(Event::Finish(who))?;
                }
            }
        }
        Err("they never came to an end".into())
    }
}

fn windows() -> impl Strategy<Value = [u32; 2]> {
    let one = || prop_oneof![1_000u32..65_536, 65_536u32..1_000_000];
    [one(), one()]
}

proptest! {
    #[test]
    fn what_hosts_send_is_valid_and_ends_in_time_wait(
        firsts in any::<[u32; 2]>(),
        windows in windows(),
        events in proptest::collection::vec(event(), 0..120),
    ) {
        let mut lab = Lab::new(firsts, windows);
        for event in events {
            lab.step(event).map_err(TestCaseError::fail)?;
        }
        lab.settle().map_err(TestCaseError::fail)?;
        let state = lab.at.and_then(|at| lab.tracker.entry(at)).map(Entry::state);
        prop_assert_eq!(state, Some(State::TimeWait));
    }

    /// Somebody who does not know the numbers neither ends a connection nor keeps it, nor disturbs its hosts.
    #[test]
    fn who_guesses_changes_nothing(
        firsts in any::<[u32; 2]>(),
        windows in windows(),
        events in proptest::collection::vec(event(), 20..80),
        guesses in proptest::collection::vec((any::<bool>(), any::<u8>(), any::<[u32; 2]>(), 0u32..1461), 1..40),
    ) {
        let mut lab = Lab::new(firsts, windows);
        for n in 0..3 {
            lab.step(Event::Arrive(0)).map_err(TestCaseError::fail)?;
            prop_assert!(n == 2 || !lab.under_way.is_empty());
        }
        for event in events.into_iter().filter(|event| !matches!(event, Event::Finish(_))) {
            lab.step(event).map_err(TestCaseError::fail)?;
        }
        let at = lab.at.unwrap();
        let seen = |lab: &Lab| lab.tracker.entry(at).map(|entry| (entry.state(), entry.expiry()));
        let before = seen(&lab);
        prop_assert_eq!(before, Some((State::Established, 1 + 7440)));
        for (who, flags, [seq, ack], len) in guesses {
            let (host, direction) = if who { (0, Original) } else { (1, Reply) };
            // Farther than a window from what is expected, else it is a lucky guess.
            let near = lab.hosts[host].sent.wrapping_sub(seq).cast_signed().unsigned_abs() < 4_000_000;
            if near {
                continue;
            }
            let segment = Segment { seq, ack, len, window: 9, flags: flags & (SYN | ACK | FIN | RST), scale: Some(0) };
            let verdict = lab.tracker.update(at, direction, &Seen { bytes: 40, tcp: Some(segment) }, 100);
            prop_assert!(verdict != Verdict::Restarted && verdict != Verdict::Renew);
            prop_assert_eq!(seen(&lab), before, "{:?}", segment);
        }
        lab.settle().map_err(TestCaseError::fail)?;
    }
}
