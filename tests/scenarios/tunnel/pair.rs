//! Two switches and a wire between them: what goes into a tunnel at one comes out at the other, the same, in its network alone.

use nuswitch::frame::Offload;
use proptest::prelude::*;

use super::super::frames::{Kind, Wire, packet as whole, partial};
use super::super::switch::{ABLE, PLAIN};
use super::*;

/// The switch with VTEP `n`, whose peer is `peer`; a guest in each of two networks.
fn switch(v4: bool, n: u8, peer: u8, vnis: [u32; 2], able: bool) -> Switch {
    let vtep = |n: u8| if v4 { format!("192.0.2.{n}") } else { format!("2001:db8::{n}") };
    let mut text = format!(
        "[overlay]\ninterface = \"under\"\nlocal_ip = \"{}/{}\"\npeers = [\"{}\"]\n",
        vtep(n),
        if v4 { 24 } else { 64 },
        vtep(peer)
    );
    for (network, (vni, guest)) in vnis.into_iter().zip(["a", "c"]).enumerate() {
        text += &format!(
            "[[network]]\nname = \"n{network}\"\nnetwork_type = \"vxlan\"\nsegmentation_id = {vni}\n\
             [[port]]\nname = \"{guest}\"\nnetwork = \"n{network}\"\nport_security_enabled = false\ninterface = {{ kind = \"tap\", name = \"{guest}\" }}\n"
        );
    }
    let caps = if able { ABLE } else { PLAIN };
    let mut switch = Build::from(&text).caps("overlay", caps).chunks(64, 4).start();
    let said = match vtep(n).parse().unwrap() {
        IpAddr::V4(target) => {
            let (operation, sender) = (Operation::Reply, vtep(peer).parse().unwrap());
            let arp = Arp { operation, sender_mac: PEER_MAC, sender, target_mac: VTEP_MAC, target };
            arp.message(VTEP_MAC).to_vec()
        }
        IpAddr::V6(target) => {
            nd::advertisement(PEER_MAC, vtep(peer).parse().unwrap(), Some((target, VTEP_MAC)), false).to_vec()
        }
    };
    switch.send("overlay", said);
    switch.forget();
    switch
}

/// Carries what one switch sends to the other; the wire's MACs are those of whoever is in between.
fn carry(from: &mut Switch, to: &mut Switch) {
    for wire in from.take_all("overlay") {
        to.send("overlay", wire.patch(0, &[VTEP_MAC.0, PEER_MAC.0].concat()));
    }
}

fn station() -> impl Strategy<Value = Mac> {
    any::<[u8; 5]>().prop_map(|[b, c, d, e, f]| Mac([0x52, b, c, d, e, f]))
}

/// A frame, and what it is when its checksum is finished.
fn any_frame() -> impl Strategy<Value = (Wire, Wire)> {
    let types = prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x0806), 0x0600u16..=0xffff];
    let raw = (types, prop::collection::vec(any::<u8>(), 0..1400))
        .prop_filter("a tag", |(ethertype, _)| ![0x8100, 0x88a8].contains(ethertype))
        .prop_map(|(ethertype, payload)| {
            let bytes = [&[0; 12][..], &ethertype.to_be_bytes(), &payload].concat();
            (bytes.clone().wire(), bytes.wire())
        });
    let kinds = prop_oneof![Just(Kind::Tcp4), Just(Kind::Tcp6), Just(Kind::Udp4), Just(Kind::Udp6)];
    let sound = (kinds, 0..1370usize, any::<bool>()).prop_map(|(kind, len, unfinished)| {
        let sent = if unfinished { partial(kind, len) } else { whole(kind, len) };
        (sent, whole(kind, len))
    });
    prop_oneof![raw, sound]
}

/// A frame out of a tunnel may have a note that says that its checksum is one of a sender that left it to a device.
fn same(got: &Wire, sent: &Wire, finished: &Wire) -> bool {
    got.bytes == sent.bytes || (got.bytes == finished.bytes && got.offload == Offload::NONE)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(
        v4 in any::<bool>(),
        able in any::<bool>(),
        vnis in (1u32..0xff_ffff, 1u32..0xff_ffff).prop_filter("one network", |(a, b)| a != b),
        stations in (station(), station()).prop_filter("one station", |(a, b)| a != b),
        frames in prop::collection::vec((any_frame(), any::<bool>(), 0..3usize), 1..8),
    ) {
        let vnis = [vnis.0, vnis.1];
        let mut near = switch(v4, 10, 11, vnis, able);
        let mut far = switch(v4, 11, 10, vnis, able);
        for ((sent, finished), forth, to) in frames {
            let (source, destination) = if forth { (stations.0, stations.1) } else { (stations.1, stations.0) };
            let to = [destination, BROADCAST, mac(0x55)][to];
            let macs = [to.0, source.0].concat();
            let (sent, finished) = (sent.patch(0, &macs), finished.patch(0, &macs));
            let (from, at) = if forth { (&mut near, &mut far) } else { (&mut far, &mut near) };
            from.send("a", sent.clone());
            carry(from, at);
            let got = at.take("a");
            prop_assert!(same(&got, &sent, &finished), "{got:?} out of {sent:?}");
            at.expect_nothing("c");
            at.expect_nothing("overlay");
            from.expect_nothing("a");
            prop_assert_eq!(at.knows("n0", source).is_some(), true);
            prop_assert_eq!(at.knows("n1", source), None);
        }
        near.forget();
        far.forget();
    }
}
