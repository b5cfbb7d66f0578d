//! What the whole-service and adapter tests share: servers of their own.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

pub mod bench;
pub mod change;
pub mod nats;
pub mod process;
pub mod prometheus;
pub mod redis;
pub mod service;
pub mod world;

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks at a starting process, outside of any actor"
)]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}
