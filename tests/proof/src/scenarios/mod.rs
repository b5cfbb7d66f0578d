//! The scenarios: each names its fault and what must hold all the same.

mod data;
mod links;
mod load;
mod process;
mod redis;
mod servers;
mod streams;

use futures::future::BoxFuture;

use crate::judge::Symptom;
use crate::servers::NatsVersion;
use crate::traffic::Mix;
use crate::world::World;

/// What happens in a scenario between the start of the load and the healing of everything.
pub type Story = for<'a> fn(&'a mut World) -> BoxFuture<'a, ()>;

/// What a scenario runs on.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Processes of the service.
    pub replicas: usize,
    /// A cluster of three servers and replicated streams in place of one server; on the newest server only.
    pub cluster: bool,
    /// The one version of nats-server that it makes sense on; both otherwise.
    pub only: Option<NatsVersion>,
    /// Arguments of redis-server.
    pub redis: &'static [&'static str],
    /// A replica beside the primary of Redis.
    pub redis_replica: bool,
    /// Settings of the service beside the usual ones.
    pub settings: &'static [(&'static str, &'static str)],
    /// The traffic.
    pub mix: Mix,
    /// Changes a second that are fed from before the story to its end; 0 if the story feeds.
    pub rate: u32,
    /// Gives the service a wall clock of its own.
    pub clock: bool,
    /// Stands nats-server's data on a file system of so many MiB.
    pub disk_mib: Option<u32>,
    /// The service with a saboteur before its ports, who is told this: what the scenario does cannot be done from outside.
    pub sabotage: Option<&'static str>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            replicas: 1,
            cluster: false,
            only: None,
            redis: &[],
            redis_replica: false,
            settings: &[],
            mix: Mix::default(),
            rate: 1_000,
            clock: false,
            disk_mib: None,
            sabotage: None,
        }
    }
}

/// What a scenario is allowed to do to the invariants, and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    /// Events stored twice: the outage outlasted the duplicate window.
    pub doubled: bool,
    /// Events missing that the target, or the source, itself lost.
    pub lost: bool,
    /// Replicas still running at the end need not be: the story leaves the service ended.
    pub ended: bool,
}

/// A defence left out, and what must come of it: a scenario that passes all the same proves nothing about that defence.
#[derive(Debug, Clone, Copy)]
pub struct Control {
    /// What the saboteur is told, or settings as in `guard.max_duration=1h`, separated by commas.
    pub without: &'static str,
    /// How it shows.
    pub shows: Shows,
}

/// How it shows that a defence is missing.
#[derive(Debug, Clone, Copy)]
pub enum Shows {
    /// The judge finds this.
    Symptom(Symptom),
    /// What the story expects does not come; told by some words of it.
    Unmet(&'static str),
}

fn without(without: &'static str, symptom: Symptom) -> Control {
    Control { without, shows: Shows::Symptom(symptom) }
}

fn unmet(without: &'static str, expectation: &'static str) -> Control {
    Control { without, shows: Shows::Unmet(expectation) }
}

/// How much time a scenario may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Seconds: it runs with every test.
    Fast,
    /// Minutes at most: it runs with `make faults`.
    Full,
}

/// A fault, and what must hold all the same.
pub struct Scenario {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What is done to the service or its surroundings.
    pub fault: &'static str,
    /// What must hold, beside the invariants.
    pub expectation: &'static str,
    /// When it runs.
    pub pace: Pace,
    /// Nothing goes wrong: no event may even be marked as late.
    pub calm: bool,
    /// What it runs on.
    pub setup: Setup,
    /// What the fault excuses.
    pub allowed: Allowed,
    /// Defences without which the service must fail in it, and how it shows.
    pub controls: Vec<Control>,
    /// The story.
    pub story: Story,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Scenario {
    fn new(name: &'static str, fault: &'static str, expectation: &'static str, story: Story) -> Self {
        let (setup, allowed) = (Setup::default(), Allowed::default());
        Self { name, fault, expectation, pace: Pace::Full, calm: false, setup, allowed, controls: Vec::new(), story }
    }

    fn fast(mut self) -> Self {
        self.pace = Pace::Fast;
        self
    }

    fn calm(mut self) -> Self {
        self.calm = true;
        self
    }

    fn on(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    fn allowing(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    fn controls(mut self, controls: impl IntoIterator<Item = Control>) -> Self {
        self.controls = controls.into_iter().collect();
        self
    }
}

/// Every scenario, in the order of the reports.
pub fn all() -> Vec<Scenario> {
    [process::all(), servers::all(), links::all(), streams::all(), redis::all(), load::all(), data::all()]
        .into_iter()
        .flatten()
        .collect()
}
