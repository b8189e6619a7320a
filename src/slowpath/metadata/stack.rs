//! TCP of one guest: an IP stack with both of the service's addresses and a socket for each connection.
//!
//! A socket is made for a SYN, and only for that: there are none that wait, so a guest's memory is what it has opened. When all
//! its connections are taken, one that is over, or else the oldest half-open one, makes room; established ones never do.

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpListenEndpoint};

use super::limits;
use crate::services::packet::Packet;
use crate::services::{SERVICE_V4, SERVICE_V6};
use crate::types::Mac;
use crate::wire::ethernet;

/// The port that is served.
pub(super) const HTTP: u16 = 80;
/// Rounds of sending in one turn: more than all sockets with full buffers need.
const ROUNDS: usize = 64;

/// A connection, as both ends know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    /// The guest's address and port.
    pub(super) remote: (IpAddr, u16),
    /// Ours.
    pub(super) local: IpAddr,
}

impl Key {
    /// The connection of a packet that came in, when it has both ports.
    pub(super) fn of(packet: &Packet<'_>) -> Option<(Key, u16)> {
        let [a, b, c, d] = *packet.payload.first_chunk()?;
        let remote = (packet.source, u16::from_be_bytes([a, b]));
        Some((Key { remote, local: packet.destination }, u16::from_be_bytes([c, d])))
    }

    /// The connection of a packet that goes out, whose headers smoltcp wrote: no options, no extensions.
    fn of_sent(packet: &[u8]) -> Option<Key> {
        let port = |at: usize| packet.get(at..)?.first_chunk().map(|port| u16::from_be_bytes(*port));
        let v4 = |at: usize| Some(IpAddr::from(*packet.get(at..)?.first_chunk::<4>()?));
        let v6 = |at: usize| Some(IpAddr::from(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
        match packet.first()? >> 4 {
            4 => Some(Key { local: v4(12)?, remote: (v4(16)?, port(22)?) }),
            _ => Some(Key { local: v6(8)?, remote: (v6(24)?, port(42)?) }),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Macs {
    ours: Mac,
    theirs: Mac,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Its SYN has come.
    Opening,
    /// HTTP is served on it; its socket stays until that is done.
    Served,
    /// HTTP is done since then.
    Released(Instant),
}

struct Connection {
    key: Key,
    handle: SocketHandle,
    macs: Macs,
    stage: Stage,
}

/// What has become of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It was for a connection, or answered with a reset.
    In,
    /// Its connection is established now.
    Opened(Key, SocketHandle),
    /// A SYN for which there is no room.
    Refused,
}

/// What has ended.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ended {
    /// Half-open connections that made room.
    pub(super) evicted: u64,
    /// Half-open connections whose time was over.
    pub(super) timed_out: u64,
}

/// The TCP/IP stack of one guest.
pub(super) struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    /// In the order in which they were opened.
    connections: Vec<Connection>,
    mtu: usize,
    /// The frame that is being written.
    frame: Vec<u8>,
    pub(super) ended: Ended,
}

impl Stack {
    /// A stack for a guest on a network of `mtu` bytes. `seed` makes its sequence numbers.
    pub(super) fn new(mtu: u16, seed: u64, now: Instant) -> Stack {
        // Longer frames gain nothing here; IPv4 and IPv6 demand the lower bounds (RFC 791, 3.1; RFC 8200, 5).
        let mtu = usize::from(mtu).clamp(576, 1500);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut frame = Vec::new();
        let mut link = Link {
            received: None,
            current: None,
            connections: &[],
            mtu,
            frame: &mut frame,
            send: &mut |_| {},
        };
        let mut interface = Interface::new(config, &mut link, now);
        interface.update_ip_addrs(|addresses| {
            // The list has room for two.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(SERVICE_V4), 32));
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv6(SERVICE_V6), 128));
        });
        // A guest is always reached by the way that it came, whatever its address; the list has room for both routes.
        let _ = interface.routes_mut().add_default_ipv4_route(SERVICE_V4);
        let _ = interface.routes_mut().add_default_ipv6_route(SERVICE_V6);
        let ended = Ended::default();
        Stack { interface, sockets: SocketSet::new(Vec::new()), connections: Vec::new(), mtu, frame, ended }
    }

