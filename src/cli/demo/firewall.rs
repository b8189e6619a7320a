//! What the demo shows of port security and security groups: the world reaches what a guest's groups let in and nothing else, a
//! guest cannot pretend to be another one, and the switch says why.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Running;
use super::checks::LAG;
use super::lab::{DEVICE, FLOATING, HOME, WORLD};
use super::ping::{Station, Wire};
use super::rates::Sniffer;
use super::report::{self, Row, Unit};
use crate::cli::frame_spec;
use crate::control::view::Router;
use crate::ports::link::Links;
use crate::sys::packet::PacketSocket;
use crate::types::Mac;

/// A port that the guest's groups let in, and one that they do not.
const LET_IN: u16 = 80;
const KEPT_OUT: u16 = 22;
/// How long a connection that is to be made may take, and how long one is waited for that is not.
const PATIENCE: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(300);
/// Packets of the guest that pretends.
const FORGED: u64 = 5;

impl Running {
    /// A connection that is allowed, one that is not, why, and a guest that pretends to be another.
    pub(super) fn firewall(&mut self) -> anyhow::Result<()> {
        self.stop.check()?;
        for (port, wanted) in [(LET_IN, true), (KEPT_OUT, false)] {
            let row = self.knock(port, wanted);
            let row = row.unwrap_or_else(|error| Row::failed("firewall", what(port), &error));
            if row.wrong.is_none() {
                self.report.say(format!("  firewall {}: {}", row.what, row.figure))?;
                let why = self.why(port)?;
                for line in report::wrap(&format!("  {why}")) {
                    self.report.say(format!("  {line}"))?;
                }
            }
            self.report.add(row)?;
        }
        let row = self.pretend();
        let row = row.unwrap_or_else(|error| Row::failed("firewall", "home2 as home1".to_owned(), &error));
        if row.wrong.is_none() {
            self.report
                .say(format!("  firewall home2 sends {FORGED} packets as home1: dropped, {}", row.figure))?;
        }
        Ok(self.report.add(row)?)
    }

    /// The world connects to a port of home2, where somebody listens.
    fn knock(&self, port: u16, wanted: bool) -> anyhow::Result<Row> {
        let (guest, world) = (self.named("home2")?, self.named("world1")?);
        let listener = guest.netns.within(|| TcpListener::bind((guest.address, port)))??;
        let goal = SocketAddr::from((FLOATING, port));
        let patience = if wanted { PATIENCE } else { SILENCE };
        let before = self.dropped("security_ingress")?;
        let came = world.netns.within(|| TcpStream::connect_timeout(&goal, patience))?.is_ok();
        drop(listener);
        let dropped = self.dropped("security_ingress")? - before;
        let (figure, wrong) = match (wanted, came) {
            (true, true) => ("let in".to_owned(), None),
            (true, false) => (String::new(), Some("no connection, but its groups let it in")),
            (false, true) => (String::new(), Some("there is a connection, but no rule lets it in")),
            (false, false) if dropped == 0 => (String::new(), Some("it is not counted as dropped")),
            (false, false) => ("security_ingress".to_owned(), None),
        };
        Ok(Row {
            test: "firewall",
            what: what(port),
            unit: Unit::Frames,
            sent: 1,
            received: u64::from(came),
            figure,
            value: None,
            wrong: wrong.map(str::to_owned),
        })
    }

    /// What a trace says of it: the rule that lets it in, or that there is none.
    fn why(&self, port: u16) -> anyhow::Result<String> {
        let (world, gateway) = (self.named("world1")?, self.gateway(true)?);
        let (mac, address) = (world.mac()?, world.address);
        let answer = self.ask_trace(
            "world1",
            &frame_spec::parse(&format!(
                "eth src={mac} dst={gateway} ip src={address} dst={FLOATING} tcp sport=40000 dport={port}"
            ))?,
        )?;
        let step = answer.steps.iter().find(|step| step.stage == "security");
        Ok(step.with_context(|| format!("a trace says nothing of it: {answer:?}"))?.text.clone())
    }

    /// home2 sends with the address of home1.
    fn pretend(&self) -> anyhow::Result<Row> {
        let (guest, victim, world) = (self.named("home2")?, self.named("home1")?, self.named("world1")?);
        let (mac, gateway) = (guest.mac()?, self.gateway(false)?);
        let open = || -> anyhow::Result<PacketSocket> {
            Ok(PacketSocket::open(Links::open()?.get(DEVICE)?.index, 64, 2)?)
        };
        let mut station = Station { wire: Wire::Packet(guest.netns.within(open)??), mac };
        let mut ear = Sniffer::open(world)?;
        let before = self.dropped("spoofed_ip")?;
        for _ in 0..FORGED {
            let (source, goal) = (victim.address, world.address);
            station.send(&format!("eth src={mac} dst={gateway} ip src={source} dst={goal} udp dport=53"))?;
        }
        let begin = Instant::now();
        while self.dropped("spoofed_ip")? - before < FORGED {
            if begin.elapsed() > LAG {
                bail!("they are not counted as dropped");
            }
            sleep(Duration::from_millis(5));
        }
        let leaked = ear.heard(self.gateway(true)?);
        Ok(Row {
            test: "firewall",
            what: "home2 as home1".to_owned(),
            unit: Unit::Frames,
            sent: FORGED,
            received: leaked,
            figure: "spoofed_ip".to_owned(),
            value: None,
            wrong: (leaked > 0).then(|| format!("{leaked} of them reach the world")),
        })
    }

    /// What all ports have dropped for a reason.
    fn dropped(&self, reason: &str) -> anyhow::Result<u64> {
        Ok(self.drops()?.iter().filter(|drop| drop.reason == reason).map(|drop| drop.count).sum())
    }

    /// The router's MAC outside, or at home.
    fn gateway(&self, outside: bool) -> anyhow::Result<Mac> {
        let routers: Vec<Router> = self.switch.client.get_key("/v2.0/routers", "routers")?;
        let network = if outside { WORLD } else { HOME };
        let mut interfaces = routers.iter().flat_map(|router| &router.interfaces);
        let found = interfaces.find(|interface| interface.network == network);
        Ok(found.with_context(|| format!("no router at {network}"))?.mac_address)
    }
}

/// The connection, for the report.
fn what(port: u16) -> String {
    format!("world1 > home2, port {port}")
}
