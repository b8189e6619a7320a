//! What the demo does with the switch, one step a function; each keeps a line of the table for each thing it checks.

use std::io;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Running;
use super::lab::{BLUE, GREEN, GUEST, GUEST_MAC, Host, Kind, TRUNK};
use super::ping::{self, Pings, Station, Wire};
use super::rates::{self, Moved, Sniffer};
use super::report::{self, Row, Unit};
use super::stop::Stop;
use crate::cli::{frame_spec, trace};
use crate::control::hex;
use crate::control::view::{self, FdbEntry, TraceRequest};
use crate::ports::link::Links;
use crate::sys::packet::PacketSocket;
use crate::sys::tap::Tap;
use crate::types::Mac;

/// Pings of each path.
const PINGS: u16 = 20;
/// How long a ping that must not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(150);
/// Frames of a VLAN that the trunk does not carry.
const UNWANTED: u64 = 10;
/// How long counters may lag behind.
pub(super) const LAG: Duration = Duration::from_secs(3);
/// The share of frames that may be lost without being wrong: one in so many.
const LOSS: u64 = 100;
/// The stations of our own.
const TRUNK_MAC: Mac = Mac([2, 0, 0, 0, 0, 8]);
const TRUNK_BLUE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 80);
const TRUNK_OPEN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const GUEST_OPEN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 90);

/// Measures between two hosts for a time.
type Measure = fn(&Host, &Host, Duration, &Stop, &mut dyn FnMut(f64)) -> anyhow::Result<Moved>;

impl Running {
    /// Pings over every kind of port and every kind of network.
    pub(super) fn pings(&mut self) -> anyhow::Result<()> {
        let paths = self.paths("open", true);
        self.ping_hosts("flat", &paths)?;
        if self.lab.can.no_tap.is_none() {
            self.ping_guest()?;
        }
        let paths = [self.paths("blue", false), self.paths("green", false)].concat();
        self.ping_hosts("VLAN", &paths)?;
        self.ping_trunk()?;
        let paths = [self.paths("red", true), self.paths("grey", true)].concat();
        self.ping_hosts("VXLAN", &paths)
    }

    /// Each host of a network with the next, and the last with the first if `around`.
    fn paths(&self, network: &str, around: bool) -> Vec<(String, String)> {
        let names: Vec<String> = self.lab.of(network).iter().map(|host| host.name.clone()).collect();
        let next = names.iter().cycle().skip(1);
        let count = if around { names.len() } else { names.len() - 1 };
        names.iter().cloned().zip(next.cloned()).take(count).collect()
    }

    fn ping_hosts(&mut self, title: &'static str, paths: &[(String, String)]) -> anyhow::Result<()> {
        let first = self.report.rows.len();
        for (from, to) in paths {
            self.stop.check()?;
            self.report.live(&format!("  ping     {title}: {from} > {to}"))?;
            let pings = match (self.lab.host(from), self.lab.host(to)) {
                (Some(from), Some(to)) => ping::from_host(from, to.address, PINGS, Duration::from_secs(2)),
                _ => continue,
            };
            self.add_pings(title, format!("{from} > {to}"), pings)?;
        }
        self.tell_pings(title, first)
    }

    fn ping_guest(&mut self) -> anyhow::Result<()> {
        let first = self.report.rows.len();
        let Some(to) = self.lab.of("open").last().map(|host| (host.name.clone(), host.address)) else {
            return Ok(());
        };
        let pings = Tap::attach(GUEST).context("cannot open the guest's TAP").and_then(|tap| {
            let mut guest = Station { wire: Wire::Tap(tap), mac: GUEST_MAC };
            guest.ping(GUEST_OPEN, None, to.1, PINGS)
        });
        self.add_pings("guest", format!("guest > {}", to.0), pings)?;
        self.tell_pings("guest", first)
    }

    fn ping_trunk(&mut self) -> anyhow::Result<()> {
        let first = self.report.rows.len();
        let mut station = self.trunk()?;
        let native = self.lab.of("open").first().map(|host| (host.name.clone(), host.address));
        if let Some(blue) = self.lab.host("blue1") {
            let pings = station.ping(TRUNK_BLUE, Some(BLUE), blue.address, PINGS);
            self.add_pings("trunk", format!("trunk VLAN {BLUE} > blue1"), pings)?;
        }
        if let Some((name, address)) = native {
            let pings = station.ping(TRUNK_OPEN, None, address, PINGS);
            self.add_pings("trunk", format!("trunk native > {name}"), pings)?;
        }
        self.tell_pings("trunk", first)
    }

