//! Runs scenarios side by side and reports what came of them.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;

use crate::judge::Symptom;
use crate::naive::Flaw;
use crate::replica::Program;
use crate::scenarios::{self, Pace, Scenario};
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
    /// The program of this crate, for the controls; the one that runs if it is not given.
    pub proof: Option<PathBuf>,
    /// How many run side by side.
    pub jobs: usize,
    /// Messages of the scenario `backlog`.
    pub backlog: u64,
    /// Time of the scenario `everything-at-once`.
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
    role: Role,
}

/// Who runs, and what must come of it.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// The program under test keeps the promise.
    Service,
    /// The naive service with all its defences keeps it, too: what fails without one fails for want of that one.
    Naive,
    /// Without a defence it shows this symptom.
    Flawed(Flaw, Symptom),
}

/// Prints the scenarios.
pub fn list() {
    for scenario in scenarios::all() {
        let pace = if scenario.pace == Pace::Fast { "fast" } else { "full" };
        println!("{:28} {pace}  {}\n{:34}→ {}", scenario.name, scenario.fault, "", scenario.expectation);
        for (flaw, symptom) in scenario.controls {
            println!("{:34}✗ without its defence ({flaw:?}): {symptom:?}", "");
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
    };
    let mut runs = Vec::new();
    for scenario in all.iter().filter(wanted) {
        for nats in scenario.setup.only.map_or_else(|| plan.nats.clone(), |version| vec![version]) {
            for seed in plan.seed..plan.seed + plan.runs {
                for role in roles(scenario, plan.controls) {
                    let options = options(plan, nats, seed, role);
                    runs.push(Run { scenario: Arc::clone(scenario), options, role });
                }
            }
        }
    }
    runs
}

fn roles(scenario: &Scenario, controls: bool) -> Vec<Role> {
    if !controls {
        return vec![Role::Service];
    }
    let flawed = scenario.controls.iter().map(|(flaw, symptom)| Role::Flawed(*flaw, *symptom));
    // It knows targets apart, but is too simple to survive the loss of one.
    let sound = |(flaw, _): &(Flaw, Symptom)| *flaw != Flaw::NoRecordGeneration;
    let naive = scenario.controls.iter().any(sound).then_some(Role::Naive);
    naive.into_iter().chain(flawed).collect()
}

fn options(plan: &Plan, nats: NatsVersion, seed: u64, role: Role) -> Options {
    let proof = || plan.proof.clone().unwrap_or_else(|| std::env::current_exe().unwrap());
    let program = match role {
        Role::Service => Program::Service(plan.binary.clone()),
        Role::Naive => Program::Naive { proof: proof(), flaw: None },
        Role::Flawed(flaw, _) => Program::Naive { proof: proof(), flaw: Some(flaw) },
    };
    let (backlog, duration, explained) = (plan.backlog, plan.duration, plan.explained);
    Options { program, nats, seed, backlog, duration, explained }
}

/// Plays a run: what came of it, and whether that is what it should be; the name of the scenario if the harness gave up.
async fn play(run: Run) -> Result<(Outcome, bool), &'static str> {
    let Run { scenario, options, role } = run;
    println!("▶ {} seed {} {:?}", scenario.name, options.seed, options.nats);
    let name = scenario.name;
    let played = tokio::spawn(async move {
        let mut world = World::begin(&scenario, &options).await;
        (scenario.story)(&mut world).await;
        world.finish(&scenario).await
    });
    let Ok(outcome) = played.await else { return Err(name) };
    let good = match role {
        Role::Service | Role::Naive => outcome.broken.is_empty(),
        Role::Flawed(_, symptom) => shows(&outcome, symptom),
    };
    Ok((outcome, good))
}

/// Whether a flawed service was caught. What it acknowledged too early is seen in that moment if a sample falls into it,
/// and at the end if the kill did: either convicts it.
fn shows(outcome: &Outcome, symptom: Symptom) -> bool {
    let lost_in_the_end = symptom == Symptom::AckedEarly && outcome.findings.shows(Symptom::Lost);
    outcome.findings.shows(symptom) || lost_in_the_end
}

fn print(outcome: &Outcome, good: bool) {
    let mark = if good { "✔" } else { "✘" };
    let control = outcome.control.as_ref().map(|flaw| format!(" [naive service, flaw: {flaw}]")).unwrap_or_default();
    println!(
        "{mark} {}{control} seed {} nats {}: {}; {} lives, recovered in {:.1} s, {:.1} s in all, at most {} MiB {:?}",
        outcome.scenario,
        outcome.seed,
        outcome.nats,
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
