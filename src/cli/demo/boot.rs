//! What the demo shows of a guest that boots: it knows nothing but its MAC, and is told all by the switch. Its address and its
//! gateway come by DHCP, its name by metadata, and then it reaches the world.
//!
//! The DHCP client is smoltcp's, on a packet socket in the guest's namespace; what it is told is given to the kernel there,
//! whose TCP asks for the metadata.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::dhcpv4::{Event, RetryConfig, Socket};
use smoltcp::time::{Duration as Span, Instant as Time};
use smoltcp::wire::{EthernetAddress, Ipv4Cidr};

use super::Running;
use super::lab::{DEVICE, GATEWAY, Host};
use super::ping::Wire;
use super::report::{self, Row, Unit};
use crate::ports::link::Links;
use crate::sys::packet::PacketSocket;

/// Where guests look for metadata (EC2's and OpenStack's convention).
const METADATA: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);
/// The guest that boots.
pub(super) const BOOTS: &str = "home3";
/// How long each step may take. A busy machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the guest asks for.
const REQUEST: &str =
    "GET /latest/meta-data/hostname HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n";
/// Longest frame of the client.
const FRAME: usize = 1514;

impl Running {
    /// A guest gets its address, its gateway and its name.
    pub(super) fn boot(&mut self) -> anyhow::Result<()> {
        self.stop.check()?;
        self.report.live(&format!("  boot     {BOOTS}"))?;
        let begin = Instant::now();
        let address = self.try_lease();
        let leased = address.as_ref().ok().map(|_| begin.elapsed());
        let right = self.named(BOOTS)?.address.to_string();
        self.step("its address", &right, leased, address.map(|address| address.to_string()))?;
        let Some(leased) = leased else { return Ok(()) };
        let begin = Instant::now();
        let name = self.try_name();
        let told = name.as_ref().ok().map(|_| begin.elapsed());
        self.step("its name", BOOTS, told, name)?;
        if let Some(told) = told {
            self.report.say(format!(
                "  boot     {BOOTS} is told its address and gateway by DHCP after {},\n\
                 \x20          and its name by metadata after another {}",
                report::time(Some(leased)),
                report::time(Some(told))
            ))?;
        }
        let world = self.address("world1")?;
        self.ping_through("boot", BOOTS, "world1", world)
    }

    /// Keeps what the guest was told of `what`.
    fn step(
        &mut self,
        what: &str,
        right: &str,
        time: Option<Duration>,
        told: anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        let what = format!("{BOOTS}: {what}");
        let row = match told {
            Ok(told) => Row {
                test: "boot",
                what,
                unit: Unit::Frames,
                sent: 1,
                received: 1,
                wrong: (told != right).then(|| format!("it is told {told:?}, not {right}")),
                figure: told,
                value: time.map(|time| ("microseconds", time.as_secs_f64() * 1e6)),
            },
            Err(error) => Row::failed("boot", what, &error),
        };
        Ok(self.report.add(row)?)
    }

    /// Asks for an address and gives it, with the gateway, to the guest's kernel.
    fn try_lease(&self) -> anyhow::Result<Ipv4Addr> {
        let host = self.named(BOOTS)?;
        let (address, gateway) = lease(host)?;
        let gateway = gateway.context("it is told of no gateway")?;
        ensure!(gateway == GATEWAY, "it is told that its gateway is {gateway}, not {GATEWAY}");
        host.netns.within(|| -> anyhow::Result<()> {
            let mut links = Links::open()?;
            let index = links.get(DEVICE)?.index;
            links.add_address(index, IpAddr::V4(address.address()), address.prefix_len())?;
            Ok(links.set_default_route(gateway)?)
        })??;
        Ok(address.address())
    }

    /// Asks for its name.
    fn try_name(&self) -> anyhow::Result<String> {
        let goal = SocketAddr::from(METADATA);
        let stream = self.named(BOOTS)?.netns.within(|| TcpStream::connect_timeout(&goal, PATIENCE))?;
        let mut stream = stream.with_context(|| format!("it does not reach {goal}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(REQUEST.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("there is no answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "it is answered {head:?}");
        Ok(body.to_owned())
    }
}

/// What DHCP tells the host: its address and its gateway.
fn lease(host: &Host) -> anyhow::Result<(Ipv4Cidr, Option<Ipv4Addr>)> {
    let open = || -> anyhow::Result<PacketSocket> {
        let mut links = Links::open()?;
        let index = links.get(DEVICE)?.index;
        links.set_up(index, true)?;
        Ok(PacketSocket::open(index, 64, 2)?)
    };
    let mut nic = Nic(Wire::Packet(host.netns.within(open)??));
    let (epoch, mac) = (Instant::now(), EthernetAddress(host.mac()?.0));
    let now = || Time::from_micros(i64::try_from(epoch.elapsed().as_micros()).unwrap_or(i64::MAX));
    let mut interface = Interface::new(Config::new(mac.into()), &mut nic, now());
    let mut sockets = SocketSet::new(Vec::new());
    let mut client = Socket::new();
    let second = Span::from_secs(1);
    // What is lost is asked for again within our patience.
    let mut retry = RetryConfig::default();
    (retry.discover_timeout, retry.initial_request_timeout) = (second, second);
    client.set_retry_config(retry);
    let client = sockets.add(client);
    while epoch.elapsed() < PATIENCE {
        interface.poll(now(), &mut nic, &mut sockets);
        if let Some(Event::Configured(told)) = sockets.get_mut::<Socket<'_>>(client).poll() {
            return Ok((told.address, told.router));
        }
        let mut ready = [PollFd::new(nic.0.fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(20u8))?;
    }
    bail!("it is not told an address")
}

/// The guest's NIC, as smoltcp takes it.
struct Nic(Wire);

struct Received(Vec<u8>);
struct Room<'a>(&'a mut Wire);

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Time) -> Option<(Received, Room<'_>)> {
        let frame = self.0.receive().ok()??;
        Some((Received(frame), Room(&mut self.0)))
    }

    fn transmit(&mut self, _: Time) -> Option<Room<'_>> {
        Some(Room(&mut self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        // What is lost is asked for again.
        let _ = self.0.send(&frame);
        result
    }
}
