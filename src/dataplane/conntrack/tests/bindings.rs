//! Bindings against a naive model, and requirement by requirement.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::binding::{BindingRef, Inside, NoBinding, Outside, Slice};
use super::*;

const POOL: u32 = 0xc633_6401;

fn inside(host: u32, port: u16) -> Inside {
    Inside { zone: 1, protocol: 17, address: 0x0a00_0000 | host, port }
}

fn one_address() -> Bindings {
    let mut bindings = Bindings::new(70_000, 5);
    bindings.set_pool(1, &[POOL], Slice::WHOLE);
    bindings
}

fn outside(bindings: &mut Bindings, inside: Inside) -> Outside {
    let binding = bindings.acquire(&inside).unwrap();
    bindings.outside(binding).unwrap()
}

#[test]
fn rfc4787_req1_one_mapping_for_all_destinations() {
    let mut bindings = one_address();
    let first = bindings.acquire(&inside(1, 5000)).unwrap();
    assert_eq!(bindings.acquire(&inside(1, 5000)), Ok(first));
    let got = bindings.get(first).unwrap();
    assert_eq!((got.sessions, got.inside, got.is_current), (2, inside(1, 5000), true));
    assert_eq!(bindings.find(&inside(1, 5000)), Some(first));
    assert_eq!(bindings.find_outside(1, 17, got.outside), Some(first));
    assert_eq!(bindings.find_outside(2, 17, got.outside), None);
    assert_eq!(bindings.find_outside(1, 6, got.outside), None);
    assert!(bindings.find(&Inside { zone: 2, ..inside(1, 5000) }).is_none());
    bindings.release(first);
    assert_eq!(bindings.len(), 1);
    bindings.release(first);
    assert!(bindings.is_empty() && bindings.find(&inside(1, 5000)).is_none());
    assert_eq!(bindings.find_outside(1, 17, got.outside), None);
    assert_eq!(bindings.usage(1)[0].udp, (0, 65_535));
}

#[test]
fn rfc4787_req2_a_host_has_all_its_bindings_at_one_address() {
    let mut bindings = Bindings::new(70_000, 5);
    let pool: Vec<u32> = (0..4).map(|n| POOL + n).collect();
    bindings.set_pool(1, &pool, Slice::WHOLE);
    let mut used = HashMap::new();
    for host in 0..200 {
        let addresses: HashSet<u32> = [(17, 1), (17, 3000), (6, 4000), (1, 9)]
            .map(|(protocol, port)| outside(&mut bindings, Inside { protocol, ..inside(host, port) }).address)
            .into();
        assert_eq!(addresses.len(), 1);
        *used.entry(addresses.into_iter().next().unwrap()).or_insert(0) += 1;
    }
    assert!(used.len() == 4 && used.values().all(|hosts| *hosts > 20), "hosts are spread: {used:?}");
}

#[test]
fn rfc4787_req3_and_req4_ports_are_kept_or_stay_alike() {
    let mut bindings = one_address();
    assert_eq!(outside(&mut bindings, inside(1, 5000)), Outside { address: POOL, port: 5000 });
    assert_eq!(outside(&mut bindings, inside(1, 80)).port, 80);
    for host in 2..200 {
        let even = outside(&mut bindings, inside(host, 5000)).port;
        let low = outside(&mut bindings, inside(host, 81)).port;
        assert!(even >= 1024 && even.is_multiple_of(2) && low < 1024 && low % 2 == 1, "{even} {low}");
    }
    // Of another protocol the same port is free (and must be: no port is given twice).
    assert_eq!(outside(&mut bindings, Inside { protocol: 6, ..inside(7, 5000) }).port, 5000);
}

#[test]
fn rfc6056_ports_are_spread_and_depend_on_the_seed() {
    let ports = |seed: u64| -> Vec<u16> {
        let mut bindings = Bindings::new(1000, seed);
        bindings.set_pool(1, &[POOL], Slice::WHOLE);
        (0..100).map(|host| outside(&mut bindings, inside(host, 5000)).port).collect()
    };
    let (a, b) = (ports(1), ports(2));
    assert!(a.iter().zip(&b).filter(|(a, b)| a == b).count() < 5);
    let quarters: HashSet<u16> = a.iter().map(|port| port / 16_384).collect();
    assert_eq!(quarters.len(), 4);
    assert!(a.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 64).count() < 10, "none follows another");
}

