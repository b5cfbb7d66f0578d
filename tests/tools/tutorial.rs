//! docs/tutorial.md, step by step: its files are written, its commands run, their output is what stands below them.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::beside;
use crate::support::service::{Service, Settings, binary};
use crate::support::world::{PATIENCE, World};

/// What stands where the service is stopped in its terminal.
const STOP: &str = "^C";

/// What stands for what is left out, of a line or of several.
const LEFT_OUT: &str = "…";

/// A block of the document that is set off.
enum Block {
    /// A file and what it holds.
    File(String, String),
    /// Commands, each with what it prints.
    Commands(Vec<(String, Vec<String>)>),
}

fn blocks(document: &str) -> Vec<Block> {
    let fenced = document.split("```").skip(1).step_by(2);
    let block = |text: &str| {
        let (head, body) = text.split_once('\n').unwrap();
        match head.split_once(' ') {
            Some(("yaml", file)) => Block::File(file.to_owned(), body.to_owned()),
            None if head == "console" => Block::Commands(commands(body)),
            _ => panic!("neither a file nor commands: {head}"),
        }
    };
    fenced.map(block).collect()
}

fn commands(body: &str) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in body.lines() {
        match line.strip_prefix("$ ").or((line == STOP).then_some(line)) {
            Some(command) => commands.push((command.to_owned(), Vec::new())),
            None => commands.last_mut().unwrap().1.push(line.to_owned()),
        }
    }
    commands
}

/// Whether `printed` is what the document shows, line by line.
fn fits(shown: &[String], printed: &[&str]) -> bool {
    let Some((line, shown)) = shown.split_first() else { return printed.is_empty() };
    if line == LEFT_OUT {
        return (0..=printed.len()).any(|left_out| fits(shown, &printed[left_out..]));
    }
    let Some((first, printed)) = printed.split_first() else { return false };
    let same = line
        .split_once(LEFT_OUT)
        .map_or(line == first, |(begin, end)| first.strip_prefix(begin).is_some_and(|rest| rest.ends_with(end)));
    same && fits(shown, printed)
}

#[test]
fn what_is_shown_is_whole_lines_in_their_order() {
    let fits = |shown: &str| fits(&shown.lines().map(str::to_owned).collect::<Vec<_>>(), &["one", "two 2 s", "three"]);
    assert!(fits("one\ntwo … s\nthree") && fits("one\n…") && fits("…\nthree") && fits("one\n…\nthree"));
    assert!(!fits("one\nthree") && !fits("…\ntwo") && !fits("three\n…") && !fits("one\ntwo …s 3\nthree"));
}

/// Runs a command as a shell would, in `directory`: exit status and everything it says.
fn shell(settings: &Settings, directory: &Path, command: &str) -> (i32, String) {
    let program = binary(settings);
    let path = Path::new(program.get_program()).parent().unwrap().to_owned();
    let mut shell = beside(&program, "sh");
    let search = std::env::var("PATH").unwrap_or_default();
    let shell = shell.env("PATH", format!("{}:{search}", path.display())).current_dir(directory).stdin(Stdio::null());
    let output = shell.args(["-c", command]).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), said)
}

/// The service as a command starts it, in `directory`.
fn service(settings: &Settings, directory: &Path, arguments: &str) -> Service {
    let (_, file) = arguments.rsplit_once(' ').unwrap();
    Service::spawn(settings, &["run", "--config", directory.join(file).to_str().unwrap()]).started()
}

/// Has the service read its file again, as `kill` does where no other one runs, and waits until it has.
async fn reload(service: &Service) {
    service.signal("HUP");
    let deadline = Instant::now() + PATIENCE;
    while service.log().find("configuration reloaded").is_empty() {
        assert!(Instant::now() < deadline, "{}", service.log().text());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_step_of_the_tutorial_does_what_it_says() {
    let world = World::new().await;
    let directory = tempfile::TempDir::new().unwrap();
    let place = directory.path();
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tutorial.md")).unwrap();
    let (mut running, mut files, mut count): (Option<Service>, usize, usize) = (None, 0, 0);
    for block in blocks(&document) {
        let commands = match block {
            Block::File(name, text) => {
                files += 1;
                std::fs::write(place.join(name), text).unwrap();
                continue;
            }
            Block::Commands(commands) => commands,
        };
        for (command, expected) in commands {
            count += 1;
            if command == STOP {
                running.take().unwrap().stop();
                continue;
            }
            if command.starts_with("daisi-cdc-consumer run ") {
                assert!(running.is_none(), "{command}: nothing says that the one that runs is to be stopped");
                running = Some(service(&world.settings, place, &command));
                continue;
            }
            if command.starts_with("kill -HUP ") {
                reload(running.as_ref().unwrap()).await;
                continue;
            }
            if running.is_some() {
                // A reader has waited for what is on its way.
                world.settled().await;
            }
            let status = command.split_once("# status ").map_or(0, |(_, status)| status.parse().unwrap());
            let (code, said) = shell(&world.settings, place, &command);
            assert_eq!(code, status, "{command}: {said}");
            let printed: Vec<_> = said.lines().collect();
            assert!(
                expected.is_empty() || fits(&expected, &printed),
                "{command}: {expected:#?} is not what it says:\n{said}"
            );
        }
    }
    assert!(files >= 3 && count >= 12, "{files} files, {count} commands");
    published(&world).await;
    running.take().map(Service::stop);
}

/// In the end the orders are there, those that were refused at first too.
async fn published(world: &World) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        world.settled().await;
        let published = world.published().await;
        let orders =
            published.iter().filter(|event| event.subject.starts_with("shop.") && event.subject.ends_with(".orders"));
        let count = orders
            .clone()
            .filter(|event| event.text().contains("\"total\":") && !event.text().contains("@example.com"))
            .count();
        if count > 80 {
            // Rows that have changed since, and consumers are told.
            assert!(published.iter().any(|event| event.header("Cdc-Late") == Some("true")));
            return;
        }
        assert!(Instant::now() < deadline, "{count} of {}", published.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