    /// Open connections, half-open ones and those that end included.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// The socket of a connection that is served and not yet released.
    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Takes in a packet that is for us: of a host, to one of our addresses and [`HTTP`]. `bytes` is the packet from its IP
    /// header on. At most `limit` connections are kept.
    pub(super) fn receive(
        &mut self,
        packet: &Packet<'_>,
        bytes: &[u8],
        limit: usize,
        now: Instant,
        send: &mut dyn FnMut(&[u8]),
    ) -> Taken {
        let Some((key, _)) = Key::of(packet) else { return Taken::In };
        let macs = Macs { ours: packet.destination_mac, theirs: packet.source_mac };
        let known = self.connections.iter_mut().filter(|connection| connection.key == key);
        known.for_each(|connection| connection.macs = macs);
        if is_syn(packet.payload) && !self.is_open(key) {
            if !self.make_room(key, limit) {
                return Taken::Refused;
            }
            self.open(key, macs);
        }
        let mut link = Link {
            received: Some(bytes),
            current: Some((key, macs)),
            connections: &self.connections,
            mtu: self.mtu,
            frame: &mut self.frame,
            send,
        };
        self.interface.poll_ingress_single(now, &mut link, &mut self.sockets);
        self.opened(key)
    }

    fn is_open(&self, key: Key) -> bool {
        let open = |c: &Connection| {
            !matches!(self.sockets.get::<Socket<'_>>(c.handle).state(), State::Closed | State::TimeWait)
        };
        self.connections.iter().any(|connection| connection.key == key && open(connection))
    }

    /// Makes room for one more connection; false when all of them are in use.
    fn make_room(&mut self, key: Key, limit: usize) -> bool {
        // The guest uses its port again: the old connection has had its time.
        if let Some(old) = self.connections.iter().position(|c| c.key == key && self.is_over(c)) {
            self.remove(old);
        }
        while self.connections.len() >= limit {
            let over = self.connections.iter().position(|connection| self.is_over(connection));
            let half_open =
                || self.connections.iter().position(|connection| connection.stage == Stage::Opening);
            let Some(at) = over.or_else(half_open) else { return false };
            self.ended.evicted += u64::from(over.is_none());
            self.remove(at);
        }
        true
    }

    /// Nobody serves it, and there is nothing more to send but perhaps an acknowledgement (RFC 9293, 3.3.2, TIME-WAIT).
    fn is_over(&self, connection: &Connection) -> bool {
        let state = self.sockets.get::<Socket<'_>>(connection.handle).state();
        matches!(connection.stage, Stage::Released(_)) && matches!(state, State::Closed | State::TimeWait)
    }

    fn remove(&mut self, at: usize) {
        let connection = self.connections.remove(at);
        self.sockets.remove(connection.handle);
    }

    fn open(&mut self, key: Key, macs: Macs) {
        let buffer = |len| SocketBuffer::new(vec![0; len]);
        let mut socket = Socket::new(buffer(limits::RECEIVE_BUFFER), buffer(limits::SEND_BUFFER));
        socket.set_timeout(Some(duration(limits::HALF_OPEN)));
        // Answers are written whole: a small last segment need not wait for an acknowledgement.
        socket.set_nagle_enabled(false);
        // It fails for port 0 or an open socket only.
        let _ = socket.listen(IpListenEndpoint { addr: Some(key.local.into()), port: HTTP });
        let handle = self.sockets.add(socket);
        self.connections.push(Connection { key, handle, macs, stage: Stage::Opening });
    }

    /// Whether the connection of the frame just taken in is established by it.
    fn opened(&mut self, key: Key) -> Taken {
        let opening =
            |connection: &&mut Connection| connection.key == key && connection.stage == Stage::Opening;
        let Some(connection) = self.connections.iter_mut().find(opening) else { return Taken::In };
        let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
        match socket.state() {
            State::Listen | State::SynReceived | State::Closed => Taken::In,
            _ => {
                socket.set_timeout(Some(duration(limits::IDLE + limits::LINGER)));
                connection.stage = Stage::Served;
                Taken::Opened(key, connection.handle)
            }
        }
    }

    /// Sends what is to be sent, and forgets connections that are over.
    pub(super) fn poll(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        for connection in &self.connections {
            let Stage::Released(since) = connection.stage else { continue };
            if now >= since + duration(limits::LINGER) {
                self.sockets.get_mut::<Socket<'_>>(connection.handle).abort();
            }
        }
        let mut link = Link {
            received: None,
            current: None,
            connections: &self.connections,
            mtu: self.mtu,
            frame: &mut self.frame,
            send,
        };
        for _ in 0..ROUNDS {
            if self.interface.poll_egress(now, &mut link, &mut self.sockets)
                == smoltcp::iface::PollResult::None
            {
                break;
            }
        }
        self.reap();
    }

    /// Ends all connections without a word, after smoltcp has panicked: what is left of its sockets is not used again.
    pub(super) fn fail(&mut self) {
        for connection in &self.connections {
            let socket = self.sockets.get_mut::<Socket<'_>>(connection.handle);
            // This wakes whoever waits for it.
            socket.abort();
            *socket = Socket::new(SocketBuffer::new(Vec::new()), SocketBuffer::new(Vec::new()));
        }
        self.reap();
    }

    fn reap(&mut self) {
        let mut at = 0;
        while let Some(connection) = self.connections.get(at) {
            let state = self.sockets.get::<Socket<'_>>(connection.handle).state();
            let over = match (connection.stage, state) {
                // A socket that listens has seen no valid SYN, or the connection was reset before it was established.
                (Stage::Opening, State::Listen) | (Stage::Released(_), State::Closed) => true,
                (Stage::Opening, State::Closed) => {
                    self.ended.timed_out += 1;
                    true
                }
                _ => false,
            };
            if over { self.remove(at) } else { at += 1 }
        }
    }

    /// HTTP is done with a connection. It is closed in order, or reset.
    pub(super) fn release(&mut self, handle: SocketHandle, reset: bool, now: Instant) {
        let served =
            |connection: &&mut Connection| connection.handle == handle && connection.stage == Stage::Served;
        let Some(connection) = self.connections.iter_mut().find(served) else { return };
        connection.stage = Stage::Released(now);
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        if reset { socket.abort() } else { socket.close() }
    }

    /// When [`Stack::poll`] is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Instant> {
        let lingering = self.connections.iter().filter_map(|connection| match connection.stage {
            Stage::Released(since) => Some(since + duration(limits::LINGER)),
            _ => None,
        });
        let due = lingering.chain(self.interface.poll_at(now, &self.sockets)).min()?;
        // Never at once: what could be done has been done.
        Some(due.max(now + Duration::from_millis(1)))
    }
}

