//! Finding an API key among many. `RINGWAY_BENCH_KEYS` is how many; the record is of 100,000.

use std::hint::black_box;

use ringway::policy::{key_text, keys};

use crate::measure::Cases;

const KEYS: usize = 100_000;
const KEY: &[u8] = b"rw_VAjlyVtVxGTnpcKpbsKAQwImDBjp35zu40gYHr";

pub fn cases(cases: &mut Cases) {
    let keys = std::env::var("RINGWAY_BENCH_KEYS").ok().and_then(|text| text.parse().ok());
    let keys: usize = keys.unwrap_or(KEYS);
    let digests: Vec<keys::Digest> = (0..keys as u64).map(digest).collect();
    let mut gathering = keys::Gathering::default();
    gathering.reserve(keys);
    for (n, digest) in digests.iter().enumerate() {
        gathering.add(*digest, (n as u32, 0), &[], n as u32).expect("there is room");
    }
    let table = gathering.done().expect("each is there once");
    let mut random = 1u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 32) as usize % keys
    };
    cases.case("auth/key-digest", || {
        black_box(key_text::digest_of(black_box(KEY)));
    });
    // Somewhere else each time, so that the processor's caches are no help.
    cases.case("auth/key-find", || {
        let found = black_box(&table).find(black_box(&digests[next()]));
        assert!(found.is_some());
    });
    cases.case("auth/key-unknown", || {
        let mut unknown = digests[next()];
        unknown[31] ^= 1;
        assert!(black_box(&table).find(black_box(&unknown)).is_none());
    });
}

/// As good as chance.
fn digest(seed: u64) -> keys::Digest {
    // Streams of neighbours would overlap.
    let mut state = seed.wrapping_mul(0xd129_42e3_9c8d_11b5);
    let mut out = [0; 32];
    for part in out.as_chunks_mut::<8>().0 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *part = (z ^ (z >> 31)).to_be_bytes();
    }
    out
}
