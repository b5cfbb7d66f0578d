//! Runs scenarios side by side and reports what came of them.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::judge::Symptom;
use crate::replica::Program;
use crate::scenarios::{self, Control, Pace, Scenario, Shows};
use crate::servers::NatsVersion;
use crate::world::{Options, Outcome, World};

/// What is to be run, and how.
#[derive(Debug)]
pub struct Plan {
    /// Names of scenarios; all if there are none.
    pub names: Vec<String>,
    /// The program under test.
    pub binary: PathBuf,
    /// The seed of the first run.
    pub seed: u64,
    /// How often each is run, each time with the next seed.
    pub runs: u64,
    /// The versions of nats-server to run on.
    pub nats: Vec<NatsVersion>,
    /// Only scenarios that take seconds.
    pub fast: bool,
    /// Runs the controls in place of the service.
    pub controls: bool,
    /// The service with a saboteur before its ports: without it there are no controls, and no scenarios that need one.
    pub saboteur: Option<PathBuf>,
    /// How many run side by side.
    pub jobs: usize,
    /// Messages of the scenario `backlog`.
    pub backlog: u64,
    /// Time of the scenarios `everything-at-once` and `everything-remembered`.
    pub duration: Duration,
    /// Events of each run whose payload is held against `explain`.
    pub explained: usize,
    /// A file that gets one JSON object a run.
    pub report: Option<PathBuf>,
}

/// One run of one scenario.
struct Run {
    scenario: Arc<Scenario>,
    options: Options,
    /// The defence that is left out, and what must come of it; none for the service, which keeps the promise.
    control: Option<Control>,
}

/// Prints the scenarios.
pub fn list() {
    for scenario in scenarios::all() {
        let pace = if scenario.pace == Pace::Fast { "fast" } else { "full" };
        println!("{:28} {pace}  {}\n{:34}→ {}", scenario.name, scenario.fault, "", scenario.expectation);
        for control in &scenario.controls {
            println!("{:34}✗ {}: {:?}", "", control.without, control.shows);
        }
    }
}

/// Runs what is planned; whether everything held, and every control failed.
pub async fn run(plan: &Plan) -> bool {
    let mut report = plan.report.as_ref().map(|path| std::fs::File::create(path).unwrap());
    let runs = runs(plan);
    println!("{} runs from seed {}", runs.len(), plan.seed);
    let mut outcomes = futures::stream::iter(runs).map(play).buffer_unordered(plan.jobs);
    let (mut held, mut failed) = (0, 0);
    while let Some(played) = outcomes.next().await {
        let (outcome, good) = match played {
            Ok(played) => played,
            Err(name) => {
                // The panic has told why; the other scenarios go on.
                println!("✘ {name}: the harness gave up");
                failed += 1;
                continue;
            }
        };
        print(&outcome, good);
        *(if good { &mut held } else { &mut failed }) += 1;
        if let Some(report) = &mut report {
            writeln!(report, "{}", serde_json::to_string(&outcome).unwrap()).unwrap();
        }
    }
    println!("{held} passed, {failed} failed");
    failed == 0
}

fn runs(plan: &Plan) -> Vec<Run> {
    let all: Vec<Arc<Scenario>> = scenarios::all().into_iter().map(Arc::new).collect();
    for name in &plan.names {
        assert!(all.iter().any(|scenario| scenario.name == name), "no scenario {name:?}: `proof list` names them");
    }
    let wanted = |scenario: &&Arc<Scenario>| {
        (plan.names.is_empty() || plan.names.iter().any(|name| name == scenario.name))
            && (!plan.fast || scenario.pace == Pace::Fast)
            && (plan.saboteur.is_some() || scenario.setup.sabotage.is_none())
    };
    let mut runs = Vec::new();
    for scenario in all.iter().filter(wanted) {
        for nats in scenario.setup.only.map_or_else(|| plan.nats.clone(), |version| vec![version]) {
            for seed in plan.seed..plan.seed + plan.runs {
                for control in controls(scenario, plan.controls) {
                    let options = options(plan, scenario, nats, seed, control);
                    runs.push(Run { scenario: Arc::clone(scenario), options, control });
                }
            }
        }
    }
    runs
}

/// What a scenario is run with: the service, or each of its controls.
fn controls(scenario: &Scenario, controls: bool) -> Vec<Option<Control>> {
    if controls { scenario.controls.iter().copied().map(Some).collect() } else { vec![None] }
}

fn options(plan: &Plan, scenario: &Scenario, nats: NatsVersion, seed: u64, control: Option<Control>) -> Options {
    let without = control.map(|control| control.without);
    // A setting weakens a defence as well as the saboteur does.
    let settings: Vec<(String, String)> = without
        .into_iter()
        .flat_map(|without| without.split(','))
        .filter_map(|setting| setting.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let sabotage = without.filter(|_| settings.is_empty()).or(scenario.setup.sabotage);
    let saboteur = plan.saboteur.clone().filter(|_| control.is_some() || scenario.setup.sabotage.is_some());
    let program = match saboteur {
        Some(binary) => Program { binary, sabotage: Some(sabotage.unwrap_or_default().to_owned()) },
        None => Program::service(&plan.binary),
    };
    Options {
        program,
        without: without.map(str::to_owned),
        settings,
        nats,
        seed,
        backlog: plan.backlog,
        duration: plan.duration,
        explained: plan.explained,
    }
}

/// Plays a run: what came of it, and whether that is what it should be; the name of the scenario if the harness gave up.
async fn play(run: Run) -> Result<(Outcome, bool), &'static str> {
    let Run { scenario, options, control } = run;
    let without = options.without.as_ref().map(|without| format!(" [{without}]")).unwrap_or_default();
    println!("▶ {}{without} seed {} {:?}", scenario.name, options.seed, options.nats);
    let name = scenario.name;
    let played = tokio::spawn(async move {
        let mut world = World::begin(&scenario, &options).await;
        (scenario.story)(&mut world).await;
        world.finish(&scenario).await
    });
    let Ok(outcome) = played.await else { return Err(name) };
    let good = match control {
        None => outcome.broken.is_empty(),
        Some(control) => shows(&outcome, control.shows),
    };
    Ok((outcome, good))
}

/// Whether a service without a defence was caught. What it acknowledged too early is seen in that moment if a sample falls
/// into it, and at the end if the kill did: either convicts it.
fn shows(outcome: &Outcome, shows: Shows) -> bool {
    match shows {
        Shows::Symptom(Symptom::AckedEarly) => {
            outcome.findings.shows(Symptom::AckedEarly) || outcome.findings.shows(Symptom::Lost)
        }
        Shows::Symptom(symptom) => outcome.findings.shows(symptom),
        Shows::Unmet(expectation) => outcome.broken.iter().any(|broken| broken.contains(expectation)),
    }
}

fn print(outcome: &Outcome, good: bool) {
    let mark = if good { "✔" } else { "✘" };
    let control = outcome.without.as_ref().map(|without| format!(" [{without}]")).unwrap_or_default();
    println!(
        "{mark} {}{control} seed {} nats {} workers {}: {}; {} lives, recovered in {:.1} s, {:.1} s in all, at most {} MiB {:?}",
        outcome.scenario,
        outcome.seed,
        outcome.nats,
        outcome.workers,
        outcome.findings,
        outcome.lives,
        outcome.recovery_seconds,
        outcome.seconds,
        outcome.peak_resident >> 20,
        outcome.counts,
    );
    for broken in &outcome.broken {
        println!("    {broken}");
    }
}
