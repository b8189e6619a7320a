//! The XDP programs that we load, and the tiny assembler that they are written with.
//!
//! Three of them: everything to the switch; everything but the host's own traffic to the switch ([`HostFilter`]); and
//! the counting sink of the benches.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bpf::Map;
use crate::types::{Mac, Vni};
use std::os::fd::{AsFd, AsRawFd};

/// An instruction (`struct bpf_insn`, linux/bpf.h; RFC 9669, section 3).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Verdicts of an XDP program (`enum xdp_action`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Verdict {
    /// Dropped.
    Drop = 1,
    /// On to the kernel's stack.
    Pass = 2,
    /// To where the program said.
    Redirect = 4,
}

/// What passes to the kernel on a device that the host uses too: unicast to its MAC, ARP for its IPv4 addresses, and
/// neighbour solicitations (RFC 4861, 4.3) for its IPv6 addresses. All else is the switch's, broadcast and multicast
/// included: a host that needs those of a service (DHCP, router advertisements) should have its address set by hand.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HostFilter {
    /// The device's own address.
    pub mac: Mac,
    /// The host's IPv4 addresses on the device.
    pub ipv4: Vec<Ipv4Addr>,
    /// The host's IPv6 addresses on the device, link-local ones included.
    pub ipv6: Vec<Ipv6Addr>,
}

/// What comes to the switch on a device that the host uses too and that is an underlay: ARP and neighbour solicitations
/// for the local VTEP's address, all packets to it, and tunnels to multicast groups. All else passes to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VtepFilter {
    /// The local VTEP's address; it is not one of the host's.
    pub local: IpAddr,
    /// UDP port of tunnels.
    pub udp_port: u16,
}

/// What a shared device's frames are split by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The host's own pass to the kernel.
    Host(HostFilter),
    /// The VTEP's own come to the switch.
    Vtep(VtepFilter),
}

// Registers of the calling convention (RFC 9669, section 2).
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;
const FRAME_POINTER: u8 = 10;
// Widths of loads and stores.
const BYTE: u8 = 0x10;
const HALF: u8 = 0x08;
const WORD: u8 = 0x00;
const DOUBLE: u8 = 0x18;
// Helpers (enum bpf_func_id).
const MAP_LOOKUP_ELEM: i32 = 1;
const REDIRECT_MAP: i32 = 51;
// Fields of struct xdp_md.
const CTX_DATA: i16 = 0;
const CTX_DATA_END: i16 = 4;
const CTX_RX_QUEUE: i16 = 16;

/// A place to jump to, by its number.
#[derive(Clone, Copy)]
struct Label(usize);