    /// The far end of the trunk, which speaks 802.1Q itself.
    fn trunk(&self) -> anyhow::Result<Station> {
        let open = || -> anyhow::Result<PacketSocket> {
            Ok(PacketSocket::open(Links::open()?.get(TRUNK.1)?.index, 512, 2)?)
        };
        let socket = self.lab.trunk.within(open)??;
        Ok(Station { wire: Wire::Packet(socket), mac: TRUNK_MAC })
    }

    pub(super) fn add_pings(
        &mut self,
        title: &str,
        what: String,
        pings: anyhow::Result<Pings>,
    ) -> io::Result<()> {
        let what = if title == "trunk" { what } else { format!("{title}: {what}") };
        let pings = match pings {
            Ok(pings) => pings,
            Err(error) => return self.report.add(Row::failed("ping", what, &error)),
        };
        let lost = pings.sent - pings.received;
        self.report.add(Row {
            test: "ping",
            what,
            unit: Unit::Frames,
            sent: pings.sent,
            received: pings.received,
            figure: report::time(pings.median()),
            value: pings.median().map(|time| ("median_microseconds", time.as_secs_f64() * 1e6)),
            wrong: (lost > 0).then(|| format!("{lost} of {} have no answer", pings.sent)),
        })
    }

    /// One line for the pings since row `first`.
    pub(super) fn tell_pings(&self, title: &str, first: usize) -> anyhow::Result<()> {
        let rows = self.report.rows.get(first..).unwrap_or_default();
        let (sent, received) = rows.iter().fold((0, 0), |(s, r), row| (s + row.sent, r + row.received));
        let paths = format!("{} path{}", rows.len(), if rows.len() == 1 { "" } else { "s" });
        let times = rows.iter().filter_map(|row| row.value).map(|(_, time)| time);
        let (least, most) =
            times.fold((f64::MAX, 0.0_f64), |(least, most), time| (least.min(time), most.max(time)));
        let times =
            if rows.len() == 1 { format!("{most:.0} us") } else { format!("{least:.0} to {most:.0} us") };
        Ok(self.report.say(format!(
            "  ping     {title:<6} {paths:<8} {sent:>4} sent {received:>4} back   {}",
            if received == 0 { "" } else { &times }
        ))?)
    }

    /// A host of one network asks for a host of another: nothing may arrive, while its own network hears it.
    pub(super) fn isolation(&mut self) -> anyhow::Result<()> {
        self.apart("blue1", "green1", "blue2", ["green1", "green2"])?;
        self.apart("red1", "grey2", "red2", ["grey1", "grey2"])
    }

    /// `from` asks for `to`; `own` is in its network, `others` are not.
    fn apart(&mut self, from: &str, to: &str, own: &str, others: [&str; 2]) -> anyhow::Result<()> {
        self.stop.check()?;
        let what = format!("{from} > {to}");
        let row = self.try_apart(&what, [from, to, own], others);
        let row = row.unwrap_or_else(|error| Row::failed("isolated", what, &error));
        if row.wrong.is_none() {
            let [first, second] = others;
            self.report.say(format!(
                "  isolated {from} asks for {to}: {own} hears it, {first} and {second} do not,\n\
                 \x20          {} pings, {} answers",
                row.sent, row.received
            ))?;
        }
        Ok(self.report.add(row)?)
    }

    fn try_apart(&self, what: &str, [from, to, own]: [&str; 3], others: [&str; 2]) -> anyhow::Result<Row> {
        let host = |name| self.lab.host(name).with_context(|| format!("no host {name}"));
        let (from, to, own) = (host(from)?, host(to)?, host(own)?);
        let mac = from.mac()?;
        let mut ear = Sniffer::open(own)?;
        let mut others = [Sniffer::open(host(others[0])?)?, Sniffer::open(host(others[1])?)?];
        let pings = ping::from_host(from, to.address, 5, SILENCE)?;
        let (heard, leaked) = (ear.heard(mac), others.iter_mut().map(|other| other.heard(mac)).sum::<u64>());
        // Where the switch of its own network's other host knows it.
        let fdb: Vec<FdbEntry> = self.switch_at(own.site).client.get_key("/v1/fdb", "fdb")?;
        let place = if own.site == from.site { from.name.clone() } else { from.site.vtep().to_string() };
        let mut places = fdb.iter().filter(|entry| entry.mac == mac);
        let strange = places.find(|entry| (entry.network.as_str(), &entry.port) != (from.network, &place));
        let wrong = match (heard, leaked, pings.received) {
            (0, _, _) => Some(format!("not even {}, in the same network, hears {}", own.name, from.name)),
            (_, 0, 0) => strange
                .map(|entry| format!("the FDB has {} in {} at {}", from.name, entry.network, entry.port)),
            (_, leaked, answers) => Some(format!("{leaked} frames and {answers} answers crossed over")),
        };
        Ok(Row {
            test: "isolated",
            what: what.to_owned(),
            unit: Unit::Frames,
            sent: pings.sent,
            received: pings.received + leaked,
            figure: "none crosses".to_owned(),
            value: None,
            wrong,
        })
    }

