//! Checks that are under way: whoever needs the same one meanwhile waits for it instead of making
//! another.
//!
//! Invariant: a flight is over when whoever began it is done or gone; then those who wait go on.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Poll, Waker},
};

use crate::policy::keys::Digest;

/// One worker's checks of one kind. `T` is what comes of one.
pub struct Flights<T>(RefCell<Vec<Rc<Flight<T>>>>);

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Flights(RefCell::default())
    }
}

/// A check that is under way, with those who wait for it.
pub struct Flight<T> {
    tag: Digest,
    /// Once it is known.
    result: RefCell<Option<T>>,
    is_over: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

/// Whose turn it is to make a check.
pub enum Turn<'f, T> {
    /// The caller's.
    Own(Own<'f, T>),
    /// Somebody does already.
    Wait(Rc<Flight<T>>),
    /// As many are under way as may be.
    Busy,
}

impl<T> Flights<T> {
    pub fn turn(&self, tag: &Digest, at_once_max: u32) -> Turn<'_, T> {
        let mut flights = self.0.borrow_mut();
        if let Some(flight) = flights.iter().find(|flight| flight.tag == *tag) {
            return Turn::Wait(flight.clone());
        }
        if flights.len() >= at_once_max as usize {
            return Turn::Busy;
        }
        let (result, waiting) = (RefCell::new(None), RefCell::default());
        let flight = Rc::new(Flight { tag: *tag, result, is_over: Cell::new(false), waiting });
        flights.push(flight.clone());
        Turn::Own(Own(self, flight))
    }
}

/// Lands when it is dropped, whatever became of it: those who wait look again.
pub struct Own<'f, T>(&'f Flights<T>, Rc<Flight<T>>);

impl<T> Own<'_, T> {
    /// What came of it, for those who wait.
    pub fn land(self, result: T) {
        self.1.result.replace(Some(result));
    }
}

impl<T> Drop for Own<'_, T> {
    fn drop(&mut self) {
        self.0.0.borrow_mut().retain(|flight| !Rc::ptr_eq(flight, &self.1));
        self.1.is_over.set(true);
        let waiting = self.1.waiting.take();
        // Outside of any borrow: a waker may run anything.
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<T: Clone> Flight<T> {
    /// What came of it; `None`: whoever began it is gone.
    pub async fn over(&self) -> Option<T> {
        let mut is_waiting = false;
        std::future::poll_fn(|cx| {
            if self.is_over.get() {
                return Poll::Ready(());
            }
            // One task polls this future, and it is noted once.
            if !std::mem::replace(&mut is_waiting, true) {
                self.waiting.borrow_mut().push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
        self.result.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    #[test]
    fn one_makes_the_check_and_others_wait_for_it() {
        let flights = Flights::<u32>::default();
        let (one, other) = ([1; 32], [2; 32]);
        let Turn::Own(own) = flights.turn(&one, 1) else { panic!("nobody else") };
        let Turn::Wait(first) = flights.turn(&one, 1) else { panic!("somebody does") };
        assert!(matches!(flights.turn(&other, 1), Turn::Busy));
        let mut cx = Context::from_waker(Waker::noop());
        let mut over = pin!(first.over());
        assert_eq!(over.as_mut().poll(&mut cx), Poll::Pending);
        own.land(7);
        assert_eq!(over.as_mut().poll(&mut cx), Poll::Ready(Some(7)));
        // One who goes away leaves it to the others.
        let Turn::Own(own) = flights.turn(&one, 1) else { panic!("it is over") };
        let Turn::Wait(second) = flights.turn(&one, 1) else { panic!("somebody does") };
        drop(own);
        assert_eq!(pin!(second.over()).poll(&mut cx), Poll::Ready(None));
        assert!(flights.0.borrow().is_empty());
    }
}
