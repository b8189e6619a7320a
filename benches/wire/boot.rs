//! Guests that boot at once, or one after the other: each asks for its address and then for its metadata.
//!
//! `boot --config GUESTS` prints the ports that the switch must have; `boot GUESTS GAP-US` plays the guests, each so many
//! microseconds after the one before, in the namespace where the switch is, and prints what they saw, as JSON.

use std::error::Error;
use std::time::Duration;

use guests::{Booted, percentile};
use serde_json::json;

mod guests;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--config", guests] => print!("{}", guests::configuration(guests.parse()?)),
        [guests, gap] => {
            let (guests, gap) = (guests.parse()?, Duration::from_micros(gap.parse()?));
            let patience = Duration::from_secs(60) + gap * u32::from(guests);
            let outcome = guests::boot(guests, gap, patience)?;
            let booted = outcome.into_iter().collect::<Result<Vec<Booted>, String>>()?;
            let times = |of: fn(&Booted) -> Duration| {
                let times: Vec<Duration> = booted.iter().map(of).collect();
                [50, 99, 100].map(|percent| percentile(times.clone(), percent).as_secs_f64())
            };
            let repeated: u32 = booted.iter().map(|guest| guest.messages - 2).sum();
            let (lease, metadata) = (times(|guest| guest.lease), times(|guest| guest.metadata));
            println!("{}", json!({ "lease": lease, "metadata": metadata, "repeated": repeated }));
        }
        _ => return Err("usage: boot --config GUESTS | boot GUESTS GAP-US".into()),
    }
    Ok(())
}