    /// Frames of a VLAN that the trunk does not carry are dropped, and counted by their reason.
    pub(super) fn dropping(&mut self) -> anyhow::Result<()> {
        self.stop.check()?;
        let what = || format!("trunk VLAN {GREEN} > green1");
        let row = match self.try_dropping() {
            Ok((row, meaning)) => {
                let count = row.sent;
                self.report.say(format!(
                    "  dropped  {count} frames of VLAN {GREEN} on the trunk: {}\n           ({meaning})",
                    row.figure
                ))?;
                row
            }
            Err(error) => Row::failed("dropped", what(), &error),
        };
        Ok(self.report.add(Row { what: what(), ..row })?)
    }

    fn try_dropping(&self) -> anyhow::Result<(Row, String)> {
        let green = self.lab.host("green1").context("no host green1")?;
        let (mut trunk, mut sniffer) = (self.trunk()?, Sniffer::open(green)?);
        let before = self.strange_vlans()?.map_or(0, |drop| drop.count);
        for _ in 0..UNWANTED {
            let target = green.address;
            trunk
                .send(&format!("eth src={TRUNK_MAC} vlan={GREEN} arp who-has {target} tell {TRUNK_BLUE}"))?;
        }
        let begin = Instant::now();
        let drop = loop {
            match self.strange_vlans()? {
                Some(drop) if drop.count - before >= UNWANTED => break drop,
                _ if begin.elapsed() > LAG => anyhow::bail!("they are not counted as dropped"),
                _ => sleep(Duration::from_millis(5)),
            }
        };
        let (leaked, count) = (sniffer.heard(TRUNK_MAC), drop.count - before);
        let wrong = (leaked > 0 || count != UNWANTED)
            .then(|| format!("{count} of {UNWANTED} are counted as dropped, green1 hears {leaked}"));
        let row = Row {
            test: "dropped",
            what: String::new(),
            unit: Unit::Frames,
            sent: UNWANTED,
            received: leaked,
            figure: drop.reason,
            value: None,
            wrong,
        };
        Ok((row, drop.meaning))
    }

    /// What the trunk dropped because of its VLAN.
    fn strange_vlans(&self) -> anyhow::Result<Option<view::Drop>> {
        let is = |drop: &view::Drop| drop.port == "trunk" && drop.reason == "vlan_not_allowed";
        Ok(self.drops()?.into_iter().find(is))
    }

    /// What the switch has dropped.
    pub(super) fn drops(&self) -> anyhow::Result<Vec<view::Drop>> {
        Ok(self.switch.client.get_key("/v1/drops", "drops")?)
    }

    /// Asks the switch what it would do with a frame.
    pub(super) fn trace(&mut self) -> anyhow::Result<()> {
        self.stop.check()?;
        let Some(blue) = self.lab.host("blue1") else { return Ok(()) };
        let words = format!("eth src={TRUNK_MAC} dst={} vlan={BLUE}", blue.mac()?);
        let frame = frame_spec::parse(&format!("{words} len=46"))?;
        let answer = self.ask_trace("trunk", &frame)?;
        self.report.say("\n  $ nuswitch trace --port trunk eth src=… dst=… vlan=100")?;
        for line in trace::render(&answer, &frame).lines() {
            for line in report::wrap(line) {
                self.report.say(format!("  {line}"))?;
            }
        }
        self.report.say("")?;
        let goal: Vec<&str> = answer.outputs.iter().map(|output| output.port.as_str()).collect();
        let right = goal == ["blue1"];
        Ok(self.report.add(Row {
            test: "trace",
            what: "trunk > blue1".to_owned(),
            unit: Unit::Frames,
            sent: 1,
            received: u64::from(right),
            figure: answer.verdict.clone(),
            value: None,
            wrong: (!right).then(|| format!("it would go to {goal:?}, not to blue1 alone")),
        })?)
    }

