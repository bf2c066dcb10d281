//! The last moments of a worker: what still runs is ended through its socket, and memory that the
//! kernel may still write to is not freed.
//!
//! Everything in flight ends when its socket is shut: its task finds that it is over, records its
//! exchange, and is gone. Dropping the worker instead, with operations in flight, would free
//! buffers that the kernel has been lent.

use std::rc::Rc;

use super::{Worker, clock, listener::Listening};

/// How often a worker looks whether its connections are gone.
pub const LOOK: std::time::Duration = std::time::Duration::from_millis(20);
/// So many looks are left to the connections of a worker that panicked.
const LAST_LOOKS: u32 = 50;
/// So many looks connections have to end when they were cut off, or have no task.
const CUT_LOOKS: u32 = 25;

/// Ends what a drain has left: the connections that were cut off, those being told that there is
/// no room, and idle ones to upstreams. Answers whether nothing is left in flight; it nearly always
/// is, within one look.
pub async fn end(worker: Rc<Worker>) -> bool {
    let is_over = || worker.clients.open() == 0 && worker.deadlines.open() == 0;
    worker.is_cut.set(true);
    for _ in 0..CUT_LOOKS {
        if is_over() {
            break;
        }
        // Again and again: a task may open another socket, a listener accept its last connection.
        worker.deadlines.shut_all();
        monoio::time::sleep(LOOK).await;
        worker.beat.tick();
        // Reads ahead of idle connections have ended by now.
        worker.snapshot().close_idle();
    }
    worker.snapshot().logs.finish();
    is_over()
}

/// After a panic: accepts no more, without touching the queues, which are for the worker that comes
/// next; finishes what can be finished soon, and cuts the rest.
pub async fn last_moment(worker: Rc<Worker>) {
    #[cfg(debug_assertions)]
    super::drill::at_last_moment();
    worker.draining.set(true);
    worker.listening.take().into_iter().for_each(Listening::leave);
    for _ in 0..LAST_LOOKS {
        worker.beat.tick();
        worker.deadlines.close_idle(clock::refresh());
        monoio::time::sleep(LOOK).await;
        if worker.clients.open() == 0 {
            break;
        }
    }
    // Idle upstream connections too. One more moment for their tasks to end.
    worker.is_cut.set(true);
    worker.deadlines.shut_all();
    monoio::time::sleep(LOOK).await;
    worker.snapshot().logs.finish();
}