#[test]
fn exhaustion_is_told_and_ends() {
    let mut bindings = one_address();
    let high: Vec<BindingRef> =
        (0..64_512).map(|host| bindings.acquire(&inside(host, 4000)).unwrap()).collect();
    assert_eq!(bindings.acquire(&inside(70_000, 4000)), Err(NoBinding::Exhausted));
    assert!(bindings.acquire(&inside(70_000, 53)).is_ok(), "privileged ports are others");
    assert_eq!((bindings.exhausted(1), bindings.usage(1)[0].udp.0), (1, 64_513));
    let freed = bindings.outside(high[777]).unwrap();
    bindings.release(high[777]);
    assert_eq!(outside(&mut bindings, inside(70_000, 4000)), freed, "the only one left");
    assert_eq!(bindings.acquire(&Inside { zone: 3, ..inside(1, 1) }), Err(NoBinding::NoPool));
    let mut few = Bindings::new(1, 5);
    few.set_pool(1, &[POOL], Slice::WHOLE);
    assert!(few.acquire(&inside(1, 1)).is_ok() && few.acquire(&inside(1, 2)).is_ok());
    assert_eq!(few.acquire(&inside(1, 3)), Err(NoBinding::Full));
}

#[test]
fn rfc6888_req4_one_host_does_not_get_all_ports() {
    let mut bindings = one_address();
    bindings.set_host_limit(100);
    let held: Vec<BindingRef> = (0..100).map(|port| bindings.acquire(&inside(1, port)).unwrap()).collect();
    assert_eq!(bindings.acquire(&inside(1, 100)), Err(NoBinding::HostLimit));
    assert!(bindings.acquire(&inside(1, 99)).is_ok(), "it has that one already");
    assert!(bindings.acquire(&inside(2, 100)).is_ok());
    bindings.release(held[0]);
    assert!(bindings.acquire(&inside(1, 100)).is_ok());
}

#[test]
fn a_protocol_without_ports_is_one_hosts() {
    let mut bindings = one_address();
    let gre = |host: u32, port: u16| Inside { protocol: 47, ..inside(host, port) };
    let binding = bindings.acquire(&gre(1, 77)).unwrap();
    assert_eq!(bindings.acquire(&gre(1, 78)), Ok(binding), "what stands where ports would is none");
    assert_eq!(bindings.acquire(&gre(2, 0)), Err(NoBinding::Exhausted));
    assert_eq!(bindings.find_outside(1, 47, Outside { address: POOL, port: 0 }), Some(binding));
    assert!(bindings.acquire(&Inside { protocol: 50, ..inside(2, 0) }).is_ok());
    for _ in 0..2 {
        bindings.release(binding);
    }
    assert!(bindings.acquire(&gre(2, 0)).is_ok());
    let mut third = Bindings::new(100, 5);
    third.set_pool(1, &[POOL], Slice::new(2, 3).unwrap());
    assert!(third.acquire(&gre(1, 0)).is_ok(), "47 is of worker 2 of 3");
    assert_eq!(third.acquire(&Inside { protocol: 50, ..gre(1, 0) }), Ok(BindingRef::from_number(2).unwrap()));
    assert_eq!(third.acquire(&Inside { protocol: 51, ..gre(1, 0) }), Err(NoBinding::Elsewhere(0)));
}

#[test]
fn workers_never_give_the_same_port() {
    let mut taken = HashSet::new();
    for worker in 0..3 {
        let slice = Slice::new(worker, 3).unwrap();
        let mut bindings = Bindings::new(10_000, 5);
        bindings.set_pool(1, &[POOL], slice);
        for host in 0..5_000 {
            let port = outside(&mut bindings, inside(host, 5001)).port;
            assert!(slice.owner(port) == worker && port % 2 == 1 && taken.insert(port));
        }
    }
}

#[test]
fn a_pool_changes_and_bindings_that_are_still_valid_stay() {
    let mut bindings = Bindings::new(1000, 5);
    bindings.set_pool(1, &[POOL, POOL + 1], Slice::WHOLE);
    let all: Vec<(Inside, BindingRef)> =
        (0..40).map(|host| (inside(host, 5000), bindings.acquire(&inside(host, 5000)).unwrap())).collect();
    let before: Vec<Outside> = all.iter().map(|(_, binding)| bindings.outside(*binding).unwrap()).collect();
    bindings.set_pool(1, &[POOL + 1, POOL + 2], Slice::WHOLE);
    assert!(!bindings.has_address(1, POOL) && bindings.has_address(1, POOL + 2));
    for ((inside, binding), before) in all.iter().zip(&before) {
        let stays = before.address == POOL + 1;
        assert_eq!(bindings.outside(*binding), Some(*before), "those who hold it may look");
        assert_eq!(bindings.is_current(*binding), stays);
        assert_eq!(bindings.find(inside), stays.then_some(*binding));
        assert_eq!(bindings.find_outside(1, 17, *before), stays.then_some(*binding));
    }
    // The address comes back, while sessions still hold what was there before.
    bindings.set_pool(1, &[POOL], Slice::WHOLE);
    assert!(bindings.usage(1)[0].udp.0 == 0 && all.iter().all(|(_, binding)| !bindings.is_current(*binding)));
    let new = bindings.acquire(&all[0].0).unwrap();
    assert!(new != all[0].1 && bindings.outside(new).is_some_and(|outside| outside.port == 5000));
    for (_, binding) in all {
        bindings.release(binding);
    }
    assert_eq!((bindings.len(), bindings.usage(1)[0].udp.0), (1, 1));
    bindings.set_pool(1, &[], Slice::WHOLE);
    assert_eq!(bindings.acquire(&inside(1, 1)), Err(NoBinding::NoPool));
    bindings.release(new);
    assert!(bindings.is_empty());
}

