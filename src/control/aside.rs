//! A thread beside control's own, with a runtime for what waits long: providers of keys, logins,
//! servers of a fleet's limits, authorities of certificates.
//!
//! Invariants: it is there only once a configuration wants something of it, and then follows each
//! configuration once; it ends when whoever holds it does.

use std::{future::Future, io, mem, sync::Arc, thread};

use tokio::{sync::watch, task::LocalSet};

/// What the thread does: it has what is wanted, and learns when that changes.
pub type Wanted<T> = watch::Receiver<Arc<[T]>>;

/// The thread as the main thread sees it.
pub struct Aside<T> {
    wanted: Option<watch::Sender<Arc<[T]>>>,
    /// Of the configuration that it follows.
    generation: u64,
}

impl<T> Default for Aside<T> {
    fn default() -> Aside<T> {
        Aside { wanted: None, generation: 0 }
    }
}

impl<T: Send + Sync + 'static> Aside<T> {
    /// Follows a configuration, unless it does so already: `of_it` is what that one wants. The
    /// first that wants something begins the thread `name`, which does `work`. When that fails, the
    /// log says what that means: `without`.
    pub fn follow<F: Future<Output = ()> + 'static>(
        &mut self,
        generation: u64,
        of_it: impl FnOnce() -> Arc<[T]>,
        (name, without): (&str, &str),
        work: impl FnOnce(Wanted<T>) -> F + Send + 'static,
    ) {
        if mem::replace(&mut self.generation, generation) == generation {
            return;
        }
        let wanted = of_it();
        match &self.wanted {
            Some(sender) => drop(sender.send_replace(wanted)),
            None if wanted.is_empty() => {}
            None => match begin(wanted, name, work) {
                Ok(sender) => self.wanted = Some(sender),
                Err(e) => tracing::error!(error = %e, "cannot start a thread: {without}"),
            },
        }
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.wanted = None;
    }
}

fn begin<T: Send + Sync + 'static, F: Future<Output = ()> + 'static>(
    wanted: Arc<[T]>,
    name: &str,
    work: impl FnOnce(Wanted<T>) -> F + Send + 'static,
) -> io::Result<watch::Sender<Arc<[T]>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, receiver) = watch::channel(wanted);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || LocalSet::new().block_on(&runtime, work(receiver)))?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_begins_when_something_is_wanted_and_follows_each_configuration_once() {
        let (told, heard) = mpsc::channel();
        let mut aside = Aside::default();
        let follow = |aside: &mut Aside<u8>, generation, wanted: &[u8]| {
            let told = told.clone();
            let names = ("aside", "nothing");
            aside.follow(
                generation,
                || wanted.into(),
                names,
                |mut wanted| async move {
                    loop {
                        told.send(wanted.borrow_and_update().to_vec()).expect("heard");
                        if wanted.changed().await.is_err() {
                            return;
                        }
                    }
                },
            );
        };
        follow(&mut aside, 1, &[]);
        follow(&mut aside, 2, &[1]);
        assert_eq!(heard.recv(), Ok(vec![1]), "nothing was begun for nothing");
        follow(&mut aside, 2, &[9]);
        follow(&mut aside, 3, &[2, 3]);
        assert_eq!(
            heard.recv(),
            Ok(vec![2, 3]),
            "the second one of a configuration is not looked at"
        );
        follow(&mut aside, 4, &[]);
        assert_eq!(heard.recv(), Ok(vec![]));
        aside.stop();
        drop(told);
        assert!(heard.recv().is_err(), "it has ended");
    }
}
