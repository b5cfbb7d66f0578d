//! What people see: colours and progress on a terminal (a pseudo-terminal that `script` opens), and none elsewhere.

use async_nats::jetstream::stream::RetentionPolicy;

use crate::beside;
use crate::replay::rejected;
use crate::support::change::Change;
use crate::support::service::{Settings, binary};
use crate::support::world::World;

/// What a command writes to a terminal, standard error included.
fn on_a_terminal(settings: &Settings, variables: &[(&str, &str)], arguments: &str) -> String {
    let program = binary(settings);
    let mut script = beside(&program, "script");
    // CI too: where it is set, logs are taken to show colours whatever TERM says.
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        script.env_remove(name);
    }
    script.env("TERM", "xterm-256color").envs(variables.iter().copied());
    let command = format!("{} {arguments}", program.get_program().to_str().unwrap());
    let output = script.args(["-qec", &command, "/dev/null"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments}: {said}");
    said
}

#[test]
fn colours_are_for_terminals_alone_and_off_with_no_color() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Change::message("m").payload()).unwrap();
    let explain = format!("explain --output text {}", file.path().display());
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("TERM", "dumb")], false)] {
        let said = on_a_terminal(&Settings::new(), variables, &explain);
        assert!(said.contains("publish"), "{said:?}");
        assert_eq!(said.contains('\u{1b}'), coloured, "{variables:?}: {said:?}");
    }
}

#[tokio::test]
async fn long_work_shows_its_progress_on_a_terminal_and_leaves_none_behind() {
    let world = World::new().await;
    world.create_source().await;
    let said = on_a_terminal(&world.settings, &[], "generate --publish --events 200 --rate 200");
    assert!(said.contains("/200 "), "a bar: {said:?}");
    let last = said.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap();
    assert!(last.contains("200 published") && !last.contains("/200"), "what is left is the result: {said:?}");
}

#[test]
fn decisions_on_many_events_show_their_progress_where_they_go_elsewhere() {
    let line = Change::message("m").payload().replace('\n', " ");
    let explain = |count: usize, to: &str| {
        let events = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(events.path(), format!("{line}\n").repeat(count)).unwrap();
        on_a_terminal(&Settings::new(), &[], &format!("explain {} {to}", events.path().display()))
    };
    let said = explain(50_000, "> /dev/null");
    assert!(said.contains("explaining") && said.contains("/50000 "), "a bar: {said:?}");
    assert!(!explain(5_000, "").contains("explaining"), "no bar between decisions");
}

#[tokio::test]
async fn trials_of_many_letters_show_their_progress() {
    const COUNT: usize = 3_000;
    let mut world = World::new().await;
    rejected(&mut world, COUNT, RetentionPolicy::Limits).await;
    for (arguments, bar) in
        [("dead-letters replay --all --dry-run", "deciding"), ("dead-letters drop --all --dry-run", "dropping")]
    {
        let said = on_a_terminal(&world.settings, &[], arguments);
        let drawn = said.split('\r').filter(|part| part.contains(bar)).filter_map(|part| part.split_once("/3000"));
        let counts = drawn.filter_map(|(before, _)| before.rsplit(' ').next()?.parse::<usize>().ok());
        assert!(counts.max() > Some(0), "the bar of {arguments} never moves");
    }
}