#[derive(Default)]
struct Assembler {
    insns: Vec<Insn>,
    /// Where each label stands.
    labels: Vec<usize>,
    /// Jumps and the label that each goes to.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn emit(&mut self, code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> &mut Assembler {
        self.insns.push(Insn { code, registers: dst | src << 4, offset, immediate });
        self
    }

    fn label(&mut self) -> Label {
        self.labels.push(usize::MAX);
        Label(self.labels.len() - 1)
    }

    fn place(&mut self, label: Label) -> &mut Assembler {
        self.labels[label.0] = self.insns.len();
        self
    }

    fn mov(&mut self, dst: u8, src: u8) -> &mut Assembler {
        self.emit(0xbf, dst, src, 0, 0)
    }

    fn mov_imm(&mut self, dst: u8, value: i32) -> &mut Assembler {
        self.emit(0xb7, dst, 0, 0, value)
    }

    fn add_imm(&mut self, dst: u8, value: i32) -> &mut Assembler {
        self.emit(0x07, dst, 0, 0, value)
    }

    /// On the low 32 bits; the high ones become zero.
    fn and_imm(&mut self, dst: u8, value: i32) -> &mut Assembler {
        self.emit(0x54, dst, 0, 0, value)
    }

    fn load(&mut self, width: u8, dst: u8, base: u8, offset: i16) -> &mut Assembler {
        self.emit(0x61 | width, dst, base, offset, 0)
    }

    fn store(&mut self, width: u8, base: u8, offset: i16, src: u8) -> &mut Assembler {
        self.emit(0x63 | width, base, src, offset, 0)
    }

    fn load_map(&mut self, dst: u8, map: &Map) -> &mut Assembler {
        const PSEUDO_MAP_FD: u8 = 1;
        self.emit(0x18, dst, PSEUDO_MAP_FD, 0, map.as_fd().as_raw_fd()).emit(0, 0, 0, 0, 0)
    }

    fn call(&mut self, helper: i32) -> &mut Assembler {
        self.emit(0x85, 0, 0, 0, helper)
    }

    fn exit(&mut self) -> &mut Assembler {
        self.emit(0x95, 0, 0, 0, 0)
    }

    fn jump(&mut self, to: Label) -> &mut Assembler {
        self.jumps.push((self.insns.len(), to));
        self.emit(0x05, 0, 0, 0, 0)
    }

    fn jump_if_greater(&mut self, a: u8, b: u8, to: Label) -> &mut Assembler {
        self.jumps.push((self.insns.len(), to));
        self.emit(0x2d, a, b, 0, 0)
    }

    /// Compares the low 32 bits.
    fn jump_if_equal(&mut self, a: u8, value: u32, to: Label) -> &mut Assembler {
        self.jumps.push((self.insns.len(), to));
        self.emit(0x16, a, 0, 0, value.cast_signed())
    }

    /// Compares the low 32 bits.
    fn jump_unless_equal(&mut self, a: u8, value: u32, to: Label) -> &mut Assembler {
        self.jumps.push((self.insns.len(), to));
        self.emit(0x56, a, 0, 0, value.cast_signed())
    }

    /// The program with its jumps resolved. A jump too far for its 16 bits gives a program that the verifier refuses.
    fn finish(&mut self) -> Vec<Insn> {
        for &(at, label) in &self.jumps {
            let target = self.labels[label.0];
            self.insns[at].offset = target
                .checked_sub(at + 1)
                .and_then(|distance| i16::try_from(distance).ok())
                .unwrap_or(i16::MAX);
        }
        std::mem::take(&mut self.insns)
    }

    /// Leaves `xdp_md` in R1 and continues when the frame has `len` bytes: data in R2, its end in R3.
    fn bounds(&mut self, len: i32, otherwise: Label) -> &mut Assembler {
        self.mov(R4, R2).add_imm(R4, len).jump_if_greater(R4, R3, otherwise)
    }
}

/// Bytes of the frame as a load on this machine sees them.
fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

fn half(value: u16) -> u32 {
    u32::from(u16::from_ne_bytes(value.to_be_bytes()))
}

/// Sends every frame to the socket of its queue, or where there is none does as `otherwise` says; with a filter, what
/// is the host's passes to the kernel.
pub fn redirect(sockets: &Map, filter: Option<&Filter>, otherwise: Verdict) -> Vec<Insn> {
    let asm = &mut Assembler::default();
    match filter {
        Some(Filter::Host(filter)) => pass_the_hosts(asm, filter),
        Some(Filter::Vtep(filter)) => take_the_vteps(asm, filter),
        None => {}
    }
    asm.load(WORD, R2, R1, CTX_RX_QUEUE)
        .load_map(R1, sockets)
        .mov_imm(R3, otherwise as i32)
        .call(REDIRECT_MAP)
        .exit()
        .finish()
}

fn pass_the_hosts(asm: &mut Assembler, filter: &HostFilter) {
    let (ours, pass) = (asm.label(), asm.label());
    let (not_its_mac, not_arp) = (asm.label(), asm.label());
    asm.load(WORD, R2, R1, CTX_DATA).load(WORD, R3, R1, CTX_DATA_END).bounds(14, ours);

    let [a, b, c, d, e, f] = filter.mac.0;
    asm.load(WORD, R5, R2, 0).jump_unless_equal(R5, word([a, b, c, d]), not_its_mac);
    asm.load(HALF, R5, R2, 4)
        .jump_if_equal(R5, u32::from(u16::from_ne_bytes([e, f])), pass)
        .place(not_its_mac);

    asm.load(HALF, R5, R2, 12).jump_unless_equal(R5, half(0x0806), not_arp);
    // RFC 826: the target's protocol address is the last of the four.
    asm.bounds(42, ours).load(WORD, R5, R2, 38);
    for address in &filter.ipv4 {
        asm.jump_if_equal(R5, word(address.octets()), pass);
    }
    asm.jump(ours).place(not_arp);

    // RFC 8200, section 3; RFC 4861, 4.3: next header 58, type 135, target address 8 bytes on.
    asm.jump_unless_equal(R5, half(0x86dd), ours).bounds(78, ours);
    asm.load(BYTE, R5, R2, 20).jump_unless_equal(R5, 58, ours);
    asm.load(BYTE, R5, R2, 54).jump_unless_equal(R5, 135, ours);
    for address in &filter.ipv6 {
        let another = asm.label();
        let octets = address.octets();
        for (&bytes, at) in octets.as_chunks::<4>().0.iter().zip([62, 66, 70, 74]) {
            asm.load(WORD, R5, R2, at).jump_unless_equal(R5, word(bytes), another);
        }
        asm.jump(pass).place(another);
    }
    asm.jump(ours).place(pass).mov_imm(R0, Verdict::Pass as i32).exit().place(ours);
}

