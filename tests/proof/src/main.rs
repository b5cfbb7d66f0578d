//! The command line of the proof.
fn main() {}
