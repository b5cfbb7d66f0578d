//! `test`: cases in YAML, held against a configuration.

mod cases;
mod verdict;

use std::io::{self, Write};

use serde_json::json;

pub(super) use self::cases::CasesError;
use self::cases::{Case, File};
use self::verdict::{Mismatch, mismatches};
use super::difference::write_difference;
use super::output::{self, BAD, GOOD, one_line, styled};
use super::{CommandError, ended};
use crate::bootstrap::settings;
use crate::cli::{ExitStatus, Output, TestArgs};
use crate::config::{Config, process_environment};
use crate::domain::{self, CdcTransform};

/// Runs the cases of every file.
pub fn test(arguments: &TestArgs) -> ExitStatus {
    ended(run(arguments))
}

fn run(arguments: &TestArgs) -> Result<ExitStatus, CommandError> {
    let json = arguments.output.format == Some(Output::Json);
    let mut out = output::stdout();
    let (mut passed, mut failed) = (0_usize, 0_usize);
    for path in &arguments.files {
        let file = File::read(path)?;
        for case in &file.cases {
            let wrong = judge(arguments, &file, case)?;
            if wrong.is_empty() {
                passed += 1
            } else {
                failed += 1
            }
            if json {
                let differences: Vec<_> = wrong.iter().map(Mismatch::to_json).collect();
                let line =
                    json!({ "file": path, "case": case.name, "passed": wrong.is_empty(), "differences": differences });
                output::json_line(&mut out, &line)?;
            } else {
                write(&mut out, case, &wrong)?;
            }
        }
    }
    if !json {
        let style = if failed == 0 { GOOD } else { BAD };
        writeln!(out, "{}", styled(style, format!("{passed} passed, {failed} failed")))?;
    }
    Ok(if failed == 0 { ExitStatus::Success } else { ExitStatus::No })
}

/// What is not as the case expects.
fn judge(arguments: &TestArgs, file: &File, case: &Case) -> Result<Vec<Mismatch>, CommandError> {
    let own = file.settings.iter().chain(&case.settings).map(|(name, value)| variable(name, value));
    let config = Config::load(arguments.config.config.as_deref(), process_environment().chain(own))?;
    let (transform, prefix) = (CdcTransform::new(settings::transform(&config)), &config.dead_letter.subject_prefix);
    let input = case.input();
    let said = domain::explain(&transform, &input.subject, input.headers, input.payload, prefix);
    Ok(mismatches(&case.expect, &said))
}

/// A setting of a case, as the environment would give it.
fn variable(name: &str, value: &str) -> (String, String) {
    (format!("{}{}", crate::config::ENV_PREFIX, name.to_ascii_uppercase().replace('.', "__")), value.to_owned())
}

fn write(out: &mut impl Write, case: &Case, wrong: &[Mismatch]) -> io::Result<()> {
    let name = one_line(&case.name);
    if wrong.is_empty() {
        return writeln!(out, "{}  {name}", styled(GOOD, "ok  "));
    }
    writeln!(out, "{}  {name}", styled(BAD, "FAIL"))?;
    wrong.iter().try_for_each(|Mismatch { what, difference }| write_difference(out, what, difference))
}
