//! The format of a workload: a file with one append a line, written by the driver and read by every peer.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What one client appends in one transaction.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Append {
    /// Who appends it: a client appends its lines in the file's order, one at a time.
    pub client: usize,
    pub stream: String,
    /// The version of the first event, from 1.
    pub first: u32,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    pub data: Data,
}

/// About 150 bytes of JSON.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Data {
    pub order: String,
    /// The event's version, so that a peer which does not show versions can still name the event.
    pub n: i32,
    pub sku: String,
    pub quantity: i32,
    pub cents: i64,
    pub note: String,
}

/// The appends of each client, in order.
pub fn read(file: &Path) -> Result<Vec<Vec<Append>>> {
    let lines = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut clients: Vec<Vec<Append>> = Vec::new();
    for line in BufReader::new(lines).lines() {
        let append: Append = serde_json::from_str(&line?)?;
        if clients.len() <= append.client {
            clients.resize_with(append.client + 1, Vec::new);
        }
        clients[append.client].push(append);
    }
    Ok(clients)
}
