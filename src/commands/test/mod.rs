//! `test`: cases in YAML, held against a configuration.

mod cases;
mod verdict;
mod yaml;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use self::cases::{Case, CasesError, File, place};
use self::verdict::{Mismatch, Told, mismatches};
use super::difference::write_difference;
use super::output::{self, BAD, GOOD, one_line, styled};
use super::{CommandError, ended};
use crate::bootstrap::settings;
use crate::cli::{ExitStatus, Output, TestArgs};
use crate::config::{Config, ConfigError, process_environment};
use crate::domain::{self, CdcTransform};
use crate::logging::chain;

/// Runs the cases of every file.
pub fn test(arguments: &TestArgs) -> ExitStatus {
    ended(run(arguments))
}

fn run(arguments: &TestArgs) -> Result<ExitStatus, CommandError> {
    // What is wrong with the configuration itself is no matter of any file of cases.
    configured(arguments, &BTreeMap::new())?;
    let json = arguments.output.format == Some(Output::Json);
    let mut results = Results { out: output::stdout(), json, passed: 0, failed: 0, unusable: 0 };
    for path in &arguments.files {
        results.take_file(arguments, path)?;
    }
    results.close()
}

/// What came of a case, as machines get it.
#[derive(Serialize)]
struct Judged<'a> {
    file: &'a Path,
    case: &'a str,
    passed: bool,
    differences: Vec<Told<'a>>,
}

/// What came of the cases so far.
struct Results<W> {
    out: W,
    json: bool,
    passed: usize,
    failed: usize,
    /// Files and cases that say nothing that can be tried.
    unusable: usize,
}

impl<W: Write> Results<W> {
    fn take_file(&mut self, arguments: &TestArgs, path: &Path) -> io::Result<()> {
        let file = match File::read(path) {
            Ok(file) => file,
            Err(error) => return self.cannot_use(path, &error),
        };
        let config = match configured(arguments, &file.settings) {
            Ok(config) => config,
            Err(error) => return self.cannot_use(path, &CasesError::settings(path, "", &error)),
        };
        for (number, case) in (1..).zip(&file.cases) {
            let case = match case {
                Ok(case) => case,
                Err(error) => {
                    self.cannot_use(path, error)?;
                    continue;
                }
            };
            let own = file.settings.iter().chain(&case.settings).map(|(name, value)| (name.clone(), value.clone()));
            match if case.settings.is_empty() { Ok(config.clone()) } else { configured(arguments, &own.collect()) } {
                Ok(config) => self.take(path, case, &judge(&config, case))?,
                Err(error) => {
                    self.cannot_use(path, &CasesError::settings(path, &place(number, &case.name), &error))?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &Path, case: &Case, wrong: &[Mismatch]) -> io::Result<()> {
        if wrong.is_empty() {
            self.passed += 1
        } else {
            self.failed += 1
        }
        if !self.json {
            return write(&mut self.out, case, wrong);
        }
        let differences = wrong.iter().map(Mismatch::told).collect();
        let line = Judged { file: path, case: &case.name, passed: wrong.is_empty(), differences };
        output::json_line(&mut self.out, &line)
    }

    fn cannot_use(&mut self, path: &Path, error: &CasesError) -> io::Result<()> {
        self.unusable += 1;
        let why = chain(error).to_string();
        if self.json {
            return output::json_line(&mut self.out, &json!({ "file": path, "passed": false, "error": why }));
        }
        eprintln!("error: {why}");
        Ok(())
    }

    fn close(mut self) -> Result<ExitStatus, CommandError> {
        let Self { passed, failed, unusable, .. } = self;
        if !self.json {
            let style = if failed + unusable == 0 { GOOD } else { BAD };
            let rest = if unusable == 0 { String::new() } else { format!(", {unusable} cannot be used") };
            writeln!(self.out, "{}", styled(style, format!("{passed} passed, {failed} failed{rest}")))?;
        }
        Ok(match (failed, unusable) {
            (0, 0) => ExitStatus::Success,
            (_, 0) => ExitStatus::No,
            _ => ExitStatus::BadInput,
        })
    }
}

/// The configuration with settings of a file or a case on top.
fn configured(arguments: &TestArgs, own: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
    let own = own.iter().map(|(name, value)| variable(name, value));
    Config::load_elsewhere(arguments.config.config.as_deref(), process_environment().chain(own))
}

/// What is not as the case expects.
fn judge(config: &Config, case: &Case) -> Vec<Mismatch> {
    let (transform, prefix) = (CdcTransform::new(settings::transform(config)), &config.dead_letter.subject_prefix);
    let input = case.input();
    let said = domain::explain(&transform, &input.subject, input.headers, input.payload, prefix);
    mismatches(&case.expect, &said)
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
