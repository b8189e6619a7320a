//! What the demo checks of the router: guests reach the world with its address or one of their own, the world reaches the guests
//! that have a floating IP or a port of one, and nobody else gets in.
//!
//! The kernel's TCP is at both ends, and says who it takes the other for: a translation that is wrong, or missing, is seen there.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::Running;
use super::lab::{FLOATING, FORWARDED, GATEWAY, HOME, Host, OUTSIDE};
use super::ping;
use super::report::{Row, Unit};
use crate::ports::link::Links;

/// Pings of each path.
const PINGS: u16 = 20;
/// Bytes that a connection carries there and back.
const BYTES: usize = 1 << 20;
/// How long a connection may stand still. A busy machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a datagram that must not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(150);
/// Datagrams of a stranger.
const UNWANTED: u64 = 5;

/// A connection that is checked.
struct Path {
    /// The means: a word for the report.
    by: &'static str,
    from: &'static str,
    to: &'static str,
    /// Where the client connects to.
    goal: (Ipv4Addr, u16),
    /// Where the server listens.
    port: u16,
    /// Who the server takes the client for.
    seen: Ipv4Addr,
}

impl Running {
    /// Pings and connections through the router, and a stranger who tries to.
    pub(super) fn router(&mut self) -> anyhow::Result<()> {
        self.stop.check()?;
        for host in self.lab.of(HOME).iter().filter(|host| host.asks.is_none()) {
            host.netns.within(|| Links::open()?.set_default_route(GATEWAY))??;
        }
        let world = self.address("world1")?;
        self.ping_through("SNAT", "home1", "world1", world)?;
        self.ping_through("float", "world1", "home2", FLOATING)?;
        let (forwarded, outer, inner) = FORWARDED;
        for path in [
            Path { by: "SNAT", from: "home1", to: "world1", goal: (world, 80), port: 80, seen: OUTSIDE },
            Path { by: "float", from: "world1", to: "home2", goal: (FLOATING, 80), port: 80, seen: world },
            Path { by: "float", from: "home2", to: "world1", goal: (world, 80), port: 80, seen: FLOATING },
            Path {
                by: "port",
                from: "world1",
                to: "home1",
                goal: (forwarded, outer),
                port: inner,
                seen: world,
            },
        ] {
            self.stop.check()?;
            self.connect_through(&path)?;
        }
        self.stop.check()?;
        self.stranger()
    }

    pub(super) fn named(&self, name: &str) -> anyhow::Result<&Host> {
        self.lab.host(name).with_context(|| format!("no host {name}"))
    }

    pub(super) fn address(&self, name: &str) -> anyhow::Result<Ipv4Addr> {
        Ok(self.named(name)?.address)
    }

    pub(super) fn ping_through(
        &mut self,
        by: &'static str,
        from: &str,
        to: &str,
        goal: Ipv4Addr,
    ) -> anyhow::Result<()> {
        let first = self.report.rows.len();
        self.report.live(&format!("  ping     {by}: {from} > {to}"))?;
        let pings = ping::from_host(self.named(from)?, goal, PINGS, Duration::from_secs(2));
        self.add_pings(by, format!("{from} > {to}"), pings)?;
        self.tell_pings(by, first)
    }

    fn connect_through(&mut self, path: &Path) -> anyhow::Result<()> {
        let what = format!("{}: {} > {}", path.by, path.from, path.to);
        let row = match self.try_connect(path) {
            Ok((seen, back)) => {
                let ((address, port), to) = (path.goal, path.to);
                self.report.say(format!(
                    "  router   {:<6} {} connects to {address}:{port}; {to} sees {seen}",
                    path.by, path.from
                ))?;
                let wrong = (seen != path.seen)
                    .then(|| format!("{to} sees {seen}, not {}", path.seen))
                    .or_else(|| (back != BYTES).then(|| format!("{back} of {BYTES} bytes came back")));
                Row {
                    test: "router",
                    what,
                    unit: Unit::Bytes,
                    sent: u64::try_from(BYTES)?,
                    received: u64::try_from(back)?,
                    figure: format!("from {seen}"),
                    value: None,
                    wrong,
                }
            }
            Err(error) => Row::failed("router", what, &error),
        };
        Ok(self.report.add(row)?)
    }

