//! The transform, sabotaged.

use std::sync::Arc;

use cdc_actors::message::{Decision, Delivery, OrderKey};
use cdc_actors::ports::Transform;

/// See [`Sabotage::NAMES`](crate::defences::Sabotage::NAMES).
pub struct Sabotaged<T> {
    pub inner: Arc<T>,
    /// Any worker takes any event, as in a pool without keys.
    pub spread: bool,
    /// Panics on events that ask for it in their annotations.
    pub panics: bool,
}

impl<T> Sabotaged<T> {
    fn panic_if_asked(&self, delivery: &Delivery, what: &str) {
        let asked = |part: &[u8]| delivery.payload.windows(part.len()).any(|window| window == part);
        assert!(!(self.panics && asked(format!(r#""sabotage":"{what}""#).as_bytes())), "sabotage: panic to {what}");
    }
}

impl<T: Transform> Transform for Sabotaged<T> {
    type Parsed = T::Parsed;

    fn order(&self, delivery: &Delivery) -> (OrderKey, Self::Parsed) {
        self.panic_if_asked(delivery, "order");
        let (row, parsed) = self.inner.order(delivery);
        (if self.spread { OrderKey(fastrand::u128(..)) } else { row }, parsed)
    }

    fn decide(&self, delivery: &Delivery, parsed: Self::Parsed) -> Decision {
        self.panic_if_asked(delivery, "decide");
        self.inner.decide(delivery, parsed)
    }
}
