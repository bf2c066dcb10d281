//! A panic costs one connection, never a core.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::Poll,
};

use super::beat::{Beat, Task};

/// The task panicked; the panic hook has logged it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// Runs `task`; a panic in it ends it alone. Guards on its stack (deadline slots, counts in
/// flight, places) are released as it unwinds. `beat` says what it does while it runs.
pub fn isolate(
    beat: Arc<Beat>,
    task: impl Future<Output = ()> + 'static,
) -> impl Future<Output = Result<(), Panicked>> {
    // Boxed once: passing a large future through async functions would store it twice.
    let mut task = Box::pin(task);
    let mut doing = Task::default();
    std::future::poll_fn(move |cx| {
        let poll = AssertUnwindSafe(|| task.as_mut().poll(cx));
        match beat.during(&mut doing, || catch_unwind(poll)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        monoio::RuntimeBuilder::<monoio::LegacyDriver>::new()
            .build()
            .expect("an epoll runtime")
            .block_on(future)
    }

    #[test]
    fn a_panic_ends_its_own_task_and_no_other() {
        run(async {
            let beat = || Arc::new(Beat::default());
            let bad = monoio::spawn(isolate(beat(), async { panic!("on purpose") }));
            let good = monoio::spawn(isolate(beat(), async {}));
            assert_eq!(bad.await, Err(Panicked));
            assert_eq!(good.await, Ok(()));
        });
    }
}
