//! What happened and when, on stderr and in a file.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Outcome;

/// The log of a run.
pub(crate) struct Journal {
    began: Instant,
    file: Mutex<File>,
    faults: Mutex<Vec<(Duration, String)>>,
}

impl Journal {
    pub(crate) fn new(path: &Path) -> Outcome<Journal> {
        Ok(Journal {
            began: Instant::now(),
            file: Mutex::new(File::create(path)?),
            faults: Mutex::default(),
        })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// One line with its time.
    pub(crate) fn say(&self, what: &str) {
        let line = format!("{:8.2}s  {what}", self.elapsed().as_secs_f64());
        eprintln!("{line}");
        self.note(&line);
    }

    /// One line of the file.
    pub(crate) fn note(&self, line: &str) {
        // The run continues without its log.
        let _ = writeln!(locked(&self.file), "{line}");
    }

    /// A fault begins.
    pub(crate) fn fault(&self, what: &str) {
        self.say(what);
        locked(&self.faults).push((self.elapsed(), what.to_owned()));
    }

    /// The faults that began in this time, and the last one before it.
    pub(crate) fn faults_between(&self, from: Duration, to: Duration) -> Vec<String> {
        let faults = locked(&self.faults);
        let first = faults
            .partition_point(|(at, _)| *at < from)
            .saturating_sub(1);
        let here = faults.iter().skip(first).take_while(|(at, _)| *at < to);
        here.map(|(_, what)| what.clone()).collect()
    }
}

/// What it holds is whole whenever a holder panics.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
