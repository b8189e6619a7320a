//! Many guests at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::client::run;
use super::*;

async fn storm(guests: u16, requests: u16, pause: Duration, world: client::World) -> Vec<Duration> {
    let world = Rc::new(world);
    let tasks = (0..guests).map(|n| {
        let world = Rc::clone(&world);
        tokio::task::spawn_local(async move {
            let mut times = Vec::new();
            // The guests are spread over the pause.
            tokio::time::sleep(pause * u32::from(n) / u32::from(guests)).await;
            for _ in 0..requests {
                let begin = Instant::now();
                let reply = world.get(n, "/openstack/latest/meta_data.json").await;
                times.push(begin.elapsed());
                tokio::time::sleep(pause.saturating_sub(begin.elapsed())).await;
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
        assert_eq!(storm(100, 3, Duration::ZERO, world.clone()).await.len(), 300);
        assert_eq!(world.counter("requests_2xx"), 300);
    });
}

#[test]
#[ignore = "a measurement: run with --release -- --ignored --nocapture"]
fn a_thousand_guests_measured() {
    run(1000, false, async |world| {
        for (pause, what) in [(0, "all at once, again and again"), (500, "each two times a second")] {
            let begin = Instant::now();
            let times = storm(1000, 10, Duration::from_millis(pause), world.clone()).await;
            let rate = times.len() as f64 / begin.elapsed().as_secs_f64();
            let at = |part: f64| times[(times.len() as f64 * part) as usize];
            println!("{what}: {rate:.0}/s, clients included; p50 {:?}, p99 {:?}", at(0.5), at(0.99));
        }
    });
}
