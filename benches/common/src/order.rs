//! Deliveries of one row whose records hold its columns in one order, in several, or in none that could be learnt.

use std::str::FromStr;

use bytes::Bytes;
use cdc_actors::message::Delivery;
use fastrand::Rng;
use serde_json::{Map, Value};

use crate::delivery::delivery;
use crate::payload::Size;

/// How the columns of one record after the other stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Always alike.
    Same,
    /// In one order, two of five absent, others in each record.
    Absent,
    /// In two orders, in turn.
    Turns,
    /// In any order.
    Random,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "same" => Self::Same,
            "absent" => Self::Absent,
            "turns" => Self::Turns,
            "random" => Self::Random,
            other => return Err(format!("{other} is none of same, absent, turns, random")),
        })
    }
}

/// Columns without which nothing is published.
const NEEDED: [&str; 4] = ["message_id", "chat_id", "agent_id", "company_id"];

/// So many deliveries, the same at every call.
pub fn deliveries(size: Size, order: Order, count: usize) -> Vec<Delivery> {
    let like = delivery(size);
    let event: Map<String, Value> = serde_json::from_slice(&like.payload).unwrap();
    let record = event["record"].as_object().unwrap();
    let mut random = Rng::with_seed(7);
    let one = |number: usize| {
        let mut columns: Vec<(&String, &Value)> = record.iter().collect();
        match order {
            Order::Same => {}
            Order::Absent => columns.retain(|(name, _)| NEEDED.contains(&name.as_str()) || random.u32(0..5) > 1),
            Order::Turns if number.is_multiple_of(2) => {}
            Order::Turns => columns.reverse(),
            Order::Random => random.shuffle(&mut columns),
        }
        let columns: Vec<_> = columns.into_iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
        let others =
            event.iter().filter(|(name, _)| *name != "record").map(|(name, value)| format!("{name:?}:{value}"));
        let others: Vec<_> = others.collect();
        let payload = format!("{{\"record\":{{{}}},{}}}", columns.join(","), others.join(","));
        Delivery { payload: Bytes::from(payload), ..like.clone() }
    };
    (0..count).map(one).collect()
}