    /// Sends bytes there and back; gives whom the server saw, and how many came back as they were.
    fn try_connect(&self, path: &Path) -> anyhow::Result<(IpAddr, usize)> {
        let (from, to) = (self.named(path.from)?, self.named(path.to)?);
        let listener = to.netns.within(|| TcpListener::bind((to.address, path.port)))??;
        let goal = SocketAddr::from(path.goal);
        let mut client = from
            .netns
            .within(|| TcpStream::connect_timeout(&goal, PATIENCE))?
            .with_context(|| format!("{} does not reach {goal}", path.from))?;
        // Connected, so there is one to accept.
        let (mut server, seen) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        let echo = thread::Builder::new().spawn(move || -> std::io::Result<()> {
            let mut bytes = Vec::with_capacity(BYTES);
            server.read_to_end(&mut bytes)?;
            server.write_all(&bytes)?;
            server.shutdown(Shutdown::Write)
        })?;
        let sent: Vec<u8> = (0..BYTES).map(|n| n.to_le_bytes()[n % 3]).collect();
        client.write_all(&sent)?;
        client.shutdown(Shutdown::Write)?;
        let mut back = Vec::with_capacity(BYTES);
        client.read_to_end(&mut back)?;
        echo.join().map_err(|_| anyhow::anyhow!("the server's thread ended in a panic"))??;
        Ok((seen.ip(), back.iter().zip(&sent).filter(|(back, sent)| back == sent).count()))
    }

    /// A guest behind SNAT asks one socket in the world; that may answer, another one there may not.
    fn stranger(&mut self) -> anyhow::Result<()> {
        let what = "world1 > home1".to_owned();
        let row = match self.try_stranger() {
            Ok(leaked) => {
                self.report.say(format!(
                    "  isolated world1 answers home1 from where it was asked; from another port\n\
                     \x20          {UNWANTED} datagrams, {leaked} arrive"
                ))?;
                Row {
                    test: "isolated",
                    what,
                    unit: Unit::Frames,
                    sent: UNWANTED,
                    received: leaked,
                    figure: "none crosses".to_owned(),
                    value: None,
                    wrong: (leaked > 0).then(|| format!("{leaked} datagrams of a stranger arrive")),
                }
            }
            Err(error) => Row::failed("isolated", what, &error),
        };
        Ok(self.report.add(row)?)
    }

    fn try_stranger(&self) -> anyhow::Result<u64> {
        let (home, world) = (self.named("home1")?, self.named("world1")?);
        let bind = |host: &Host| -> anyhow::Result<UdpSocket> {
            let socket = host.netns.within(|| UdpSocket::bind((host.address, 0)))??;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        let (guest, asked, stranger) = (bind(home)?, bind(world)?, bind(world)?);
        guest.send_to(b"question", asked.local_addr()?)?;
        let mut bytes = [0; 16];
        let (_, outside) = asked.recv_from(&mut bytes).context("the question does not arrive")?;
        ensure!(outside.ip() == OUTSIDE, "the question comes from {outside}, not from {OUTSIDE}");
        for _ in 0..UNWANTED {
            stranger.send_to(b"stranger", outside)?;
        }
        // Behind the strange ones, so that those would have arrived before.
        asked.send_to(b"answer", outside)?;
        let mut leaked = 0;
        loop {
            let (len, _) = guest.recv_from(&mut bytes).context("the answer does not arrive")?;
            if &bytes[..len] == b"answer" {
                break;
            }
            leaked += 1;
        }
        guest.set_read_timeout(Some(SILENCE))?;
        while guest.recv_from(&mut bytes).is_ok() {
            leaked += 1;
        }
        Ok(leaked)
    }
}
