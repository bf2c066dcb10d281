//! Answers that a worker's tasks wait for, from other threads or from other workers.
//!
//! Whoever answers has a [`Ticket`]. Invariants: a place is its user's until that one is gone, and
//! what comes after that is thrown away, also when the place is used again by then.

use std::{
    cell::RefCell,
    future::poll_fn,
    task::{Poll, Waker},
};

use slab::Slab;

use super::{Worker, alarm::Overdue};

/// A place in the table, and its user: a place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    place: usize,
    serial: u64,
}

/// What one worker's tasks wait for, of one kind.
pub struct Replies<T>(RefCell<Slab<Wait<T>>>);

struct Wait<T> {
    serial: u64,
    waker: Option<Waker>,
    reply: Option<T>,
}

impl<T> Default for Replies<T> {
    fn default() -> Replies<T> {
        Replies(RefCell::default())
    }
}

impl<T> Replies<T> {
    /// A place, unless `most` are taken. `serial`: no two have the same.
    pub fn place(&self, serial: u64, most: usize) -> Option<Place<'_, T>> {
        let count = self.0.borrow().len();
        (count < most).then(|| self.place_for(serial))
    }

    /// A place for one of those that something else bounds.
    pub fn place_for(&self, serial: u64) -> Place<'_, T> {
        let place = self.0.borrow_mut().insert(Wait { serial, waker: None, reply: None });
        Place { replies: self, ticket: Ticket { place, serial } }
    }

    /// Hands a reply to whoever waits for it, in place of one that was not taken yet. `false`:
    /// nobody does any more.
    pub fn hand_out(&self, ticket: Ticket, reply: T) -> bool {
        let mut waits = self.0.borrow_mut();
        let own = waits.get_mut(ticket.place).filter(|wait| wait.serial == ticket.serial);
        let Some(wait) = own else { return false };
        wait.reply = Some(reply);
        let waker = wait.waker.take();
        // Outside the borrow: a waker may run anything.
        drop(waits);
        waker.into_iter().for_each(Waker::wake);
        true
    }
}

/// The place of one who waits; free again when it is dropped.
pub struct Place<'r, T> {
    replies: &'r Replies<T>,
    pub ticket: Ticket,
}

impl<T> Place<'_, T> {
    /// A reply that has come and was not taken.
    pub fn left(&self) -> Option<T> {
        self.replies.0.borrow_mut()[self.ticket.place].reply.take()
    }

    /// The next reply, if it comes before `by_ms` of the coarse clock.
    pub async fn reply(&self, worker: &Worker, by_ms: u64) -> Result<T, Overdue> {
        let replied = poll_fn(|cx| {
            let wait = &mut self.replies.0.borrow_mut()[self.ticket.place];
            match wait.reply.take() {
                Some(reply) => Poll::Ready(reply),
                None => {
                    wait.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        worker.alarms.alarm().by(by_ms, replied).await
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        self.replies.0.borrow_mut().remove(self.ticket.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_its_users_and_so_is_what_is_said_to_it() {
        let replies = Replies::<u8>::default();
        let first = replies.place(1, 2).expect("a place");
        let second = replies.place(2, 2).expect("a place");
        assert!(replies.place(3, 2).is_none(), "all are taken");
        let old = first.ticket;
        drop(first);
        let third = replies.place(4, 2).expect("its place");
        assert_eq!(third.ticket.place, old.place);
        assert!(!replies.hand_out(old, 1), "it is gone");
        assert!(replies.hand_out(second.ticket, 2) && replies.hand_out(second.ticket, 3));
        assert_eq!((third.left(), second.left(), second.left()), (None, Some(3), None));
        drop((second, third));
        assert!(replies.0.borrow().is_empty());
    }
}