proptest! {
    #[test]
    fn equals_a_naive_model(
        steps in proptest::collection::vec((0u32..6, 0u16..4, 0usize..4, 0u8..5, 0u8..40), 1..300),
        seed in any::<u64>(),
    ) {
        let mut bindings = Bindings::new(1000, seed);
        let mut pool = vec![POOL, POOL + 1];
        bindings.set_pool(1, &pool, Slice::WHOLE);
        // What is held, by whom, and which of it can be found.
        let mut held: Vec<(Inside, BindingRef, Outside)> = Vec::new();
        let mut current: HashMap<Inside, BindingRef> = HashMap::new();
        for (host, port, protocol, what, n) in steps {
            let port = [0, 80, 5000, 5001][usize::from(port)];
            let protocol = [6, 17, 1, 47][protocol];
            let wanted = Inside { zone: 1, protocol, address: host, port: if protocol == 47 { 0 } else { port } };
            match what {
                0..3 => match bindings.acquire(&wanted) {
                    Ok(binding) => {
                        let got = bindings.get(binding).unwrap();
                        prop_assert_eq!(*current.entry(wanted).or_insert(binding), binding);
                        prop_assert!(pool.contains(&got.outside.address));
                        for (other, held, outside) in &held {
                            // Nobody else's, and at the address that the host has.
                            let same_end = *outside == got.outside && other.protocol == protocol;
                            prop_assert!(!same_end || *held == binding || !bindings.is_current(*held));
                            if other.address == host && bindings.is_current(*held) {
                                prop_assert_eq!(outside.address, got.outside.address);
                            }
                        }
                        held.push((wanted, binding, got.outside));
                    }
                    Err(error) => {
                        prop_assert_eq!(error, NoBinding::Exhausted);
                        prop_assert!(protocol == 47 && !current.contains_key(&wanted));
                    }
                },
                3 if !held.is_empty() => {
                    let (inside, binding, _) = held.swap_remove(usize::from(n) % held.len());
                    bindings.release(binding);
                    if !held.iter().any(|(_, other, _)| *other == binding) && current.get(&inside) == Some(&binding) {
                        current.remove(&inside);
                    }
                }
                4 if n < 4 => {
                    pool = [vec![POOL], vec![POOL + 1], vec![POOL, POOL + 1], vec![POOL + 2, POOL]][usize::from(n)].clone();
                    bindings.set_pool(1, &pool, Slice::WHOLE);
                    current.retain(|_, binding| {
                        held.iter().any(|(_, held, outside)| held == binding && pool.contains(&outside.address))
                    });
                }
                _ => {}
            }
            for host in 0..6 {
                for (protocol, port) in [(6, 80), (17, 5000), (1, 0), (47, 0)] {
                    let inside = Inside { zone: 1, protocol, address: host, port };
                    prop_assert_eq!(bindings.find(&inside), current.get(&inside).copied());
                }
            }
            for (inside, binding, outside) in &held {
                let sessions = held.iter().filter(|(_, other, _)| other == binding).count();
                let got = bindings.get(*binding).unwrap();
                prop_assert_eq!((got.inside, got.outside, got.sessions as usize), (*inside, *outside, sessions));
                let is_current = current.get(inside) == Some(binding);
                prop_assert_eq!(got.is_current, is_current);
                let found = bindings.find_outside(1, inside.protocol, *outside);
                prop_assert_eq!(found == Some(*binding), is_current);
            }
            let distinct: HashSet<BindingRef> = held.iter().map(|(_, binding, _)| *binding).collect();
            prop_assert_eq!(bindings.len() as usize, distinct.len());
        }
        for (_, binding, _) in held {
            bindings.release(binding);
        }
        prop_assert!(bindings.is_empty());
        for usage in bindings.usage(1) {
            prop_assert_eq!((usage.tcp.0, usage.udp.0, usage.icmp.0), (0, 0, 0));
        }
    }
}
