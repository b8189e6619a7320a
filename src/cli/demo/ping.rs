//! Pings: by the kernel's stack of a host, and by a station of our own that speaks Ethernet itself, tagged if need be,
//! as a switch at the other end of a trunk does, or as a guest on its TAP.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, Ipv4Packet,
};

use super::lab::Host;
use crate::cli::frame_spec;
use crate::frame::Offload;
use crate::sys::packet::PacketSocket;
use crate::sys::tap::Tap;
use crate::types::Mac;

/// Bytes of payload, as ping(8) sends.
const PAYLOAD: usize = 56;
/// How long one answer may take. A busy machine is slow, not wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// So much silence is enough to know that nobody will answer.
const HOPELESS: Duration = Duration::from_secs(6);

/// What became of a number of pings.
#[derive(Clone, Debug, Default)]
pub(super) struct Pings {
    pub(super) sent: u64,
    pub(super) received: u64,
    times: Vec<Duration>,
}

impl Pings {
    fn add(&mut self, time: Option<Duration>) {
        self.sent += 1;
        self.received += u64::from(time.is_some());
        self.times.extend(time);
    }

    /// The median round trip.
    pub(super) fn median(&self) -> Option<Duration> {
        let mut times = self.times.clone();
        times.sort();
        times.get(times.len() / 2).copied()
    }
}

/// The identifier of our echo requests.
fn identifier() -> u16 {
    std::process::id().to_le_bytes().first_chunk().map_or(0, |low| u16::from_le_bytes(*low))
}

/// Pings `to` from the kernel of `from`, one after the other; waits at most `patience` for each. Sends no more when there is no
/// hope.
pub(super) fn from_host(from: &Host, to: Ipv4Addr, count: u16, patience: Duration) -> anyhow::Result<Pings> {
    let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp);
    // The standard library has no raw sockets, but whatever has addresses and ports sends and receives alike.
    let socket = UdpSocket::from(from.netns.within(open)?.context("cannot open a raw socket")?);
    let mut pings = Pings::default();
    let mut heard = Instant::now();
    for sequence in 1..=count {
        if heard.elapsed() >= HOPELESS {
            break;
        }
        let request = echo_request(sequence);
        let begin = Instant::now();
        match socket.send_to(&request, (to, 0)) {
            Ok(_) => {}
            // An earlier one found nobody.
            Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => {}
            Err(error) => return Err(error).context("cannot send a ping"),
        }
        let answer = await_reply(&socket, to, sequence, begin, patience)?;
        if answer.is_some() {
            heard = Instant::now();
        }
        pings.add(answer);
    }
    Ok(pings)
}

fn echo_request(seq_no: u16) -> Vec<u8> {
    let data = [0x6e; PAYLOAD];
    let repr = Icmpv4Repr::EchoRequest { ident: identifier(), seq_no, data: &data };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
    bytes
}