    /// What the switch would do with a frame.
    pub(super) fn ask_trace(&self, port: &str, frame: &[u8]) -> anyhow::Result<view::Trace> {
        let request = TraceRequest { port: port.to_owned(), frame: hex::encode(frame) };
        Ok(self.switch.client.post("/v1/trace", &request)?)
    }

    /// TCP and frames over each kind of port and between the sites, and over the kernel's bridge to compare with.
    pub(super) fn rates(&mut self) -> anyhow::Result<()> {
        self.rate("tcp", "TCP, one connection", rates::tcp, report::bits)?;
        self.report.say("")?;
        self.rate("frames", "frames of 64 bytes, at most 256 under way", rates::frames, report::frames)
    }

    fn rate(
        &mut self,
        test: &'static str,
        title: &str,
        measure: Measure,
        show: fn(f64) -> String,
    ) -> anyhow::Result<()> {
        let seconds = self.time.as_secs();
        self.report.say(format!("  {title}, {seconds} s each"))?;
        let mut bridge = None;
        for (title, from, to) in self.lab.pairs() {
            self.stop.check()?;
            let line = |rate: f64, note: &str| {
                let part = rate / bridge.unwrap_or(rate).max(1.0);
                format!("    {title:<13} {} {:>12}  {note}", report::bar(part), show(rate))
            };
            // A line that cannot be shown is no reason to stop measuring; the next one tells.
            let mut tell = |rate| drop(self.report.live(&line(rate, "")));
            let result = measure(from, to, self.time, &self.stop, &mut tell);
            let what = format!("{} > {}", from.name, to.name);
            self.stop.check()?;
            let moved = match result {
                Ok(moved) => moved,
                Err(error) => {
                    self.report.add(Row::failed(test, what, &error))?;
                    continue;
                }
            };
            let ratio = bridge.map(|bridge| moved.rate() / bridge);
            let note = ratio.map_or_else(String::new, |ratio| format!("{:.0} % of it", ratio * 100.0));
            self.report.say(line(moved.rate(), &note).trim_end())?;
            if title == Kind::Bridge.title() {
                bridge = Some(moved.rate());
            }
            self.report.add(rate_row(test, what, moved, show(moved.rate())))?;
        }
        Ok(())
    }

    /// Every frame that a port received has come to exactly one end.
    pub(super) fn accounts(&mut self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let (received, ended, wrong) = loop {
            let (mut received, mut ended, mut wrong) = (0, 0, None);
            let far = self.far.ports()?.into_iter().map(|port| (" of host 2", port));
            for (whose, port) in self.switch.ports()?.into_iter().map(|port| ("", port)).chain(far) {
                let counters = &port.counters;
                // These count at the port that a frame should have left by.
                let leaving = ["tx_full", "tx_error", "handoff_full"];
                let drops = counters.drops.iter().filter(|(reason, _)| !leaving.contains(*reason));
                let ends = counters.forwarded + counters.flooded + counters.answered + counters.consumed;
                let ends = ends + drops.map(|(_, count)| count).sum::<u64>();
                if ends != counters.rx_frames {
                    wrong = Some(format!(
                        "{}{whose} received {} frames and decided {ends}",
                        port.name, counters.rx_frames
                    ));
                }
                (received, ended) = (received + counters.rx_frames, ended + ends);
            }
            // A frame may pass while they are read.
            if wrong.is_none() || begin.elapsed() > LAG {
                break (received, ended, wrong);
            }
            sleep(Duration::from_millis(50));
        };
        Ok(self.report.add(Row {
            test: "counters",
            what: "received = ended".to_owned(),
            unit: Unit::Frames,
            sent: received,
            received: ended,
            figure: "all counted".to_owned(),
            value: None,
            wrong,
        })?)
    }
}

fn rate_row(test: &'static str, what: String, moved: Moved, figure: String) -> Row {
    let Moved { sent, received, .. } = moved;
    let (unit, name, scale) = match test {
        "tcp" => (Unit::Bytes, "bits_per_second", 8.0),
        _ => (Unit::Frames, "frames_per_second", 1.0),
    };
    let lost = sent.saturating_sub(received);
    let wrong = match unit {
        _ if received == 0 => Some("nothing arrives".to_owned()),
        _ if received > sent => Some(format!("{} came twice", received - sent)),
        Unit::Bytes if lost > 0 => Some(format!("{lost} bytes are missing")),
        Unit::Frames if lost > sent / LOSS => Some(format!("{lost} of {sent} frames are lost")),
        _ => None,
    };
    Row { test, what, unit, sent, received, figure, value: Some((name, moved.rate() * scale)), wrong }
}
