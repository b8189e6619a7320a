//! What offloads cost where a device cannot carry them: the checksum, and cutting a 64 KiB TCP frame into segments.
//! Cycles (of the time stamp counter) stand beside criterion's nanoseconds.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nuswitch::dataplane::segment;
use nuswitch::frame::{Frame, Offload, Pool};
use nuswitch::ports::Caps;
use nuswitch::sys::cycles;
use nuswitch::wire::checksum::Sum;

/// Cycles of one call of `work`, the median of many batches.
fn cycles_of(mut work: impl FnMut()) -> f64 {
    const BATCH: u32 = 64;
    let mut samples: Vec<u64> = (0..501)
        .map(|_| {
            let start = cycles();
            (0..BATCH).for_each(|_| work());
            cycles() - start
        })
        .collect();
    samples.sort_unstable();
    samples[samples.len() / 2] as f64 / f64::from(BATCH)
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [20usize, 64, 1500, 65_000] {
        let bytes: Vec<u8> = (0..=250u8).cycle().take(len).collect();
        let cost = cycles_of(|| {
            black_box(Sum::of(black_box(&bytes)));
        });
        println!("checksum/{len}: {cost:.0} cycles, {:.3} a byte", cost / len as f64);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |b| b.iter(|| Sum::of(black_box(&bytes))));
    }
    group.finish();
}

/// A TCP frame over IPv4 whose packet has `len` bytes, to be cut into segments of 1448 bytes of payload.
fn tcp_frame(pool: &mut Pool, len: u16) -> Frame {
    let mut bytes = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0, 0x45, 0];
    bytes.extend(len.to_be_bytes());
    bytes.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    bytes.extend([0x12, 0x34, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x18, 1, 0, 0, 0, 0, 0]);
    bytes.extend([1; 12]);
    bytes.resize(14 + usize::from(len), 0xa5);
    let mut frame = pool.frame_from(&bytes).expect("a large chunk is free");
    frame.offload = Offload {
        flags: Offload::NEEDS_CSUM,
        gso_type: Offload::GSO_TCPV4,
        hdr_len: 66,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
    };
    frame
}

fn segmentation(c: &mut Criterion) {
    let mut pool = Pool::with_chunks(256, 4).expect("memory for a small pool");
    let mut sent: Vec<Frame> = Vec::with_capacity(64);
    let mut group = c.benchmark_group("segment_64k_tcp");
    group.throughput(Throughput::Bytes(65_535));
    for (name, checksum) in [("summed", false), ("partial", true)] {
        let caps = Caps { checksum, tso: false, uso: false, mtu: 1500 };
        // The frame comes with its copy into a large chunk, which "copy" measures alone.
        let original = tcp_frame(&mut pool, u16::MAX);
        let mut work = || {
            let frame = pool.copy(&original).expect("a large chunk is free");
            let count = segment::finish(frame, &mut pool, &caps, |segment| sent.push(segment));
            assert_eq!(count, Ok(46));
            sent.clear();
        };
        let cost = cycles_of(&mut work);
        println!("segment_64k_tcp/{name}: {cost:.0} cycles, {:.0} a segment", cost / 46.0);
        group.bench_function(name, |b| b.iter(&mut work));
    }
    let mut original = tcp_frame(&mut pool, u16::MAX);
    let mut copy = || drop(black_box(pool.copy(&original)));
    println!("segment_64k_tcp/copy: {:.0} cycles", cycles_of(&mut copy));
    group.bench_function("copy", |b| b.iter(&mut copy));
    group.bench_function("check", |b| b.iter(|| segment::check(black_box(&mut original))));
    group.finish();
}

criterion_group!(benches, checksum, segmentation);
criterion_main!(benches);
