//! A value that few requests have. Where there is none, dropping it is one branch in its place: what
//! is written for the others is not inlined, nor does it keep what surrounds it from being so.

use std::ops::{Deref, DerefMut};

/// A value that is there for few requests.
pub struct Rare<T>(Option<Box<T>>);

impl<T> Default for Rare<T> {
    #[inline]
    fn default() -> Rare<T> {
        Rare(None)
    }
}

impl<T> From<T> for Rare<T> {
    fn from(value: T) -> Rare<T> {
        Rare(Some(Box::new(value)))
    }
}

impl<T> Deref for Rare<T> {
    type Target = Option<Box<T>>;

    #[inline]
    fn deref(&self) -> &Option<Box<T>> {
        &self.0
    }
}

impl<T> DerefMut for Rare<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Option<Box<T>> {
        &mut self.0
    }
}

impl<T> Drop for Rare<T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            end(value);
        }
    }
}

#[cold]
#[inline(never)]
fn end<T>(value: Box<T>) {
    drop(value);
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn what_is_there_is_dropped_once() {
        let value = Rc::new(());
        let mut rare = Rare::from(value.clone());
        assert!(rare.is_some() && Rc::strong_count(&value) == 2);
        *rare = None;
        assert_eq!(Rc::strong_count(&value), 1);
        *rare = Some(Box::new(value.clone()));
        drop(rare);
        assert_eq!(Rc::strong_count(&value), 1);
        assert!(Rare::<()>::default().is_none());
    }
}
