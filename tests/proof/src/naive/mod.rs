//! naive
use clap::ValueEnum;
use std::process::ExitCode;
/// A defence that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Flaw {
    MarkFirst,
    NoMsgId,
    AckFirst,
    Spread,
    NoRecordGeneration,
    BlindAcks,
    DropPoison,
    ResendAnyOrder,
}
impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to_possible_value().unwrap().get_name())
    }
}
/// Runs.
pub async fn run(_flaw: Option<Flaw>) -> ExitCode {
    ExitCode::FAILURE
}
