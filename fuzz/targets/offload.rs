//! Any frame with any offload note: what `check` lets pass is carried out without a panic, for any device; what leaves is
//! what the device can take, no longer than `segment_len` says, and every chunk comes back.

use nuswitch::dataplane::segment;
use nuswitch::frame::{Caps, Offload, Pool};

use super::input::{Input, note};

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let caps = Caps { checksum: input.flag(), tso: input.flag(), uso: input.flag(), mtu: 1500 };
    let chunks = (input.one_of(&[64u32, 4096, 1]), 2);
    let offload = note(&mut input);
    let pieces = input.one_of(&[1usize, 2, 3]);
    let grow = usize::from(input.one_of(&[0u16, 100, 3000, 65_000]));
    let bytes = input.bytes(usize::MAX);
    let mut pool = Pool::with_chunks(chunks.0, chunks.1).expect("memory");
    {
        let mut whole = bytes.to_vec();
        whole.resize(bytes.len() + grow, 7);
        let made = if pieces == 1 { pool.frame_from(&whole) } else { chained(&mut pool, bytes, pieces) };
        let Some(mut frame) = made else { return };
        frame.offload = offload;
        let judged = segment::check(&mut frame);
        let longest = segment::segment_len(&frame);
        assert!(longest <= frame.len());
        let whole = frame.len();
        let mut count = 0;
        let mut sent = Vec::new();
        let done = segment::finish(frame, &mut pool, &caps, |frame| {
            count += 1;
            sent.push(frame);
        });
        for frame in &sent {
            assert!(!frame.offload.needs_csum() || caps.checksum);
            let carried = match frame.offload.gso() {
                Offload::GSO_NONE => true,
                Offload::GSO_UDP_L4 => caps.uso && caps.checksum,
                _ => caps.tso && caps.checksum,
            };
            assert!(carried);
            if judged.is_ok() && frame.offload.gso_type == 0 {
                assert!(frame.len() <= longest.max(if offload.gso_type == 0 { whole } else { 0 }));
            }
        }
        match done {
            Ok(number) => assert_eq!(number, count),
            Err(_) if judged.is_ok() => {}
            Err(_) => assert_eq!(count, 0, "a note that does not fit sends nothing"),
        }
    }
    assert_eq!(pool.free_chunks(), (chunks.0 as usize, chunks.1 as usize));
}

fn chained(pool: &mut Pool, bytes: &[u8], pieces: usize) -> Option<nuswitch::frame::Frame> {
    let size = bytes.len().div_ceil(pieces).clamp(1, 1500);
    let mut parts = bytes.chunks(size);
    let mut frame = pool.frame_from(parts.next()?)?;
    for part in parts.take(17) {
        let link = pool.frame_from(part)?;
        frame.chain(link)?;
    }
    Some(frame)
}
