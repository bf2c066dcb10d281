//! What each step of an exchange costs, in nanoseconds and in instructions.
//!
//! ```text
//! cargo bench                                   time of every case
//! cargo bench --bench steps -- parse log/json   of cases whose name begins so
//! cargo bench --bench steps --features rustix/use-libc-auxv -- --instructions
//!                                               instructions; needs valgrind
//! ```
//!
//! A case is a name and a closure that does the step once; the files beside this one have them.
//! Instructions are counted by callgrind in a process of their own, while [`counted`] runs and at
//! no other time. The feature keeps rustix from looking for the vDSO, which valgrind hides.
//! `scripts/instruction-gate` compares them with `benches/instructions.toml`, except those of
//! cases that begin with `other/`: they are of what the gateway is compared with.

mod balance;
mod exchange;
mod keys;
mod measure;
mod parse;
mod policies;
mod route;
mod trace;

use measure::Cases;

/// The gateway's own, so that what a step allocates costs what it costs there.
#[global_allocator]
static ALLOCATOR: ringway::worker::heap::Heap = ringway::worker::heap::Heap;

fn main() {
    measure::main(|cases: &mut Cases| {
        parse::cases(cases);
        route::cases(cases);
        exchange::cases(cases);
        trace::cases(cases);
        balance::cases(cases);
        keys::cases(cases);
        policies::cases(cases);
    });
}
