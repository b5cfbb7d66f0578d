//! Changes that must meet no event on its way: they wait until nothing is in flight, with nothing pulled meanwhile.
//!
//! So all that was taken in before a change is settled, or back at the source, before anything is taken in after it: a row whose
//! events take another way from then on cannot be overtaken by itself.

use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

/// How long what is in flight may take to end by itself; then what only waits to be tried again goes back to the source.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks after that: what is on its way between two actors, or in a call, misses the first.
pub(crate) const AGAIN: Duration = Duration::from_millis(100);

/// Make this change when nothing is in flight.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Change {
    make: Box<dyn FnOnce() + Send>,
    made: oneshot::Sender<()>,
}

impl Change {
    /// The change, and what hears that it was made; an error means that whoever was to make it died before.
    pub(crate) fn new(make: impl FnOnce() + Send + 'static) -> (Self, oneshot::Receiver<()>) {
        let (made, hears) = oneshot::channel();
        (Self { make: Box::new(make), made }, hears)
    }

    pub(crate) fn make(self) {
        (self.make)();
        // Nobody waiting to hear of it is no reason not to make it.
        let _ = self.made.send(());
    }
}
