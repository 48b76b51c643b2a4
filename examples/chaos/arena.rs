//! What all parts of a run share.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::Outcome;
use crate::instances::{INSTANCES, Instance, Project};
use crate::journal::{Journal, locked};
use crate::servers::{Address, Servers};
use crate::watch::StandStill;
use crate::writers::Answers;

/// An instance gives up after 10 s if there is no server when it starts.
const START_LIMIT: Duration = Duration::from_secs(15);

/// What is counted.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) stand_stills: BTreeMap<String, StandStill>,
    pub(crate) take_overs: BTreeMap<&'static str, Vec<Duration>>,
    pub(crate) ended_by_themselves: Vec<String>,
    pub(crate) violations: Vec<String>,
    /// The answers that the writers of poison events got.
    pub(crate) poison: Answers,
    /// How many kinds of poison there were, the number of the last.
    pub(crate) kinds: u64,
}

/// The servers, the instances between their proxies, and what is known of them.
pub(crate) struct Arena {
    pub(crate) journal: Journal,
    pub(crate) servers: Mutex<Servers>,
    pub(crate) address: Address,
    pub(crate) project: Project,
    pub(crate) instances: Vec<Mutex<Instance>>,
    pub(crate) tally: Lock<Tally>,
    /// Held by the task that changes a file and restarts the instances one after the other.
    pub(crate) deploying: Mutex<()>,
    outages: AtomicU64,
    last_outage: Lock<Instant>,
}

impl Arena {
    /// Makes everything and starts the servers; no instance yet.
    pub(crate) async fn new(logs: PathBuf) -> Outcome<Arena> {
        let _ = fs::remove_dir_all(&logs);
        fs::create_dir_all(&logs)?;
        let project = Project::make(logs.join("project"))?;
        let servers = Servers::start(&logs).await?;
        let address = servers.address();
        let mut instances = Vec::new();
        for number in 0..INSTANCES {
            instances.push(Mutex::new(Instance::new(number, &address, &logs).await?));
        }
        Ok(Arena {
            journal: Journal::new(&logs.join("schedule.log"))?,
            servers: Mutex::new(servers),
            address,
            project,
            instances,
            tally: Lock::default(),
            deploying: Mutex::new(()),
            outages: AtomicU64::new(0),
            last_outage: Lock::new(Instant::now()),
        })
    }

    /// The server is about to go down, or was down.
    pub(crate) fn outage(&self) {
        self.outages.fetch_add(1, Ordering::SeqCst);
        *locked(&self.last_outage) = Instant::now();
    }

    /// A number that differs if the server went down since it was last asked for.
    pub(crate) fn outages(&self) -> u64 {
        self.outages.load(Ordering::SeqCst)
    }

    /// An instance was not asked to end. Only one that found no server while it started may.
    pub(crate) fn ended(&self, instance: usize, code: i32) {
        let what = format!("instance {instance} ended by itself with {code}");
        if code == 1 && locked(&self.last_outage).elapsed() < START_LIMIT {
            self.journal.say(&what);
        } else {
            self.violation(what.clone());
        }
        locked(&self.tally).ended_by_themselves.push(what);
    }

    /// Something that must never be.
    pub(crate) fn violation(&self, what: String) {
        self.journal.say(&format!("VIOLATION: {what}"));
        locked(&self.tally).violations.push(what);
    }

    /// Runs a command, again if the server is away meanwhile.
    pub(crate) async fn command(&self, arguments: &[&str]) -> Outcome<String> {
        let url = self.address.url();
        let mut said = String::new();
        for _ in 0..10 {
            self.address.connected().await?;
            let (code, output) = self.project.command(&url, arguments).await?;
            if code == 0 {
                return Ok(output);
            }
            said = output;
        }
        Err(format!("highwater {}: {said}", arguments.join(" ")).into())
    }

    /// Ends all that runs.
    pub(crate) async fn end(&self) {
        for instance in &self.instances {
            let _ = instance.lock().await.kill().await;
        }
        self.servers.lock().await.end().await;
    }
}
