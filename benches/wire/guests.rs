//! Many guests that boot: each on the TAP of a `guest` port, as a hypervisor opens it, with a TCP/IP stack of its own (smoltcp).
//! It asks for an address by DHCP, and then for its metadata by HTTP with that address and the routes that it was told.
//!
//! One thread plays all of them, so a time includes the guest's wait for its turn. A guest has no offloads.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nuswitch::frame::Offload;
use nuswitch::sys::tap::Tap;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::Instant as Time;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr, Ipv4Packet, UdpPacket};

/// Where metadata is.
const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(169, 254, 169, 254), 80);
const REQUEST: &[u8] =
    b"GET /latest/meta-data/local-ipv4 HTTP/1.1\r\nHost: 169.254.169.254\r\nConnection: close\r\n\r\n";
/// Longest frame of a guest.
const FRAME: usize = 1514;
/// Frames that one guest deals with before the next has its turn.
const TURN: usize = 16;

/// The address of a guest: far from the gateway, 10.64.0.1.
pub(crate) fn address(number: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 64, 1, 0)) + u32::from(number))
}

/// Its TAP.
pub(crate) fn device(number: u16) -> String {
    format!("nu-g{number}")
}

fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x02, 0, 0x0a, 0x40, high, low]
}

/// The part of a switch's configuration that has the ports of so many guests, and a router that is their gateway.
pub(crate) fn configuration(guests: u16) -> String {
    let network = "[[network]]\nname = \"guests\"\n\n[[subnet]]\nname = \"guests\"\nnetwork = \"guests\"\n\
                   cidr = \"10.64.0.0/16\"\ngateway_ip = \"10.64.0.1\"\n\n\
                   [[router]]\nname = \"gateway\"\ninterfaces = [\"guests\"]\n";
    let port = |number| {
        let mac = mac(number).map(|byte| format!("{byte:02x}")).join(":");
        format!(
            "\n[[port]]\nname = \"g{number}\"\nnetwork = \"guests\"\nmac_address = \"{mac}\"\nfixed_ips = [\"{}\"]\n\
             interface = {{ kind = \"guest\", name = \"{}\" }}\n",
            address(number),
            device(number)
        )
    };
    std::iter::once(network.to_owned()).chain((0..guests).map(port)).collect()
}

/// What came of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Booted {
    /// From its first DISCOVER until it had its address.
    pub(crate) lease: Duration,
    /// From its SYN until it had the whole answer.
    pub(crate) metadata: Duration,
    /// DHCP messages that it sent: two, if nothing was lost.
    pub(crate) messages: u32,
}

/// Where a guest is.
enum Stage {
    Off,
    Asks(Instant),
    Connects { lease: Duration, since: Instant },
    Reads { lease: Duration, since: Instant, answer: Vec<u8> },
    Done(Booted),
    Wrong(String),
}

struct Guest {
    number: u16,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: SocketHandle,
    tcp: SocketHandle,
    stage: Stage,
    /// When its stack wants a turn by itself.
    due: Option<Instant>,
}

impl Guest {
    fn new(number: u16, epoch: Instant) -> io::Result<Guest> {
        let mut wire =
            Wire { tap: Rc::new(Tap::attach(&device(number))?), messages: Rc::default(), left: TURN };
        let mut config = Config::new(EthernetAddress(mac(number)).into());
        config.random_seed = 0x9e37_79b9 + u64::from(number);
        let interface = Interface::new(config, &mut wire, time(epoch));
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let tcp = sockets.add(tcp::Socket::new(buffer(2048), buffer(1024)));
        let dhcp = sockets.add(dhcpv4::Socket::new());
        Ok(Guest { number, wire, interface, sockets, dhcp, tcp, stage: Stage::Off, due: None })
    }

    /// Deals with what is there; true when there may be more.
    fn turn(&mut self, epoch: Instant) -> bool {
        self.wire.left = TURN;
        self.interface.poll(time(epoch), &mut self.wire, &mut self.sockets);
        self.advance();
        // What it has to say now.
        self.interface.poll(time(epoch), &mut self.wire, &mut self.sockets);
        let wait = self.interface.poll_delay(time(epoch), &self.sockets);
        self.due = wait.map(|wait| Instant::now() + Duration::from_micros(wait.total_micros()));
        self.wire.left == 0
    }

    fn advance(&mut self) {
        match &mut self.stage {
            Stage::Asks(since) => {
                let since = *since;
                let told = match self.sockets.get_mut::<dhcpv4::Socket<'_>>(self.dhcp).poll() {
                    Some(dhcpv4::Event::Configured(config)) => (config.address, config.router),
                    _ => return,
                };
                let lease = since.elapsed();
                self.stage = match self.connect(told) {
                    Ok(()) => Stage::Connects { lease, since: Instant::now() },
                    Err(wrong) => Stage::Wrong(wrong),
                };
            }
            Stage::Connects { lease, since } => {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
                if socket.send_slice(REQUEST).is_ok() {
                    self.stage = Stage::Reads { lease: *lease, since: *since, answer: Vec::new() };
                } else if socket.state() == tcp::State::Closed {
                    self.stage = Stage::Wrong("its connection is refused".to_owned());
                }
            }
            Stage::Reads { lease, since, answer } => {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
                while socket.can_recv() {
                    let _ = socket.recv(|bytes| (bytes.len(), answer.extend_from_slice(bytes)));
                }
                if socket.may_recv() {
                    return;
                }
                socket.close();
                let text = String::from_utf8_lossy(answer);
                let is_right = text.starts_with("HTTP/1.1 200")
                    && text.ends_with(&format!("\n{}", address(self.number)));
                self.stage = if is_right {
                    let messages = self.wire.messages.get();
                    Stage::Done(Booted { lease: *lease, metadata: since.elapsed(), messages })
                } else {
                    Stage::Wrong(format!("its metadata is {text:?}"))
                };
            }
            Stage::Off | Stage::Done(_) | Stage::Wrong(_) => {}
        }
    }

    /// Takes its address and asks for its metadata.
    fn connect(&mut self, (at, router): (Ipv4Cidr, Option<Ipv4Addr>)) -> Result<(), String> {
        if at.address() != address(self.number) {
            return Err(format!("it was told to be {at}"));
        }
        self.interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv4(at));
        });
        let router = router.ok_or("it was told of no router")?;
        self.interface.routes_mut().add_default_ipv4_route(router).map_err(|error| error.to_string())?;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.tcp);
        socket
            .connect(self.interface.context(), SERVICE, 40_000 + self.number % 10_000)
            .map_err(|error| error.to_string())
    }
}

