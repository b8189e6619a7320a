//! A thousand guests that boot at the same moment: power comes back to a host.

use std::time::{Duration, Instant};

use crate::guests::{Booted, boot, configuration, percentile};
use crate::lab::{Lab, PATIENCE};

const GUESTS: u16 = 1000;

#[test]
fn a_thousand_guests_boot_at_once() {
    needs_system!();
    let mut lab = Lab::new();
    lab.add(&configuration(GUESTS));
    let begin = Instant::now();
    lab.start();
    println!("{GUESTS} guest ports are active after {:?}", begin.elapsed());

    let outcome = lab.ns.within(|| boot(GUESTS, Duration::ZERO, 3 * PATIENCE)).unwrap();
    let wrong: Vec<&String> = outcome.iter().filter_map(|guest| guest.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{} of {GUESTS}, as {:?}\n{}", wrong.len(), wrong[0], lab.show("drops"));
    let booted: Vec<Booted> = outcome.into_iter().flatten().collect();
    for (what, times) in [
        ("an address", booted.iter().map(|guest| guest.lease).collect::<Vec<_>>()),
        ("metadata", booted.iter().map(|guest| guest.metadata).collect()),
    ] {
        let [half, most, all] = [50, 99, 100].map(|percent| percentile(times.clone(), percent));
        println!("{what} after: half {half:?}, 99 of 100 {most:?}, all {all:?}");
    }
    println!("DHCP messages sent again: {}", booted.iter().map(|guest| guest.messages - 2).sum::<u32>());
    // A clean stop takes away a thousand TAPs one by one, each in some of the kernel's grace periods; they go with their namespace.
    let begin = Instant::now();
    lab.kill();
    println!("gone after {:?}", begin.elapsed());
}