fn await_reply(
    socket: &UdpSocket,
    from: Ipv4Addr,
    sequence: u16,
    begin: Instant,
    patience: Duration,
) -> io::Result<Option<Duration>> {
    let mut bytes = [0; 2048];
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(&mut bytes) {
            Ok(len) if reply(&bytes[..len]) == Some((from, sequence)) => return Ok(Some(begin.elapsed())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(libc::EHOSTUNREACH) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sender and number of an answer to one of our requests, checksums checked.
fn reply(packet: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let packet = Ipv4Packet::new_checked(packet).ok()?;
    let icmp = Icmpv4Packet::new_checked(packet.payload()).ok()?;
    match Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()).ok()? {
        Icmpv4Repr::EchoReply { ident, seq_no, data } if ident == identifier() && data.len() == PAYLOAD => {
            Some((packet.src_addr(), seq_no))
        }
        _ => None,
    }
}

/// Where a station's frames go in and out.
pub(super) enum Wire {
    /// The far end of a veth.
    Packet(PacketSocket),
    /// A guest's TAP, opened as a hypervisor does.
    Tap(Tap),
}

impl Wire {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Wire::Packet(socket) => socket.as_fd(),
            Wire::Tap(tap) => tap.as_fd(),
        }
    }

    pub(super) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let frame = std::iter::once(frame);
        match self {
            Wire::Packet(socket) => socket.send_large(Offload::NONE, frame),
            Wire::Tap(tap) => tap.write(Offload::NONE, frame),
        }
    }

    /// The next frame, with its tag in place; longer ones are cut.
    pub(super) fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Wire::Packet(socket) => {
                let Some(received) = socket.receive() else { return Ok(None) };
                let mut frame = received.data.to_vec();
                if let Some(tag) = received.tag
                    && frame.len() >= 12
                {
                    frame.splice(12..12, tag);
                }
                let queued = received.queued;
                drop(received);
                if queued {
                    socket.receive_large(&mut Offload::NONE.clone(), &mut [])?;
                }
                Ok(Some(frame))
            }
            Wire::Tap(tap) => {
                let mut frame = vec![0; 2048];
                match tap.read(&mut Offload::NONE.clone(), [&mut frame, &mut []]) {
                    Ok(len) => {
                        frame.truncate(len);
                        Ok(Some(frame))
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// A host of our own on a wire: it resolves, pings, and answers ARP for its address in one VLAN.
pub(super) struct Station {
    pub(super) wire: Wire,
    pub(super) mac: Mac,
}

impl Station {
    /// Resolves `to` and pings it, from `address`, tagged with `vlan` if there is one.
    pub(super) fn ping(
        &mut self,
        address: Ipv4Addr,
        vlan: Option<u16>,
        to: Ipv4Addr,
        count: u16,
    ) -> anyhow::Result<Pings> {
        let tag = vlan.map_or_else(String::new, |vlan| format!("vlan={vlan}"));
        let mac = self.mac;
        self.send(&format!("eth src={mac} {tag} arp who-has {to} tell {address}"))?;
        let hears = Ears { address, vlan, tag: &tag };
        let found = self.listen(&hears, PATIENCE, |heard| match heard {
            Heard::Arp(ip, mac) if ip == to => Some(mac),
            _ => None,
        })?;
        let Some(next) = found else { bail!("nobody answers ARP for {to}") };
        let mut pings = Pings::default();
        for sequence in 1..=count {
            let begin = Instant::now();
            self.send(&format!(
                "eth src={mac} dst={next} {tag} ip src={address} dst={to} icmp echo id={} seq={sequence} len={PAYLOAD}",
                identifier()
            ))?;
            let answered = self.listen(&hears, PATIENCE, |heard| match heard {
                Heard::Reply(ip, number) if (ip, number) == (to, sequence) => Some(()),
                _ => None,
            })?;
            pings.add(answered.map(|()| begin.elapsed()));
        }
        Ok(pings)
    }

    /// Sends a frame that is told in the words of `nuswitch trace`.
    pub(super) fn send(&mut self, frame: &str) -> anyhow::Result<()> {
        self.wire.send(&frame_spec::parse(frame)?).context("cannot send a frame")
    }

    /// Receives, answering ARP, until something is what `wanted` waits for.
    fn listen<T>(
        &mut self,
        ears: &Ears<'_>,
        patience: Duration,
        wanted: impl Fn(Heard) -> Option<T>,
    ) -> anyhow::Result<Option<T>> {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            let Some(frame) = self.wire.receive()? else {
                let mut ready = [PollFd::new(self.wire.fd(), PollFlags::POLLIN)];
                poll(&mut ready, PollTimeout::from(20u8))?;
                continue;
            };
            match ears.hear(&frame) {
                Some(Heard::Question(ip, mac)) => {
                    let (own, tag, address) = (self.mac, ears.tag, ears.address);
                    self.send(&format!(
                        "eth src={own} dst={mac} {tag} arp reply {address} is-at {own} to={ip}"
                    ))?;
                }
                Some(heard) => {
                    if let Some(found) = wanted(heard) {
                        return Ok(Some(found));
                    }
                }
                None => {}
            }
        }
        Ok(None)
    }
}

/// What a station listens for: its address, in its VLAN and no other.
struct Ears<'a> {
    address: Ipv4Addr,
    vlan: Option<u16>,
    tag: &'a str,
}

enum Heard {
    /// Who has our address?
    Question(Ipv4Addr, Mac),
    /// Who has an address that we asked for.
    Arp(Ipv4Addr, Mac),
    /// An answer to our ping.
    Reply(Ipv4Addr, u16),
}

impl Ears<'_> {
    fn hear(&self, frame: &[u8]) -> Option<Heard> {
        let frame = untag(frame, self.vlan)?;
        let frame = EthernetFrame::new_checked(&frame[..]).ok()?;
        match frame.ethertype() {
            EthernetProtocol::Arp => {
                let ArpRepr::EthernetIpv4 {
                    operation,
                    source_hardware_addr,
                    source_protocol_addr,
                    target_protocol_addr,
                    ..
                } = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()?
                else {
                    return None;
                };
                let mac = Mac(source_hardware_addr.0);
                match operation {
                    _ if target_protocol_addr != self.address => None,
                    ArpOperation::Request => Some(Heard::Question(source_protocol_addr, mac)),
                    ArpOperation::Reply => Some(Heard::Arp(source_protocol_addr, mac)),
                    ArpOperation::Unknown(_) => None,
                }
            }
            EthernetProtocol::Ipv4 => reply(frame.payload()).map(|(from, number)| Heard::Reply(from, number)),
            _ => None,
        }
    }
}

