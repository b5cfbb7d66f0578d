//! A change event as the source delivers it.

use std::time::Instant;

use bytes::Bytes;
use cdc_actors::message::{Delivery, DeliveryId, Receipt};

use crate::payload::{Size, message};

/// A delivery of an insert into `messages`.
pub fn delivery(size: Size) -> Delivery {
    let id = DeliveryId { stream_created: 1, sequence: 1, timestamp: 1 };
    Delivery {
        receipt: Receipt { id, consumer: 0, reply: "reply".into() },
        subject: "sequin.daisi_db.daisi_CID1001.messages.insert".into(),
        headers: vec![("Nats-Msg-Id".to_owned(), "26000000001:0".to_owned())],
        payload: Bytes::from(message(size, 1, 1)),
        deliveries: 1,
        received: Instant::now(),
    }
}
