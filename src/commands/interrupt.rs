//! Commands that say how far they came when somebody ends them.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::{CommandError, ended};
use crate::cli::ExitStatus;

/// How long a command may take to end before it is said that it may be ended at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether somebody asks the command to end.
#[derive(Clone)]
pub(super) struct Interrupt {
    asked: watch::Receiver<bool>,
    begun: Rc<Cell<bool>>,
}

impl Interrupt {
    /// From here on there is something to say in the end. Before, a first signal ends the command at once.
    pub(super) fn begin(&self) {
        self.begun.set(true);
    }

    /// Whether somebody has asked.
    pub(super) fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Whether somebody has asked, once signals that came meanwhile have been heard: work that waits for nothing lets none in.
    pub(super) async fn has_come(&self) -> bool {
        tokio::task::yield_now().await;
        self.is_asked()
    }

    /// Waits until somebody asks.
    pub(super) async fn asked(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            // Nobody is left who could.
            std::future::pending().await
        }
    }
}

/// Runs a command that a first SIGINT or SIGTERM asks to end, with all that it has to say, and a second one ends at once.
pub(super) async fn interruptible<F>(command: impl FnOnce(Interrupt) -> F) -> ExitStatus
where
    F: Future<Output = Result<ExitStatus, CommandError>>,
{
    let signals = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
    let (mut interrupt, mut terminate) = match signals {
        Ok(signals) => signals,
        Err(cause) => return ended(Err(CommandError::Signals(cause))),
    };
    let (ask, asked) = watch::channel(false);
    let begun = Rc::new(Cell::new(false));
    let mut running = pin!(command(Interrupt { asked, begun: begun.clone() }));
    let first = tokio::select! {
        result = &mut running => return ended(result),
        _ = interrupt.recv() => ExitStatus::Interrupted,
        _ = terminate.recv() => ExitStatus::Terminated,
    };
    if !begun.get() {
        return first;
    }
    ask.send_replace(true);
    let (mut patience, mut told) = (pin!(tokio::time::sleep(PATIENCE)), false);
    loop {
        tokio::select! {
            result = &mut running => return ended(result),
            _ = interrupt.recv() => return ExitStatus::Interrupted,
            _ = terminate.recv() => return ExitStatus::Terminated,
            () = &mut patience, if !told => {
                told = true;
                eprintln!("interrupted: it ends when what is under way is done; a second signal ends it at once");
            }
        }
    }
}
