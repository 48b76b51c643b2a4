//! What was measured so far: `peers.json`, to which each call adds, and the table that follows from it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::measure::{Figures, Test};
use crate::options::Home;
use crate::table;

#[derive(Debug, Deserialize, Serialize)]
pub struct Results {
    #[serde(skip)]
    file: PathBuf,
    pub machine: Machine,
    pub measurements: Vec<Measurement>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Measurement {
    pub peer: String,
    pub version: String,
    pub settings: String,
    pub at: Timestamp,
    #[serde(flatten)]
    pub figures: Figures,
}

impl Results {
    /// The quick form has files of its own, so that a trial never stands among figures.
    pub fn open(home: &Home, quick: bool) -> Result<Results> {
        let name = if quick {
            "peers-quick.json"
        } else {
            "peers.json"
        };
        let file = home.results.join(name);
        if !file.exists() {
            return Ok(Results {
                file,
                machine: Machine::default(),
                measurements: Vec::new(),
            });
        }
        let text = fs::read_to_string(&file)?;
        let results: Results = serde_json::from_str(&text)
            .with_context(|| format!("{} is of another version; remove it", file.display()))?;
        Ok(Results { file, ..results })
    }

    pub fn forget(&mut self, peer: &str, test: Test) {
        self.measurements
            .retain(|m| m.peer != peer || m.figures.test() != test);
    }

    pub fn add(&mut self, measurement: Measurement) -> Result<()> {
        eprintln!("  {}", serde_json::to_string(&measurement.figures)?);
        self.measurements.push(measurement);
        self.save()
    }

    /// Writes both files.
    pub fn save(&self) -> Result<()> {
        fs::write(&self.file, serde_json::to_string_pretty(self)?)?;
        fs::write(self.file.with_extension("md"), table::render(self))?;
        Ok(())
    }
}