fn take_the_vteps(asm: &mut Assembler, filter: &VtepFilter) {
    let (ours, pass) = (asm.label(), asm.label());
    let tunnel = half(filter.udp_port);
    asm.load(WORD, R2, R1, CTX_DATA).load(WORD, R3, R1, CTX_DATA_END).bounds(42, pass);
    asm.load(HALF, R5, R2, 12);
    match filter.local {
        IpAddr::V4(local) => {
            let not_arp = asm.label();
            asm.jump_unless_equal(R5, half(0x0806), not_arp);
            asm.load(WORD, R5, R2, 38)
                .jump_if_equal(R5, word(local.octets()), ours)
                .jump(pass)
                .place(not_arp);
            asm.jump_unless_equal(R5, half(0x0800), pass);
            asm.load(WORD, R5, R2, 30).jump_if_equal(R5, word(local.octets()), ours);
            // 224.0.0.0/4, UDP, no options: RFC 1112, section 4.
            asm.load(BYTE, R5, R2, 30).and_imm(R5, 0xf0).jump_unless_equal(R5, 0xe0, pass);
            asm.load(BYTE, R5, R2, 14).jump_unless_equal(R5, 0x45, pass);
            asm.load(BYTE, R5, R2, 23).jump_unless_equal(R5, 17, pass);
            asm.load(HALF, R5, R2, 36).jump_if_equal(R5, tunnel, ours);
        }
        IpAddr::V6(local) => {
            let (not_unicast, not_solicited) = (asm.label(), asm.label());
            asm.jump_unless_equal(R5, half(0x86dd), pass).bounds(62, pass);
            let octets = local.octets();
            for (&bytes, at) in octets.as_chunks::<4>().0.iter().zip([38, 42, 46, 50]) {
                asm.load(WORD, R5, R2, at).jump_unless_equal(R5, word(bytes), not_unicast);
            }
            asm.jump(ours).place(not_unicast);
            // The solicited-node address: RFC 4291, 2.7.1.
            let [.., x, y, z] = octets;
            let solicited = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
            for (&bytes, at) in solicited.as_chunks::<4>().0.iter().zip([38, 42, 46, 50]) {
                asm.load(WORD, R5, R2, at).jump_unless_equal(R5, word(bytes), not_solicited);
            }
            asm.jump(ours).place(not_solicited);
            asm.load(BYTE, R5, R2, 38).jump_unless_equal(R5, 0xff, pass);
            asm.load(BYTE, R5, R2, 20).jump_unless_equal(R5, 17, pass);
            asm.load(HALF, R5, R2, 56).jump_if_equal(R5, tunnel, ours);
        }
    }
    asm.place(pass).mov_imm(R0, Verdict::Pass as i32).exit().place(ours);
}

/// The first bytes of the UDP payload of the benches' frames.
pub const MARKER: [u8; 4] = *b"nusw";

/// Which marked frames count.
#[derive(Clone, Copy, Debug)]
pub enum Marked {
    /// All, behind at most one VLAN tag.
    Any,
    /// Those in VXLAN packets of this network (over IPv4, to UDP port 4789, with no tag anywhere).
    InTunnel(Vni),
    /// Those without a tag whose IPv4 source has these first 24 bits.
    From([u8; 3]),
}