fn duration(duration: std::time::Duration) -> Duration {
    Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// Whether a segment opens a connection: SYN, and none of ACK, RST and FIN (RFC 9293, 3.1).
fn is_syn(segment: &[u8]) -> bool {
    segment.get(13).is_some_and(|flags| flags & 0b1_0111 == 0b0_0010)
}

/// The way in and out of a stack, for one call.
struct Link<'a> {
    received: Option<&'a [u8]>,
    /// The connection of the frame that is taken in.
    current: Option<(Key, Macs)>,
    connections: &'a [Connection],
    mtu: usize,
    frame: &'a mut Vec<u8>,
    send: &'a mut dyn FnMut(&[u8]),
}

impl Device for Link<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sent<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sent<'_>)> {
        let bytes = self.received.take()?;
        Some((Received(bytes), self.sent()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(self.sent())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

impl Link<'_> {
    fn sent(&mut self) -> Sent<'_> {
        let Link { current, connections, frame, send, .. } = self;
        Sent { current: *current, connections, frame, send: &mut **send }
    }
}

struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Sent<'a> {
    current: Option<(Key, Macs)>,
    connections: &'a [Connection],
    frame: &'a mut Vec<u8>,
    send: &'a mut dyn FnMut(&[u8]),
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        self.frame.clear();
        self.frame.resize(ethernet::HEADER + len, 0);
        let (header, packet) = self.frame.split_at_mut(ethernet::HEADER);
        let result = write(packet);
        let key = Key::of_sent(packet);
        let current = self.current.filter(|(current, _)| Some(*current) == key).map(|(_, macs)| macs);
        let known = || self.connections.iter().find(|c| Some(c.key) == key).map(|c| c.macs);
        if let (Some(macs), [version, ..]) = (current.or_else(known), &*packet) {
            let ethertype = if version >> 4 == 4 { ethernet::IPV4 } else { ethernet::IPV6 };
            let fields = macs.theirs.0.iter().chain(&macs.ours.0).copied().chain(ethertype.to_be_bytes());
            header.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
            (self.send)(self.frame);
        }
        result
    }
}
