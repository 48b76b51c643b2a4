//! On what was measured.

use std::fs;
use std::thread;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, connect};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub server: String,
    /// Settings of the server that decide what a commit costs.
    pub settings: String,
}

pub async fn describe(cluster: &Cluster) -> Result<Machine> {
    let client = connect(&cluster.url("postgres")).await?;
    let row = client
        .query_one(
            "select
                split_part(version(), ' on ', 1),
                (select string_agg(name || ' = ' || current_setting(name), ', ' order by name)
                 from pg_settings
                 where name in ('fsync', 'synchronous_commit', 'shared_buffers', 'max_connections', 'max_wal_size'))",
            &[],
        )
        .await?;
    let field = |file: &str, key: &str| -> Result<String> {
        let text = fs::read_to_string(file)?;
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default();
        Ok(line
            .split_once(':')
            .map_or("", |(_, value)| value)
            .trim()
            .to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal")?;
    let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    Ok(Machine {
        cpu: field("/proc/cpuinfo", "model name")?,
        cores: thread::available_parallelism()?.get(),
        memory_gib: kib.div_ceil(1024 * 1024),
        server: row.get(0),
        settings: row.get(1),
    })
}