/// Counts frames whose IPv4 UDP payload (without IP options) begins with [`MARKER`] in counter 0 and drops them, as far as they
/// are `wanted`; passes all others.
pub fn count_marked(counters: &Map, wanted: Marked) -> Vec<Insn> {
    let asm = &mut Assembler::default();
    let pass = asm.label();
    asm.load(WORD, R2, R1, CTX_DATA).load(WORD, R3, R1, CTX_DATA_END);
    match wanted {
        Marked::InTunnel(vni) => marker_in_tunnel(asm, vni, pass),
        Marked::From(source) => marker_from(asm, source, pass),
        Marked::Any => marker(asm, pass),
    }
    asm.jump_unless_equal(R5, word(MARKER), pass);
    asm.mov_imm(R1, 0).store(WORD, FRAME_POINTER, -4, R1);
    asm.load_map(R1, counters).mov(R2, FRAME_POINTER).add_imm(R2, -4).call(MAP_LOOKUP_ELEM);
    asm.jump_if_equal(R0, 0, pass);
    asm.load(DOUBLE, R1, R0, 0).add_imm(R1, 1).store(DOUBLE, R0, 0, R1);
    asm.mov_imm(R0, Verdict::Drop as i32).exit();
    asm.place(pass).mov_imm(R0, Verdict::Pass as i32).exit().finish()
}

/// Loads into R5 what stands in the marker's place.
fn marker(asm: &mut Assembler, pass: Label) {
    let (tagged, compare) = (asm.label(), asm.label());
    asm.bounds(46, pass);
    asm.load(HALF, R6, R2, 12).jump_if_equal(R6, half(0x8100), tagged).jump_unless_equal(
        R6,
        half(0x0800),
        pass,
    );
    asm.load(WORD, R5, R2, 42).jump(compare);
    asm.place(tagged).bounds(50, pass).load(WORD, R5, R2, 46).place(compare);
}

/// The same, for a frame from this /24.
fn marker_from(asm: &mut Assembler, [a, b, c]: [u8; 3], pass: Label) {
    asm.bounds(46, pass);
    asm.load(HALF, R5, R2, 12).jump_unless_equal(R5, half(0x0800), pass);
    asm.load(HALF, R5, R2, 26).jump_unless_equal(R5, half(u16::from_be_bytes([a, b])), pass);
    asm.load(BYTE, R5, R2, 28).jump_unless_equal(R5, c.into(), pass);
    asm.load(WORD, R5, R2, 42);
}

/// The same, for a frame in a tunnel: 50 bytes further on (RFC 7348, section 5).
fn marker_in_tunnel(asm: &mut Assembler, vni: Vni, pass: Label) {
    let [_, a, b, c] = vni.get().to_be_bytes();
    asm.bounds(96, pass);
    asm.load(HALF, R5, R2, 12).jump_unless_equal(R5, half(0x0800), pass);
    asm.load(BYTE, R5, R2, 23).jump_unless_equal(R5, 17, pass);
    asm.load(HALF, R5, R2, 36).jump_unless_equal(R5, half(4789), pass);
    asm.load(WORD, R5, R2, 46).jump_unless_equal(R5, word([a, b, c, 0]), pass);
    asm.load(WORD, R5, R2, 92);
}

#[cfg(test)]
mod tests {
    use super::super::bpf::Program;
    use super::*;