/// The frame without its tag, if it is of this VLAN, or if there is none and none is expected.
fn untag(frame: &[u8], vlan: Option<u16>) -> Option<Vec<u8>> {
    let tagged = frame.get(12..14) == Some(&[0x81, 0x00]);
    let mut frame = frame.to_vec();
    match vlan {
        None if !tagged => Some(frame),
        Some(vlan) if tagged => {
            let tci = u16::from_be_bytes([*frame.get(14)?, *frame.get(15)?]);
            frame.drain(12..16);
            (tci & 0x0fff == vlan).then_some(frame)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_hears_its_own_vlan_alone() {
        let frame = frame_spec::parse("eth vlan=100 pcp=3 arp who-has 192.0.2.1 tell 192.0.2.2").unwrap();
        let ears = |vlan| Ears { address: Ipv4Addr::new(192, 0, 2, 1), vlan, tag: "" };
        assert!(
            matches!(ears(Some(100)).hear(&frame), Some(Heard::Question(ip, _)) if ip == Ipv4Addr::new(192, 0, 2, 2))
        );
        assert!(ears(Some(200)).hear(&frame).is_none());
        assert!(ears(None).hear(&frame).is_none());
        for len in 0..frame.len() {
            assert!(ears(Some(100)).hear(&frame[..len]).is_none(), "{len}");
        }
        let other = Ears { address: Ipv4Addr::new(192, 0, 2, 9), vlan: Some(100), tag: "" };
        assert!(other.hear(&frame).is_none());
    }

    #[test]
    fn an_answer_is_one_to_our_request_and_whole() {
        let text =
            |id, word| format!("eth ip src=192.0.2.2 dst=192.0.2.1 icmp {word} id={id} seq=7 len={PAYLOAD}");
        let packet = |text: &str| frame_spec::parse(text).unwrap().split_off(14);
        let good = packet(&text(identifier(), "reply"));
        assert_eq!(reply(&good), Some((Ipv4Addr::new(192, 0, 2, 2), 7)));
        assert_eq!(reply(&packet(&text(identifier(), "echo"))), None);
        assert_eq!(reply(&packet(&text(identifier() ^ 1, "reply"))), None);
        let mut broken = good;
        *broken.last_mut().unwrap() ^= 1;
        assert_eq!(reply(&broken), None, "its checksum is wrong");
    }
}
