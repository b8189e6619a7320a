//! Five hundred ports at once.

use crate::lab::{Lab, Namespace};

const NAMESPACES: usize = 5;
const PORTS_EACH: usize = 100;

#[test]
fn five_hundred_taps() {
    needs_system!();
    let mut lab = Lab::with_network(1500);
    let spaces: Vec<Namespace> =
        (0..NAMESPACES).map(|number| Namespace::new(&format!("m{number}"))).collect();
    for (number, space) in spaces.iter().enumerate() {
        for port in 0..PORTS_EACH {
            // Each in a subnet of its own with its partner in the next namespace, so that the kernel must go by the wire.
            let (low, high) = (number / 2 * PORTS_EACH + port, number % 2 + 1);
            let address = format!("10.{}.{}.{high}/24", 100 + low / 200, low % 200);
            let interface = format!(
                "kind = \"tap\", name = \"t{port}\", netns = \"{}\", address = \"{address}\"",
                space.name
            );
            lab.port(&format!("p{number}-{port}"), "network = \"blue\"", &interface);
        }
    }
    let start = std::time::Instant::now();
    lab.start();
    println!("{} ports are active after {:?}", NAMESPACES * PORTS_EACH, start.elapsed());
    let ports = lab.ports();
    assert_eq!(ports.len(), NAMESPACES * PORTS_EACH);
    assert!(ports.iter().all(|port| port["status"] == "ACTIVE"));
    for port in [0, 1, 42, 99] {
        let mut ping = spaces[0].command("ping");
        let output = ping
            .args(["-n", "-q", "-c", "3", "-i", "0.2", "-w", "30", &format!("10.100.{port}.2")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{port}: {}", crate::lab::text(&output));
    }
    let start = std::time::Instant::now();
    lab.stop();
    println!("stopped after {:?}", start.elapsed());
    for space in &spaces {
        assert!(space.devices().is_empty(), "{:?}", space.devices());
    }
}