    /// What the filter does with a frame, or nothing (told on stderr) without the privilege to ask the kernel.
    fn verdicts(filter: &Filter, frames: &[Vec<u8>]) -> Option<Vec<bool>> {
        let map = match Map::xsk(1) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                eprintln!("skipped: bpf(2) needs privilege");
                return None;
            }
            map => map.unwrap(),
        };
        // No socket is in the map, so a redirect ends in the other verdict, which tells it from a pass.
        let program = Program::load(&redirect(&map, Some(filter), Verdict::Drop)).unwrap();
        let to_host = |frame: &Vec<u8>| match program.test_run(frame).unwrap() {
            n if n == Verdict::Pass as u32 => true,
            n if n == Verdict::Drop as u32 => false,
            other => panic!("verdict {other}"),
        };
        Some(frames.iter().map(to_host).collect())
    }

    const HOST: Mac = Mac([2, 0, 0, 0, 0xaa, 1]);

    fn filter() -> HostFilter {
        HostFilter {
            mac: HOST,
            ipv4: vec![Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 200)],
            ipv6: vec!["2001:db8::1".parse().unwrap(), "fe80::ff:fe00:aa01".parse().unwrap()],
        }
    }

    fn frame(dst: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [&dst.0[..], &[2, 0, 0, 0, 0, 9], &kind.to_be_bytes(), payload].concat();
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn arp(target: Ipv4Addr) -> Vec<u8> {
        let fixed = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0];
        frame(Mac::BROADCAST, 0x0806, &[&fixed[..], &target.octets()].concat())
    }

    fn icmpv6(kind: u8, target: &str) -> Vec<u8> {
        let target: Ipv6Addr = target.parse().unwrap();
        let [.., a, b, c] = target.octets();
        let mut payload = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
        payload.extend([0; 32]);
        payload.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend(target.octets());
        frame(Mac([0x33, 0x33, 0xff, a, b, c]), 0x86dd, &payload)
    }

    #[test]
    fn the_host_gets_its_own_and_the_switch_all_else() {
        let mut other = HOST;
        other.0[5] = 2;
        let mut short_arp = arp(Ipv4Addr::new(192, 0, 2, 1));
        short_arp.truncate(40);
        let table = [
            (frame(HOST, 0x0800, &[]), true),
            (frame(HOST, 0x8100, &[]), true),
            (frame(other, 0x0800, &[]), false),
            (frame(Mac::BROADCAST, 0x0800, &[]), false),
            (arp(Ipv4Addr::new(192, 0, 2, 1)), true),
            (arp(Ipv4Addr::new(198, 51, 100, 200)), true),
            (arp(Ipv4Addr::new(192, 0, 2, 2)), false),
            (short_arp, false),
            (icmpv6(135, "2001:db8::1"), true),
            (icmpv6(135, "fe80::ff:fe00:aa01"), true),
            (icmpv6(135, "2001:db8::2"), false),
            (icmpv6(135, "2001:db9::1"), false),
            (icmpv6(128, "2001:db8::1"), false),
        ];
        let (frames, expected): (Vec<_>, Vec<_>) = table.into_iter().unzip();
        if let Some(to_host) = verdicts(&Filter::Host(filter()), &frames) {
            assert_eq!(to_host, expected);
        }
    }

    #[test]
    fn a_host_without_addresses_gets_its_unicast_only() {
        let filter = HostFilter { mac: HOST, ..HostFilter::default() };
        let frames = [frame(HOST, 0x0800, &[]), arp(Ipv4Addr::UNSPECIFIED), icmpv6(135, "2001:db8::1")];
        if let Some(to_host) = verdicts(&Filter::Host(filter), &frames) {
            assert_eq!(to_host, [true, false, false]);
        }
    }

    fn ipv4(to: [u8; 4], protocol: u8, port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 9];
        packet.extend(to);
        packet.extend([0xc0, 0]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        frame(HOST, 0x0800, &packet)
    }

    fn udp6(to: &str, port: u16) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
        packet.extend([0; 16]);
        packet.extend(to.parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([0xc0, 0]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        frame(HOST, 0x86dd, &packet)
    }

    #[test]
    fn the_vtep_gets_its_own_and_the_host_all_else() {
        let v4 = Filter::Vtep(VtepFilter { local: Ipv4Addr::new(192, 0, 2, 10).into(), udp_port: 4789 });
        let table = [
            (arp(Ipv4Addr::new(192, 0, 2, 10)), false),
            (arp(Ipv4Addr::new(192, 0, 2, 1)), true),
            (ipv4([192, 0, 2, 10], 17, 4789), false),
            (ipv4([192, 0, 2, 10], 1, 0), false),
            (ipv4([192, 0, 2, 1], 17, 4789), true),
            (ipv4([239, 1, 1, 1], 17, 4789), false),
            (ipv4([239, 1, 1, 1], 17, 5353), true),
            (ipv4([239, 1, 1, 1], 6, 4789), true),
            (frame(HOST, 0x8100, &[]), true),
            (udp6("2001:db8::a", 4789), true),
        ];
        let v6 = Filter::Vtep(VtepFilter { local: "2001:db8::a".parse().unwrap(), udp_port: 4789 });
        let table6 = [
            (udp6("2001:db8::a", 4789), false),
            (udp6("2001:db8::b", 4789), true),
            (udp6("ff05::1", 4789), false),
            (udp6("ff05::1", 5353), true),
            (udp6("ff02::1:ff00:a", 9), false),
            (udp6("ff02::1:ff00:b", 9), true),
            (arp(Ipv4Addr::new(192, 0, 2, 10)), true),
            (frame(HOST, 0x86dd, &[]), true),
        ];
        for (filter, table) in [(v4, table.to_vec()), (v6, table6.to_vec())] {
            let (frames, expected): (Vec<_>, Vec<_>) = table.into_iter().unzip();
            if let Some(to_host) = verdicts(&filter, &frames) {
                assert_eq!(to_host, expected);
            }
        }
    }

    #[test]
    fn the_sink_counts_marked_frames_only() {
        let Ok(map) = Map::counters(1) else {
            eprintln!("skipped: bpf(2) needs privilege");
            return;
        };
        let program = Program::load(&count_marked(&map, Marked::Any)).unwrap();
        let marked = frame(HOST, 0x0800, &[&[0; 28][..], &MARKER, &[0; 20]].concat());
        let tagged = frame(HOST, 0x8100, &[&[0, 5, 8, 0][..], &[0; 28], &MARKER, &[0; 20]].concat());
        let other = frame(HOST, 0x0800, &[0; 60]);
        for (frame, verdict) in [(&marked, 1), (&tagged, 1), (&other, 2), (&marked, 1)] {
            assert_eq!(program.test_run(frame).unwrap(), verdict);
        }
        assert_eq!(map.counter(0).unwrap(), 3);
    }

    #[test]
    fn the_sink_of_a_source_counts_marked_frames_from_there_only() {
        let Ok(map) = Map::counters(1) else {
            eprintln!("skipped: bpf(2) needs privilege");
            return;
        };
        let program = Program::load(&count_marked(&map, Marked::From([192, 0, 2]))).unwrap();
        let packet = |source: [u8; 4], payload: &[u8]| {
            frame(HOST, 0x0800, &[&[0; 12][..], &source, &[0; 12], payload, &[0; 20]].concat())
        };
        let table = [
            (packet([192, 0, 2, 77], &MARKER), 1),
            (packet([192, 0, 3, 77], &MARKER), 2),
            (packet([192, 1, 2, 77], &MARKER), 2),
            (packet([10, 0, 2, 77], &MARKER), 2),
            (packet([192, 0, 2, 77], &[0; 4]), 2),
            (packet([192, 0, 2, 77], &MARKER)[..45].to_vec(), 2),
        ];
        for (frame, verdict) in table {
            assert_eq!(program.test_run(&frame).unwrap(), verdict, "{frame:02x?}");
        }
        assert_eq!(map.counter(0).unwrap(), 1);
    }

    #[test]
    fn the_sink_of_a_tunnel_counts_marked_frames_of_its_network_only() {
        let Ok(map) = Map::counters(1) else {
            eprintln!("skipped: bpf(2) needs privilege");
            return;
        };
        let program =
            Program::load(&count_marked(&map, Marked::InTunnel(Vni::new(0x01_e2_40).unwrap()))).unwrap();
        let marked = frame(HOST, 0x0800, &[&[0; 28][..], &MARKER, &[0; 20]].concat());
        let packet = |port, vni: [u8; 3], inner: &[u8]| {
            let [a, b, c] = vni;
            let mut packet = ipv4([192, 0, 2, 10], 17, port);
            packet.truncate(42);
            packet.extend([8, 0, 0, 0, a, b, c, 0]);
            [&packet[..], inner].concat()
        };
        let table = [
            (packet(4789, [1, 0xe2, 0x40], &marked), 1),
            (packet(4789, [1, 0xe2, 0x41], &marked), 2),
            (packet(4790, [1, 0xe2, 0x40], &marked), 2),
            (packet(4789, [1, 0xe2, 0x40], &frame(HOST, 0x0800, &[0; 60])), 2),
            (packet(4789, [1, 0xe2, 0x40], &marked[..45]), 2),
            (marked.clone(), 2),
        ];
        for (frame, verdict) in table {
            assert_eq!(program.test_run(&frame).unwrap(), verdict, "{frame:02x?}");
        }
        assert_eq!(map.counter(0).unwrap(), 1);
    }
}
