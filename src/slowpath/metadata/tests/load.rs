//! Many guests at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::client::run;
use super::*;

async fn storm(guests: u16, requests: u16, world: client::World) -> Vec<Duration> {
    let world = Rc::new(world);
    let tasks = (0..guests).map(|n| {
        let world = Rc::clone(&world);
        tokio::task::spawn_local(async move {
            let mut times = Vec::new();
            for _ in 0..requests {
                let begin = Instant::now();
                let reply = world.get(n, "/openstack/latest/meta_data.json").await;
                times.push(begin.elapsed());
                assert!(reply.body.contains(&format!("\"guest-{n}\"")));
            }
            times
        })
    });
    let mut times = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        times.extend(task.await.unwrap());
    }
    times.sort();
    times
}

#[test]
fn a_hundred_guests_at_once_are_all_served() {
    run(100, true, async |world| {
        assert_eq!(storm(100, 3, world.clone()).await.len(), 300);
        assert_eq!(world.counter("requests_2xx"), 300);
    });
}

#[test]
#[ignore = "a measurement: run with --release -- --ignored --nocapture"]
fn a_thousand_guests_measured() {
    run(1000, false, async |world| {
        let begin = Instant::now();
        let times = storm(1000, 10, world).await;
        let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
        let at = |part: f64| times[(times.len() as f64 * part) as usize];
        println!(
            "{} requests, {rate:.0}/s, clients included; p50 {:?}, p99 {:?}",
            times.len(),
            at(0.5),
            at(0.99)
        );
    });
}
