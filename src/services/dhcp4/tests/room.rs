//! Replies where room is short: options 57 and 52.

use super::*;

/// A lease with an option of each of these lengths, by code.
fn lease_of(lengths: &[(u8, usize)]) -> Lease {
    let extra = lengths.iter().map(|&(code, len)| Opt { code, value: vec![code; len] }).collect();
    let bare = Settings { prefix_len: 24, lease_time: 60, extra, ..Settings::default() };
    Lease::new(CLIENT, ADDRESS, &bare)
}

fn told_of(ask: &Ask, lengths: &[(u8, usize)]) -> Told {
    told_by(ask, &[lease_of(lengths)]).unwrap().1
}

#[test]
fn rfc_2131_2_a_client_that_says_nothing_gets_at_most_576_bytes() {
    let lengths = [(200, 100), (201, 100), (202, 100), (203, 100)];
    let asked = [200, 201, 202, 203];
    let told = told_of(&discover().asking(&asked), &lengths);
    assert!(told.packet_len <= 576);
    assert_eq!(told.option(52), Some(&[1][..]), "one hundred fit in `file`, none in `sname`");
    assert_eq!(asked.map(|code| told.option(code).is_some()), [true, true, true, false]);
}

#[test]
fn rfc_2132_9_10_a_client_says_how_much_it_takes_in() {
    let lengths = [(200, 100), (201, 100), (202, 100), (203, 100)];
    let of = |size: u16| {
        told_of(&discover().asking(&[200, 201, 202, 203]).with(57, &size.to_be_bytes()), &lengths)
    };
    assert_eq!((of(1500).option(52), of(1500).codes.len()), (None, 6 + 1 + 4 - 1));
    assert_eq!((of(0).packet_len, of(575).packet_len), (of(576).packet_len, of(576).packet_len));
    let (exact, short) = (of(1500).packet_len, u16::try_from(of(1500).packet_len).unwrap());
    assert_eq!((of(short).packet_len, of(short).option(52)), (exact, None));
    assert_eq!(of(short - 1).option(52), Some(&[1][..]));
    // The link's MTU counts as well.
    let mut reply = Vec::new();
    let ask = discover().with(57, &[0xff, 0xff]);
    let long = lease_of(&[(200, 1000), (201, 1000)]);
    answer(&ask.frame(), &[long], 1450, &mut reply).unwrap();
    assert!(Told::read(&reply, CLIENT).packet_len <= 1450);
}

#[test]
fn the_most_important_options_stay_in_their_field_and_others_go_elsewhere() {
    // 3 is asked for last and matters more than 200 and 201.
    let lengths = [(3, 8), (200, 120), (201, 40), (202, 200)];
    let told = told_of(&discover().asking(&[202, 201, 200, 3]), &lengths);
    assert_eq!(told.codes, [53, 54, 51, 58, 59, 52, 1, 202, 201, 3, 200]);
    assert_eq!((told.option(52), told.file[0]), (Some(&[1][..]), 200));
    let told =
        told_of(&discover().asking(&[202, 200, 201, 203]), &[(200, 110), (201, 40), (202, 250), (203, 50)]);
    assert_eq!(told.option(52), Some(&[3][..]));
    assert_eq!((told.file[0], told.sname[0]), (200, 201), "an end stands behind both");
    assert_eq!(told.option(203), None);
}

#[test]
fn boot_names_become_options_where_their_fields_are_taken() {
    let settings = Settings {
        extra: vec![
            Opt { code: 67, value: b"boot".to_vec() },
            Opt { code: 66, value: b"server".to_vec() },
            Opt { code: 200, value: vec![200; 230] },
            Opt { code: 201, value: vec![201; 100] },
        ],
        ..settings()
    };
    let told = told_with(&discover().asking(&[200, 201]), &settings);
    assert_eq!((told.option(52), told.file[0]), (Some(&[1][..]), 201));
    assert_eq!((told.option(67), told.option(66)), (Some(&b"boot"[..]), Some(&b"server"[..])));
    assert!(told.sname.starts_with(b"server\0"), "its field is free");
}

proptest! {
    /// No reply is longer than its client, its link and the RFC allow; and what it says is what is configured.
    #[test]
    fn replies_are_never_longer_than_allowed(
        lengths in prop::collection::btree_map(60u8..=250, 0usize..300, 0..12), asked in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        size in prop::option::of(any::<u16>()), mtu in 576u16..2000, id in prop::option::of(2usize..=255), relay in prop::option::of(0usize..500),
        kind in prop::sample::select(vec![MessageType::Discover, MessageType::Request, MessageType::Inform]), wrong: bool,
    ) {
        let lengths: Vec<(u8, usize)> = lengths.into_iter().filter(|(code, _)| !dhcp4::is_reserved(*code)).collect();
        let lease = lease_of(&lengths);
        let mut ask = Ask::new(kind);
        ask = if kind == MessageType::Inform { ask.has(ADDRESS) } else { ask.wants(if wrong { SECOND } else { ADDRESS }) };
        ask = asked.iter().fold(ask, |ask, asked| ask.asking(asked));
        ask = size.iter().fold(ask, |ask, size| ask.with(57, &size.to_be_bytes()));
        ask = id.iter().fold(ask, |ask, id| ask.with(61, &vec![1; *id]));
        ask = relay.iter().fold(ask, |ask, len| ask.with(82, &vec![2; *len]));
        let mut reply = Vec::new();
        answer(&ask.frame(), &[lease], mtu, &mut reply).unwrap();
        let told = Told::read(&reply, CLIENT);
        prop_assert!(told.packet_len <= usize::from(size.unwrap_or(0).max(576).min(mtu)));
        prop_assert_eq!(told.option(61).map(<[u8]>::len), id);
        if told.kind() != MessageType::Nak {
            prop_assert_eq!(told.option(1), Some(&[255, 255, 255, 0][..]));
            for (code, len) in lengths {
                prop_assert!(told.option(code).is_none_or(|value| value == vec![code; len]));
            }
        }
    }
}