/// Boots so many guests, each `gap` after the one before. Gives what came of each, at the latest after `patience`.
///
/// # Errors
/// The kernel's, when a TAP cannot be opened.
pub(crate) fn boot(
    guests: u16,
    gap: Duration,
    patience: Duration,
) -> io::Result<Vec<Result<Booted, String>>> {
    let (epoch, mut poll) = (Instant::now(), Poll::new()?);
    let mut all = (0..guests).map(|number| Guest::new(number, epoch)).collect::<io::Result<Vec<_>>>()?;
    for guest in &all {
        let fd: RawFd = guest.wire.tap.fd();
        poll.registry().register(&mut SourceFd(&fd), Token(guest.number.into()), Interest::READABLE)?;
    }
    let (begin, mut next, mut events) = (Instant::now(), 0, Events::with_capacity(1024));
    // Those that have something to do: each stands here once at most.
    let (mut ready, mut stands) = (VecDeque::new(), vec![false; all.len()]);
    let mut left = all.len();
    while left > 0 && begin.elapsed() < patience {
        let now = Instant::now();
        while next < all.len() && now >= begin + gap * u32::try_from(next).unwrap_or(u32::MAX) {
            all[next].stage = Stage::Asks(now);
            all[next].due = Some(now);
            next += 1;
        }
        let mut soonest = if next < all.len() { Duration::from_millis(1) } else { Duration::from_millis(50) };
        for (at, guest) in all.iter().enumerate().take(next) {
            match guest.due {
                Some(due) if due <= now && !std::mem::replace(&mut stands[at], true) => ready.push_back(at),
                Some(due) => soonest = soonest.min(due.saturating_duration_since(now)),
                None => {}
            }
        }
        poll.poll(&mut events, Some(if ready.is_empty() { soonest } else { Duration::ZERO }))?;
        for Token(at) in events.iter().map(mio::event::Event::token) {
            if !std::mem::replace(&mut stands[at], true) {
                ready.push_back(at);
            }
        }
        for _ in 0..ready.len() {
            let Some(at) = ready.pop_front() else { break };
            let was_done = all[at].is_done();
            stands[at] = all[at].turn(epoch);
            if stands[at] {
                ready.push_back(at);
            }
            left -= usize::from(all[at].is_done() && !was_done);
        }
    }
    Ok(all.into_iter().map(Guest::outcome).collect())
}

impl Guest {
    fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done(_) | Stage::Wrong(_))
    }

    fn outcome(self) -> Result<Booted, String> {
        let which = device(self.number);
        match self.stage {
            Stage::Done(booted) => Ok(booted),
            Stage::Wrong(why) => Err(format!("{which}: {why}")),
            Stage::Off => Err(format!("{which}: it did not begin")),
            Stage::Asks(_) => Err(format!("{which}: it has no address")),
            Stage::Connects { .. } | Stage::Reads { .. } => Err(format!("{which}: it has no metadata")),
        }
    }
}

/// The value that so many of a hundred do not exceed.
pub(crate) fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or_default()
}

fn time(epoch: Instant) -> Time {
    Time::from_micros(i64::try_from(epoch.elapsed().as_micros()).unwrap_or(i64::MAX))
}

/// A guest's NIC.
struct Wire {
    tap: Rc<Tap>,
    messages: Rc<std::cell::Cell<u32>>,
    left: usize,
}

struct Received(Vec<u8>);
struct Room(Rc<Tap>, Rc<std::cell::Cell<u32>>);

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Room;

    fn receive(&mut self, _: Time) -> Option<(Received, Room)> {
        if self.left == 0 {
            return None;
        }
        let mut frame = vec![0; FRAME];
        let len = self.tap.read(&mut Offload::NONE.clone(), [&mut frame, &mut []]).ok()?;
        self.left -= 1;
        frame.truncate(len);
        Some((Received(frame), Room(self.tap.clone(), self.messages.clone())))
    }

    fn transmit(&mut self, _: Time) -> Option<Room> {
        Some(Room(self.tap.clone(), self.messages.clone()))
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

impl TxToken for Room {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let result = fill(&mut frame);
        self.1.set(self.1.get() + u32::from(is_dhcp(&frame)));
        // The kernel has room, or it is as on any wire: who misses it asks again.
        let _ = self.0.write(Offload::NONE, std::iter::once(&frame[..]));
        result
    }
}

/// Whether a frame is a DHCP client's.
fn is_dhcp(frame: &[u8]) -> bool {
    let packet = frame.get(14..).and_then(|bytes| Ipv4Packet::new_checked(bytes).ok());
    packet
        .is_some_and(|packet| UdpPacket::new_checked(packet.payload()).is_ok_and(|udp| udp.dst_port() == 67))
}
