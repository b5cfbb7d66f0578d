//! The tools for operators, as they are run: the real binary against real servers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod cases;
mod check;
mod generate;
mod interrupted;
mod letters;
mod preview;
mod replay;
mod subjects;
mod terminal;
mod tutorial;
mod way_back;

use std::process::{Command, Output};

use serde_json::Value;

use crate::support::service::{Settings, command, lines};

/// Runs a command to its end: exit status, standard output, standard error.
fn tool(settings: &Settings, arguments: &[&str]) -> (i32, String, String) {
    fed_tool(settings, arguments, b"")
}

/// The same with something on standard input.
fn fed_tool(settings: &Settings, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(settings, arguments, input);
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Another program, with the environment that the binary under test would have.
fn beside(binary: &Command, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Runs a command that writes one JSON value a line, and must end with `status`.
fn json_tool(settings: &Settings, arguments: &[&str], status: i32) -> Vec<Value> {
    let (code, out, err) = tool(settings, &[arguments, &["--output", "json"]].concat());
    assert_eq!(code, status, "{arguments:?}: {out}{err}");
    json_lines(&out)
}

fn json_lines(text: &str) -> Vec<Value> {
    lines(text.as_bytes()).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}
