//! The fuzz targets on stable Rust: every seed, every crash that was ever found (`tests/crashes/TARGET-*`), and some
//! thousand arbitrary inputs, so that each property of a target is a property of every `cargo test`.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::cast_possible_truncation)]

#[path = "../fuzz/targets/api.rs"]
mod api;
#[path = "../fuzz/targets/config.rs"]
mod config;
#[path = "../fuzz/targets/conntrack.rs"]
mod conntrack;
#[path = "../fuzz/targets/decap.rs"]
mod decap;
#[path = "../fuzz/targets/dhcp4.rs"]
mod dhcp4;
#[path = "../fuzz/targets/dhcp6.rs"]
mod dhcp6;
#[path = "../fuzz/targets/fragments.rs"]
mod fragments;
#[path = "../fuzz/targets/groups.rs"]
mod groups;
#[path = "../fuzz/targets/guard.rs"]
mod guard;
#[path = "../fuzz/targets/host.rs"]
mod host;
#[path = "../fuzz/targets/icmp_error.rs"]
mod icmp_error;
#[path = "../fuzz/targets/input.rs"]
mod input;
#[path = "../fuzz/targets/metadata.rs"]
mod metadata;
#[path = "../fuzz/targets/offload.rs"]
mod offload;
#[path = "../fuzz/targets/packets.rs"]
mod packets;
#[path = "../fuzz/targets/parse.rs"]
mod parse;
#[path = "../fuzz/targets/process.rs"]
mod process;
#[path = "../fuzz/targets/router.rs"]
mod router;

use std::path::Path;

use proptest::prelude::*;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 16] = [
    ("api", api::run),
    ("config", config::run),
    ("conntrack", conntrack::run),
    ("decap", decap::run),
    ("dhcp4", dhcp4::run),
    ("dhcp6", dhcp6::run),
    ("fragments", fragments::run),
    ("groups", groups::run),
    ("guard", guard::run),
    ("host", host::run),
    ("icmp_error", icmp_error::run),
    ("metadata", metadata::run),
    ("offload", offload::run),
    ("parse", parse::run),
    ("process", process::run),
    ("router", router::run),
];

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[test]
fn crashes_stay_fixed() {
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crashes")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "README.md" {
            continue;
        }
        let (_, run) = TARGETS.iter().find(|(target, _)| name.starts_with(&format!("{target}-"))).unwrap();
        println!("{name}");
        run(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn seeds_pass() {
    for (target, run) in TARGETS {
        let seeds = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for path in seeds {
            println!("{}", path.display());
            run(&std::fs::read(path).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, max_shrink_iters: 5000, ..ProptestConfig::default() })]

    #[test]
    fn frames_keep_to_their_networks_and_end_once(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        process::run(&data);
    }

    #[test]
    fn tunnel_packets_come_out_in_their_network_or_not_at_all(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        decap::run(&data);
    }

    #[test]
    fn routers_show_nobody_inside_and_keep_nothing(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        router::run(&data);
    }

    #[test]
    fn connections_and_bindings_are_those_of_naive_maps(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        conntrack::run(&data);
    }

    #[test]
    fn fragments_are_those_of_a_naive_list(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        fragments::run(&data);
    }

    #[test]
    fn guests_claim_nothing_that_is_not_theirs(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        guard::run(&data);
    }

    #[test]
    fn security_groups_are_a_list_of_rules_and_a_set_of_connections(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        groups::run(&data);
    }

    #[test]
    fn icmp_errors_are_translated_and_written_soundly(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        icmp_error::run(&data);
    }

    #[test]
    fn the_underlays_host_is_bounded_and_speaks_well(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        host::run(&data);
    }

    #[test]
    fn dhcp_clients_get_sound_replies_and_no_address_twice(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        dhcp4::run(&data);
    }

    #[test]
    fn dhcpv6_clients_get_a_sound_answer_or_none(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        dhcp6::run(&data);
    }

    #[test]
    fn metadata_is_bounded_and_for_each_guest_alone(data in proptest::collection::vec(any::<u8>(), 0..700)) {
        metadata::run(&data);
    }

    #[test]
    fn offload_notes_are_carried_out_or_refused(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        offload::run(&data);
    }

    #[test]
    fn headers_are_read_or_refused(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse::run(&data);
    }
}

/// Arbitrary bytes do make switches that forward, flood and drop: else the properties above would say nothing.
#[test]
fn arbitrary_inputs_reach_every_end() {
    reaches("frames forwarded, flooded, dropped", process::reach);
    reaches("frames by a router, answered, dropped", router::reach);
    reaches("connections begun, evicted, over", conntrack::reach);
    reaches("fragments passed, waiting, dropped", fragments::reach);
    reaches("guests' frames passed, spoofed, refused", guard::reach);
    reaches("packets by rules, by connections, dropped", groups::reach);
    reaches("ICMP errors translated, written, refused", icmp_error::reach);
    reaches("frames out of tunnels, left by guests' ports, answered", decap::reach);
    reaches("DHCP offered or granted, denied, refused", dhcp4::reach);
    reaches("messages of DHCPv6 answered, answered by relay agents, refused", dhcp6::reach);
    reaches("frames sent, connections, requests answered", metadata::reach);
    reaches("messages sent, frames released, paths heard of", host::reach);
}

fn reaches(what: &str, reach: fn(&[u8]) -> [u64; 3]) {
    let (mut state, mut ends) = (0x9e37_79b9_7f4a_7c15u64, [0; 3]);
    for _ in 0..500 {
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let data: Vec<u8> = (0..700).map(|_| byte()).collect();
        for (sum, count) in ends.iter_mut().zip(reach(&data)) {
            *sum += count;
        }
    }
    println!("{what}: {ends:?}");
    assert!(ends.iter().all(|count| *count > 20), "{what}: {ends:?}");
}
