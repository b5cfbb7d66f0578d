//! What people see: colours and progress on a terminal (a pseudo-terminal that `script` opens), and none elsewhere.

use crate::beside;
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
